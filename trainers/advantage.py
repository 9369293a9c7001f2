"""Generalised advantage estimation (Schulman et al. 2016, arXiv:1506.02438, equation 16).

Death is terminal: nothing comes after it. The end of a generation is not: it cuts the episode off, and what would
have come is bootstrapped from the critic.
"""

import numpy as np


def gae(
    reward: np.ndarray,
    value: np.ndarray,
    last_value: np.ndarray,
    is_terminal: np.ndarray,
    discount: float,
    gae_lambda: float,
) -> np.ndarray:
    """Advantages (T, M) of M agents over T steps.

    reward, value: (T, M), value of the state acted in. last_value: (M,) of the state after the last step.
    is_terminal: (T, M), True where the agent died in that step.
    """
    advantage = np.zeros_like(value)
    following, next_value = np.zeros_like(last_value), last_value
    for t in range(len(reward) - 1, -1, -1):
        goes_on = ~is_terminal[t]
        delta = reward[t] + discount * next_value * goes_on - value[t]
        following = delta + discount * gae_lambda * goes_on * following
        advantage[t], next_value = following, value[t]
    return advantage
