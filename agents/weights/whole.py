"""Whether what lies in a model folder is a whole model that may be opened; said in one sentence before it is."""

import json
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from agents.weights.fetch import ModelNotFound
from agents.weights.llama_config import KINDS

ADAPTERS = ("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin")
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
DISTRIBUTED = "shard-*-model-*.safetensors"
"""Of a distributed checkpoint, which newer versions of transformers open in place of the others."""
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
FLOATS = ("F32", "F16", "BF16", "F64")
"""What weights may be, as safetensors calls it; transformers would take integers for numbers as they are."""
LAYERS = ("num_hidden_layers", "num_layers", "n_layers", "n_layer")
LAYER = re.compile(r"(.*?\.)(\d+)\.")
"""What stands before the first number in a tensor's name, and that number: of a layer, where others have them too."""
JSON_BYTES = 128 << 20
"""More than any file of a tokenizer has; Gemma's has 33 MB."""


def check_folder(folder: Path, name: str) -> None:
    """ModelNotFound where a folder is not a model that can be run here as it is. Opens nothing but JSON and headers."""
    begin = f"model.name = {name!r}: {folder}"
    _check_files(folder, begin)
    for file in ADAPTERS:
        if (folder / file).exists():
            raise ModelNotFound(
                f"{begin} holds an adapter ({file}), which transformers would put on the model in silence: must be "
                "the model alone; merge the adapter, or move it away"
            )
    config = _json_of(folder / "config.json", name)
    _check_config(config, begin)
    tensors = [tensor for file in weight_files(folder, name) for tensor in _check_header(file, begin)]
    _check_layers(config, tensors, begin)


def _check_config(config: dict[str, Any], begin: str) -> None:
    """ModelNotFound for a config of weights that are quantised or elsewhere, or of code of its own."""
    for key, value in _entries(config):
        if key == "quantization_config" and value:
            method = value.get("quant_method", "unknown") if isinstance(value, dict) else f"{value!r}, no JSON object"
            raise ModelNotFound(
                f"{begin} is quantised (quantization_config in config.json, {method}): must be the model that it was "
                "made of, or a GGUF file; model.weight_storage = compact makes 8 bits of that"
            )
    kind = config.get("model_type")
    if not isinstance(kind, str) or not _is_architecture(kind):
        needs = " and needs code of its own (auto_map), which is never run" if config.get("auto_map") else ""
        raise ModelNotFound(
            f"{begin} is of model_type {kind!r}, which transformers does not know{needs}: must be of an architecture "
            "like Llama, Qwen, Gemma, Phi or GPT-NeoX"
        )
    for key, value in _entries(config):
        if "_implementation" in key and "/" in str(value):
            raise ModelNotFound(f"{begin}: {key} = {value!r} in config.json names code of the hub, which is never run")
    elsewhere = config.get("transformers_weights")  # in place of model.safetensors
    if elsewhere is not None:
        raise ModelNotFound(f"{begin}: transformers_weights = {elsewhere!r} in config.json: must be absent")


def _is_architecture(kind: str) -> bool:
    """Whether a model_type is built here, or known to transformers, which takes seconds to import."""
    if kind in KINDS:
        return True
    from transformers import CONFIG_MAPPING

    return kind in CONFIG_MAPPING


def _check_files(folder: Path, begin: str) -> None:
    """ModelNotFound for what would keep a reader waiting, or fill the memory. A link to nothing does neither."""
    for file in sorted(file for file in folder.iterdir() if file.exists()):
        if not (file.is_file() or file.is_dir()):
            raise ModelNotFound(f"{begin}: {file.name} must be an ordinary file")
        if file.suffix == ".json" and file.stat().st_size > JSON_BYTES:
            raise ModelNotFound(f"{begin}: {file.name} has {file.stat().st_size} bytes: must have at most {JSON_BYTES}")


def weight_files(folder: Path, name: str) -> list[Path]:
    """The files in which transformers looks for weights: model.safetensors, else those that its index names.

    ModelNotFound where one is missing, or is a pickle, which transformers would open.
    """
    begin = f"model.name = {name!r}: {folder}"
    for file in sorted(folder.glob(DISTRIBUTED)):
        raise ModelNotFound(f"{begin} is a distributed checkpoint ({file.name}): must have {WEIGHTS} or {INDEX}")
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if (folder / INDEX).is_file():
        return _shards(folder / INDEX, name)
    pickles = sorted(file.name for pattern in PICKLES for file in folder.glob(pattern))
    held = f"only a pickle ({pickles[0]}), which can run code and is never opened" if pickles else "no weights"
    raise ModelNotFound(f"{begin} has {held}: must have {WEIGHTS}, or {INDEX} and what it names")


def _shards(index: Path, name: str) -> list[Path]:
    shards = _json_of(index, name).get("weight_map")
    begin = f"model.name = {name!r}: {index}"
    if not (isinstance(shards, dict) and all(isinstance(shard, str) for shard in shards.values())):
        raise ModelNotFound(f"{begin}: weight_map must name a file for each tensor")
    files = []
    for shard in sorted(set(shards.values())):
        if Path(shard).name != shard or not shard.endswith(".safetensors"):
            raise ModelNotFound(f"{begin} names {shard!r}: must be a *.safetensors beside it")
        files.append(index.parent / shard)
        if not files[-1].is_file():
            raise ModelNotFound(f"{begin} names {shard}, which is missing")
    return files


def _check_header(file: Path, begin: str) -> list[str]:
    """The tensors of a safetensors file; ModelNotFound where it is not whole, or holds weights of integers."""
    try:
        with safe_open(file, "pt") as opened:
            names = list(opened.keys())
            for name in names:
                tensor = opened.get_slice(name)
                kind, dimensions = tensor.get_dtype(), len(tensor.get_shape())
                is_weight = name.endswith(".weight") or (name.endswith(".bias") and dimensions == 1)  # masks have more
                if is_weight and kind not in FLOATS:
                    allowed = ", ".join(FLOATS)
                    raise ModelNotFound(f"{begin}: {file.name}: tensor {name} is of {kind}: must be {allowed}")
    except (SafetensorError, OSError) as error:
        reason = " ".join(str(error).split())
        raise ModelNotFound(f"{begin}: {file.name} is cut short or damaged ({reason})") from error
    return names


def _check_layers(config: dict[str, Any], tensors: list[str], begin: str) -> None:
    """ModelNotFound unless a config has a layer at least, and as many as there are tensors of at most."""
    numbers: dict[str, set[str]] = {}
    for found in filter(None, map(LAYER.match, tensors)):
        numbers.setdefault(found[1], set()).add(found[2])
    most = max(map(len, numbers.values()), default=0)
    for key, value in _entries(config):
        if key in LAYERS and isinstance(value, int) and not 1 <= value <= most:
            raise ModelNotFound(
                f"{begin}: {key} = {value} in config.json: must be at least 1, and at most the number of layers that "
                f"its tensors have, {most}"
            )


def _entries(config: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Keys and values of a config and of the configs in it, however deep they lie."""
    waiting = [config]
    while waiting:
        for key, value in waiting.pop().items():
            yield key, value
            if isinstance(value, dict):
                waiting.append(value)


def check_finite(where: Path, tensors: Iterable[tuple[str, Tensor]]) -> None:
    """ModelNotFound, naming the first, where a tensor of a file or model folder holds NaN or infinity.

    A sum tells, as one number that is not finite spoils it; it takes a third of a second for SmolLM2 in float32.
    """
    for name, tensor in tensors:
        numbers = tensor.detach()
        is_sound = not numbers.is_floating_point() or bool(numbers.sum(dtype=torch.float32).isfinite())
        if not is_sound and not numbers.float().isfinite().all():
            raise ModelNotFound(f"{where}: tensor {name} holds NaN or infinity: must be finite, as float32 too")


@contextmanager
def panics_as_errors() -> Iterator[None]:
    """ValueError where a library in Rust panics within the block; pyo3 raises a BaseException of its own for that."""
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # which no module has
            raise
        raise ValueError(str(error)) from error


def _json_of(file: Path, name: str) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelNotFound(f"model.name = {name!r}: {file} is not JSON ({error})") from error
    if not isinstance(content, dict):
        raise ModelNotFound(f"model.name = {name!r}: {file} is a {type(content).__name__}: must be a JSON object")
    return content
