"""What each generation of a run wrote: manifest.jsonl, a line for each, from which any change is noticed.

A line has the SHA-256 of the generation's lines in each log and of each file that it wrote, and of the line before it;
a checkpoint has the SHA-256 of its own generation's line. So whoever has a whole checkpoint can check all that was
written up to it. Imports no torch.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import msgspec

from agents.files import read_bytes
from agents.sums import SUMS, sha256_of
from trainers.records.sealed import (
    DamagedRun,
    check_folder,
    decoded,
    read_document,
    read_json,
    read_text,
    sha256,
    unreadable,
)

MATCHES = "matches.jsonl"
LOGS = ("metrics.jsonl", "lineage.jsonl", "adapters.jsonl", MATCHES)
"""The logs that a run may have; each line names its generation."""
MANIFEST = "manifest.jsonl"
MOST_OF_LOG = 1 << 30
"""Bytes of a log, or of a checkpoint's state."""


class Account(msgspec.Struct, forbid_unknown_fields=True):
    """What one generation wrote, each with its SHA-256."""

    generation: Annotated[int, msgspec.Meta(ge=0)]
    lines: dict[str, str]  # those of this generation in each log
    files: dict[str, str]  # by path in the run folder; of a folder its SHA256SUMS
    previous: str  # the line before this one; "" for the first


class _Line(msgspec.Struct):
    generation: Annotated[int, msgspec.Meta(ge=0)]


def checkpoints(run_dir: Path) -> dict[int, Path]:
    """The checkpoints of a run by generation, oldest first."""
    return by_generation(run_dir / "checkpoints")


def by_generation(folder: Path) -> dict[int, Path]:
    """The folders gen_0000, gen_0001, ... in a folder by their number, in order."""
    matches = ((re.fullmatch(r"gen_(\d{4,9})", entry.name), entry) for entry in folder.glob("gen_*"))
    return dict(sorted((int(match[1]), entry) for match, entry in matches if match))


def check_checkpoint(folder: Path) -> None:
    """Raise DamagedRun, naming the file, unless a checkpoint is what this run wrote for this generation."""
    check_folder(folder)
    state, run = folder / "state.json", folder.parents[1] / "run.json"
    generation = read_json(state, _Line, MOST_OF_LOG).generation
    if folder.name != f"gen_{generation:04d}":
        raise DamagedRun(f"{folder}: is of generation {generation}")
    if (copy := folder / run.name).exists() and _is_whole(run) and read_text(copy) != read_text(run):
        raise DamagedRun(f"{folder}: is of another run, or {run} is")


def _is_whole(document: Path) -> bool:
    try:
        return bool(read_document(document, dict))
    except DamagedRun:
        return False


def account(run_dir: Path, generation: int, lines: dict[str, bytes], previous: str) -> bytes:
    """The line of a generation. lines: of each log; previous: SHA-256 of the line before."""
    sums = {log: sha256(text) for log, text in lines.items()}
    files = {file.relative_to(run_dir).as_posix(): sha256_of(file) for file in _files_of(run_dir, generation)}
    return msgspec.json.encode(Account(generation, sums, files, previous)) + b"\n"


def _files_of(run_dir: Path, generation: int) -> list[Path]:
    number = f"{generation:04d}"
    # No pattern with the number and a wildcard in it: fnmatch keeps those it has compiled, one for each generation.
    files = [file for file in run_dir.glob("recordings/*.safetensors") if file.stem.endswith(f"_{number}")]
    files += run_dir.glob(f"hall/gen_{number}.safetensors")
    files += [*run_dir.glob(f"adapters/gen_{number}/{SUMS}"), *run_dir.glob(f"model/gen_{number}/{SUMS}")]
    return sorted(files) + [run_dir / "first.json"] * (generation == 0)


def read_manifest(run_dir: Path, checkpoint: Path | None = None) -> list[Account]:
    """The accounts of generations one after the other; DamagedRun where a line is not what the run wrote.

    The first is that of generation 0, unless damage of earlier lines was mended. checkpoint: the newest one, which must
    have the same line of its generation.
    """
    file = run_dir / MANIFEST
    lines, accounts = whole_lines(file), list[Account]()
    for number, line in enumerate(lines):
        where = f"{file}, line {number + 1}"
        accounts.append(decoded(line, where, Account))
        if number and accounts[-1].previous != sha256(lines[number - 1]):
            raise DamagedRun(f"{where}: damaged, or the line before it is")
        if accounts[-1].generation != accounts[0].generation + number:
            raise DamagedRun(f"{where}: damaged, as it is of generation {accounts[-1].generation}")
    if accounts and bool(accounts[0].previous) != bool(accounts[0].generation):
        raise DamagedRun(f"{file}: lacks its first lines")
    if checkpoint and not file.exists():
        raise DamagedRun(f"{file}: missing, or of a run by an earlier version")
    if checkpoint and not set(whole_lines(checkpoint / MANIFEST)) & set(lines):
        raise DamagedRun(f"{file}: lacks the line of {checkpoint.name}, or has another")
    return accounts


def whole_lines(file: Path) -> list[bytes]:
    """The lines of a file, each with its end; one that is still being written is left out. [] if there is no file."""
    try:
        lines = read_bytes(file, MOST_OF_LOG).splitlines(keepends=True)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise unreadable(file, error) from error
    return [line for line in lines if line.endswith(b"\n")]


def lines_by_generation(file: Path) -> tuple[dict[int, bytes], list[str]]:
    """The lines of a log, those of each generation together, by generation, and what is wrong with some.

    A line that cannot be read stays with the lines before it.
    """
    found: dict[int, bytes] = {}
    wrong, generation, newest = [], 0, 0
    for number, line in enumerate(whole_lines(file)):
        where = f"{file}, line {number + 1}"
        try:
            generation = decoded(line, where, _Line).generation
            if generation < newest:
                wrong.append(f"{where}: damaged, as generation {generation} stands after {newest}")
            newest = max(newest, generation)
        except DamagedRun as error:
            wrong.append(str(error))
        found[generation] = found.get(generation, b"") + line
    return dict(sorted(found.items())), wrong


def damaged_generations(log: str, found: Mapping[int, bytes], accounts: Sequence[Account]) -> list[int]:
    """The generations whose lines in a log are not those that the run wrote, as far as there are accounts."""
    nothing = sha256(b"")
    sums = {generation: sha256(text) for generation, text in found.items()}
    return [a.generation for a in accounts if sums.get(a.generation, nothing) != a.lines.get(log, nothing)]


def checked_log(file: Path, accounts: Sequence[Account]) -> dict[int, bytes]:
    """The lines of a log by generation; DamagedRun where some are missing, or are not those that the run wrote."""
    found, wrong = lines_by_generation(file)
    if wrong:
        raise DamagedRun(wrong[0])
    if damaged := damaged_generations(file.name, found, accounts):
        raise DamagedRun(f"{file}: lines of generation {named(damaged)} are missing, or not those that the run wrote")
    return found


def named(generations: Sequence[int]) -> str:
    """As they are said in a sentence."""
    shown = ", ".join(map(str, generations[:5]))
    return shown + (f" and {len(generations) - 5} more" if len(generations) > 5 else "")
