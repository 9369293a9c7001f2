"""Checkpoints: atomic folders of safetensors and JSON, never pickle.

A checkpoint is written beside its place and renamed into it, so that a folder of that name is always whole, whatever
killed the run.
"""

import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from agents.types import UserError


class DamagedRun(UserError):
    """A run folder lacks something, or something in it cannot be read; the message names it."""


def save_checkpoint(run_dir: Path, generation: int, tensors: dict[str, Tensor], state: dict[str, Any]) -> Path:
    """Write the checkpoint of a generation, atomically, and return its folder."""
    folder = run_dir / "checkpoints" / f"gen_{generation:04d}"
    with whole(folder) as box:
        save_file(tensors, box / "tensors.safetensors")
        (box / "state.json").write_text(json.dumps(state))
        for file in box.iterdir():
            sync(file)
    sync(folder.parent)
    return folder


@contextmanager
def whole(folder: Path) -> Iterator[Path]:
    """A new folder beside its place, to be filled within the block; it takes the place if the block ends well."""
    box = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(box, ignore_errors=True)
    box.mkdir(parents=True)
    yield box
    shutil.rmtree(folder, ignore_errors=True)
    box.rename(folder)


def sync(path: Path) -> None:
    """Have the disk hold what was written, so that a renamed folder is whole even after a power cut.

    Windows opens no folders, and needs none to be synced; some file systems of networks refuse it too.
    """
    if path.is_dir():
        with suppress(OSError):
            _sync(path, os.O_RDONLY)
    else:
        _sync(path, os.O_RDWR)  # Windows syncs only what may be written


def _sync(path: Path, flags: int) -> None:
    handle = os.open(path, flags)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


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
