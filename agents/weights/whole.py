"""Whether what lies in a model folder is a whole model that may be opened; said in one sentence before it is."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers import CONFIG_MAPPING

from agents.weights.fetch import ModelNotFound

ADAPTERS = ("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin")
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
FLOATS = ("F32", "F16", "BF16", "F64")
"""What weights may be, as safetensors calls it; transformers would take integers for numbers as they are."""
LAYERS = ("num_hidden_layers", "num_layers", "n_layers", "n_layer")
JSON_BYTES = 128 << 20
"""More than any file of a tokenizer has; Gemma's has 33 MB."""


def check_folder(folder: Path, name: str) -> None:
    """ModelNotFound where a folder is not a model that can be run here as it is. Opens nothing but JSON and headers."""
    begin = f"model.name = {name!r}: {folder}"
    _check_files(folder, begin)
    config = _json_of(folder / "config.json", name)
    if "quantization_config" in config:
        method = (config["quantization_config"] or {}).get("quant_method", "unknown")
        raise ModelNotFound(
            f"{begin} is quantised (quantization_config in config.json, {method}): must be the model that it was made "
            "of, or a GGUF file; model.weight_storage = compact makes 8 bits of that"
        )
    for file in ADAPTERS:
        if (folder / file).exists():
            raise ModelNotFound(
                f"{begin} holds an adapter ({file}), which transformers would put on the model in silence: must be "
                "the model alone; merge the adapter, or move it away"
            )
    if config.get("model_type") not in CONFIG_MAPPING:
        needs = " and needs code of its own (auto_map), which is never run" if config.get("auto_map") else ""
        kind = f"is of model_type {config.get('model_type')!r}, which transformers does not know{needs}"
        raise ModelNotFound(f"{begin} {kind}: must be of an architecture like Llama, Qwen, Gemma, Phi or GPT-NeoX")
    kernels = {key: value for key, value in _entries(config) if "_implementation" in key and "/" in str(value)}
    if kernels:
        key, value = kernels.popitem()
        raise ModelNotFound(f"{begin}: {key} = {value!r} in config.json names code of the hub, which is never run")
    if "transformers_weights" in config:  # in place of model.safetensors
        value = config["transformers_weights"]
        raise ModelNotFound(f"{begin}: transformers_weights = {value!r} in config.json: must be absent")
    if not any(folder.glob("*.safetensors")):
        pickles = sorted(file.name for pattern in PICKLES for file in folder.glob(pattern))
        held = f"only a pickle ({pickles[0]}), which can run code and is never opened" if pickles else "no weights"
        raise ModelNotFound(f"{begin} has {held}: must have *.safetensors")
    _check_index(folder, name)
    tensors = sum(_check_header(file, begin) for file in sorted(folder.glob("*.safetensors")))
    for key, value in _entries(config):
        if key in LAYERS and isinstance(value, int) and value > tensors:
            raise ModelNotFound(
                f"{begin}: {key} = {value} in config.json: must be at most the number of tensors, {tensors}"
            )


def _check_files(folder: Path, begin: str) -> None:
    """ModelNotFound for what would keep a reader waiting, or fill the memory."""
    for file in sorted(folder.iterdir()):
        if not (file.is_file() or file.is_dir()):
            raise ModelNotFound(f"{begin}: {file.name} must be an ordinary file")
        if file.suffix == ".json" and file.stat().st_size > JSON_BYTES:
            raise ModelNotFound(f"{begin}: {file.name} has {file.stat().st_size} bytes: must have at most {JSON_BYTES}")


def _check_index(folder: Path, name: str) -> None:
    """ModelNotFound unless what an index names lies in the folder and is no pickle, which transformers would open."""
    file = folder / "model.safetensors.index.json"
    if not file.exists():
        return
    shards = _json_of(file, name).get("weight_map")
    if not (isinstance(shards, dict) and all(isinstance(shard, str) for shard in shards.values())):
        raise ModelNotFound(f"model.name = {name!r}: {file}: weight_map must name a file for each tensor")
    for shard in sorted(set(shards.values())):
        if Path(shard).name != shard or not shard.endswith(".safetensors"):
            raise ModelNotFound(f"model.name = {name!r}: {file} names {shard!r}: must be a *.safetensors beside it")
        if not (folder / shard).is_file():
            raise ModelNotFound(f"model.name = {name!r}: {file} names {shard}, which is missing")


def _check_header(file: Path, begin: str) -> int:
    """How many tensors a safetensors file has; ModelNotFound where it is not whole, or holds weights of integers."""
    try:
        with safe_open(file, "pt") as opened:
            names = list(opened.keys())
            for name in names:
                tensor = opened.get_slice(name)
                kind, dimensions = tensor.get_dtype(), len(tensor.get_shape())
                if kind not in FLOATS and (name.endswith(".weight") or dimensions == 1):  # masks have more
                    allowed = ", ".join(FLOATS)
                    raise ModelNotFound(f"{begin}: {file.name}: tensor {name} is of {kind}: must be {allowed}")
    except (SafetensorError, OSError) as error:
        reason = " ".join(str(error).split())
        raise ModelNotFound(f"{begin}: {file.name} is cut short or damaged ({reason})") from error
    return len(names)


def _entries(config: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Keys and values of a config and of the configs in it."""
    for key, value in config.items():
        yield key, value
        if isinstance(value, dict):
            yield from _entries(value)


def check_finite(file: Path, tensors: Iterable[tuple[str, Tensor]]) -> None:
    """ModelNotFound, naming the first, where a tensor of `file` holds NaN or infinity.

    A sum tells, as one number that is not finite spoils it; it takes a third of a second for SmolLM2 in float32.
    """
    for name, tensor in tensors:
        is_sound = not tensor.is_floating_point() or bool(tensor.sum(dtype=torch.float32).isfinite())
        if not is_sound and not tensor.float().isfinite().all():
            raise ModelNotFound(f"{file}: tensor {name} holds NaN or infinity: must be finite, as float32 too")


def check_weights(folder: Path) -> None:
    """The same for all weights of a model folder."""
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "pt") as opened:
            check_finite(file, ((name, opened.get_tensor(name)) for name in opened.keys()))  # noqa: SIM118, it is no mapping


def _json_of(file: Path, name: str) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelNotFound(f"model.name = {name!r}: {file} is not JSON ({error})") from error
    if not isinstance(content, dict):
        raise ModelNotFound(f"model.name = {name!r}: {file} is a {type(content).__name__}: must be a JSON object")
    return content
