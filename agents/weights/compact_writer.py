"""Writes the file of blocks from which compact models are mapped: see `agents.weights.compact`."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import GGMLQuantizationType, get_tensor_name_map
from gguf.quants import quantize
from safetensors.torch import save_file
from torch import Tensor

from agents.formats.gguf import ARCHITECTURES, Shape, transformers_order
from agents.formats.gguf_header import open_gguf
from agents.types import UserError
from agents.weights.compact import BLOCK, EMBEDDING, Blocks, embed_scale, layer_linears

KINDS = ("Q4_0", "Q4_1", "Q8_0")
MODULES = (
    *("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"),
    *("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"),
)


@torch.no_grad()
def write(causal_lm: Any, gguf: Path | None, file: Path) -> None:
    """Write a model in float32 to a file in blocks; gguf: the file that it was made of, if it was made of one.

    UserError where that cannot be done.
    """
    _check_embedding(causal_lm)
    modules = layer_linears(causal_lm) | {EMBEDDING: causal_lm.get_input_embeddings()}
    own = {module.weight.data_ptr() for module in modules.values()}
    rest: dict[int, tuple[str, Tensor]] = {}  # tied weights, and layers known by two names, once
    for name, tensor in causal_lm.state_dict().items():
        if tensor.data_ptr() not in own:
            rest.setdefault(tensor.data_ptr(), (name, tensor.contiguous()))
    is_known = gguf is not None and causal_lm.config.model_type in ARCHITECTURES
    known = gguf_blocks(gguf, Shape.of(causal_lm.config)) if gguf is not None and is_known else {}
    blocks = {}
    for path, module in modules.items():
        is_same = path in known and torch.equal(known[path].unpacked(), module.weight)
        blocks[path] = known[path] if is_same else eight_bit(module.weight)
        if not blocks[path].unpacked().isfinite().all():
            raise UserError(
                f"model.weight_storage = 'compact': must be full, as {path} holds numbers too large for float16"
            )
    kinds = json.dumps({path: b.kind for path, b in blocks.items()})
    save_file(dict(rest.values()) | {path: b.raw for path, b in blocks.items()}, file, {"format": "pt", "kinds": kinds})


def gguf_blocks(gguf: Path, shape: Shape) -> dict[str, Blocks]:
    """The blocks of a GGUF file in transformers' order of rows, by path (`layers.N....`); only kinds known here."""
    names = get_tensor_name_map(ARCHITECTURES[shape.model_type][0], shape.layers)
    paths = {f"{names.get_name('model.embed_tokens')}.weight": EMBEDDING}
    for layer in range(shape.layers):
        for module in MODULES:
            stored = names.get_name(f"model.layers.{layer}.{module}")
            paths[f"{stored}.weight"] = f"layers.{layer}.{module}"
    blocks = {}
    for tensor in open_gguf(gguf).tensors:
        if tensor.name in paths and tensor.tensor_type.name in KINDS:
            path = paths[tensor.name]
            raw = transformers_order(np.array(tensor.data), path.rpartition(".")[2], shape)
            blocks[path] = Blocks(tensor.tensor_type.name, torch.from_numpy(raw))
    return blocks


def eight_bit(weight: Tensor) -> Blocks:
    """A weight (D_out, D_in) as Q8_0, or as float16 where a row does not divide into blocks."""
    if weight.shape[1] % BLOCK:
        return Blocks("F16", weight.detach().half().view(torch.uint8))
    return Blocks("Q8_0", torch.from_numpy(quantize(weight.detach().float().numpy(), GGMLQuantizationType.Q8_0)))


def _check_embedding(causal_lm: Any) -> None:
    """UserError where an embedding does more than look up rows and multiply them, which is all that is known here."""
    embedding, ids = causal_lm.get_input_embeddings(), torch.arange(4)
    if not torch.allclose(embedding(ids), embedding.weight[ids] * embed_scale(causal_lm)):
        kind = causal_lm.config.model_type
        raise UserError(
            f"model.weight_storage = 'compact': must be full for {kind}, whose embedding is of a kind of its own"
        )
