"""SHA-256 of files, and of all files in a folder, by which it is noticed when one has changed. Imports no torch."""

import hashlib
import re
import time
from collections.abc import Iterable
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from threading import Lock, Thread

from agents.files import read_bytes, regular_file

SUMS = "SHA256SUMS"
MOST_BYTES = 16 << 20
"""Of a list of sums."""
SETTLED = 2.0
"""Seconds after which a file counts as written: clocks of file systems are coarse, two writes can have one time."""

AT_ONCE = 4 << 20
"""Bytes between which a thread that hashes must wait for its turn, while another imports."""
_one_at_a_time = Lock()


def sha256_of(file: Path) -> str:
    """SHA-256 of a regular file, in hexadecimal. A process reads a file once for it, unless somebody writes to it.

    OSError where it is missing, or no regular file.
    """
    found = file.stat()
    changed = max(found.st_mtime_ns, found.st_ctime_ns)
    if time.time_ns() - changed < SETTLED * 1e9:
        return _read_sha256(file)
    state = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
    with _one_at_a_time:  # who asks for what `hash_ahead` is hashing waits for that
        return _known_sha256(file, state)


def hash_ahead(files: Iterable[Path]) -> Thread:
    """Begin to hash files in a thread, so that `sha256_of` has less to do, or nothing, when it is asked for them."""

    def work() -> None:
        for file in files:
            with suppress(OSError):  # who asks for it later is told
                sha256_of(file)

    thread = Thread(target=work, name="hash_ahead", daemon=True)
    thread.start()
    return thread


@lru_cache(256)
def _known_sha256(file: Path, _state: tuple[int, ...]) -> str:
    return _read_sha256(file)


def _read_sha256(file: Path) -> str:
    digest, buffer = hashlib.sha256(), memoryview(bytearray(min(AT_ONCE, file.stat().st_size + 1)))
    with regular_file(file) as opened:
        while count := opened.readinto(buffer):
            digest.update(buffer[:count])
    return digest.hexdigest()


def write_sums(folder: Path) -> None:
    """Write SHA256SUMS into a folder, of all its other files, as `sha256sum --check SHA256SUMS` reads it."""
    lines = [f"{sha256_of(folder / name)}  {name}\n" for name in files_in(folder)]
    (folder / SUMS).write_text("".join(lines), encoding="utf-8", newline="\n")


def read_sums(folder: Path) -> dict[str, str]:
    """The SHA-256 of each file of a folder, by name; OSError or ValueError where SHA256SUMS cannot be read."""
    sums = {}
    for line in read_bytes(folder / SUMS, MOST_BYTES).decode("utf-8").splitlines():
        pair = re.fullmatch(r"([0-9a-f]{64})  (\S.*)", line)
        if not pair:
            raise ValueError(f"{folder / SUMS} is not as sha256sum writes it")
        sums[pair[2]] = pair[1]
    return sums


def files_in(folder: Path) -> list[str]:
    """The names of all that is in a folder and no folder, and of all that is in folders in it, but for the sums."""
    paths = [path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()]
    return sorted({path.relative_to(folder).as_posix() for path in paths} - {SUMS})
