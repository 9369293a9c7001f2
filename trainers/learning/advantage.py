"""Generalised advantage estimation (Schulman et al. 2016, arXiv:1506.02438, equation 16).

Death is terminal: nothing comes after it. Where an episode or a life is cut off, what would have come is bootstrapped
from the critic (Pardo et al. 2018, "Time limits in reinforcement learning", arXiv:1712.00378).
"""

import numpy as np


def gae(
    reward: np.ndarray,
    value: np.ndarray,
    cut_value: np.ndarray,
    is_terminal: np.ndarray,
    is_cut: np.ndarray,
    discount: float,
    gae_lambda: float,
) -> np.ndarray:
    """Advantages (T, M) of M agents over T steps.

    reward, value: (T, M), value of the state acted in. is_terminal, is_cut: (T, M), never both; where the agent's
    episode ended in that step, or was cut off after it. cut_value: (T, M), value of the state in which it was cut off.
    The last step must be either for all who act in it; what stands where an agent did not act changes nothing else.
    """
    advantage = np.zeros_like(value)
    following, next_value = np.zeros_like(value[0]), np.zeros_like(value[0])
    for t in range(len(reward) - 1, -1, -1):
        goes_on = ~(is_terminal[t] | is_cut[t])
        comes = np.where(is_cut[t], cut_value[t], next_value * goes_on)
        following = reward[t] + discount * comes - value[t] + discount * gae_lambda * goes_on * following
        advantage[t], next_value = following, value[t]
    return advantage
