"""What is kept between runs: made once, whole or not at all, and checked whenever it is used.

The last file of a folder in the cache is a list of the others with their SHA-256, in the format of `sha256sum`, so that
`sha256sum --check SHA256SUMS` tells the same. A folder that differs from its list is made anew. It is deleted only if
its list names all that is in it; else it is renamed, as somebody's own files may be among the others.
"""

import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from pathlib import Path

import platformdirs

from agents.files import whole_folder
from agents.sums import SUMS, files_in, read_sums, sha256_of, write_sums
from agents.types import UserError, log


class ModelNotFound(UserError):
    """A model's weights are missing, unreachable or not what they should be; the message says what to do."""


def cache_dir() -> Path:
    """Folder that keeps fetched models: `TERRARIUM_CACHE`, else the user's cache directory."""
    chosen = os.environ.get("TERRARIUM_CACHE")
    return Path(chosen).expanduser() if chosen else Path(platformdirs.user_cache_dir("terrarium"))


def made(folder: Path) -> Path:
    """A folder of the cache, made at need; UserError where no file can be written into it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        message = f"TERRARIUM_CACHE = {str(cache_dir())!r}: must be a folder in which files can be written"
        raise UserError(f"{message} ({error})") from error
    return folder


def kept_folder(folder: Path, make: Callable[[Path], None], doing: str) -> Path:
    """`folder` of the cache, with what `make` writes into the folder that it is given; `doing` says what takes so long.

    It is made where there is none, and made anew where a file of it is not as it was written. Other files in it are
    left alone. UserError where a damaged folder can be neither deleted nor renamed.
    """
    if folder.is_dir():
        fault = damage(folder)
        if fault is None:
            return folder
        log.warning(f"{fault}: {folder} is made anew")
        if _lists_all(folder):
            _discard(folder)
        else:
            old = _set_aside(folder)
            log.warning(f"note: it may hold files of yours, so it was renamed to {old}; delete that if you need none")
    log.info(doing)
    made(folder.parent)
    with whole_folder(folder, shared=True) as box:
        make(box)
        write_sums(box)
    return folder


def damage(folder: Path) -> str | None:
    """Which file of a folder is not as its list says, in a few words; None if all are that the list has."""
    try:
        expected = read_sums(folder)
    except (OSError, ValueError):
        expected = {}
    if not expected:  # or it was cut short, after which nothing would be checked
        return f"{folder} has no {SUMS} that can be read, so it was written by an earlier version, or is damaged"
    for name, digest in expected.items():
        file = folder / name
        if not file.is_file():
            return f"{file} is missing"
        if (found := sha256_of(file)) != digest:
            return f"{file} is damaged (SHA-256 is {found}, must be {digest})"
    return None


def _lists_all(folder: Path) -> bool:
    """Whether a folder has a list, and nothing that its list does not have."""
    try:
        return set(files_in(folder)) <= set(read_sums(folder))
    except (OSError, ValueError):
        return False


def _set_aside(folder: Path) -> Path:
    """Rename a folder to `<name>.old`, or to `<name>.old2` and so on where that is taken; returns the new path."""
    names = (folder.with_name(f"{folder.name}.old{number if number > 1 else ''}") for number in count(1))
    old = next(path for path in names if not os.path.lexists(path))
    try:
        with suppress(FileNotFoundError):  # another process was faster
            folder.rename(old)
    except OSError as error:
        raise UserError(f"{folder}: cannot be renamed ({error}); rename or delete it to have it anew") from error
    return old


def _discard(folder: Path) -> None:
    """Delete a folder; at its place it is gone at once, whatever kills the process."""
    try:
        room = tempfile.TemporaryDirectory(".damaged", f".{folder.name}.", folder.parent)
        with room as box, suppress(FileNotFoundError):  # another process was faster
            folder.replace(Path(box) / folder.name)
    except OSError as error:
        raise UserError(f"{folder}: is damaged and cannot be deleted ({error}); delete it to have it anew") from error
