"""Memory for large arrays that come and go. Fresh memory costs more than what is written to it.

For an array of more than 32 MB the C library asks the system for new pages, and the system clears them first: on one
core of an EPYC 420 MB took 0.22 s to gather into new memory, and 0.05 s into memory that had been used before.
"""

from weakref import ReferenceType, ref

import numpy as np
import torch
from torch import Tensor

MOST_BYTES = 512 << 20
"""Larger arrays get memory of their own, which is given back after them."""


class Reused:
    """Lends memory for arrays on the CPU, one after the other; it is free again when nothing refers to the array."""

    def __init__(self) -> None:
        self._lent: list[tuple[np.ndarray, ReferenceType[np.ndarray]]] = []  # memory, and who has it

    def empty(self, *shape: int) -> Tensor:
        """An array of float32 of this shape; what is in it means nothing."""
        size = torch.Size(shape).numel()
        if 4 * size > MOST_BYTES:
            return torch.empty(shape)
        held = [(memory, user) for memory, user in self._lent if user() is not None]  # smaller ones that are free go
        free = [memory for memory, user in self._lent if user() is None and len(memory) >= size]
        memory = free[0] if free else np.empty(min(size + size // 4, MOST_BYTES // 4), np.float32)
        array = memory[:size]  # torch keeps it alive as long as there is a tensor in it
        self._lent = [*held, (memory, ref(array))]
        return torch.from_numpy(array).view(shape)
