"""Checkpoints: atomic folders of safetensors and JSON, never pickle.

A checkpoint is written beside its place and renamed into it, so that a folder of that name is always whole, whatever
killed the run.
"""

import json
import re
import shutil
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from agents.files import whole_folder
from agents.types import UserError


class DamagedRun(UserError):
    """A run folder lacks something, or something in it cannot be read; the message names it."""


def save_checkpoint(run_dir: Path, generation: int, tensors: dict[str, Tensor], state: dict[str, Any]) -> Path:
    """Write the checkpoint of a generation, atomically, and return its folder."""
    folder = run_dir / "checkpoints" / f"gen_{generation:04d}"
    with whole_folder(folder) as box:
        save_file(tensors, box / "tensors.safetensors")
        (box / "state.json").write_text(json.dumps(state))
    return folder


def checkpoints(run_dir: Path) -> dict[int, Path]:
    """The checkpoints of a run by generation, oldest first."""
    return by_generation(run_dir / "checkpoints")


def by_generation(folder: Path) -> dict[int, Path]:
    """The folders gen_0000, gen_0001, ... in a folder by their number, in order."""
    matches = ((re.fullmatch(r"gen_(\d+)", entry.name), entry) for entry in folder.glob("gen_*"))
    return dict(sorted((int(match[1]), entry) for match, entry in matches if match))


def prune_checkpoints(run_dir: Path, keep_newest: int, best: int) -> None:
    """Delete all checkpoints but the newest few and that of the best generation."""
    found = checkpoints(run_dir)
    for generation in list(found)[:-keep_newest]:
        if generation != best:
            shutil.rmtree(found[generation])


def load_checkpoint(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and state of a checkpoint; raises DamagedRun, naming the file, if one cannot be read."""
    try:
        state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DamagedRun(f"{folder / 'state.json'}: damaged or missing ({error})") from error
    try:
        return load_file(folder / "tensors.safetensors"), state
    except (OSError, SafetensorError) as error:
        raise DamagedRun(f"{folder / 'tensors.safetensors'}: damaged or missing ({error})") from error
