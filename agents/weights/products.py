"""Products with frozen weights: what this processor and this torch can do is found out by trying it.

On another device than the CPU `F.linear` multiplies. All else here is about the CPU.

The fast operations are private to torch (`torch.ops.mkldnn`, `torch.ops.onednn`; torch's inductor uses the same), and
what they accept differs with the processor and with the build. They stand in this file alone; each is tried once, on
small operands, before it is relied on, and each but the 8-bit product has a plain way on:

- packed: a weight rearranged once into the blocks that oneDNN's kernels read. With few rows it took half as long as a
  plain product on an EPYC with AVX512, and as long on a Xeon with AMX. Where a number format has no packed product,
  `F.linear` multiplies.
- steady: where asked, a row's result does not depend, even in its last bit, on how many rows are beside it, so that a
  text is read alike alone and among others. Packed products are so in float32 for two rows and more, and in bfloat16
  but with AMX, where hidden states of SmolLM2 near 10,000 were off by 1. There all products are of `FIXED_ROWS` rows,
  the last ones filled up: a row's place among them makes no difference.
- bfloat16: without AVX512 or AVX-NE-CONVERT, oneDNN refuses to pack bfloat16, and `F.linear` takes 5 to 10 times as
  long as in float32. There the numbers are rounded to bfloat16 all the same, and multiplied and summed in float32:
  as exact as oneDNN's bfloat16 product, and no faster than float32.
- 8 bits: sums of products must be exact, which they are with VNNI; else it is not offered (`has_exact_int8`).
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from time import perf_counter
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from agents.device import CPU, synchronize

INT8_INPUT = 255
"""Largest 8-bit input, unsigned, as VNNI's multiplications have it."""
INT8_WEIGHT = 127
"""Largest 8-bit weight, signed."""
FIXED_ROWS = 64
"""Of each product, where results depend on the number of rows."""
TRIED_ROWS = (2, 3, 16, 33, 64, 100, 257)
"""Numbers of rows with which it is tried whether they do."""


def pack(weight: Tensor) -> Tensor:
    """A weight (D_out, D_in) in the form in which `product` multiplies its number format fastest here."""
    held = weight.to(computed_in(weight.dtype, weight.device))
    return _reorder(held) if held.device.type == "cpu" and has_packed(held.dtype) else held


def unpack(packed: Tensor) -> Tensor:
    """The weight (D_out, D_in) that was packed, in the number format in which it is held."""
    return packed.to_dense() if packed.is_mkldnn else packed


def product(x: Tensor, packed: Tensor, bias: Tensor | None) -> Tensor:
    """Multiply x (..., D_in) by a weight from `pack`; the result is rounded to the format of x."""
    rows, bias = x.reshape(-1, x.shape[-1]).to(packed.dtype), None if bias is None else bias.to(packed.dtype)
    if packed.is_mkldnn:
        y = _steady_product(rows, packed, bias) if in_steady_block() else _linear_pointwise(rows, packed, bias)
    else:
        y = F.linear(rows, packed, bias)
    return y.view(*x.shape[:-1], len(packed)).to(x.dtype)


def _steady_product(rows: Tensor, packed: Tensor, bias: Tensor | None) -> Tensor:
    """The product (M, D_out) of rows (M, D_in), each row's the same whatever is beside it."""
    count, fixed = len(rows), 0 if _is_always_steady(packed.dtype) else FIXED_ROWS
    filler = -count % fixed if fixed else int(count == 1)
    if filler:
        rows = F.pad(rows, (0, 0, 0, filler))
    if not fixed or len(rows) == fixed:
        return _linear_pointwise(rows, packed, bias)[:count]
    return torch.cat([_linear_pointwise(part, packed, bias) for part in rows.split(fixed)])[:count]


@contextmanager
def steadily() -> Iterator[None]:
    """Within the block, packed products of this thread give each row the same in any company."""
    before, _thread.is_steady = in_steady_block(), True
    try:
        yield
    finally:
        _thread.is_steady = before


def in_steady_block() -> bool:
    """Whether this thread is in such a block."""
    return getattr(_thread, "is_steady", False)


_thread = threading.local()


@cache
def _is_always_steady(dtype: torch.dtype) -> bool:
    """Whether packed products in this format give each row the same among 2 rows and more; tried once.

    Sums that differ only sometimes come to other numbers after rounding, so several shapes and numbers of rows are
    tried.
    """
    generator = torch.Generator().manual_seed(0)
    for shape in ((1536, 576), (576, 1536)):
        weight, x = (torch.randn(*size, generator=generator).to(dtype) for size in (shape, (TRIED_ROWS[-1], shape[1])))
        packed = _reorder(weight)
        whole = _linear_pointwise(x, packed, None)
        if not all(torch.equal(_linear_pointwise(x[:rows], packed, None), whole[:rows]) for rows in TRIED_ROWS):
            return False
    return True


def plain_product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The same with a weight (D_out, D_in) that is not worth packing."""
    return product(x, weight.to(computed_in(weight.dtype, weight.device)), bias)


def computed_in(dtype: torch.dtype, device: torch.device = CPU) -> torch.dtype:
    """The format in which numbers of `dtype` are multiplied there: float32 where bfloat16 has no fast product."""
    return dtype if dtype == torch.float32 or _has_product(dtype, device) else torch.float32


def shortcoming(dtype: torch.dtype, device: torch.device = CPU) -> str | None:
    """What to tell a user whose frozen weights are multiplied in this format; None where it is fast."""
    if _has_product(dtype, device):
        return None
    if dtype == torch.float32:
        return "this torch has no packed products (oneDNN) on this processor; plain ones take longer"
    name, where = str(dtype).removeprefix("torch."), "this processor" if device.type == "cpu" else device.type
    return (
        f"model.dtype = {name}: this torch has no fast {name} product on {where}; numbers are rounded to {name} "
        "and multiplied as float32, which takes as long as model.dtype = float32"
    )


def _has_product(dtype: torch.dtype, device: torch.device) -> bool:
    """Whether numbers of this format have a product of their own: on the CPU a packed one, elsewhere any."""
    return has_packed(dtype) if device.type == "cpu" else has_plain(dtype, device)


@cache
def has_plain(dtype: torch.dtype, device: torch.device) -> bool:
    """Whether `F.linear` multiplies this number format on a device; tried once."""

    def multiplied() -> Tensor:
        x, weight = (torch.ones(rows, 64, dtype=dtype, device=device) for rows in (2, 32))
        return F.linear(x, weight).cpu()

    return _works(multiplied, torch.full((2, 32), 64.0))


@cache
def has_packed(dtype: torch.dtype) -> bool:
    """Whether packed products of this number format work on the CPU; tried once."""
    weight, x = torch.ones(32, 64, dtype=dtype), torch.ones(2, 64, dtype=dtype)
    return _works(lambda: _linear_pointwise(x, _reorder(weight), None), torch.full((2, 32), 64.0))


@cache
def has_exact_int8() -> bool:
    """Whether the largest 8-bit numbers multiply right: without VNNI sums of two products can overflow 16 bits."""
    weight = torch.full((32, 64), INT8_WEIGHT, dtype=torch.int8)
    x = torch.full((2, 64), INT8_INPUT, dtype=torch.uint8)
    x[:, -1] = 0
    exact = torch.full((2, 32), 63.0 * INT8_INPUT * INT8_WEIGHT)
    return _works(lambda: int8_product(x, pack_int8(weight, torch.ones(32))), exact)


def _works(operation: Callable[[], Tensor], expected: Tensor) -> bool:
    """Whether an operation that may be missing, or refuse, gives the result that it must."""
    try:
        return torch.equal(operation().float(), expected)
    except (AttributeError, RuntimeError, TypeError):  # no such operation, not on this processor, another signature
        return False


class Int8Weight(NamedTuple):
    """An 8-bit weight as oneDNN has it."""

    packed: Tensor
    scale: Tensor  # (D_out,)
    zeros: Tensor  # (D_out,), of the scale


def pack_int8(weight: Tensor, scale: Tensor) -> Int8Weight:
    """A weight (D_out, D_in), int8, with its scale (D_out,), for `int8_product`."""
    zeros = torch.zeros(len(scale), dtype=torch.long)
    return Int8Weight(torch.ops.onednn.qlinear_prepack(weight, None), scale, zeros)


def int8_product(x: Tensor, weight: Int8Weight) -> Tensor:
    """Multiply x (..., D_in), uint8, by a weight: (..., D_out), float32."""
    packed, scale, zeros = weight
    y: Tensor = torch.ops.onednn.qlinear_pointwise(
        x, 1.0, 0, packed, scale, zeros, None, 1.0, 0, torch.float32, "none", [], ""
    )
    return y


def _reorder(weight: Tensor) -> Tensor:
    reordered: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight)
    return reordered


def _linear_pointwise(x: Tensor, packed: Tensor, bias: Tensor | None) -> Tensor:
    y: Tensor = torch.ops.mkldnn._linear_pointwise(x, packed, bias, "none", [], "")
    return y


@cache
def fastest_dtype(device: torch.device = CPU, seconds: float = 0.2) -> str:
    """float32 or bfloat16: products of as many rows as a step's agents and as a few texts have, timed in turns.

    Processors differ: with AMX bfloat16 wins widely, with AVX512-BF16 by two, with AVX512 alone it may lose. Without a
    bfloat16 product nothing needs to be measured.
    """
    if not _has_product(torch.bfloat16, device):
        return "float32"
    times: dict[str, list[float]] = {"float32": [], "bfloat16": []}
    operands: dict[str, Any] = {}
    for name in times:
        kind: dict[str, Any] = {"dtype": getattr(torch, name), "device": device}
        operands[name] = pack(torch.ones(1536, 576, **kind)), [torch.ones(n, 576, **kind) for n in (20, 200)]
    end = perf_counter() + seconds
    while perf_counter() < end or len(times["bfloat16"]) < 3:
        for name, (weight, rows) in operands.items():
            start = perf_counter()
            for x in rows:
                product(x, weight, None)
            synchronize(device)
            times[name].append(perf_counter() - start)
    exact, half = (sorted(taken)[len(taken) // 2] for taken in times.values())
    return "bfloat16" if half < 0.9 * exact else "float32"
