"""What a GGUF file says of its model, held against the config that transformers makes of it.

transformers passes over what it does not know: scaled rotary positions, windows, factors on logits, whole tensors. A
model without them answers otherwise, and nobody notices. So what can be said in a config is carried over here, and
whatever else would change an answer is refused by name. Keys are those of llama.cpp's gguf-py (`gguf.constants.Keys`).
"""

from collections.abc import Callable, Iterable, Mapping
from math import isclose
from pathlib import Path
from typing import Any

import numpy as np
from gguf import MODEL_ARCH_NAMES, GGUFReader, get_tensor_name_map

from agents.types import UserError

SAYS_NOTHING = ("context_length", "vocab_size", "feed_forward_length", "tensor_data_layout")
"""Keys that bound a prompt, or that only the shapes of tensors follow from."""
ROPE_FREQUENCIES = "rope_freqs.weight"
"""By what each of Llama 3's rotary frequencies is divided; a tensor that has no module."""
SCALING = tuple(f"rope.scaling.{name}" for name in ("type", "factor", "finetuned", "original_context_length"))
"""Of rotary positions: what is carried over, and what is known besides."""
NORMS = ("attention.layer_norm_rms_epsilon", "attention.layer_norm_epsilon")
"""Of two kinds of norms; an architecture has one, and the other is read by nobody."""
GEMMA3_27B = 62
"""How many layers it has: it alone does not scale attention by the width of a head, which llama.cpp knows so."""


def carry_over(file: Path, reader: GGUFReader, config: Any) -> None:
    """Complete a transformers config, in place, from the GGUF file that it was read from.

    UserError for a key that changes what the model computes and has no place in the config.
    """
    fields = keys(reader)
    if config.model_type == "phi3":
        config.sliding_window = fields.get("attention.sliding_window", config.sliding_window)
    if config.model_type == "gemma3_text":
        of_head = config.hidden_size // config.num_attention_heads
        config.query_pre_attn_scalar = of_head if config.num_hidden_layers == GEMMA3_27B else config.head_dim
    _scale_rope(file, reader, fields, config)
    for key, value in fields.items():
        implied = IMPLIED[key](config) if key in IMPLIED else None
        is_said = key in (*SAYS_NOTHING, *SCALING)
        if not is_said and not _is_same(key, value, implied):
            must = f"must be {implied} or absent" if implied is not None else "must be absent"
            raise UserError(
                f"{file}: {reader.fields['general.architecture'].contents()}.{key} = {value!r} changes what the model "
                f"computes, and is not carried over: {must}"
            )


def keys(reader: GGUFReader) -> dict[str, Any]:
    """What a file says of its architecture, by key without the architecture's name."""
    begin = f"{reader.fields['general.architecture'].contents()}."
    return {n.removeprefix(begin): f.contents() for n, f in reader.fields.items() if n.startswith(begin)}


def check_tensors(file: Path, reader: GGUFReader, names: Iterable[str], layers: int) -> dict[str, str]:
    """The GGUF file's name of each of a model's tensors, `names`; UserError where the file has one more."""
    architecture = reader.fields["general.architecture"].contents()
    number = next(number for number, name in MODEL_ARCH_NAMES.items() if name == architecture)
    known = get_tensor_name_map(number, layers)
    stored = {}
    for name in names:
        stem, _, suffix = name.rpartition(".")
        stored[name] = f"{known.get_name(stem)}.{suffix}"
    beyond = sorted({tensor.name for tensor in reader.tensors} - {*stored.values(), ROPE_FREQUENCIES})
    if beyond:
        raise UserError(
            f"{file}: tensor {beyond[0]} (and {len(beyond) - 1} more) is not carried over: must be absent from a file "
            f"of architecture {architecture}"
        )
    return stored


def _scale_rope(file: Path, reader: GGUFReader, fields: Mapping[str, Any], config: Any) -> None:
    """Say in the config by what rotary frequencies are divided; UserError for a kind of scaling that is unknown here.

    Where each has its own divisor, as in Llama 3, the config says "longrope", which takes any list of them.
    """
    kind = fields.get("rope.scaling.type", "linear")
    factor = float(fields.get("rope.scaling.factor") or 1.0) if kind == "linear" else 1.0
    if kind not in ("linear", "none"):
        name = f"{reader.fields['general.architecture'].contents()}.rope.scaling.type"
        raise UserError(f"{file}: {name} = {kind!r} is not carried over: must be 'linear', 'none' or absent")
    divisors = next((np.array(t.data, float) for t in reader.tensors if t.name == ROPE_FREQUENCIES), None)
    rope = getattr(config, "rope_parameters", None)
    if rope is None or (divisors is None and factor == 1.0):
        return
    rope = rope.get("full_attention", rope)  # Gemma3 scales that of its full layers alone
    if divisors is None:
        rope |= {"rope_type": "linear", "factor": factor}
        return
    if config.model_type != "llama" or len(divisors) != config.head_dim // 2:
        allowed = "must be of a Llama, and half as long as its heads are wide"
        raise UserError(f"{file}: tensor {ROPE_FREQUENCIES} of {len(divisors)} numbers is not carried over: {allowed}")
    each = (factor * divisors).tolist()
    reach = {"original_max_position_embeddings": config.max_position_embeddings, "factor": 1.0, "attention_factor": 1.0}
    rope |= {"rope_type": "longrope", "short_factor": each, "long_factor": each, **reach}


def _is_same(key: str, value: Any, implied: Any) -> bool:
    if (key in NEUTRAL and value == NEUTRAL[key]) or (key in NORMS and implied is None):
        return True
    if isinstance(value, float) and isinstance(implied, int | float):
        return isclose(value, implied, rel_tol=1e-5)  # float32 in the file
    return implied is not None and bool(value == implied)


def _first(*names: str, otherwise: Any = None) -> Callable[[Any], Any]:
    """The first of these settings that a config has."""

    def find(config: Any) -> Any:
        found = (getattr(config, name, None) for name in names)
        return next((value for value in found if value is not None), otherwise)

    return find


def _head(config: Any) -> int:
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def _rope(config: Any, layers: str, setting: str, otherwise: Any = None) -> Any:
    """A setting of the rotary positions of full or sliding layers; `otherwise` where a config does not say."""
    rope = getattr(config, "rope_parameters", None) or {}
    return rope.get(layers, rope).get(setting, otherwise)


IMPLIED: dict[str, Callable[[Any], Any]] = {
    "block_count": _first("num_hidden_layers"),
    "embedding_length": _first("hidden_size"),
    "attention.head_count": _first("num_attention_heads"),
    "attention.head_count_kv": _first("num_key_value_heads", "num_attention_heads"),
    "attention.key_length": _head,
    "attention.value_length": _head,
    "attention.layer_norm_rms_epsilon": _first("rms_norm_eps", "norm_eps"),
    "attention.layer_norm_epsilon": _first("layer_norm_eps", "layer_norm_epsilon", "norm_epsilon"),
    "attention.sliding_window": _first("sliding_window"),
    "attention.scale": lambda config: _first("query_pre_attn_scalar", otherwise=_head(config))(config) ** -0.5,
    "attn_logit_softcapping": _first("attn_logit_softcapping"),
    "final_logit_softcapping": _first("final_logit_softcapping"),
    "use_parallel_residual": _first("use_parallel_residual"),
    "expert_count": _first("num_experts", "num_local_experts"),
    "expert_used_count": _first("num_experts_per_tok"),
    "rope.freq_base": lambda config: _rope(config, "full_attention", "rope_theta"),
    "rope.freq_base_swa": lambda config: _rope(config, "sliding_attention", "rope_theta"),
    "rope.dimension_count": lambda c: int(_head(c) * _rope(c, "full_attention", "partial_rotary_factor", 1.0)),
}
"""What a config makes of each key; None where it does not say."""
NEUTRAL = {
    **{"expert_count": 0, "expert_used_count": 0, "attention.clamp_kqv": 0.0, "attention.max_alibi_bias": 0.0},
    **{"attn_logit_softcapping": 0.0, "final_logit_softcapping": 0.0, "attention.causal": True},
    **{"logit_scale": 1.0, "embedding_scale": 1.0, "residual_scale": 1.0, "rope.scaling.attn_factor": 1.0},
}
"""Values that change nothing, whatever the config says."""
