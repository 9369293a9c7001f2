"""Attention in two halves: reading a text, and answering from what was read.

All agents and all texts share the instructions in front, whose keys and values exist once. A text is read once
(`Reading` records its keys and values); after that the answer token alone asks (`Recollection`), one row per agent.
Where adapters act on the whole text, each agent reads it anew in the adapted layers instead (`Rereading`).
All go through layers computed by `agents.layers`, or through transformers' own: `terrarium_attention` is the attention
function that those use (`agents.weights.by_transformers`), and the mode travels in their keyword arguments.

Symbols: B rows or texts, S text tokens, I instruction tokens, H query heads, V key-value heads, g = H / V, d head size.
"""

from collections.abc import Sequence
from itertools import groupby
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

KeysValues = tuple[Tensor, Tensor]


class Behind:
    """Causal attention of texts of one length, behind instructions that may have been read before.

    A kernel's last bits depend on the length of what it is given, and so would a text's on the texts beside it.
    """

    def __init__(self, instructions: list[KeysValues] | None, longest: int):
        self._instructions = instructions  # per layer (V, I, d) twice, or None while they are read themselves
        known = instructions[0][0].shape[1] if instructions else 0
        causal = torch.ones(longest, longest, dtype=torch.bool).tril()
        self._may_see = torch.cat([torch.ones(longest, known, dtype=torch.bool), causal], dim=1)  # (S, I + S)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, scaling: float) -> Tensor:
        """What B texts of S tokens see, (B, H, S, d)."""
        if self._instructions:
            ik, iv = (x.expand(len(k), -1, -1, -1) for x in self._instructions[layer])
            k, v = torch.cat([ik, k], dim=2), torch.cat([iv, v], dim=2)
        self._may_see = self._may_see.to(q.device)
        may_see = self._may_see[: q.shape[2], : k.shape[2]]
        return F.scaled_dot_product_attention(q, k, v, attn_mask=may_see, scale=scaling, enable_gqa=True)


class Reading:
    """One pass of B texts through layers, one text behind the other in one row; records keys and values if asked to.

    lengths: tokens of each text, of which there are S in all; those of one length stand together.
    """

    def __init__(self, instructions: list[KeysValues] | None, first_recorded: int, lengths: Sequence[int]):
        self.first_recorded = first_recorded
        self.recorded: list[KeysValues] = []  # per recorded layer (1, V, S, d) twice, after position embedding
        self._runs = [(length, len(list(run))) for length, run in groupby(lengths) if length]
        self._behind = Behind(instructions, max(lengths))

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, scaling: float) -> Tensor:
        """What each token sees, (1, H, S, d)."""
        if layer >= self.first_recorded:
            self.recorded.append((k, v))
        seen = torch.empty_like(q)
        start = 0
        for length, texts in self._runs:
            end = start + length * texts
            ask, keys, values = (x[0, :, start:end].unflatten(1, (texts, length)).transpose(0, 1) for x in (q, k, v))
            seen[0, :, start:end] = self._behind.attend(layer, ask, keys, values, scaling).transpose(0, 1).flatten(1, 2)
            start = end
        return seen


class Rereading:
    """Texts (B, S) with an adapter each, filled up behind to the longest; lengths: (B,) tokens of each, on the CPU."""

    def __init__(self, instructions: list[KeysValues], lengths: Tensor):
        self._rows = {int(length): torch.nonzero(lengths == length)[:, 0] for length in lengths.unique()}
        self._behind = Behind(instructions, int(lengths.max()))

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, scaling: float) -> Tensor:
        """What each token sees, (B, H, S, d); fillers see nothing."""
        if len(self._rows) == 1:
            return self._behind.attend(layer, q, k, v, scaling)
        seen = torch.zeros_like(q)
        for length, rows in self._rows.items():
            ask, keys, values = (x[rows, :, :length] for x in (q, k, v))
            seen[rows, :, :length] = self._behind.attend(layer, ask, keys, values, scaling)
        return seen


class Asking(NamedTuple):
    """One answer token for each of B texts, on its way through layers without adapters; texts of one length together.

    Not by `Recollection`: a text's numbers must be the same to the last bit whatever texts are asked about with it.
    """

    instructions: list[KeysValues]  # per layer (V, I, d) twice
    texts: list[Tensor]  # by length (L, 2, V, n, S, d), keys and values of the n texts that come next

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, scaling: float) -> Tensor:
        """What each sees of the instructions, its text and itself, (B, H, 1, d)."""
        seen = []
        counts = [text.shape[3] for text in self.texts]
        for text, ask, *own in zip(self.texts, *(x.split(counts) for x in (q, k, v)), strict=True):
            keys, values = (
                torch.cat([front.expand(len(ask), -1, -1, -1), told.transpose(0, 1), last], dim=2)
                for front, told, last in zip(self.instructions[layer], text[layer], own, strict=True)
            )
            seen.append(F.scaled_dot_product_attention(ask, keys, values, scale=scaling, enable_gqa=True))
        return torch.cat(seen)


class TextBlock(NamedTuple):
    """T texts, as remembered, of S tokens each, and who asks about them.

    rows: (C * T,) among all B, or all of them; the one at c * T + t asks about text t.
    """

    rows: Tensor | slice
    texts: list[KeysValues]  # per adapted layer (V, T, S, d) twice
    is_padding: Tensor  # (T, S), True where a shorter text has no token


class Recollection(NamedTuple):
    """What answer tokens may look at: the instructions and a text, as remembered, and themselves."""

    instructions: list[KeysValues]  # per adapted layer (V, I, d) twice
    blocks: list[TextBlock]  # in which each of the B rows is once
    first_layer: int

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, scaling: float) -> Tensor:
        """Attention of one token per row, q (B, H, 1, d), over what is remembered and over itself.

        The g query heads of a key-value head, and all who ask about a text, are rows of one product, so nothing is
        repeated in memory.
        """
        at = layer - self.first_layer
        if torch.is_grad_enabled() and q.requires_grad:
            seen: Tensor = _Recollected.apply(q, k, v, self, at, scaling)
            return seen
        return self.seen_of_all(q, k, v, at, scaling)[0]

    def seen_of_all(self, q: Tensor, k: Tensor, v: Tensor, at: int, scaling: float) -> tuple[Tensor, list["_Attended"]]:
        """What is seen in an adapted layer, (B, H, 1, d), and what went into it."""
        seen, kept = torch.empty_like(q), []
        for block in self.blocks:
            rows = block.rows
            seen[rows], some = _attended(q[rows], k[rows], v[rows], self.instructions[at], block, at, scaling)
            kept.append(some)
        return seen, kept


class _Attended(NamedTuple):
    """By text: scaled q, k, v, and the weights (V, T, C * g, I + S + 1)."""

    q: Tensor
    k: Tensor
    v: Tensor
    weights: Tensor


def _attended(
    q: Tensor, k: Tensor, v: Tensor, instructions: KeysValues, block: TextBlock, at: int, scaling: float
) -> tuple[Tensor, _Attended]:
    """What those who ask about some texts see, (C * T, H, 1, d)."""
    (ik, iv), (tk, tv) = instructions, block.texts[at]
    q, k, v = (_by_text(x, tk) for x in (q * scaling, k, v))
    asking = q.flatten(2, 3)  # (V, T, C * g, d)
    to_instructions = (asking.flatten(1, 2) @ ik.mT).view(*asking.shape[:3], -1)  # (V, T, C * g, I)
    to_text = (asking @ tk.mT).masked_fill(block.is_padding[:, None], -torch.inf)  # (V, T, C * g, S)
    to_itself = (q * k).sum(-1).flatten(2)[..., None]  # (V, T, C * g, 1)
    weights = torch.cat([to_instructions, to_text, to_itself], dim=-1).softmax(-1)
    wi, wt, ws = weights.split([ik.shape[1], tk.shape[2], 1], dim=-1)
    seen = (wi.flatten(1, 2) @ iv).view(asking.shape).add_(wt @ tv).view(q.shape)
    return _by_row(seen.add_(ws.reshape(*q.shape[:-1], 1) * v)), _Attended(q, k, v, weights)


def _attended_back(
    gradient: Tensor, kept: _Attended, instructions: KeysValues, block: TextBlock, at: int, scaling: float
) -> tuple[Tensor, Tensor, Tensor]:
    """A gradient with respect to what is seen, (C * T, H, 1, d), as one with respect to q, k and v."""
    q, k, v, weights = kept
    (ik, iv), (tk, tv) = instructions, block.texts[at]
    gradient = _by_text(gradient, tk)
    of_seen = gradient.flatten(2, 3)  # (V, T, C * g, d)
    of_instructions = (of_seen.flatten(1, 2) @ iv.mT).view(*of_seen.shape[:3], -1)
    of_weights = torch.cat([of_instructions, of_seen @ tv.mT, (gradient * v).sum(-1).flatten(2)[..., None]], dim=-1)
    of_scores = weights * (of_weights - (weights * of_weights).sum(-1, keepdim=True))
    si, st, ss = of_scores.split([ik.shape[1], tk.shape[2], 1], dim=-1)
    ss = ss.reshape(*q.shape[:-1], 1)
    to_q = (si.flatten(1, 2) @ ik).view(of_seen.shape).add_(st @ tk).view(q.shape).add_(ss * k)
    to_k = (ss * q).sum(3, keepdim=True)
    to_v = (weights[..., -1:].reshape(ss.shape) * gradient).sum(3, keepdim=True)
    return _by_row(to_q.mul_(scaling)), _by_row(to_k), _by_row(to_v)


class _Recollected(torch.autograd.Function):
    """The same with its gradient, which autograd would find in three times as many operations."""

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, recollection: Recollection, at: int, scaling: float
    ) -> Tensor:
        seen, kept = recollection.seen_of_all(q, k, v, at, scaling)
        ctx.save_for_backward(*(x for some in kept for x in some))
        ctx.rest, ctx.shapes = (recollection, at, scaling), (q.shape, k.shape, v.shape)
        return seen

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        recollection, at, scaling = ctx.rest
        to_q, to_k, to_v = (gradient.new_empty(shape) for shape in ctx.shapes)
        for number, block in enumerate(recollection.blocks):
            kept = _Attended(*ctx.saved_tensors[4 * number : 4 * number + 4])
            own = _attended_back(gradient[block.rows], kept, recollection.instructions[at], block, at, scaling)
            to_q[block.rows], to_k[block.rows], to_v[block.rows] = own
        return to_q, to_k, to_v, *[None] * 3


def _by_text(x: Tensor, texts: Tensor) -> Tensor:
    """Heads of rows (C * T, V * n, 1, d) as (V, T, C, n, d); texts: (V, T, S, d)."""
    shared, count = texts.shape[:2]
    return x.reshape(-1, count, shared, x.shape[1] // shared, x.shape[-1]).permute(2, 1, 0, 3, 4)


def _by_row(x: Tensor) -> Tensor:
    """The other way round."""
    shared, count, copies, each, d = x.shape
    return x.permute(2, 1, 0, 3, 4).reshape(copies * count, shared * each, 1, d)


Sight = Reading | Rereading | Asking | Recollection
"""Whom tokens look at."""


def terrarium_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float,
    attend_as: Sight | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **_: object,
) -> tuple[Tensor, None]:
    """The attention function that transformers' layers call; returns (B, S, H, d).

    NotImplementedError, with the reason, for layers that ask for what is unknown here.
    """
    if attend_as is None:
        raise NotImplementedError("its layers do not pass their keywords on to attention")
    if attention_mask is not None:
        raise NotImplementedError("its layers mask attention in a way of their own")
    if softcap is not None or s_aux is not None:
        raise NotImplementedError("its attention has a soft cap or sinks")
    out = attend_as.attend(module.layer_idx, query, key, value, scaling)
    return out.transpose(1, 2).contiguous(), None
