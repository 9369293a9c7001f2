"""Power cuts: the folder of a run as a disk may hold it afterwards, made from the record of what was done to it.

The worst order that a journalled file system allows: all names, renames and sizes of emptied files are kept, and of
what is in files only what was synced. The rest is lost, half there, or zeros. Then nothing that a rename has put into
its place may be empty or cut, and the run must go on and be equal.
"""

import random
from functools import partial
from pathlib import Path

from benchmarks.reliability import faults
from benchmarks.reliability.case import Case, Finding, go_on
from benchmarks.reliability.faults import Operation
from benchmarks.reliability.subjects import Subject, first_checkpoint

UNSYNCED = ("lost", "half", "zeros")
"""What becomes of bytes that were written and not synced."""


class File:
    """A file in the memory of the system, and on the disk."""

    def __init__(self, inode: int):
        self.inode = inode
        self.data = self.synced = b""
        self.is_shown = False  # it was renamed and not written to since, so that whoever sees it takes it for whole

    def after_the_cut(self, unsynced: str) -> bytes:
        """What the disk holds."""
        rest = len(self.data) - len(self.synced)
        if rest <= 0 or unsynced == "lost":
            return self.synced
        return self.data[: len(self.synced) + rest // 2] if unsynced == "half" else self.synced + bytes(rest)


class Disk:
    """Files and folders by their paths, as operation after operation changes them."""

    def __init__(self) -> None:
        self.files: dict[Path, File] = {}
        self.folders: set[Path] = set()

    def apply(self, operation: Operation) -> None:
        """Do what was recorded."""
        if operation.kind == "mkdir":
            self.folders.add(operation.path)
        elif operation.kind == "remove":
            self.files = {path: file for path, file in self.files.items() if not path.is_relative_to(operation.path)}
            self.folders = {path for path in self.folders if not path.is_relative_to(operation.path)}
        elif operation.kind == "rename":
            self._rename(operation)
        elif operation.kind in ("open", "write", "cut", "sync") and operation.path not in self.folders:
            self._change(self._file(operation.path, operation.inode), operation)

    def _rename(self, operation: Operation) -> None:
        old, new = operation.path, operation.other
        moved = {new / path.relative_to(old): self.files.pop(path) for path in list(self.files) if _is_in(path, old)}
        for file in moved.values():
            file.is_shown = True
        self.files |= moved
        self.folders = {new / path.relative_to(old) if _is_in(path, old) else path for path in self.folders}

    def _file(self, path: Path, inode: int) -> File:
        """The file of a path; one with another name was renamed unseen."""
        if path not in self.files or self.files[path].inode != inode:
            former = next((name for name, file in self.files.items() if file.inode == inode), None)
            self.files[path] = self.files.pop(former) if former else File(inode)
        return self.files[path]

    def _change(self, file: File, operation: Operation) -> None:
        position = operation.position
        if operation.kind == "sync":
            file.synced = file.data
        elif operation.kind == "write":
            before = file.data[:position].ljust(position, b"\0")
            file.data = before + operation.data + file.data[position + len(operation.data) :]
            file.is_shown = False
        elif position >= 0:  # emptied, cut or made longer
            file.data = file.data[:position].ljust(position, b"\0")
            file.synced = file.synced[:position]

    def put(self, was: Path, folder: Path, unsynced: str) -> list[str]:
        """Make in `folder` what the disk holds of the folder `was`; returns what a rename shows and is not whole."""
        for path in self.folders:
            (folder / path.relative_to(was)).mkdir(parents=True, exist_ok=True)
        broken = []
        for path, file in self.files.items():
            content = file.after_the_cut(unsynced)
            (folder / path.relative_to(was)).write_bytes(content)
            if file.is_shown and content != file.data:
                broken.append(path.relative_to(was).as_posix())
        return broken


def _is_in(path: Path, folder: Path) -> bool:
    return path.is_relative_to(folder)


def cases(subject: Subject, count: int, rng: random.Random) -> list[Case]:
    """Cuts spread over a run, with each fate of what was not synced by turns."""
    total = len(faults.recorded(subject.log))
    moments = [int((i + rng.random()) * total / count) for i in range(count)]
    return [
        Case(
            "power",
            f"{subject.name}, after operation {moment}, {UNSYNCED[i % 3]}",
            partial(_try, subject, moment, UNSYNCED[i % 3]),
        )
        for i, moment in enumerate(moments)
    ]


def _try(subject: Subject, moment: int, unsynced: str, folder: Path) -> Finding:
    disk, run_dir = Disk(), folder / "run"
    for operation in faults.recorded(subject.log)[:moment]:
        disk.apply(operation)
    broken = disk.put(subject.alone, run_dir, unsynced)
    found = go_on(subject, run_dir, moment > first_checkpoint(subject))
    if found.outcome == "equal" and broken:
        return Finding("cut", ", ".join(broken[:5]))
    return found
