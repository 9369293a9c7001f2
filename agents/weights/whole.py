"""Whether what lies in a model folder is a whole model that may be opened; said in one sentence before it is."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers import CONFIG_MAPPING

from agents.weights.fetch import ModelNotFound

ADAPTERS = ("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin")
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")


def check_folder(folder: Path, name: str) -> None:
    """ModelNotFound where a folder is not a model that can be run here as it is. Opens nothing but JSON and headers."""
    config = _json_of(folder / "config.json", name)
    begin = f"model.name = {name!r}: {folder}"
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
    kernels = {key: value for key, value in config.items() if "_implementation" in key and "/" in str(value)}
    if kernels:
        key, value = kernels.popitem()
        raise ModelNotFound(f"{begin}: {key} = {value!r} in config.json names code of the hub, which is never run")
    if not any(folder.glob("*.safetensors")):
        pickles = sorted(file.name for pattern in PICKLES for file in folder.glob(pattern))
        held = f"only a pickle ({pickles[0]}), which can run code and is never opened" if pickles else "no weights"
        raise ModelNotFound(f"{begin} has {held}: must have *.safetensors")
    for weights in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(weights, "pt"):
                pass
        except (SafetensorError, OSError) as error:
            reason = " ".join(str(error).split())
            raise ModelNotFound(f"{begin}: {weights.name} is cut short or damaged ({reason})") from error


def check_finite(file: Path, tensors: Iterable[tuple[str, Tensor]]) -> None:
    """ModelNotFound, naming the first, where a tensor of `file` holds NaN or infinity.

    A sum tells, as one number that is not finite spoils it; it takes a third of a second for SmolLM2 in float32.
    """
    for name, tensor in tensors:
        is_sound = not tensor.is_floating_point() or bool(tensor.sum(dtype=torch.float32).isfinite())
        if not is_sound and not tensor.isfinite().all():
            raise ModelNotFound(f"{file}: tensor {name} holds NaN or infinity: must be finite")


def check_weights(folder: Path) -> None:
    """The same for all weights of a model folder."""
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "pt") as opened:
            check_finite(file, ((name, opened.get_tensor(name)) for name in opened.keys()))  # noqa: SIM118, it is no mapping


def _json_of(file: Path, name: str) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelNotFound(f"model.name = {name!r}: {file} is not JSON ({error})") from error
    if not isinstance(content, dict):
        raise ModelNotFound(f"model.name = {name!r}: {file} is a {type(content).__name__}: must be a JSON object")
    return content
