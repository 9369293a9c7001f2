"""Arrays that lie in a file and are in memory only while they are used."""

import mmap
import tempfile
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from agents.weights.cache import cache_dir, made


class Mapped(NamedTuple):
    """An array, and how its memory is given back; what it holds stays."""

    array: Tensor
    let_go: Callable[[], None]


def mapped_zeros(*shape: int) -> Mapped:
    """Zeros, float32, in a nameless file of the cache, which goes when the array does."""
    size = 4 * torch.Size(shape).numel()
    with tempfile.TemporaryFile(dir=made(cache_dir())) as file:
        file.truncate(size)
        memory = mmap.mmap(file.fileno(), size)
    array = torch.frombuffer(memory, dtype=torch.float32).view(shape)
    return Mapped(array, lambda: forget(memory))


def forget(memory: mmap.mmap, start: int = 0, length: int | None = None) -> None:
    """Give back the memory of a mapped file, or of a part; it is read again when it is used. Windows decides itself."""
    if hasattr(memory, "madvise"):
        memory.madvise(mmap.MADV_DONTNEED, start, len(memory) - start if length is None else length)


def held_zeros(*shape: int, device: torch.device) -> Mapped:
    """Zeros, float32, in a device's memory, which is never given back."""
    return Mapped(torch.zeros(shape, device=device), lambda: None)
