"""Read the logs of a run: every line is what the run wrote, and of the right kind. Imports no torch."""

from pathlib import Path
from typing import Annotated, Any

import msgspec

from trainers.records.manifest import (
    MANIFEST,
    MATCHES,
    Account,
    checked_log,
    checkpoints,
    read_manifest,
)
from trainers.records.sealed import DamagedRun, check_file, decoded

Count = Annotated[int, msgspec.Meta(ge=0)]
Number = int | float


class _Event(msgspec.Struct, tag_field="event"):
    generation: Count
    id: Count


class _Birth(_Event, tag="birth"):
    slot: Count
    parents: list[Count]
    operator: str
    in_rollout: bool
    seed: int
    hyperparameters: dict[str, Number]
    role: str = "agent"


class _Evaluation(_Event, tag="evaluation", rename={"first_return": "return"}):
    first_return: Number
    fitness: Number


class _Death(_Event, tag="death"):
    cause: str
    fitness: Number


class _Starvation(_Event, tag="starved"):
    world: Count
    step: Count


class _Adapters(msgspec.Struct):
    generation: Count
    ids: list[Count]
    layers: list[Count]
    modules: list[str]
    norms: list[list[list[Number]]]
    distances: list[list[Number]]


class _Match(msgspec.Struct):
    generation: Count
    sides: list[tuple[Count, Count]]
    food: list[tuple[Number, Number]]


KINDS: dict[str, Any] = {
    "metrics.jsonl": dict[str, Number | None],
    "lineage.jsonl": _Birth | _Evaluation | _Death | _Starvation,
    "adapters.jsonl": _Adapters,
    MATCHES: _Match,
}
"""What each line of a log must be."""


def read_log(run_dir: Path, log: str, *, only_complete: bool = False) -> list[dict[str, Any]]:
    """The lines of a log, without one that is still being written.

    only_complete: without those of a generation that is not complete, for which nothing vouches yet; unless none is.

    DamagedRun, naming the line or the generation, where there is no such log, where lines are missing or are not those
    that the run wrote, or where one is of the wrong kind.
    """
    accounts, file = confirmed(run_dir), run_dir / log  # in this order: a run that goes on writes logs first
    if not file.exists():
        raise DamagedRun(f"{file}: missing")
    found = checked_log(file, accounts).items()
    newest = max((a.generation for a in accounts), default=None) if only_complete else None
    lines = b"".join(text for generation, text in found if newest is None or generation <= newest).splitlines()
    return [_record(line, f"{file}, line {number + 1}", log) for number, line in enumerate(lines)]


def _record(line: bytes, where: str, log: str) -> dict[str, Any]:
    decoded(line, where, KINDS[log])
    return decoded(line, where, dict[str, Any])


def confirmed(run_dir: Path) -> list[Account]:
    """The accounts of all generations up to the newest checkpoint; DamagedRun where they are not what the run wrote."""
    while True:
        saved = checkpoints(run_dir)
        newest = max(saved, default=-1)
        try:
            return [a for a in read_manifest(run_dir, saved.get(newest)) if a.generation <= newest]
        except DamagedRun:
            if newest < 0 or saved[newest].exists():
                raise  # else a run that goes on has deleted it, and there are newer ones


def vouching(run_dir: Path) -> list[Path]:
    """What tells, besides a file itself, whether it is what the run wrote: the manifest and the newest checkpoint."""
    newest = [*checkpoints(run_dir).values()][-1:]
    return [run_dir / MANIFEST, run_dir / "checkpoints", *(folder / MANIFEST for folder in newest)]


def check_written(run_dir: Path, file: Path) -> None:
    """Raise DamagedRun where a file that the run has accounted for is not what the run wrote."""
    name = file.relative_to(run_dir).as_posix()
    for account in confirmed(run_dir):
        if name in account.files:
            check_file(file, account.files[name])
