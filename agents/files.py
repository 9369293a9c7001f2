"""Files and folders that are there whole or not at all, whatever kills the process that writes them.

Each is written beside its place, handed to the disk, and renamed into its place. What is read is a regular file of
bounded size. Imports no torch.
"""

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BufferedReader
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
            remove_folder(folder)
        _move(partial, folder, shared)


def remove_folder(folder: Path) -> None:
    """Delete a folder, if it is there: under its name it is whole, or gone."""
    if folder.is_dir():
        doomed = folder.with_name(f".{folder.name}.removed")
        _remove(doomed)  # of a process that was killed
        folder.replace(doomed)
        shutil.rmtree(doomed, ignore_errors=True)


def remove_leftovers(folder: Path) -> None:
    """Delete what processes that were killed left in a folder: files and folders that are half made or half removed.

    Nobody else may be writing there.
    """
    for path in list(folder.glob(".*")):
        if path.suffix in (".partial", ".removed"):
            _remove(path)


@contextmanager
def regular_file(file: Path, most_bytes: int | None = None) -> Iterator[BufferedReader]:
    """Open a file for reading, in bytes; OSError where it is none, or larger than `most_bytes`.

    A pipe or a device is not opened for reading: that could wait for ever, or never end.
    """
    flags = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)
    with open(os.open(file, flags), "rb") as opened:
        status = os.fstat(opened.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError(f"{file} is no regular file")
        if most_bytes is not None and status.st_size > most_bytes:
            raise OSError(f"{file} has {status.st_size} bytes: must have {most_bytes} at most")
        yield opened


def read_bytes(file: Path, most_bytes: int) -> bytes:
    """What is in a regular file; OSError where it is none, or larger than `most_bytes`."""
    with regular_file(file, most_bytes) as opened:
        return opened.read(most_bytes)


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
