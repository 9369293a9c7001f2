"""Frozen weights, held in the form in which this processor multiplies them fastest.

A frozen weight is multiplied thousands of times, so it is rearranged once into the blocks that oneDNN's kernels read
(`mkldnn._reorder_linear_weight`, as torch's inductor does). With few rows that is twice as fast as a plain product,
and a row's result no longer depends on how many rows are beside it. Hidden states stay float32 between products: with
`dtype` bfloat16 only the products themselves are rounded, and accumulated in float32 inside.
"""

from dataclasses import replace
from functools import cache
from time import perf_counter
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from agents.types import ModelConfig


class FrozenLinear(nn.Module):
    """y = W x + b for a W that never changes; a gradient passes to x alone, and only if asked for."""

    def __init__(self, linear: nn.Linear, dtype: torch.dtype, passes_gradients: bool):
        super().__init__()
        self.in_features, self.out_features, self.dtype = linear.in_features, linear.out_features, dtype
        weight = linear.weight.detach().to(dtype)
        self._weight = packed(weight)
        self._transposed = packed(weight.T.contiguous()) if passes_gradients else None
        self._bias = None if linear.bias is None else linear.bias.detach().to(dtype)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., D_in) to (..., D_out), float32."""
        if self._transposed is None:
            if x.requires_grad and torch.is_grad_enabled():  # oneDNN's product would drop the gradient in silence
                raise RuntimeError("no gradient passes through this frozen weight")
            return product(x.to(self.dtype), self._weight, self._bias).float()
        out: Tensor = _Product.apply(x.to(self.dtype), self._weight, self._transposed, self._bias)
        return out.float()

    @property
    def nbytes(self) -> int:
        """Bytes that the weights take."""
        return self.in_features * self.out_features * self.dtype.itemsize * (1 + (self._transposed is not None))


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, transposed: Tensor, bias: Tensor | None) -> Tensor:
        ctx.transposed = transposed
        return product(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:  # type: ignore[override]
        return product(gradient.contiguous(), ctx.transposed, None), None, None, None


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


def freeze(decoder: Any, first_with_gradients: int, dtype: torch.dtype) -> None:
    """Put a `FrozenLinear` in the place of every linear module of a decoder's layers."""
    for number, layer in enumerate(decoder.layers):
        linears = [(path, module) for path, module in layer.named_modules() if isinstance(module, nn.Linear)]
        for path, linear in linears:
            parent, _, child = path.rpartition(".")
            setattr(layer.get_submodule(parent), child, FrozenLinear(linear, dtype, number >= first_with_gradients))


def product_dtype(decoder: Any) -> torch.dtype:
    """The number format in which a decoder's frozen weights are multiplied."""
    return next((m.dtype for m in decoder.modules() if isinstance(m, FrozenLinear)), torch.float32)


def with_dtype(model: ModelConfig) -> ModelConfig:
    """The same settings, with dtype `auto` replaced by what multiplies faster on this processor."""
    return replace(model, dtype=fastest_dtype()) if model.dtype == "auto" else model


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
