"""Runs of the main program for a comparison. A finished run is not made again; an interrupted one is resumed."""

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from trainers.cli.parser import parse, read_config
from trainers.config import TrainConfig
from trainers.records.reading import read_log
from trainers.records.sealed import read_document

HELD_OUT_EPISODES = 32
"""Held-out worlds in which a run is evaluated; each seed has its own."""
QUIET = ["--model.threads", "1", "--log.episode_every", "0", "--log.recordings_mb", "0", "--log.adapters_every", "1000"]
Item = TypeVar("Item")


class Run(NamedTuple):
    """One run of a comparison."""

    run_dir: Path
    seed: int
    arguments: Sequence[object]  # of the main program

    def train(self) -> None:
        """Train, or resume training, unless the run is finished.

        Raises RuntimeError where training fails, or where the folder holds a run with other settings.
        """
        words = [str(word) for word in (*QUIET, *self.arguments, "--run_dir", self.run_dir, "--seed", self.seed)]
        if (self.run_dir / "config.yaml").is_file():
            wanted, found = parse(words)[0], self.config
            asked = replace(
                found.model, dtype=wanted.model.dtype, device=wanted.model.device
            )  # it may have been `auto`
            if replace(found, model=asked) != wanted:
                raise RuntimeError(f"{self.run_dir}: was made with other settings; name another folder for the runs")
        if (self.run_dir / "results.json").is_file():
            return
        if any((self.run_dir / "checkpoints").glob("gen_*")):
            run_module("trainers.train", "--resume", self.run_dir)
        else:
            shutil.rmtree(self.run_dir, ignore_errors=True)
            run_module("trainers.train", *words)

    @property
    def config(self) -> TrainConfig:
        """The settings that the run was made with."""
        return read_config(self.run_dir)

    @property
    def evaluation(self) -> dict[str, Any]:
        """The agents of the last generation and the baselines in held-out worlds, from results.json."""
        found: dict[str, Any] = read_document(self.run_dir / "results.json", dict[str, Any])["last"]
        return found

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """The figures of each generation."""
        return read_log(self.run_dir, "metrics.jsonl")


def run_module(module: str, *arguments: object) -> str:
    """Run a module of this project in a process of its own and return what it printed.

    Raises RuntimeError with the end of its standard error where it fails.
    """
    words = [sys.executable, "-m", module, *map(str, arguments)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)}\n{done.stderr[-2000:]}")
    return done.stdout


def run_parallel(jobs: int, work: Callable[[Item], None], items: Iterable[Item]) -> None:
    """Call `work` for each item, `jobs` of them at a time; the first failure is raised."""
    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(work, items))


def learning_curve(run: Run) -> list[dict[str, float]]:
    """A point for each generation: steps `learning` and `all`, `seconds` so far, and `share` of the planner's food."""
    planner, seconds, points = run.evaluation["food_eaten"]["planner"]["mean"], 0.0, []
    learns = run.config.learn.algorithm != "none"
    for line in run.metrics:
        seconds += line["wall_s"]
        steps = {"learning": line["env_steps"] * learns, "all": line["env_steps"] + line["fitness_steps"]}
        points.append(steps | {"seconds": seconds, "share": line["food_eaten_mean"] / planner})
    return points
