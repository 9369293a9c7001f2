"""How often a tensor was written in place, counted by autograd itself, so that no writer can forget to say so.

Autograd keeps such a number for every tensor and its views: it refuses a backward through what was overwritten. To
read it there is only `Tensor._version`, which is private to torch. It is asked for in this file alone, and tried once
before it is relied on. Where it does not count, every question gets a new number: whoever remembers something of the
tensor then remembers it for one question, which is slow and never wrong.

Not counted are writes behind autograd's back: through `.data`, through an array of NumPy's, and by fused Adam (seen in
torch 2.13). Who writes so calls `count_write`.
"""

from functools import cache
from itertools import count

import torch
from torch import Tensor
from torch.autograd.graph import increment_version

_QUESTIONS = count()


def writes(tensor: Tensor) -> int:
    """A number that grows with every write to a tensor or to a view of it."""
    return _version(tensor) if is_counted() else next(_QUESTIONS)


def count_write(tensor: Tensor) -> None:
    """Count a write that autograd did not see."""
    increment_version(tensor)


@cache
def is_counted() -> bool:
    """Whether this torch counts writes where that can be read; tried once."""
    tensor = torch.zeros(2, 3)
    try:
        numbers = [_version(tensor)]
        for write in (tensor.zero_, tensor[1].view(3, 1).zero_, lambda: count_write(tensor)):
            write()
            numbers.append(_version(tensor))
    except (AttributeError, RuntimeError, TypeError):
        return False
    return numbers == sorted(set(numbers))


def _version(tensor: Tensor) -> int:
    return tensor._version
