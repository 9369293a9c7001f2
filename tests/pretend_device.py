"""A second device that torch does not have here: tensors on it, and the refusals that CUDA would answer with.

A tensor there is a subclass around one on the CPU, which does its arithmetic. It says that it is on `PRETENDED`, and
every operation goes through `__torch_dispatch__`: one that mixes devices raises, but where CUDA allows that; to and
fro go only `.to`, `.cpu()`, `copy_`, and what reads a single number. So code that forgot to move something fails here
as it would on a GPU. What it cannot show: kernels that are missing or differ there, threads and streams, speed.

The device is `meta:1`: autograd asks a build of torch for a guard of each device, and the CPU's build has one for meta.
Plain `meta`, on which transformers builds models before it fills them, has no number and is left alone.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

PRETENDED = torch.device("meta", 1)

aten = torch.ops.aten
MOVES = {aten._to_copy.default, aten.copy_.default}
"""Operations whose operands may be on two devices."""
INDEXED = {aten.index.Tensor, aten.index_put_.default, aten._index_put_impl_.default, aten.index_put.default}
"""Those whose indices, the second argument, may be on the CPU."""
READS = {aten._local_scalar_dense.default, aten.equal.default}
"""Those that come to a number of Python's."""


class Pretended(Tensor):
    """A tensor on the pretended device; `held` has its numbers."""

    held: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, held: Tensor) -> "Pretended":
        made: Pretended = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=PRETENDED,
        )
        made.held = held
        return made

    @classmethod
    def __torch_dispatch__(cls, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _compute(operation, args, kwargs or {})

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        """Says what it holds: so `Module.to` puts it into the same parameter, and tied ones stay tied."""
        return ["held"], None

    @staticmethod
    def __tensor_unflatten__(parts: dict[str, Tensor], *_: object) -> "Pretended":
        return Pretended(parts["held"])

    def __getitem__(self, index: Any) -> Any:
        return super().__getitem__(_as_tensors(index))

    def __setitem__(self, index: Any, value: Any) -> None:
        super().__setitem__(_as_tensors(index), value)

    def tolist(self) -> Any:
        """As any tensor's; torch refuses that to subclasses."""
        return self.cpu().tolist()

    def __repr__(self, *, tensor_contents: object = None) -> str:
        return f"Pretended({self.held})"


class _Factories(TorchDispatchMode):
    """Within it, what is made on the pretended device, or moved there, is made and moved."""

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if "device" not in kwargs and Pretended not in types and operation not in MOVES:
            return operation(*args, **kwargs)  # most are of the CPU alone
        return _compute(operation, args, kwargs)


class _FromNumbers(TorchFunctionMode):
    """Within it, `torch.tensor` makes tensors there too; torch itself would make nothing but shapes of them.

    It is not replaced by another function, since torch keeps a list of its own that make tensors.
    """

    def __torch_function__(self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function is torch.tensor and _is_pretended(kwargs.get("device")):
            return function(*args, **{**kwargs, "device": "cpu"}).to(PRETENDED)
        return function(*args, **kwargs)


def _as_tensors(index: Any) -> Any:
    """An index with tensors in the place of lists, of which torch would likewise take the shape alone."""
    if isinstance(index, tuple):
        return tuple(_as_tensors(part) for part in index)
    return torch.tensor(index) if isinstance(index, list) else index


@contextmanager
def pretending() -> Iterator[torch.device]:
    """Within the block, and in this thread, there is the pretended device."""
    with _Factories(), _FromNumbers():
        yield PRETENDED


def _is_pretended(device: object) -> bool:
    return device is not None and torch.device(device) == PRETENDED  # type: ignore[arg-type]


def _compute(operation: Any, args: Any, kwargs: Any) -> Any:
    tensors = [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, Tensor)]
    there = [x for x in tensors if isinstance(x, Pretended)]
    if there:
        _refuse_mixed(operation, args, kwargs)
    device = kwargs.get("device")
    is_there = _is_pretended(device) if device is not None else bool(there)
    if operation is aten.copy_.default:
        is_there = isinstance(args[0], Pretended)
    if device is not None and _is_pretended(device):
        kwargs = {**kwargs, "device": torch.device("cpu")}
    if not there and not is_there:
        return operation(*args, **kwargs)
    out = operation(*tree_map(_held, args), **tree_map(_held, kwargs))
    if operation in READS or not is_there:
        return out
    return tree_map(lambda x: _wrapped(x, there), out)


def _held(x: Any) -> Any:
    return x.held if isinstance(x, Pretended) else x


def _wrapped(x: Any, there: list[Pretended]) -> Any:
    """A result on the device; where it is one of the operands, that one itself."""
    if not isinstance(x, Tensor):
        return x
    same = [operand for operand in there if operand.held is x]
    return same[0] if same else Pretended(x)


def _refuse_mixed(operation: Any, args: Any, kwargs: Any) -> None:
    """RuntimeError where an operation mixes devices in a way that CUDA does not allow."""
    if operation in MOVES:
        return
    if operation in INDEXED:
        args = [args[0], *args[2:]]
    for x in tree_flatten((args, kwargs))[0]:
        if isinstance(x, Tensor) and not isinstance(x, Pretended) and not (x.ndim == 0 and _takes_scalars(operation)):
            raise RuntimeError(f"{operation}: expected all tensors to be on the same device, found {PRETENDED} and cpu")


def _takes_scalars(operation: Any) -> bool:
    """Whether it computes number by number, in which a CPU tensor of no dimensions counts as a number."""
    return torch.Tag.pointwise in operation.tags
