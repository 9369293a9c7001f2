"""SIGKILL: at random moments, before an operation on a file, halfway through a write, and again while resuming.

Whatever is killed must go on as if nothing had happened: equal in metrics (but times), lineage, adapters, tensors,
recordings and results. A run killed before its first checkpoint is begun anew.
"""

import random
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from benchmarks.reliability import faults
from benchmarks.reliability.case import Case, Finding, go_on, told
from benchmarks.reliability.forked import Ended, forked
from benchmarks.reliability.subjects import Subject, words_to_go_on
from trainers import train

ALL_KINDS = sum(faults.KINDS.values())


def cases(subjects: Sequence[Subject], count: int, rng: random.Random) -> list[Case]:
    """Kills of each subject by turns, in each way by turns; every other one is killed again on resuming."""
    ways = ("operation", "halfway", "moment") if faults.is_preloaded() else ("moment",)
    made = []
    for i in range(count):
        subject, way, again = subjects[i % len(subjects)], ways[i // len(subjects) % len(ways)], rng.random() < 0.5
        places = [rng.random() for _ in range(1 + again)]
        name = f"{subject.name}, {way}" + " and again" * again + f" {i}"
        made.append(Case("kills", name, partial(_try, subject, way, places)))
    return made


def _try(subject: Subject, way: str, places: Sequence[float], folder: Path) -> Finding:
    run_dir = folder / "run"
    words: list[str] | None = [*subject.keys, "--run_dir", str(run_dir)]
    had_checkpoint = False
    for place in places:
        if words:
            ended = _killed(subject, run_dir, words, way, place)
            if ended.code and not ended.is_killed:
                return Finding("lost", told(ended))
        had_checkpoint |= any((run_dir / "checkpoints").glob("gen_*"))
        words = words_to_go_on(subject, run_dir)
    return go_on(subject, run_dir, had_checkpoint)


def _killed(subject: Subject, run_dir: Path, words: Sequence[str], way: str, place: float) -> Ended:
    """A run killed at a place between 0, its beginning, and 1, the end of one that nobody disturbs."""
    if way == "moment":
        return forked(lambda: train.main(list(words)), subject.limit, kill_after=place * subject.seconds)

    def work() -> None:
        nth = 1 + int(place * len(faults.recorded(subject.log)))
        kinds = faults.KINDS["write"] if way == "halfway" else ALL_KINDS
        faults.strike(run_dir, nth, kinds, lasting=way == "halfway")
        train.main(list(words))

    return forked(work, subject.limit)
