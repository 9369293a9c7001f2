"""What all tests of the campaign share: a case, and what it came to."""

import random
import shutil
from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple, TypeVar

from benchmarks.reliability.compare import differences
from benchmarks.reliability.forked import Ended, forked
from benchmarks.reliability.subjects import Subject, words_to_go_on
from trainers import train

Item = TypeVar("Item")


class Finding(NamedTuple):
    """What a case came to."""

    outcome: str
    detail: str = ""


class Case(NamedTuple):
    """Something that may happen to a run."""

    test: str  # the name of its module
    name: str  # of its own within the test, and the same in each campaign with the same seed
    try_out: Callable[[Path], Finding]  # in an empty folder


GOOD = {
    *("equal", "unharmed"),  # as if nothing had happened; the other figures are those of the undisturbed
    *("refused", "named"),  # one sentence, and nothing is used; or something is used, and a sentence names the damage
    "said, then equal",  # a run that ended with one sentence, and went on equal once the cause was gone
    *("flat", "served"),  # of the soak, and of the crowd at the page
}
"""Those that are no fault. The others: lost, differs, silent, traceback, hang, crash, cut, grows, slowed, starved."""


def spread(items: Sequence[Item], kind: Callable[[Item], object], count: int, rng: random.Random) -> list[Item]:
    """A random choice in which each kind of items comes up before any comes up again."""
    groups: defaultdict[object, list[Item]] = defaultdict(list)
    for item in rng.sample(items, len(items)):
        groups[kind(item)].append(item)
    rounds = zip_longest(*groups.values())
    return [item for one in rounds for item in one if item is not None][:count]


def go_on(subject: Subject, run_dir: Path, had_checkpoint: bool = False) -> Finding:
    """Go on with a run after an accident, and compare it with the undisturbed one: equal, lost or differs."""
    words = words_to_go_on(subject, run_dir)
    if had_checkpoint and words and "--resume" not in words:
        return Finding("lost", "there was a checkpoint, and there is none any more")
    if words:
        ended = forked(lambda: train.main(words), subject.limit)
        if ended.code:
            return Finding("lost", told(ended))
    found = differences(subject.alone, run_dir)
    return Finding("differs", "; ".join(found[:5])) if found else Finding("equal")


def told(ended: Ended) -> str:
    """The last thing that a command said."""
    last = ended.err.strip().splitlines()[-1:]
    return ended.refusal or ("hung" if ended.hung else last[0][:300] if last else f"exit code {ended.code}")


def empty(folder: Path) -> Path:
    """The folder, with nothing in it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
