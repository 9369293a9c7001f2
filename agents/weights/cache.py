"""What is kept between runs: made once, whole or not at all, and checked whenever it is used.

The last file of a folder in the cache is a list of the others with their SHA-256, in the format of `sha256sum`, so that
`sha256sum --check SHA256SUMS` tells the same. A folder that differs from its list is made anew.
"""

import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
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

    It is made where there is none, and made anew where a file of it is not as it was written. UserError where a file
    stands in it that is not of it, and where a damaged folder cannot be deleted.
    """
    if folder.is_dir():
        fault = damage(folder)
        if fault is None:
            return folder
        log.warning(f"{fault}: {folder} is made anew")
        _discard(folder)
    log.info(doing)
    made(folder.parent)
    with whole_folder(folder, shared=True) as box:
        make(box)
        write_sums(box)
    return folder


def damage(folder: Path) -> str | None:
    """Which file of a folder is not as its list says, in a few words; None if all are.

    UserError for a visible file that the list does not have: somebody put it there, so it is not ours to delete.
    """
    try:
        expected = read_sums(folder)
    except (OSError, ValueError):
        return f"{folder / SUMS} is missing or damaged"
    present = set(files_in(folder))
    for name in sorted(name for name in present - {*expected} if not name.startswith(".")):
        raise UserError(f"{folder / name}: must be moved away, as it is not of what the cache made there")
    for name, digest in expected.items():
        file = folder / name
        if not file.is_file():
            return f"{file} is missing"
        if (found := sha256_of(file)) != digest:
            return f"{file} is damaged (SHA-256 is {found}, must be {digest})"
    return None


def _discard(folder: Path) -> None:
    """Delete a folder; at its place it is gone at once, whatever kills the process."""
    try:
        room = tempfile.TemporaryDirectory(".damaged", f".{folder.name}.", folder.parent)
        with room as box, suppress(FileNotFoundError):  # another process was faster
            folder.replace(Path(box) / folder.name)
    except OSError as error:
        raise UserError(f"{folder}: is damaged and cannot be deleted ({error}); delete it to have it anew") from error
