"""An adapter on disk, in the format of PEFT: any tool that opens a LoRA opens one of ours.

A folder holds adapter_model.safetensors, adapter_config.json (with the answer token as `alora_invocation_tokens`,
see `agents.mind`) and a model card. Reads refuse what PEFT passes over in silence: a tensor that is missing, unknown,
misshapen or not finite.
"""

import json
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from agents.lora import Adapter, check_adapter
from agents.types import AdapterConfig

PREFIX = "base_model.model."


def save_adapter(
    folder: Path | str,
    adapter: Adapter,
    config: AdapterConfig,
    *,
    base_model: str,
    layers: int,
    answer_id: int,
    card: str = "",
) -> Path:
    """Write an adapter to `folder` (made at need) and return it.

    base_model: name or path that a reader should load. layers: how many the base has. card: text for the README.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    save_file({PREFIX + name: t.contiguous() for name, t in adapter.items()}, folder / "adapter_model.safetensors")
    peft_config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_model,
        "r": config.rank,
        "lora_alpha": config.alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "inference_mode": True,
        "target_modules": list(config.modules),
        "layers_to_transform": list(range(layers - config.top_layers, layers)),
        "alora_invocation_tokens": [answer_id],
    }
    (folder / "adapter_config.json").write_text(json.dumps(peft_config, indent=2) + "\n")
    (folder / "README.md").write_text(
        f"---\nlibrary_name: peft\nbase_model: {base_model}\ntags: [lora, terrarium]\n---\n\n# A Terrarium agent\n\n"
        f"An activated LoRA adapter of {base_model}: it acts on the last token of the prompt only.\n\n{card}\n"
    )
    return folder


def load_adapter(folder: Path | str, shapes: dict[str, tuple[int, int]], config: AdapterConfig) -> Adapter:
    """Read an adapter that fits a bank of `shapes` and `config`.

    Raises ValueError, naming the file, if it is absent, damaged, or made for another shape or scaling.
    """
    folder = Path(folder)
    try:
        peft_config = json.loads((folder / "adapter_config.json").read_text())
        tensors = load_file(folder / "adapter_model.safetensors")
    except (OSError, json.JSONDecodeError, SafetensorError) as error:
        raise ValueError(f"lora_adapter = {str(folder)!r}: not a readable PEFT adapter folder: {error}") from error
    scaling = peft_config.get("lora_alpha", 8) / peft_config.get("r", 8)
    if scaling != config.scaling:
        raise ValueError(f"{folder}: the adapter's alpha / r is {scaling}: must be {config.scaling}")
    adapter = {name.removeprefix(PREFIX): tensor for name, tensor in tensors.items()}
    try:
        check_adapter(adapter, shapes)
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from error
    return adapter
