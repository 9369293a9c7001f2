"""Every file of a run folder, harmed in ten ways, and every command that reads one.

The figures must be those of the unharmed folder, or the command refuses with one sentence, or it names the file and
goes on without it. Anything else is a fault: other figures without a word, a traceback, a hang. Two folders are harmed:
of a finished run, and of one that was killed while it wrote its last line of metrics. TensorBoard's files are left out,
since no command reads them.
"""

import json
import os
import random
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from benchmarks.reliability import faults
from benchmarks.reliability.case import Case, Finding, empty, spread, told
from benchmarks.reliability.compare import different
from benchmarks.reliability.forked import Ended, forked
from benchmarks.reliability.reading import COMMANDS, Figures
from benchmarks.reliability.subjects import Subject
from trainers import train

Harm = Callable[[bytes, random.Random], bytes | None]
LIMIT = 60.0
"""Seconds after which a command hangs."""
NAN = b"\x00\x00\xc0\x7f"
OTHER_TYPE = {b"F32": b"I32", b"F16": b"I16", b"BF16": b"F16", b"U8": b"I8", b"BOOL": b"U8", b"I64": b"F64"}
TYPES = (b"null", b"true", b'"x"', b"[]", b"{}", b"1e999", b"-1")


def cut(data: bytes, rng: random.Random) -> bytes:
    """The beginning alone; nothing is a harm of its own."""
    return data[: rng.randrange(1, max(2, len(data)))]


def flip(data: bytes, rng: random.Random) -> bytes:
    """One bit is another."""
    place = rng.randrange(len(data))
    return data[:place] + bytes([data[place] ^ 1 << rng.randrange(8)]) + data[place + 1 :]


def swap(data: bytes, rng: random.Random) -> bytes | None:
    """Two lines of a text, or two bytes."""
    parts: list[bytes] = (
        data.splitlines(keepends=True) if _is_text(data) else [data[i : i + 1] for i in range(len(data))]
    )
    if len(set(parts)) < 2:
        return None
    first = rng.randrange(len(parts))
    second = rng.choice([i for i in range(len(parts)) if parts[i] != parts[first]])
    parts[first], parts[second] = parts[second], parts[first]
    return b"".join(parts)


def number(data: bytes, rng: random.Random) -> bytes | None:
    """A number of a text is another; one of the tensors is NaN."""
    if not _is_text(data):
        begin = 8 + int.from_bytes(data[:8], "little")
        place = begin + 4 * rng.randrange(max(1, (len(data) - begin) // 4))
        return data[:place] + NAN + data[place + 4 :]
    return _replace(rb"(?<![\w.])-?\d+(\.\d+)?(e[+-]?\d+)?", data, rng, lambda old: b"%d" % rng.randrange(1, 99))


def type_(data: bytes, rng: random.Random) -> bytes | None:
    """A number of a text is something else; tensors are of another type."""
    if not _is_text(data):
        return _replace(rb'(?<="dtype":")\w+', data, rng, lambda old: OTHER_TYPE.get(old, b"I64"))
    return _replace(rb"(?<![\w.])-?\d+(\.\d+)?(e[+-]?\d+)?", data, rng, lambda old: rng.choice(TYPES))


def line_lost(data: bytes, rng: random.Random) -> bytes | None:
    """A text lacks a line."""
    return _on_lines(data, rng, lambda lines, i: lines[:i] + lines[i + 1 :])


def line_twice(data: bytes, rng: random.Random) -> bytes | None:
    """A text has a line twice."""
    return _on_lines(data, rng, lambda lines, i: lines[: i + 1] + lines[i:])


HARMS: dict[str, Harm | None] = {
    "cut": cut,
    "flip": flip,
    "swap": swap,
    "number": number,
    "type": type_,
    "line lost": line_lost,
    "line twice": line_twice,
    "empty": lambda data, rng: b"",
    "removed": None,
    "FIFO": None,
}
"""Bytes to other bytes, or None where there is nothing to harm in that way; the last two are done to the
file itself."""


def _is_text(data: bytes) -> bool:
    return b"\0" not in data


def _replace(pattern: bytes, data: bytes, rng: random.Random, new: Callable[[bytes], bytes]) -> bytes | None:
    found = list(re.finditer(pattern, data))
    if not found:
        return None
    one = rng.choice(found)
    return data[: one.start()] + new(one[0]) + data[one.end() :]


def _on_lines(data: bytes, rng: random.Random, change: Callable[[list[bytes], int], list[bytes]]) -> bytes | None:
    lines = data.splitlines(keepends=True)
    return b"".join(change(lines, rng.randrange(len(lines)))) if _is_text(data) and lines else None


def harmed(file: Path, way: str, seed: str) -> bytes | None:
    """What a file holds once it is harmed; None where there is nothing in it to be harmed in this way."""
    data, change, rng = file.read_bytes(), HARMS[way], random.Random(seed)
    if change is None:
        return b""
    tries = (change(data, rng) for _ in range(20))  # a number can be replaced by itself
    return next((new for new in tries if new != data), None)


def harm(file: Path, way: str, seed: str) -> None:
    """Harm a file, in which there must be something to harm in this way, at a place that follows from the seed."""
    new = harmed(file, way, seed)
    file.unlink()
    if way == "FIFO":
        os.mkfifo(file)
    elif HARMS[way] and new is not None:
        file.write_bytes(new)


def interrupted(subject: Subject, folder: Path) -> Path:
    """The folder of a run that was killed halfway through its third line of metrics."""
    run_dir = empty(folder) / "run"
    operations = enumerate(faults.recorded(subject.log), start=1)
    lines = [number for number, one in operations if one.kind == "write" and one.path.name == "metrics.jsonl"]

    def work() -> None:
        faults.strike(run_dir, lines[2], faults.KINDS["write"], lasting=True)
        train.main([*subject.keys, "--run_dir", str(run_dir)])

    assert forked(work, subject.limit).is_killed
    return run_dir


class Unharmed(NamedTuple):
    """What a command does to a run folder in which nothing is harmed."""

    run_dir: Path
    figures: Figures
    err: str  # what it says to standard error
    reads: set[str]  # the files of the folder that it opens; empty where faults.c is not there to see it


def unharmed(subject: Subject, run_dir: Path, command: str, folder: Path) -> Unharmed:
    """Call a command on a copy of a run folder, in an empty folder."""
    copy, log = folder / "run", folder / "log"
    shutil.copytree(run_dir, copy)

    def work() -> None:
        if faults.is_preloaded():
            faults.record(copy, log)
        COMMANDS[command].call(subject, copy, folder / "new")

    ended = forked(work, LIMIT)
    if ended.code:
        raise RuntimeError(f"{command}: fails on an unharmed folder: {told(ended)}")
    operations = faults.recorded(log) if log.is_file() else []
    reads = {one.path.relative_to(copy).as_posix() for one in operations if one.kind in ("open", "look")}
    return Unharmed(run_dir, COMMANDS[command].figures(ended, copy, folder / "new"), ended.err, reads)


def cases(
    subject: Subject, folders: Mapping[str, Path], commands: Sequence[str], work: Path, count: int, seed: int
) -> list[Case]:
    """Of all files, harms and commands `count`: at first with the commands that open the file, then with the others.

    folders: run folders of the subject, by what they are. Each kind of file and harm comes up with each command before
    one comes up again.
    """
    before = {
        (state, command): unharmed(subject, run_dir, command, empty(work / "unharmed"))
        for state, run_dir in folders.items()
        for command in commands
    }
    every = [
        (state, file, way, command)
        for (state, command), known in before.items()
        for file in _files(known.run_dir)
        for way in HARMS
        if harmed(known.run_dir / file, way, "") is not None
    ]
    opened = [one for one in every if one[1] in before[one[0], one[3]].reads]
    rng, others = random.Random(f"harm {seed}"), sorted({*every} - {*opened})
    ordered = [one for part in (opened, others) for one in spread(part, _kind, len(part), rng)]
    return [
        Case("harm", ", ".join(one), partial(_try, subject, before[one[0], one[3]], *one[1:], f"{seed} {one}"))
        for one in ordered[:count]
    ]


def _kind(one: tuple[str, str, str, str]) -> tuple[str, str, str]:
    """The kind of file, the harm and the command of a case."""
    _, file, way, command = one
    return re.sub(r"\d+", "", file), way, command


def _files(run_dir: Path) -> list[str]:
    """All files but TensorBoard's, and of an export two agents that stand for all."""
    names = sorted(path.relative_to(run_dir).as_posix() for path in run_dir.rglob("*") if path.is_file())
    skipped = re.compile(r"tb/|\.lock|adapters/.*/agent_0[12]/")
    return [name for name in names if not skipped.match(name)]


def _try(subject: Subject, before: Unharmed, file: str, way: str, command: str, seed: str, folder: Path) -> Finding:
    run_dir, new = folder / "run", folder / "new"
    shutil.copytree(before.run_dir, run_dir)
    harm(run_dir / file, way, seed)
    ended = forked(partial(COMMANDS[command].call, subject, run_dir, new), LIMIT)
    return judged(ended, file, before.figures, before.err, partial(COMMANDS[command].figures, ended, run_dir, new))


def judged(ended: Ended, file: str, expected: Figures, before: str, read: Callable[[], Figures]) -> Finding:
    """What a command on a folder with one harmed file came to. before: what it says of an unharmed one."""
    if ended.hung:
        return Finding("hang")
    if ended.code < 0:
        return Finding("crash", f"signal {-ended.code}")
    if ended.is_traceback:
        return Finding("traceback", told(ended))
    if ended.code:
        return Finding("refused", ended.refusal) if ended.refusal else Finding("traceback", told(ended))
    figures = read()
    is_page = "/runs" in figures
    changed = [name for name in different(expected, figures) if is_page or not _is_left_alone(name, file)]
    if is_page:
        return _judged_page(figures, changed)
    parts = (Path(file).name, Path(file).parent.name) if "/" in file else (file,)
    news = [line for line in ended.err.splitlines() if line not in before.splitlines()]
    is_named = any(part in line for line in news for part in parts)
    if is_named:
        return Finding("named", next(line for line in news if any(part in line for part in parts)))
    return Finding("silent", ", ".join(changed[:5])) if changed else Finding("unharmed")


def _is_left_alone(name: str, file: str) -> bool:
    """Whether it is the harmed file, in one of the folders of what was kept: whoever goes on need not read those."""
    return name == file and "/" in file


def _judged_page(figures: Figures, changed: list[str]) -> Finding:
    """Each part is as it was, or refused, or the list of runs says what is damaged; the other run is shown as ever."""
    if any(figures[name][0] >= 500 for name in changed):
        return Finding("traceback", f"{', '.join(changed)}: status 500")
    if {"/runs/0/metrics"} & set(changed) or figures["/runs"][0] != 200:
        return Finding("lost", "no run is shown any more")
    silent = [name for name in changed if figures[name][0] == 200]
    if silent and "damage" not in json.dumps(figures).lower():
        return Finding("silent", ", ".join(silent))
    return Finding("named" if silent else "refused", ", ".join(changed)) if changed else Finding("unharmed")
