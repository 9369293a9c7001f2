"""Frozen weights, held in the form in which this processor multiplies them fastest.

A frozen weight is multiplied thousands of times, so it is rearranged once into the blocks that oneDNN's kernels read
(`mkldnn._reorder_linear_weight`, as torch's inductor does). With few rows that is twice as fast as a plain product,
and a row's result no longer depends on how many rows are beside it. Hidden states stay float32 between products: with
`dtype` bfloat16 only the products themselves are rounded, and accumulated in float32 inside.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import cache
from time import perf_counter
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from agents.weights.compact import Blocks


class FrozenLinear(nn.Module, ABC):
    """y = W x + b for a W that never changes; a gradient passes to x alone. How W is held is up to the subclass."""

    def __init__(self, bias: Tensor | None, dtype: torch.dtype):
        super().__init__()
        self.dtype = dtype
        self.bias = None if bias is None else bias.detach().to(dtype)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., D_in) to (..., D_out), float32."""
        out: Tensor = _Frozen.apply(x.to(self.dtype), self)
        return out.float()

    def forth(self, x: Tensor) -> Tensor:
        """W x + b."""
        return F.linear(x, self.weight(), self.bias)

    def back(self, gradient: Tensor) -> Tensor:
        """Wᵀ times a gradient."""
        return gradient @ self.weight()

    @abstractmethod
    def weight(self) -> Tensor:
        """W (D_out, D_in) in `dtype`."""


class PackedLinear(FrozenLinear):
    """W as oneDNN multiplies it fastest, and once more for gradients, if asked for."""

    def __init__(self, weight: Tensor, bias: Tensor | None, dtype: torch.dtype, passes_gradients: bool):
        super().__init__(bias, dtype)
        weight = weight.detach().to(dtype)
        self._packed = packed(weight)
        self._transposed = packed(weight.T.contiguous()) if passes_gradients else None

    def forth(self, x: Tensor) -> Tensor:
        """W x + b."""
        return product(x, self._packed, self.bias)

    def back(self, gradient: Tensor) -> Tensor:
        """Wᵀ times a gradient."""
        if self._transposed is None:
            raise RuntimeError("no gradient passes through this frozen weight")
        return product(gradient.contiguous(), self._transposed, None)

    def weight(self) -> Tensor:
        """W (D_out, D_in) in `dtype`."""
        return self._packed.to_dense() if self._packed.is_mkldnn else self._packed


class HalfLinear(FrozenLinear):
    """One copy of W in bfloat16, whatever the products are in."""

    def __init__(self, weight: Tensor, bias: Tensor | None, dtype: torch.dtype):
        super().__init__(bias, dtype)
        self._half = weight.detach().bfloat16()

    def weight(self) -> Tensor:
        """W (D_out, D_in) in `dtype`."""
        return self._half.to(self.dtype)


class BlockLinear(FrozenLinear):
    """W in blocks of 4 or 8 bits, unpacked for each product."""

    def __init__(self, blocks: Blocks, bias: Tensor | None, dtype: torch.dtype):
        super().__init__(bias, dtype)
        self._blocks = blocks

    def weight(self) -> Tensor:
        """W (D_out, D_in) in `dtype`."""
        weight = self._blocks.unpacked()
        self._blocks.let_go()
        return weight.to(self.dtype)


class _Frozen(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, linear: FrozenLinear) -> Tensor:
        ctx.linear = linear
        return linear.forth(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return ctx.linear.back(gradient), None


def packed(weight: Tensor) -> Tensor:
    """A weight (D_out, D_in) in blocks, where torch has oneDNN; else as it is."""
    if not torch.backends.mkldnn.is_available():
        return weight
    reordered: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight)
    return reordered


def product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Multiply (..., D_in) by a `packed` weight."""
    if not weight.is_mkldnn:
        return F.linear(x, weight, bias)
    out: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return out


def freeze(decoder: Any, blocks: Mapping[str, Blocks], first_with_gradients: int, dtype: torch.dtype) -> None:
    """Put a frozen module in the place of every linear module of a decoder's layers.

    blocks: by path (`layers.N....`), the weights that the modules themselves lack. The layers from
    `first_with_gradients` on let gradients through; where weights are in blocks, those are held in bfloat16.
    """
    for number, layer in enumerate(decoder.layers):
        is_top = number >= first_with_gradients
        linears = [(path, module) for path, module in layer.named_modules() if isinstance(module, nn.Linear)]
        for path, linear in linears:
            stored = blocks.get(f"layers.{number}.{path.removesuffix('.base')}")
            if stored is None:
                frozen: FrozenLinear = PackedLinear(linear.weight, linear.bias, dtype, is_top)
            elif is_top:
                frozen = HalfLinear(stored.unpacked(), linear.bias, dtype)
                stored.let_go()
            else:
                frozen = BlockLinear(stored, linear.bias, dtype)
            layer.set_submodule(path, frozen)


def product_dtype(decoder: Any) -> str:
    """The number format in which a decoder's frozen weights are multiplied, by name."""
    dtypes = {m.dtype for m in decoder.modules() if isinstance(m, FrozenLinear)} or {torch.float32}
    return str(dtypes.pop()).removeprefix("torch.")


@cache
def fastest_dtype(seconds: float = 0.5) -> str:
    """float32 or bfloat16: products of as many rows as a step's agents and as a few texts have, timed in turns.

    Processors differ: with AMX bfloat16 wins widely, with AVX512-BF16 by two, with neither it loses.
    """
    times: dict[str, list[float]] = {"float32": [], "bfloat16": []}
    operands = {}
    for name in times:
        dtype = getattr(torch, name)
        operands[name] = (
            packed(torch.ones(1536, 576, dtype=dtype)),
            [torch.ones(n, 576, dtype=dtype) for n in (20, 200)],
        )
    end = perf_counter() + seconds
    while perf_counter() < end or len(times["bfloat16"]) < 3:
        for name, (weight, rows) in operands.items():
            start = perf_counter()
            for x in rows:
                product(x, weight, None)
            times[name].append(perf_counter() - start)
    exact, half = (sorted(taken)[len(taken) // 2] for taken in times.values())
    return "bfloat16" if half < 0.9 * exact else "float32"
