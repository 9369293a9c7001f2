"""An adapter on disk, in the format of PEFT: any tool that opens a LoRA opens one of ours.

A folder holds adapter_model.safetensors, adapter_config.json (with the answer token as `alora_invocation_tokens`,
see `agents.mind`) and a model card. Reads refuse what PEFT passes over in silence: a tensor that is missing, unknown,
misshapen or not finite.
"""

import json
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from agents.lora import check_adapter
from agents.types import AdapterConfig
from evolution.genome import Adapter

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


def load_adapter(
    folder: Path | str, shapes: dict[str, tuple[int, int]], config: AdapterConfig, answer_id: int
) -> Adapter:
    """Read an adapter that fits a bank of `shapes` and `config`, and acts at the token `answer_id`.

    Raises ValueError, naming the folder, if it is absent or damaged, or if PEFT would apply it in another way.
    """
    folder = Path(folder)
    try:
        peft_config = json.loads((folder / "adapter_config.json").read_text())
        tensors = load_file(folder / "adapter_model.safetensors")
    except (OSError, ValueError, SafetensorError) as error:
        raise ValueError(f"lora_adapter = {str(folder)!r}: not a readable PEFT adapter folder: {error}") from error
    adapter = {name.removeprefix(PREFIX): tensor for name, tensor in tensors.items()}
    try:
        _check_config(peft_config, config, answer_id)
        check_adapter(adapter, shapes)
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from error
    return adapter


def _check_config(peft_config: object, config: AdapterConfig, answer_id: int) -> None:
    if not isinstance(peft_config, dict):
        raise ValueError("adapter_config.json holds no object")
    rank, alpha = peft_config.get("r"), peft_config.get("lora_alpha")
    if not (isinstance(rank, int) and isinstance(alpha, int | float) and rank > 0):
        raise ValueError(f"r = {rank!r}, lora_alpha = {alpha!r}: must be numbers, r above 0")
    if alpha / rank != config.scaling:
        raise ValueError(f"the adapter's alpha / r is {alpha / rank}: must be {config.scaling}")
    if peft_config.get("alora_invocation_tokens") != [answer_id]:
        invocation = peft_config.get("alora_invocation_tokens")
        raise ValueError(f"alora_invocation_tokens = {invocation}: must be [{answer_id}], the answer token")
    for variant in ("use_rslora", "use_dora", "use_qalora", "rank_pattern", "alpha_pattern"):
        if peft_config.get(variant):
            raise ValueError(f"{variant} = {peft_config[variant]!r}: a plain LoRA adapter is needed")
