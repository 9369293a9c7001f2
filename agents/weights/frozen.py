"""Frozen weights, held in the form in which this processor multiplies them fastest (`agents.weights.products`).

A frozen weight is multiplied thousands of times, so it is packed once. Hidden states stay float32 between products:
with `dtype` bfloat16 only the products themselves are rounded, and accumulated in float32 inside.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from agents.types import Dtype
from agents.weights.compact import Blocks, unpacked
from agents.weights.products import pack, plain_product, product, unpack


class FrozenLinear(nn.Module, ABC):
    """y = W x + b for a W that never changes; a gradient passes to x alone. How W is held is up to the subclass."""

    def __init__(self, out_features: int, bias: Tensor | None, dtype: torch.dtype):
        super().__init__()
        self.out_features, self.dtype = out_features, dtype
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


class Columns(nn.Module):
    """Some of the outputs of a frozen module that several share: q's of q, k and v in one product.

    By itself it costs as much as all of them. Layers that ask for all at once take `whole` (`agents.layers`).
    """

    def __init__(self, whole: FrozenLinear, start: int, end: int):
        super().__init__()
        self.whole: nn.Module = whole
        self.start, self.end = start, end

    @property
    def out_features(self) -> int:
        """How many they are."""
        return self.end - self.start

    def weight(self) -> Tensor:
        """Its rows of the whole W (out_features, D_in)."""
        assert isinstance(self.whole, FrozenLinear), "8 bits are not unpacked again"
        return self.whole.weight()[self.start : self.end]

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., D_in) to (..., out_features), float32."""
        y: Tensor = self.whole(x)
        return y[..., self.start : self.end]

    def back(self, gradient: Tensor) -> Tensor:
        """Wᵀ times a gradient (..., out_features), float32."""
        whole = self.whole
        assert isinstance(whole, FrozenLinear), "no gradient passes through 8 bits"
        of_all = gradient.new_zeros(*gradient.shape[:-1], whole.out_features)
        of_all[..., self.start : self.end] = gradient
        return whole.back(of_all.to(whole.dtype)).float()


class PackedLinear(FrozenLinear):
    """W packed, and once more for gradients, if asked for."""

    def __init__(self, weight: Tensor, bias: Tensor | None, dtype: torch.dtype, passes_gradients: bool):
        super().__init__(len(weight), bias, dtype)
        weight = weight.detach().to(dtype)
        self._packed = pack(weight)
        self._transposed = pack(weight.T.contiguous()) if passes_gradients else None

    @property
    def can_be_steady(self) -> bool:
        """Whether a row's product can be the same to the last bit whatever rows are beside it."""
        return self._packed.is_mkldnn

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
        super().__init__(len(weight), bias, dtype)
        self._half = weight.detach().bfloat16()

    def weight(self) -> Tensor:
        """W (D_out, D_in) in `dtype`."""
        return self._half.to(self.dtype)


class BlockLinear(FrozenLinear):
    """W in blocks of 4 or 8 bits, unpacked for each product."""

    def __init__(self, blocks: Sequence[Blocks], bias: Tensor | None, dtype: torch.dtype):
        super().__init__(sum(len(part.raw) for part in blocks), bias, dtype)
        self._blocks = blocks  # one behind the other are the rows of W

    def weight(self) -> Tensor:
        """W (D_out, D_in) in `dtype`."""
        return unpacked(self._blocks, self.dtype)


class _Frozen(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, linear: FrozenLinear) -> Tensor:
        ctx.linear = linear
        return linear.forth(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return ctx.linear.back(gradient), None


JOINED = (("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"), ("mlp.gate_proj", "mlp.up_proj"))
"""Modules with the same input, whose weights are held as one where all are asked for at once."""


def freeze(
    decoder: Any, blocks: Mapping[str, Blocks], first_with_gradients: int, dtype: torch.dtype, is_joined: bool = False
) -> None:
    """Put a frozen module in the place of every linear module of a decoder's layers.

    blocks: by path (`layers.N....`), the weights that the modules themselves lack. The layers from
    `first_with_gradients` on let gradients through; where weights are in blocks, those are held in bfloat16.
    is_joined: those of JOINED are one module, of which each is some columns.
    """
    for number, layer in enumerate(decoder.layers):
        linears = {path: module for path, module in layer.named_modules() if isinstance(module, nn.Linear)}
        places = {path.removesuffix(".base"): path for path in linears}  # `base` where adapters have wrapped it
        together = [group for group in JOINED if is_joined]
        alone = [(path,) for path in places if not any(path in group for group in together)]
        for group in (*together, *alone):
            modules = [linears[places[path]] for path in group]
            stored = [blocks[key] for path in group if (key := f"layers.{number}.{path}") in blocks]
            whole = _frozen(modules, stored, dtype, number >= first_with_gradients)
            start = 0
            for path, linear in zip(group, modules, strict=True):
                end = start + linear.out_features
                layer.set_submodule(places[path], whole if len(group) == 1 else Columns(whole, start, end))
                start = end


def _frozen(linears: Sequence[nn.Linear], stored: Sequence[Blocks], dtype: torch.dtype, is_top: bool) -> FrozenLinear:
    """Linear modules with the same input as one; stored: their weights, where they lack them."""
    known, bias = next((linear.bias for linear in linears if linear.bias is not None), None), None
    if known is not None:
        bias = torch.cat([known.new_zeros(len(x.weight)) if x.bias is None else x.bias for x in linears])
    if not stored:
        return PackedLinear(torch.cat([linear.weight for linear in linears]), bias, dtype, is_top)
    return HalfLinear(unpacked(stored, torch.bfloat16), bias, dtype) if is_top else BlockLinear(stored, bias, dtype)


def can_be_steady(decoder: Any) -> bool:
    """Whether that holds for all frozen weights of a decoder."""
    frozen = [module for module in decoder.modules() if isinstance(module, FrozenLinear)]
    return bool(frozen) and all(isinstance(module, PackedLinear) and module.can_be_steady for module in frozen)


def product_dtype(decoder: Any) -> Dtype:
    """The number format in which a decoder's frozen weights are multiplied, by name."""
    dtypes = {m.dtype for m in decoder.modules() if isinstance(m, FrozenLinear)} or {torch.float32}
    return "bfloat16" if torch.bfloat16 in dtypes else "float32"
