"""Memory for large arrays that come and go. Fresh memory costs more than what is written to it.

For an array of more than 32 MB the C library asks the system for new pages, and the system clears them first: on one
core of an EPYC 420 MB took 0.22 s to gather into new memory, and 0.05 s into memory that had been used before.
"""

from collections.abc import Callable
from weakref import ref

import numpy as np
import torch
from torch import Tensor

MOST_BYTES = 512 << 20
"""So much is kept for later. A larger array gets memory of its own, which is given back after it."""


class Reused:
    """Lends memory for arrays on the CPU; it is free again when nothing refers to the array. One thread at a time."""

    def __init__(self) -> None:
        self._lent: list[tuple[np.ndarray, Callable[[], np.ndarray | None]]] = []  # memory, and who has it

    def empty(self, *shape: int) -> Tensor:
        """An array of float32 of this shape; what is in it means nothing."""
        size = torch.Size(shape).numel()
        if 4 * size > MOST_BYTES:
            return torch.empty(shape)
        asked = [(memory, user, user() is None) for memory, user in self._lent]  # once: another thread may let go now
        free = sorted((memory for memory, _, is_free in asked if is_free), key=len)
        held = [(memory, user) for memory, user, is_free in asked if not is_free]
        place = next((i for i, memory in enumerate(free) if len(memory) >= size), None)
        memory = _fresh(min(size + size // 8, MOST_BYTES // 4)) if place is None else free.pop(place)
        kept = memory.nbytes + sum(other.nbytes for other, _ in held)
        while free and kept + sum(other.nbytes for other in free) > MOST_BYTES:
            free.pop(0)
        array = memory[:size]  # torch keeps it alive as long as there is a tensor in it
        self._lent = [*held, *((other, _nobody) for other in free), (memory, ref(array))]
        return torch.from_numpy(array).view(shape)

    def clear(self) -> None:
        """Give back what nobody has now."""
        self._lent = [(memory, user) for memory, user in self._lent if user() is not None]


def _fresh(size: int) -> np.ndarray:
    """From torch, which aligns it to 64 bytes: the last digits of a product can depend on that."""
    memory: np.ndarray = torch.empty(size).numpy()
    return memory


def _nobody() -> None:
    """In the place of a reference to an array that is gone."""
