"""An adapter on disk, in the format of PEFT: any tool that opens a LoRA opens one of ours.

A folder holds adapter_model.safetensors, adapter_config.json (with the token from which the adapter acts as
`alora_invocation_tokens`, see `agents.policy_network`) and a model card. Reads refuse what PEFT passes over in silence:
a tensor that is missing, unknown, misshapen or not finite. They refuse any setting by which PEFT would apply an adapter
in another way than we do, known or not: what is not listed in `SAYS_NOTHING` must be as in `NEUTRAL`, else empty.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from agents.lora import check_adapter
from agents.types import AdapterConfig
from evolution.genome import Adapter

PREFIX = "base_model.model."
ACTS = {"answer": "on the last token of the prompt only", "text": "on all tokens from the last of the instructions on"}
"""Where an adapter acts, by `AdapterConfig.tokens`."""
SAYS_NOTHING = (
    *("task_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision", "inference_mode"),
    *("lora_dropout", "megatron_core", "qalora_group_size", "runtime_config", "eva_config"),
)
"""Settings that change no answer, whatever they are."""
NEUTRAL: dict[str, tuple[Any, ...]] = {
    **{"peft_type": ("LORA",), "bias": ("none",), "layers_pattern": (None, [], "", "layers", ["layers"])},
    "init_lora_weights": (True, False, "gaussian", "orthogonal", "eva"),
}
"""What settings must be of which not every other value is refused. Of the initial weights that PEFT has besides these,
pissa, corda, olora, loftq and lora_ga come with changed weights of the base, to which the adapter then belongs; of mica
nothing was tried here."""
LAYER = re.compile(r"\.(\d+)\.")
FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
CONFIG_BYTES = 1 << 20
"""More than any adapter_config.json has."""


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
        peft_config = _read_config(folder / "adapter_config.json")
        tensors = _read_tensors(folder / "adapter_model.safetensors", shapes)
    except (OSError, ValueError, RecursionError, SafetensorError) as error:
        raise ValueError(f"lora_adapter = {str(folder)!r}: not a readable PEFT adapter folder: {error}") from error
    try:
        _check_config(peft_config, shapes, config)
        _check_invocation(peft_config.get("alora_invocation_tokens"), config.tokens, invocations)
        adapter = _adapter(tensors)
        check_adapter(adapter, shapes)
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from error
    return adapter


def _read_config(file: Path) -> dict[str, Any]:
    require_size(file, CONFIG_BYTES)
    content = json.loads(file.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise ValueError(f"{file.name} is a {type(content).__name__}: must be a JSON object")
    return content


def _read_tensors(file: Path, shapes: dict[str, tuple[int, int]]) -> dict[str, Tensor]:
    if file.with_suffix(".bin").exists() and not file.exists():
        raise ValueError("adapter_model.bin is a pickle, which can run code and is never opened: must be safetensors")
    numbers = sum(rows * columns for rows, columns in shapes.values())
    require_size(file, 8 * numbers + CONFIG_BYTES)  # float64, and the header
    return load_file(file)


def require_size(file: Path, most: int) -> None:
    """OSError or ValueError unless `file` is an ordinary file of at most `most` bytes, so that it can be read whole."""
    size = file.stat().st_size
    if not file.is_file():  # a pipe would be waited for
        raise ValueError(f"{file.name} must be an ordinary file")
    if size > most:
        raise ValueError(f"{file.name} has {size} bytes: must have at most {most}")


def _adapter(tensors: dict[str, Tensor]) -> Adapter:
    """Tensors by the names of the bank, as float32; ValueError for one that PEFT would not find, or not add up."""
    strangers = sorted(name for name in tensors if not name.startswith(PREFIX))
    if strangers:
        raise ValueError(f"adapter_model.safetensors holds unknown {strangers[:3]}: names must begin with {PREFIX!r}")
    for name, tensor in tensors.items():
        if tensor.dtype not in FLOATS:
            kinds = ", ".join(str(kind).removeprefix("torch.") for kind in FLOATS)
            raise ValueError(f"adapter tensor {name} is of {str(tensor.dtype).removeprefix('torch.')}: must be {kinds}")
    return {name.removeprefix(PREFIX): tensor.float() for name, tensor in tensors.items()}


def _check_config(peft_config: dict[str, Any], shapes: dict[str, tuple[int, int]], config: AdapterConfig) -> None:
    """ValueError, naming the setting, unless PEFT would apply an adapter so configured as a bank of `shapes` does."""
    layers = sorted({int(found[1]) for path in shapes if (found := LAYER.search(path))})
    modules = sorted({path.removesuffix(".weight").split(".")[-2] for path in shapes})
    ours: dict[str, list[Any]] = {"r": [config.rank], "lora_alpha": [config.alpha], "target_modules": [modules]}
    ours["layers_to_transform"] = [layers, *([None] if 0 in layers else [])]  # None: all layers, as the bank has
    for name, allowed in ours.items():
        found = peft_config.get(name)
        if isinstance(found, bool) or _ordered(found) not in allowed:
            raise ValueError(f"{name} = {_short(found)}: must be {' or '.join(map(repr, allowed))}")
    if "peft_type" not in peft_config:
        raise ValueError("peft_type is missing: must be 'LORA'")
    for name in sorted(peft_config.keys() - {*ours, *SAYS_NOTHING, "alora_invocation_tokens"}):
        found, neutral = peft_config[name], NEUTRAL.get(name, ())
        if found not in neutral if neutral else found:
            raise ValueError(f"{name} = {_short(found)}: must be {' or '.join(map(repr, neutral)) or 'absent'}")


def _short(found: object) -> str:
    text = repr(found)
    return text if len(text) <= 100 else f"{text[:100]}..."


def _ordered(found: object) -> object:
    """A list of one kind in order and without repetitions, as it is a set to PEFT; all else as it is."""
    is_plain = isinstance(found, list) and len({type(entry) for entry in found}) == 1 and type(found[0]) in (int, str)
    return sorted(set(found)) if is_plain and isinstance(found, list) else found


def _check_invocation(found: object, tokens: str, invocations: Mapping[str, int]) -> None:
    """ValueError unless the adapter acts from the token that belongs to adapter.tokens = `tokens`."""
    if found == [invocations[tokens]]:
        return
    for other, token in invocations.items():
        if found == [token]:
            raise ValueError(f"the adapter acts {ACTS[other]}: adapter.tokens must be {other!r}, not {tokens!r}")
    raise ValueError(
        f"alora_invocation_tokens = {_short(found)}: must be [{invocations[tokens]}], for it to act {ACTS[tokens]}"
    )
