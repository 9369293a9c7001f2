"""Files and folders that are there whole or not at all, whatever kills the process that writes them.

Each is written beside its place, handed to the disk, and renamed into its place. Imports no torch.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def whole_file(file: Path, *, shared: bool = False) -> Iterator[Path]:
    """A path to write to within the block, which becomes `file` if the block ends well; its folder is made at need.

    It takes the place of an older file. shared: other processes may be making the same one, as in the cache; then each
    has a path of its own, and what another put there meanwhile may stay.
    """
    with _beside(file, shared) as partial:
        yield partial
        sync(partial)
        _move(partial, file, shared)


@contextmanager
def whole_folder(folder: Path, *, shared: bool = False) -> Iterator[Path]:
    """A new folder to fill within the block, which becomes `folder` if the block ends well; as `whole_file`.

    It takes the place of an older folder, but not of one that another process put there where they are `shared`.
    """
    with _beside(folder, shared) as partial:
        partial.mkdir()
        yield partial
        for path in [*partial.rglob("*"), partial]:
            sync(path)
        if not shared:
            shutil.rmtree(folder, ignore_errors=True)
        _move(partial, folder, shared)


def sync(path: Path) -> None:
    """Have the disk hold what was written, so that what is renamed afterwards is whole even after a power cut.

    Windows opens no folders, and needs none to be synced; some file systems of networks refuse it too. Windows syncs
    only what may be written.
    """
    if path.is_dir():
        with suppress(OSError):
            _sync(path, os.O_RDONLY)
    else:
        _sync(path, os.O_RDWR if os.access(path, os.W_OK) else os.O_RDONLY)


def _sync(path: Path, flags: int) -> None:
    handle = os.open(path, flags)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _beside(path: Path, shared: bool) -> Iterator[Path]:
    """A path in the same folder at which there is nothing, neither before nor after the block."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if shared:
        with tempfile.TemporaryDirectory(".partial", f".{path.name}.", path.parent) as box:
            yield Path(box) / path.name
        return
    partial = path.with_name(f".{path.name}.partial")
    _remove(partial)  # of a process that was killed
    try:
        yield partial
    finally:
        _remove(partial)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _move(partial: Path, path: Path, shared: bool) -> None:
    try:
        partial.replace(path)
    except OSError:  # another process was faster, or has the file open; what it made is the same
        if not (shared and path.exists()):
            raise
    sync(path.parent)
