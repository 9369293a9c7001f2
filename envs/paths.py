"""Shortest paths in many grids at once, by a wave that spreads one cell per iteration."""

import numpy as np

UNREACHED = np.uint16(65535)  # no path; a path visits a cell once, so none is longer than 256 * 256 - 1


def distances(is_free: np.ndarray, is_source: np.ndarray) -> np.ndarray:
    """Return the steps from each cell to the nearest source, walking over free cells only.

    is_free, is_source: (K, H, B) bool, K independent grids.
    Returns (K, H, B) uint16; `UNREACHED` for rock and for cells without a path.
    """
    reached = is_free & is_source
    front = reached
    result = np.where(reached, np.uint16(0), UNREACHED)
    steps = 0
    while front.any():
        steps += 1
        front = _dilate(front) & is_free & ~reached
        reached = reached | front
        result[front] = steps
    return result


def _dilate(front: np.ndarray) -> np.ndarray:
    wider = front.copy()
    wider[:, 1:] |= front[:, :-1]
    wider[:, :-1] |= front[:, 1:]
    wider[:, :, 1:] |= front[:, :, :-1]
    wider[:, :, :-1] |= front[:, :, 1:]
    return wider
