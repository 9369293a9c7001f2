"""An agent in llama.cpp's files: its adapter as a LoRA GGUF, or a whole model with the adapter merged in.

`save_gguf_adapter` writes what llama.cpp's convert_lora_to_gguf.py would, from the tensors in memory: an activated LoRA
(llama.cpp's PR 15327), which is off until the answer token. `agents.backends.llama_cpp` does exactly that. llama-server
switches it on one token too early (seen in build 11549: `alora_invocation_start - 1`), which on a float32 base gave a
mean KL of 0.0016 nats over the action words.

`merge_gguf` is for programs that know no adapters, and is another network: merged, the adapter acts on the instructions
and the text as well, which it never did while it learned. Measured on SmolLM2's 4-bit file, over 100 texts, against the
agents' real answers: for five agents after eight generations the mean KL is 0.003 to 0.010 nats, and the likeliest word
the same in 94 to 97 % of cases; for five random adapters 0.004 to 0.018, and 87 to 96 %. (The LoRA file on the same
base: 0.001, and 94 to 99 %. The base without the agents of eight generations: 0.35 to 0.68, and 15 to 23 %.)

llama.cpp turns the two halves of a head's queries and keys into neighbours (its rope takes pairs), so rows of B for
q and k change places as the base's own rows did in its conversion. Left out, the result is wrong without a word.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from gguf import MODEL_ARCH, GGMLQuantizationType, GGUFReader, GGUFWriter, Keys, ReaderTensor, get_tensor_name_map
from gguf.constants import GGUFType, GGUFValueType
from gguf.quants import dequantize, quantize

from agents.files import whole_file
from agents.formats.gguf_header import open_gguf
from agents.types import UserError
from evolution.genome import Adapter

ARCHITECTURES = {
    "llama": (MODEL_ARCH.LLAMA, "llama", ("q_proj", "k_proj")),
    "gemma3_text": (MODEL_ARCH.GEMMA3, "gemma3", ()),
}
"""transformers' model_type -> gguf's number and name for it, and which modules have rows in rope's order."""
PLAIN_TYPES = (GGMLQuantizationType.F32, GGMLQuantizationType.F16, GGMLQuantizationType.BF16)


class Shape(NamedTuple):
    """What of a base model the names and the order of rows depend on."""

    model_type: str  # transformers' name of the architecture
    layers: int
    heads: int
    key_value_heads: int

    @classmethod
    def of(cls, config: Any) -> "Shape":
        """That of a transformers config; UserError for an architecture that was never tried."""
        if config.model_type not in ARCHITECTURES:
            allowed = ", ".join(ARCHITECTURES)
            raise UserError(f"model_type = {config.model_type!r}: for GGUF it must be one of {allowed}")
        return cls(config.model_type, config.num_hidden_layers, config.num_attention_heads, config.num_key_value_heads)


def save_gguf_adapter(
    file: Path | str, adapter: Adapter, shape: Shape, *, alpha: float, answer_id: int, name: str = "Terrarium agent"
) -> Path:
    """Write an adapter as a LoRA GGUF, float32, that acts from the token `answer_id` on; returns the file."""
    writer = GGUFWriter(file, ARCHITECTURES[shape.model_type][1])
    writer.add_type(GGUFType.ADAPTER)
    writer.add_name(name)
    writer.add_string(Keys.Adapter.TYPE, "lora")
    writer.add_float32(Keys.Adapter.LORA_ALPHA, alpha)
    writer.add_key_value(Keys.Adapter.ALORA_INVOCATION_TOKENS, [answer_id], GGUFValueType.ARRAY, GGUFValueType.UINT32)
    for name, tensor in llama_tensors(adapter, shape).items():
        writer.add_tensor(name, tensor)
    return _write(writer, file)


def llama_tensors(adapter: Adapter, shape: Shape) -> dict[str, np.ndarray]:
    """An adapter as llama.cpp has it: `blk.N.attn_q.weight.lora_a` (r, D_in), `..._b` (D_out, r), and so on.

    UserError if llama.cpp has no name for a module.
    """
    architecture, _, rotated = ARCHITECTURES[shape.model_type]
    names = get_tensor_name_map(architecture, shape.layers)
    tensors = {}
    for path, tensor in adapter.items():
        module, _, part = path.removesuffix(".weight").rpartition(".")  # part: lora_A or lora_B
        name = names.get_name(f"{module}.weight", try_suffixes=(".weight",))
        if name is None:
            raise UserError(f"adapter.modules: llama.cpp has no tensor for {module}")
        values = np.ascontiguousarray(tensor, np.float32)
        kind = module.rpartition(".")[2]
        if part == "lora_B" and kind in rotated:
            values = rope_order(values, shape.heads if kind == "q_proj" else shape.key_value_heads)
        tensors[f"{name}.{part.lower()}"] = values
    return tensors


def rope_order(rows: np.ndarray, heads: int) -> np.ndarray:
    """Rows (heads * d, r) as llama.cpp's rope wants them: i and i + d / 2 of a head become neighbours."""
    return np.ascontiguousarray(rows.reshape(heads, 2, -1, rows.shape[1]).swapaxes(1, 2)).reshape(rows.shape)


def transformers_order(rows: np.ndarray, module: str, shape: Shape) -> np.ndarray:
    """Rows (D_out, anything) of a module of llama.cpp's, as transformers has them."""
    if module not in ARCHITECTURES[shape.model_type][2]:
        return rows
    heads = shape.heads if module == "q_proj" else shape.key_value_heads
    return np.ascontiguousarray(rows.reshape(heads, -1, 2, rows.shape[1]).swapaxes(1, 2)).reshape(rows.shape)


def merge_gguf(base: Path, file: Path | str, adapter: Adapter, shape: Shape, *, scaling: float, name: str) -> Path:
    """Write the GGUF model `base` with an adapter merged in: W + scaling * B A, for all tokens; returns the file.

    What the adapter touches stays float where it was, and becomes 8-bit (Q8_0, else F16) where it was quantised; all
    else is copied bit for bit. UserError if `base` lacks a tensor that the adapter touches.
    """
    tensors = llama_tensors(adapter, shape)
    touched = {name.removesuffix(".lora_a") for name in tensors if name.endswith(".lora_a")}
    reader = open_gguf(base)
    missing = touched - {tensor.name for tensor in reader.tensors}
    if missing:
        raise UserError(f"{base}: has no tensor {min(missing)}, which the adapter acts on")

    def merged(tensor: ReaderTensor) -> tuple[np.ndarray, GGMLQuantizationType]:
        if tensor.name not in touched:
            return tensor.data, tensor.tensor_type
        change = tensors[f"{tensor.name}.lora_b"] @ tensors[f"{tensor.name}.lora_a"]
        weights = dequantize(tensor.data, tensor.tensor_type) + np.float32(scaling) * change
        kind = tensor.tensor_type if tensor.tensor_type in PLAIN_TYPES else eight_bit(weights)
        return quantize(weights, kind), kind

    return rewrite_gguf(reader, file, merged, {Keys.General.NAME: name})


def recode_gguf(base: Path, file: Path | str, kind: GGMLQuantizationType) -> Path:
    """Write the GGUF model `base` with all its matrices in another number format; returns the file.

    For comparisons. Q4_1 made into another 4-bit format is ruined: take F32, BF16 or Q8_0.
    """

    def recoded(tensor: ReaderTensor) -> tuple[np.ndarray, GGMLQuantizationType]:
        if len(tensor.shape) < 2:
            return tensor.data, tensor.tensor_type
        return quantize(dequantize(tensor.data, tensor.tensor_type), kind), kind

    return rewrite_gguf(open_gguf(base), file, recoded, {})


def eight_bit(weights: np.ndarray) -> GGMLQuantizationType:
    """Q8_0, or F16 for rows that do not divide into its blocks of 32."""
    return GGMLQuantizationType.Q8_0 if weights.shape[-1] % 32 == 0 else GGMLQuantizationType.F16


def rewrite_gguf(
    reader: GGUFReader,
    file: Path | str,
    change: Callable[[ReaderTensor], tuple[np.ndarray, GGMLQuantizationType]],
    keys: Mapping[str, str],
) -> Path:
    """Write a GGUF file anew, with `change` of each tensor (its data and type) and other texts for some `keys`."""
    writer = GGUFWriter(file, reader.fields[Keys.General.ARCHITECTURE].contents())
    for field in reader.fields.values():
        if field.name == Keys.General.ARCHITECTURE or field.name.startswith("GGUF."):
            continue  # the writer's own
        if field.name not in keys:
            sub_type = field.types[-1] if field.types[0] == GGUFValueType.ARRAY else None
            writer.add_key_value(field.name, field.contents(), field.types[0], sub_type)
    for key, text in keys.items():
        writer.add_string(key, text)
    for tensor in reader.tensors:
        data, kind = change(tensor)
        writer.add_tensor(tensor.name, data, raw_dtype=kind)
    return _write(writer, file)


def _write(writer: GGUFWriter, file: Path | str) -> Path:
    with whole_file(Path(file)) as partial:
        writer.write_header_to_file(partial)
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    return Path(file)
