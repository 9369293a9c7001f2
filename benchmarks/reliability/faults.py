"""Python's side of faults.c: compile it, let it record what is done to the files of a folder, let it strike.

Numbers of operations repeat from run to run but for TensorBoard's threads, which write when they come to it.
"""

import ctypes
import os
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

SOURCE = Path(__file__).with_name("faults.c")
KINDS = {"open": 1, "write": 2, "sync": 4, "rename": 8, "remove": 16, "mkdir": 32, "cut": 64, "look": 128}
"""Kinds of operations, by the numbers that faults.c gives them; a look is an open that cannot write."""


class Operation(NamedTuple):
    """Something that was done to a file."""

    kind: str  # a key of KINDS, or failed: by itself, as to open what is not there
    inode: int
    position: int  # of a write; the size after a cut; 0 where an open empties the file, else -1
    path: Path
    other: Path  # the new path of a rename
    data: bytes  # that were written


def library(folder: Path) -> Path | None:
    """Compile faults.c into a folder; None where there is no C compiler, or no LD_PRELOAD as on a Mac or Windows."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or not Path("/proc/self/fd").exists():
        return None
    made = folder / "faults.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", made, SOURCE, "-ldl"], check=True)
    return made


def is_preloaded() -> bool:
    """Whether this process was started with the library."""
    return hasattr(ctypes.CDLL(None), "faults_strike")


def record(folder: Path, log: Path) -> None:
    """From now on, write to `log` (and `log`.data) what this process does to the files of a folder."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND
    files = [os.open(path, flags, 0o600) for path in (log, _data_of(log))]
    ctypes.CDLL(None).faults_record(os.fsencode(folder), *files)


def strike(folder: Path, nth: int, kinds: int, error: int = 0, *, lasting: bool = False) -> None:
    """Have the first operation of some kinds (a sum of KINDS) from the nth on, which counts from 1, fail.

    error: an errno, with `lasting` also for all that come later; 0: the process is killed before that operation, with
    `lasting` halfway through it, if it is a write.
    """
    ctypes.CDLL(None).faults_strike(os.fsencode(folder), ctypes.c_long(nth), kinds, error, int(lasting))


def recorded(log: Path) -> list[Operation]:
    """What was recorded, in its order."""
    operations, data = [], _data_of(log).read_bytes()
    for line in log.read_text(encoding="utf-8").splitlines():
        kind, inode, position, length, path, other = line.split("\t")
        written, data = data[: int(length)], data[int(length) :]
        first, second = (Path(os.path.normpath(name)) for name in (path, other))
        operations.append(Operation(kind, int(inode), int(position), first, second, written))
    return operations


def _data_of(log: Path) -> Path:
    return log.with_name(log.name + ".data")
