"""What a config.json says of a Llama, a Mistral or a Qwen2, where all that it says is known to be honoured here.

Every key must be known, with such a value. All else is opened by `agents.weights.by_transformers`, which also says what
is wrong with it. Never imports torch.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

KINDS = ("llama", "mistral", "qwen2")
"""model_type of what is built here."""
SIZES = (
    *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
    *("num_key_value_heads", "max_position_embeddings"),
)
"""What a config must say: whole numbers from 1 on."""
MOST = 1e30
"""No number of a config is larger; float32 holds it."""
ROPES = {
    "default": set[str](),
    "linear": {"factor"},
    "llama3": {"factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"},
}
"""Kinds of rotary embedding, and which numbers each needs besides its base."""


@dataclass
class LlamaConfig:
    """What of a config.json decides what such a model computes, by the names that transformers has for it."""

    model_type: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    max_position_embeddings: int
    head_dim: int
    rms_norm_eps: float
    rope_parameters: dict[str, Any]
    tie_word_embeddings: bool = False
    attention_bias: bool = False  # Llama's, of q, k, v and o; Qwen2 always has those of q, k and v
    mlp_bias: bool = False
    sliding_window: int | None = None  # the longest prompt, so that no mask is needed for it (`agents.reading`)
    hidden_act: str = "silu"


def _is_size(value: object) -> bool:
    return type(value) is int and value > 0


def _is_positive(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= MOST


def _is_share(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= 1


def _is_token(value: object) -> bool:
    return value is None or (type(value) is int and value >= 0)


def _is_tokens(value: object) -> bool:
    return _is_token(value) or (isinstance(value, list) and all(type(token) is int for token in value))


def _one_of(*values: object) -> Callable[[object], bool]:
    return lambda value: any(type(value) is type(known) and value == known for known in values)


_IS_FLAG = _one_of(True, False)
_ANY: dict[str, Callable[[object], bool]] = {
    **dict.fromkeys(SIZES, _is_size),
    "model_type": _one_of(*KINDS),
    "rms_norm_eps": _is_positive,
    "head_dim": lambda value: value is None or _is_size(value),
    "hidden_act": _one_of("silu"),
    "tie_word_embeddings": _IS_FLAG,
    "rope_theta": _is_positive,
    "rope_scaling": lambda value: value is None or isinstance(value, dict),
    "rope_parameters": lambda value: isinstance(value, dict),
    # what changes no answer
    "architectures": lambda value: isinstance(value, list),
    **dict.fromkeys(("dtype", "torch_dtype"), _one_of("float32", "bfloat16", "float16")),
    **dict.fromkeys(("_name_or_path", "_model_name_or_path", "transformers_version"), lambda value: type(value) is str),
    **dict.fromkeys(("bos_token_id", "pad_token_id", "unk_token_id"), _is_token),
    "eos_token_id": _is_tokens,
    "initializer_range": _is_share,
    "attention_dropout": _one_of(0, 0.0),
    "pretraining_tp": _one_of(1),
    "use_cache": _IS_FLAG,
}
_OWN: dict[str, dict[str, Callable[[object], bool]]] = {
    "llama": {"attention_bias": _IS_FLAG, "mlp_bias": _IS_FLAG},
    "mistral": {"sliding_window": lambda value: value is None or _is_size(value)},
    "qwen2": {
        "use_sliding_window": _one_of(False),
        "sliding_window": lambda value: value is None or _is_size(value),  # says nothing then
        "max_window_layers": lambda value: type(value) is int,
        "layer_types": lambda value: isinstance(value, list) and all(kind == "full_attention" for kind in value),
    },
}
_NEEDED = {
    "mistral": {"sliding_window"},
    "qwen2": {"use_sliding_window"},
}  # transformers' defaults differ with versions


def known_config(folder: Path) -> LlamaConfig | None:
    """The config of a model folder; None where it holds anything that is not known to be honoured here."""
    try:
        given = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    kind = given.get("model_type") if isinstance(given, dict) else None
    if not isinstance(kind, str) or kind not in KINDS:
        return None
    known = _ANY | _OWN[kind]
    needed = {*SIZES, "rms_norm_eps", *_NEEDED.get(kind, ())}
    rope = _rope(given)
    if not (needed <= given.keys() <= known.keys()) or rope is None:
        return None
    if not all(known[key](value) for key, value in given.items()):
        return None
    sizes = {key: given[key] for key in SIZES}
    width, heads, shared = (sizes[key] for key in ("hidden_size", "num_attention_heads", "num_key_value_heads"))
    head_dim = given.get("head_dim") or width // heads
    if width % heads or heads % shared or head_dim % 2 or (given.get("pad_token_id") or 0) >= sizes["vocab_size"]:
        return None
    flags = {key: given[key] for key in ("tie_word_embeddings", "attention_bias", "mlp_bias") if key in given}
    window = given["sliding_window"] if kind == "mistral" else None
    eps = given["rms_norm_eps"]
    return LlamaConfig(
        kind, **sizes, head_dim=head_dim, rms_norm_eps=eps, rope_parameters=rope, sliding_window=window, **flags
    )


def _rope(given: dict[str, Any]) -> dict[str, Any] | None:
    """What a config says of its rotary embedding, in either of two ways; None where that is not known here."""
    if "rope_parameters" in given:
        if "rope_theta" in given or "rope_scaling" in given or not isinstance(given["rope_parameters"], dict):
            return None
        rope = dict(given["rope_parameters"])
    else:
        scaling = given.get("rope_scaling") or {}
        if not isinstance(scaling, dict) or "rope_theta" in scaling:
            return None
        rope = {"rope_theta": given.get("rope_theta"), **scaling}
        rope.setdefault("rope_type", rope.pop("type", "default"))
    kind = rope.get("rope_type")
    if not isinstance(kind, str) or kind not in ROPES or rope.keys() != {"rope_type", "rope_theta"} | ROPES[kind]:
        return None
    if not all(_is_positive(value) for key, value in rope.items() if key != "rope_type"):
        return None
    return rope if kind != "llama3" or rope["low_freq_factor"] < rope["high_freq_factor"] else None
