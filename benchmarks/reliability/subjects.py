"""The runs that are disturbed: of a tiny Llama in ten kinds, and of the real model."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.reliability import faults
from benchmarks.reliability.forked import Ended, forked
from benchmarks.tiny_llama import write_tiny_llama
from trainers import train

WORLD = [
    *("--model.threads", "1", "--model.dtype", "float32", "--held_out_episodes", "1", "--generations", "3"),
    *("--env.agents", "4", "--env.width", "7", "--env.height", "7", "--env.food", "6", "--env.max_steps", "8"),
    *("--evolution.parents", "2", "--evolution.elites", "1", "--evolution.episodes", "1"),
    *("--log.episode_every", "2", "--log.adapters_every", "2", "--log.checkpoints", "1"),
]
KINDS = {
    "plain": "",
    "text adapters": "--adapter.tokens text",
    "online": "--learn.algorithm online --learn.learning_rate 0.001",
    "replay": "--replay.steps 30",
    "social": "--social.imitate neighbour",
    "steady state": "--steady_state.enabled true",
    "reptile": "--inheritance.kind reptile",
    "coevolution": "--coevolution.enabled true --env.populations 2",
    "taught": "--learn.algorithm distil --distillation.teacher planner",
    "whole model": "--learn.algorithm distil --distillation.teacher planner --distillation.trains model "
    "--evolution.enabled false",
}
"""Settings, by the kind of run; all but the first are variants of the core, or other ways to learn."""


class Subject(NamedTuple):
    """A run to be disturbed, and the same one undisturbed."""

    name: str
    keys: tuple[str, ...]  # of the main program
    limit: float  # seconds after which a run of it hangs
    seconds: float  # that it took undisturbed
    alone: Path  # the folder of the undisturbed run
    log: Path  # what that one did to its files, where faults.c is there to see it


def tiny(work: Path, kind: str = "plain") -> Subject:
    """A run of a tiny Llama, of one of KINDS."""
    model = work / "tiny-llama"
    if not (model / "config.json").is_file():
        forked(lambda: write_tiny_llama(model), 60)  # in a child: it computes with torch
    adapter = ["--adapter.top_layers", "2", "--adapter.rank", "2"]
    keys = ["--model.name", str(model), *WORLD, *adapter, *KINDS[kind].split()]
    return _subject(work, f"tiny {kind}", keys, limit=60)


def real(work: Path) -> Subject:
    """A run of SmolLM2-135M in the same small world."""
    return _subject(work, "real", WORLD, limit=600)


def _subject(work: Path, name: str, keys: Sequence[str], limit: float) -> Subject:
    alone = work / name.replace(" ", "-")
    log, time = (alone.with_name(alone.name + ending) for ending in (".log", ".json"))
    if not time.is_file():  # a campaign that goes on must have the same operations to count
        shutil.rmtree(alone, ignore_errors=True)
        ended = start(keys, alone, limit, log)
        if ended.code:
            raise RuntimeError(f"{name}: does not run even undisturbed: {ended.err}")
        time.write_text(json.dumps(ended.seconds), encoding="utf-8")
    return Subject(name, tuple(keys), limit, json.loads(time.read_text(encoding="utf-8")), alone, log)


def start(keys: Sequence[str], run_dir: Path, limit: float, log: Path | None = None) -> Ended:
    """A new run in a child, recorded if there is a `log` and faults.c to write it."""

    def work() -> None:
        if log and faults.is_preloaded():
            faults.record(run_dir, log)
        train.main([*keys, "--run_dir", str(run_dir)])

    return forked(work, limit)


def first_checkpoint(subject: Subject) -> int:
    """The number of the operation, counted from 1, that put the first checkpoint into its place."""
    operations = enumerate(faults.recorded(subject.log), start=1)
    return next(number for number, one in operations if one.kind == "rename" and one.other.parent.name == "checkpoints")


def words_to_go_on(subject: Subject, run_dir: Path) -> list[str] | None:
    """With what the main program is called after an accident; None where the run had ended all the same.

    A run of which no generation was complete is deleted, as it says, and begun anew.
    """
    if (run_dir / "results.json").is_file():
        return None
    if any((run_dir / "checkpoints").glob("gen_*")):
        return ["--resume", str(run_dir)]
    shutil.rmtree(run_dir, ignore_errors=True)
    return [*subject.keys, "--run_dir", str(run_dir)]
