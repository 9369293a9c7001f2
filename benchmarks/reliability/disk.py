"""Disks that are full, broken or read-only, files that grow too large, descriptors that are gone.

From one operation of a run on, such operations fail for good, or just once. The run must end with one sentence and go
on equal once the cause is gone, or live through it and be equal.
"""

import errno
import random
from functools import partial
from pathlib import Path

from agents.files import remove_leftovers
from benchmarks.reliability import faults
from benchmarks.reliability.case import Case, Finding, go_on, spread, told
from benchmarks.reliability.compare import differences
from benchmarks.reliability.forked import forked
from benchmarks.reliability.subjects import Subject, first_checkpoint
from trainers import train

CHANGES = {"open", "write", "rename", "remove", "mkdir", "cut"}
FAILS = {
    "ENOSPC": {"open", "write", "mkdir", "rename"},
    "EIO": {*CHANGES, "sync", "look"},
    "EROFS": CHANGES,
    "EFBIG": {"write", "cut"},
    "EMFILE": {"open", "look"},
}
"""Which kinds of operations fail with which error."""


def cases(subject: Subject, count: int, rng: random.Random) -> list[Case]:
    """Each error at each operation that can fail with it, for good and once; `count` of them."""
    operations = faults.recorded(subject.log)
    every = [
        (error, operation.kind, number, lasting)
        for error, kinds in FAILS.items()
        for number, operation in enumerate(operations, start=1)
        for lasting in (True, False)
        if operation.kind in kinds
    ]
    chosen = spread(every, lambda one: one[:2], count, rng)
    return [
        Case(
            "disk",
            f"{error} {'from' if lasting else 'at'} {kind} {number}",
            partial(_try, subject, error, number, lasting),
        )
        for error, kind, number, lasting in chosen
    ]


def _try(subject: Subject, error: str, number: int, lasting: bool, folder: Path) -> Finding:
    run_dir, kinds = folder / "run", sum(faults.KINDS[kind] for kind in FAILS[error])

    def work() -> None:
        faults.strike(run_dir, number, kinds, getattr(errno, error), lasting=lasting)
        train.main([*subject.keys, "--run_dir", str(run_dir)])

    ended = forked(work, subject.limit)
    if ended.hung:
        return Finding("hang")
    if ended.code < 0:
        return Finding("crash", f"signal {-ended.code}")
    if ended.code == 0:
        remove_leftovers(run_dir / "checkpoints")  # what the disk did not let go, under a name that nobody reads
        found = differences(subject.alone, run_dir)
        return Finding("silent", "; ".join(found[:5])) if found else Finding("unharmed")
    after = go_on(subject, run_dir, number > first_checkpoint(subject))
    if after.outcome != "equal":
        return after
    return Finding("said, then equal", ended.refusal) if ended.refusal else Finding("traceback", told(ended))
