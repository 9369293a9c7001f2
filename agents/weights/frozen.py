"""Frozen weights, held in the form in which this processor multiplies them fastest (`agents.weights.products`).

A frozen weight is multiplied thousands of times, so it is packed once. Hidden states stay float32 between products:
with `dtype` bfloat16 only the products themselves are rounded, and accumulated in float32 inside.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from agents.types import Dtype
from agents.weights.compact import Blocks
from agents.weights.products import pack, plain_product, product, unpack


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
        return plain_product(x, self.weight(), self.bias)

    def back(self, gradient: Tensor) -> Tensor:
        """Wᵀ times a gradient."""
        return plain_product(gradient, self.weight().T, None)

    @abstractmethod
    def weight(self) -> Tensor:
        """W (D_out, D_in) in `dtype`."""


class PackedLinear(FrozenLinear):
    """W packed, and once more for gradients, if asked for."""

    def __init__(self, weight: Tensor, bias: Tensor | None, dtype: torch.dtype, passes_gradients: bool):
        super().__init__(bias, dtype)
        weight = weight.detach().to(dtype)
        self._packed = pack(weight)
        self._transposed = pack(weight.T.contiguous()) if passes_gradients else None

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
        return unpack(self._packed).to(self.dtype)


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


def product_dtype(decoder: Any) -> Dtype:
    """The number format in which a decoder's frozen weights are multiplied, by name."""
    dtypes = {m.dtype for m in decoder.modules() if isinstance(m, FrozenLinear)} or {torch.float32}
    return "bfloat16" if torch.bfloat16 in dtypes else "float32"
