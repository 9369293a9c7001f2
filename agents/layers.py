"""The layers of Llama and its relatives, computed in fewer and larger operations than transformers has for them.

q, k and v are one product, gate and up another, an adapter is added into what its module makes, and no mask, cache or
copy is made that nobody needs. Layers of any other architecture go through transformers' own code; what both come to is
compared when a model is opened (`agents.policy_network`).

A token's numbers are the same to the last bit whatever tokens stand beside it: products are (`agents.weights.products`)
and attention is (`agents.attention`). Of the rest only silu is not exact, and torch computes it otherwise at the end of
a vector than within it. So silu goes over whole rows, as few as torch takes in one piece.

Symbols: B rows of S tokens, D width of the hidden states, H query heads, V key-value heads, d head size, M inner width.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from agents.adapted import AdaptedColumns, adapted_product, columns_of
from agents.attention import Sight
from agents.weights.frozen import Columns
from agents.weights.products import in_steady_block

KNOWN = ("PlainLayer", "LlamaDecoderLayer", "MistralDecoderLayer", "Qwen2DecoderLayer")
"""Classes, of `agents.weights.llama` and of transformers, whose layers are computed here."""
POSITIONS = 256
"""For so many at a time cosines and sines are computed, always in the same way."""
ONE_PIECE = 32768
"""Numbers that torch computes one after the other, in one thread (its GRAIN_SIZE)."""


def is_known(decoder: Any) -> bool:
    """Whether the layers of a decoder can be computed here."""
    config = decoder.config
    rope = getattr(config, "rope_parameters", None) or {}
    return (
        all(type(layer).__name__ in KNOWN for layer in decoder.layers)
        and config.hidden_act == "silu"
        and rope.get("rope_type", "default") in ("default", "linear", "llama3", "yarn")
    )


class Layers:
    """Some layers of a frozen decoder, from `first` to before `end`; the last layer's norm goes with them."""

    def __init__(self, decoder: Any, first: int, end: int):
        self._layers = [_Layer.of(layer) for layer in decoder.layers[first:end]]
        self._norm = _Norm.of(decoder.norm) if end == len(decoder.layers) else None
        self._rotary, self._turns = decoder.rotary_emb, torch.zeros(2, 0, 0)

    def __call__(self, hidden: Tensor, positions: Tensor, attend_as: Sight) -> Tensor:
        """What the layers make of hidden states (B, S, D) at positions (B, S) or (1, S), which are on the CPU."""
        cosine, sine = self._turns_at(positions, hidden.device)
        for layer in self._layers:
            hidden = layer(hidden, cosine, sine, attend_as)
        return self._norm(hidden) if self._norm else hidden

    def _turns_at(self, positions: Tensor, device: torch.device) -> Tensor:
        """Cosines and sines of positions (B, S): (2, B, S, 1, d), the first half of the sines negative."""
        most = int(positions.max())
        while self._turns.shape[1] <= most:
            start = self._turns.shape[1]
            cosine, sine = self._rotary(torch.zeros(1), torch.arange(start, start + POSITIONS)[None])
            half = sine.shape[-1] // 2
            block = torch.cat([cosine, torch.cat([-sine[..., :half], sine[..., half:]], dim=-1)]).to(device)
            self._turns = block if not start else torch.cat([self._turns, block], dim=1)
        return self._turns[:, positions, None]


class _Norm(NamedTuple):
    """Root mean square normalisation (Zhang & Sennrich 2019, arXiv:1910.07467)."""

    weight: Tensor
    eps: float

    @classmethod
    def of(cls, module: Any) -> "_Norm":
        return cls(module.weight, module.variance_epsilon)

    def __call__(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled() and x.requires_grad:
            y: Tensor = _Normed.apply(x, self.weight, self.eps)
            return y
        return x * _inverse_size(x, self.eps) * self.weight


def _inverse_size(x: Tensor, eps: float) -> Tensor:
    """By which each row of x (..., D) is to be multiplied, (..., 1)."""
    return x.square().mean(-1, keepdim=True).add_(eps).rsqrt_()


class _Normed(torch.autograd.Function):
    """The same with its gradient, for a weight that never changes."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        inverse = _inverse_size(x, eps)
        normed = x * inverse
        ctx.save_for_backward(normed, inverse, weight)
        return normed * weight

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        normed, inverse, weight = ctx.saved_tensors
        gradient = gradient * weight
        along = (gradient * normed).mean(-1, keepdim=True)
        return (gradient - normed * along).mul_(inverse), None, None


class _Product(NamedTuple):
    """A frozen module, several of transformers' in one where they share it, and where its output carries adapters."""

    modules: tuple[Any, ...]  # transformers' own, or what has taken their places
    adapted: tuple[AdaptedColumns, ...]

    @classmethod
    def of(cls, *modules: Any) -> "_Product":
        return cls(modules, tuple(columns_of(modules)))

    def __call__(self, x: Tensor) -> Tensor:
        module = getattr(self.modules[0], "base", self.modules[0])  # looked up anew: int8 comes later
        return adapted_product(x, module.whole if isinstance(module, Columns) else module, self.adapted)


class _Layer(NamedTuple):
    """One layer."""

    number: int
    head: int  # its size d
    before: _Norm
    qkv: _Product
    o: _Product
    between: _Norm
    gate_up: _Product
    down: _Product

    @classmethod
    def of(cls, layer: Any) -> "_Layer":
        attention, mlp = layer.self_attn, layer.mlp
        return cls(
            attention.layer_idx,
            attention.head_dim,
            _Norm.of(layer.input_layernorm),
            _Product.of(attention.q_proj, attention.k_proj, attention.v_proj),
            _Product.of(attention.o_proj),
            _Norm.of(layer.post_attention_layernorm),
            _Product.of(mlp.gate_proj, mlp.up_proj),
            _Product.of(mlp.down_proj),
        )

    def __call__(self, hidden: Tensor, cosine: Tensor, sine: Tensor, attend_as: Sight) -> Tensor:
        hidden = hidden + self.o(self._attend(self.qkv(self.before(hidden)), cosine, sine, attend_as))
        gate_up = self.gate_up(self.between(hidden))
        return hidden + self.down(_Gated.apply(gate_up))

    def _attend(self, qkv: Tensor, cosine: Tensor, sine: Tensor, attend_as: Sight) -> Tensor:
        heads = qkv.unflatten(-1, (-1, self.head))  # (B, S, H + 2 V, d)
        shared = self.qkv.modules[1].out_features // self.head  # V
        turned, v = heads.split([heads.shape[2] - shared, shared], dim=2)
        turned = turned * cosine + turned.roll(self.head // 2, -1) * sine  # rotary embedding, by halves
        q, k = turned.split([turned.shape[2] - shared, shared], dim=2)
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        seen = attend_as.attend(self.number, q, k, v, self.head**-0.5)  # (B, H, S, d)
        return seen.transpose(1, 2).flatten(2)


class _Gated(torch.autograd.Function):
    """silu(gate) * up (Shazeer 2020, arXiv:2002.05202) of the two side by side, (..., 2 M) to (..., M)."""

    @staticmethod
    def forward(ctx: Any, gate_up: Tensor) -> Tensor:
        ctx.save_for_backward(gate_up)
        rows = gate_up.reshape(-1, gate_up.shape[-1])
        gate, up = rows.chunk(2, dim=-1)
        out = torch.empty_like(up)
        step = max(1, ONE_PIECE // up.shape[-1]) if in_steady_block() else len(rows)
        for start in range(0, len(rows), step):
            some = slice(start, start + step)
            torch.mul(F.silu(gate[some]), up[some], out=out[some])
        return out.view(*gate_up.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        (gate_up,) = ctx.saved_tensors
        gate, up = gate_up.chunk(2, dim=-1)
        share = gate.sigmoid()
        silu = gate * share
        both = torch.empty_like(gate_up)
        to_gate, to_up = both.chunk(2, dim=-1)
        torch.mul(gradient, silu, out=to_up)
        torch.mul(silu, 1 - share, out=to_gate).add_(share).mul_(up).mul_(gradient)
        return both
