"""Llama, Mistral and Qwen2 as plain modules of torch: transformers, which they then do not need, is slow to import.

The modules have the names that transformers gives them, by which weights, adapters and blocks are found. The forward is
the plain one: a whole prompt, every score computed, nothing fused. It is the reference to which `agents.layers` is held
when a model is opened; tests hold it to transformers.

It is built for the configs that `agents.weights.llama_config` knows, and for files that hold just its tensors.

Symbols: B rows of S tokens, L tokens before them, D width, H query heads, V key-value heads, d head size.
"""

from collections.abc import Sequence
from math import pi
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import Tensor, nn

from agents.weights.llama_config import LlamaConfig

KeysValues = tuple[Tensor, Tensor]


def load_llama(config: LlamaConfig, files: list[Path]) -> "Llama | None":
    """The model in float32; None unless its files hold just its tensors, each of its shape."""
    causal_lm = Llama(config)
    shapes = {name: tuple(parameter.shape) for name, parameter in causal_lm.named_parameters()}
    tensors: dict[str, Tensor] = {}
    for file in files:
        with safe_open(file, "pt") as opened:
            names = list(opened.keys())
            found = {name: tuple(opened.get_slice(name).get_shape()) for name in names}
            if any(shapes.get(name) != shape or name in tensors for name, shape in found.items()):
                return None
            tensors |= {name: opened.get_tensor(name).float() for name in found}
    if tensors.keys() != shapes.keys():
        return None
    causal_lm.load_state_dict(tensors, strict=False, assign=True)  # of tied weights one name is missing
    if config.tie_word_embeddings:
        causal_lm.lm_head.weight = causal_lm.model.embed_tokens.weight
    return causal_lm


class Read(NamedTuple):
    """What a decoder makes of a prompt."""

    last_hidden_state: Tensor  # (B, S, D)
    past_key_values: list[KeysValues] | None  # of each layer (B, V, L + S, d) twice


class Logits(NamedTuple):
    """What a model with its head makes of a prompt."""

    logits: Tensor  # (B, S, tokens)


class Linear(nn.Linear):
    """A linear module whose numbers are not there yet, and are not drawn, which takes seconds the first time."""

    def __init__(self, columns: int, rows: int, is_biased: bool):
        super().__init__(columns, rows, is_biased, device="meta")

    def reset_parameters(self) -> None:
        """Leave them as they are."""


class Llama(nn.Module):
    """A decoder with its output head. Its weights are not there (on the meta device) until they are assigned."""

    def __init__(self, config: LlamaConfig):
        super().__init__()
        self.config, self.model = config, Decoder(config)
        self.lm_head: nn.Linear = Linear(config.hidden_size, config.vocab_size, False)
        if config.tie_word_embeddings:
            self.lm_head.weight = self.model.embed_tokens.weight

    def forward(self, ids: Tensor) -> Logits:
        """Map token ids (B, S) to the logits after each of them."""
        return Logits(self.lm_head(self.model(ids).last_hidden_state))

    @property
    def base_model(self) -> "Decoder":
        """The model without its output head."""
        return self.model

    def get_input_embeddings(self) -> nn.Module:
        """The embedding of tokens."""
        return self.model.embed_tokens

    def set_input_embeddings(self, embedding: nn.Module) -> None:
        """Put another in its place."""
        self.model.embed_tokens = embedding  # type: ignore[assignment]

    def get_output_embeddings(self) -> nn.Linear:
        """The output head."""
        return self.lm_head

    def set_output_embeddings(self, head: nn.Linear) -> None:
        """Put another in its place."""
        self.lm_head = head

    def set_attn_implementation(self, name: str) -> None:
        """Do nothing: it attends in one way, and `agents.layers` in its own."""


class Decoder(nn.Module):
    """Embedding, layers and last norm."""

    def __init__(self, config: LlamaConfig):
        super().__init__()
        self.config = config
        weight = torch.empty(config.vocab_size, config.hidden_size, device="meta")
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size, _weight=weight)
        self.layers = nn.ModuleList(PlainLayer(config, number) for number in range(config.num_hidden_layers))
        self.norm = Norm(config)
        self.rotary_emb = Rotary(config)

    def get_input_embeddings(self) -> nn.Module:
        """The embedding of tokens."""
        return self.embed_tokens

    def forward(
        self,
        ids: Tensor,
        past_key_values: list[KeysValues] | None = None,
        use_cache: bool = False,
        position_ids: Tensor | None = None,
    ) -> Read:
        """Read token ids (B, S) behind what was read before, and keep keys and values if asked to.

        position_ids: (1, S), where they stand; None: behind what was read before.
        """
        before: Sequence[KeysValues | None] = past_key_values or [None] * len(self.layers)
        start = 0 if not past_key_values else past_key_values[0][0].shape[2]
        hidden = self.embed_tokens(ids)
        behind = torch.arange(start, start + ids.shape[1])[None]
        positions = behind if position_ids is None else position_ids
        turns = self.rotary_emb(hidden, positions.to(ids.device))
        kept: list[KeysValues] = []
        for layer, past in zip(self.layers, before, strict=True):
            hidden, keys_values = layer(hidden, turns, past)
            kept.append(keys_values)
        return Read(self.norm(hidden), kept if use_cache else None)


class PlainLayer(nn.Module):
    """One layer."""

    def __init__(self, config: LlamaConfig, number: int):
        super().__init__()
        self.self_attn, self.mlp = Attention(config, number), GatedMLP(config)
        self.input_layernorm, self.post_attention_layernorm = Norm(config), Norm(config)

    def forward(self, hidden: Tensor, turns: KeysValues, past: KeysValues | None) -> tuple[Tensor, KeysValues]:
        """Hidden states (B, S, D) after the layer, and its keys and values."""
        seen, keys_values = self.self_attn(self.input_layernorm(hidden), turns, past)
        hidden = hidden + seen
        return hidden + self.mlp(self.post_attention_layernorm(hidden)), keys_values


class Attention(nn.Module):
    """Causal attention with rotary positions (Su et al. 2021, arXiv:2104.09864); H / V query heads share a key head."""

    def __init__(self, config: LlamaConfig, number: int):
        super().__init__()
        self.layer_idx, self.head_dim = number, config.head_dim
        queries, shared = (n * self.head_dim for n in (config.num_attention_heads, config.num_key_value_heads))
        is_biased = config.attention_bias or config.model_type == "qwen2"
        self.q_proj = Linear(config.hidden_size, queries, is_biased)
        self.k_proj = Linear(config.hidden_size, shared, is_biased)
        self.v_proj = Linear(config.hidden_size, shared, is_biased)
        self.o_proj = Linear(queries, config.hidden_size, config.attention_bias)

    def forward(self, x: Tensor, turns: KeysValues, past: KeysValues | None) -> tuple[Tensor, KeysValues]:
        """What tokens (B, S, D) see of themselves and of those before them, and all keys and values."""
        projected = (proj(x) for proj in (self.q_proj, self.k_proj, self.v_proj))
        q, k, v = (y.unflatten(-1, (-1, self.head_dim)).transpose(1, 2) for y in projected)
        q, k = _turned(q, turns), _turned(k, turns)
        if past:
            k, v = (torch.cat(pair, dim=2) for pair in zip(past, (k, v), strict=True))
        each = q.shape[1] // k.shape[1]
        scores = q @ k.repeat_interleave(each, dim=1).mT * self.head_dim**-0.5  # (B, H, S, L + S)
        is_later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=x.device).triu(1 + k.shape[2] - q.shape[2])
        weights = scores.masked_fill(is_later, -torch.inf).softmax(-1)
        seen = weights @ v.repeat_interleave(each, dim=1)  # (B, H, S, d)
        return self.o_proj(seen.transpose(1, 2).flatten(2)), (k, v)


def _turned(x: Tensor, turns: KeysValues) -> Tensor:
    """Heads (B, n, S, d), turned by halves; turns: cosines and sines (1, S, d)."""
    one, two = x.chunk(2, dim=-1)
    return x * turns[0][:, None] + torch.cat([-two, one], dim=-1) * turns[1][:, None]


class GatedMLP(nn.Module):
    """SwiGLU (Shazeer 2020, arXiv:2002.05202)."""

    def __init__(self, config: LlamaConfig):
        super().__init__()
        width, inner, is_biased = config.hidden_size, config.intermediate_size, config.mlp_bias
        self.gate_proj, self.up_proj = Linear(width, inner, is_biased), Linear(width, inner, is_biased)
        self.down_proj = Linear(inner, width, is_biased)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., D) to (..., D)."""
        y: Tensor = self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
        return y


class Norm(nn.Module):
    """Root mean square normalisation (Zhang & Sennrich 2019, arXiv:1910.07467)."""

    def __init__(self, config: LlamaConfig):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(config.hidden_size, device="meta"))
        self.variance_epsilon = config.rms_norm_eps

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., D) to (..., D)."""
        return self.weight * (x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.variance_epsilon))


class Rotary(nn.Module):
    """The angles by which positions turn queries and keys."""

    def __init__(self, config: LlamaConfig):
        super().__init__()
        self.register_buffer("speeds", turning_speeds(config.rope_parameters, config.head_dim), persistent=False)

    def forward(self, like: Tensor, positions: Tensor) -> KeysValues:
        """Cosines and sines (B, S, d) of positions (B, S), on the device of `like`."""
        angles = positions[..., None].float() * self.speeds.to(like.device)  # type: ignore[operator]
        angles = torch.cat([angles, angles], dim=-1)
        return angles.cos(), angles.sin()


def turning_speeds(rope: dict[str, Any], size: int) -> Tensor:
    """By how much each pair of numbers of a head of `size` turns from one position to the next, (size / 2,).

    linear: all more slowly, by a factor. llama3 (Llama 3.1): only those that turn less than once, or a few times, in
    the length that the model was first trained with.
    """
    speeds = 1.0 / (rope["rope_theta"] ** (torch.arange(0, size, 2, dtype=torch.float32) / size))
    if rope["rope_type"] == "default":
        return speeds
    slowed = speeds / rope["factor"]
    if rope["rope_type"] == "linear":
        return slowed
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    turns = rope["original_max_position_embeddings"] * speeds / (2 * pi)
    share = ((turns - low) / (high - low)).clamp(0, 1)  # from slowed to as they are
    return (1 - share) * slowed + share * speeds
