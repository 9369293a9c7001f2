"""What an action came to after a text, for all agents together: advantages of a group.

GiGPO (Feng et al. 2025, arXiv:2505.10978) compares actions that were taken in the same state, its anchor, within a
group of rollouts. Here the group is the population, its states are texts, and what is compared are GAE's advantages:
the critic's estimate of a text is the same for all, and drops out.
"""

import numpy as np

from trainers.rollout import Trajectory


def group_advantages(t: Trajectory, advantage: np.ndarray) -> np.ndarray:
    """Advantages (T, M): the mean over all samples of the same text and action, less that over all of the text.

    Where a text has been met with one action only this is 0: nothing can be compared. Samples in which nobody acted
    count for nothing, and get 0.
    """
    found = np.zeros_like(advantage)
    text, own = t.text[t.is_alive].astype(np.int64), advantage[t.is_alive]
    pair = text * t.legal.shape[-1] + t.action[t.is_alive]
    found[t.is_alive] = _means(pair, own) - _means(text, own)
    return found


def _means(group: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The mean of each value's group; group, values: (S,)."""
    _, index, counts = np.unique(group, return_inverse=True, return_counts=True)
    means: np.ndarray = (np.bincount(index, values) / counts)[index]
    return means
