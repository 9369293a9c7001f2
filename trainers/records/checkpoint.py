"""Checkpoints: atomic, sealed folders of safetensors and JSON, never pickle.

A checkpoint is written beside its place and renamed into it, so that a folder of that name is always whole, whatever
killed the run. It also holds copies of the run's small files and of its generation's lines of the logs, by which those
can be mended.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from agents.files import remove_folder, whole_folder
from agents.sums import write_sums
from agents.types import log
from trainers.records.manifest import MOST_OF_LOG, check_checkpoint, checkpoints
from trainers.records.sealed import DamagedRun, read_json


def save_checkpoint(
    run_dir: Path,
    generation: int,
    tensors: dict[str, Tensor],
    state: dict[str, Any],
    copies: Mapping[str, bytes] | None = None,
) -> Path:
    """Write the checkpoint of a generation, atomically, and return its folder. copies: of other files, by name."""
    folder = run_dir / "checkpoints" / f"gen_{generation:04d}"
    with whole_folder(folder) as box:
        save_file(tensors, box / "tensors.safetensors")
        (box / "state.json").write_bytes(json.dumps(state, allow_nan=False).encode())
        for name, content in (copies or {}).items():
            (box / name).write_bytes(content)
        write_sums(box)
    return folder


def prune_checkpoints(run_dir: Path, keep_newest: int, best: int) -> None:
    """Delete all checkpoints but the newest few and that of the best generation."""
    found = checkpoints(run_dir)
    for generation in list(found)[:-keep_newest]:
        if generation != best:
            remove_folder(found[generation])


def load_checkpoint(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and state of a checkpoint; raises DamagedRun, naming the file, if one is not what the run wrote."""
    check_checkpoint(folder)
    state = read_json(folder / "state.json", dict[str, Any], MOST_OF_LOG)
    try:
        return load_file(folder / "tensors.safetensors"), state
    except (OSError, SafetensorError) as error:
        raise DamagedRun(f"{folder / 'tensors.safetensors'}: damaged or missing ({error})") from error


def load_newest(run_dir: Path) -> tuple[int, dict[str, Tensor], dict[str, Any]]:
    """Generation, tensors and state of the newest checkpoint that is whole; a damaged one is said and passed over.

    Raises DamagedRun if there is none.
    """
    damage = ""
    found = checkpoints(run_dir)
    while found:
        generation, folder = found.popitem()
        try:
            return generation, *load_checkpoint(folder)
        except DamagedRun as error:
            if not folder.exists():  # a run that goes on has deleted it, and there are newer ones
                found = checkpoints(run_dir)
                continue
            damage = damage or str(error)
            log.warning(f"warning: {error}; the checkpoint before it is used, if there is one")
    raise DamagedRun(damage or f"{run_dir / 'checkpoints'}: holds no checkpoint")
