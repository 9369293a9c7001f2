"""An adapter on disk, in the format of PEFT: any tool that opens a LoRA opens one of ours.

A folder holds adapter_model.safetensors, adapter_config.json (with the token from which the adapter acts as
`alora_invocation_tokens`, see `agents.policy_network`) and a model card. Reads refuse what PEFT passes over in silence:
a tensor that is missing, unknown, misshapen or not finite.
"""

import json
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from agents.lora import check_adapter
from agents.types import AdapterConfig
from evolution.genome import Adapter

PREFIX = "base_model.model."
ACTS = {"answer": "on the last token of the prompt only", "text": "on all tokens from the last of the instructions on"}
"""Where an adapter acts, by `AdapterConfig.tokens`."""


def save_adapter(
    folder: Path | str,
    adapter: Adapter,
    config: AdapterConfig,
    *,
    base_model: str,
    layers: int,
    invocations: Mapping[str, int],
    card: str = "",
) -> Path:
    """Write an adapter to `folder` (made at need) and return it.

    base_model: name or path that a reader should load. layers: how many the base has. invocations: as in
    `PolicyNetwork.invocations`. card: text for the README.
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
        "alora_invocation_tokens": [invocations[config.tokens]],
    }
    (folder / "adapter_config.json").write_text(json.dumps(peft_config, indent=2) + "\n")
    (folder / "README.md").write_text(
        f"---\nlibrary_name: peft\nbase_model: {base_model}\ntags: [lora, terrarium]\n---\n\n# A Terrarium agent\n\n"
        f"An activated LoRA adapter of {base_model}: it acts {ACTS[config.tokens]}.\n\n{card}\n",
        encoding="utf-8",
    )
    return folder


def load_adapter(
    folder: Path | str, shapes: dict[str, tuple[int, int]], config: AdapterConfig, invocations: Mapping[str, int]
) -> Adapter:
    """Read an adapter that fits a bank of `shapes` and `config`; invocations: as in `PolicyNetwork.invocations`.

    Raises ValueError, naming the folder, if it is absent or damaged, or if PEFT would apply it in another way.
    """
    folder = Path(folder)
    try:
        peft_config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        tensors = load_file(folder / "adapter_model.safetensors")
    except (OSError, ValueError, SafetensorError) as error:
        raise ValueError(f"lora_adapter = {str(folder)!r}: not a readable PEFT adapter folder: {error}") from error
    adapter = {name.removeprefix(PREFIX): tensor for name, tensor in tensors.items()}
    try:
        _check_config(peft_config, config)
        _check_invocation(peft_config.get("alora_invocation_tokens"), config.tokens, invocations)
        check_adapter(adapter, shapes)
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from error
    return adapter


def _check_config(peft_config: object, config: AdapterConfig) -> None:
    if not isinstance(peft_config, dict):
        raise ValueError("adapter_config.json holds no object")
    rank, alpha = peft_config.get("r"), peft_config.get("lora_alpha")
    if not (isinstance(rank, int) and isinstance(alpha, int | float) and rank > 0):
        raise ValueError(f"r = {rank!r}, lora_alpha = {alpha!r}: must be numbers, r above 0")
    if alpha / rank != config.scaling:
        raise ValueError(f"the adapter's alpha / r is {alpha / rank}: must be {config.scaling}")
    for variant in ("use_rslora", "use_dora", "use_qalora", "rank_pattern", "alpha_pattern"):
        if peft_config.get(variant):
            raise ValueError(f"{variant} = {peft_config[variant]!r}: a plain LoRA adapter is needed")


def _check_invocation(found: object, tokens: str, invocations: Mapping[str, int]) -> None:
    """ValueError unless the adapter acts from the token that belongs to adapter.tokens = `tokens`."""
    if found == [invocations[tokens]]:
        return
    for other, token in invocations.items():
        if found == [token]:
            raise ValueError(f"the adapter acts {ACTS[other]}: adapter.tokens must be {other!r}, not {tokens!r}")
    raise ValueError(
        f"alora_invocation_tokens = {found}: must be [{invocations[tokens]}], for it to act {ACTS[tokens]}"
    )
