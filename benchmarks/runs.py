"""Runs of the main program for a comparison: made if they are not there, gone on with if they were interrupted."""

import argparse
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from benchmarks.statistics import interquartile_mean, spread
from trainers.config import TrainConfig
from trainers.parser import parse, read_config

HELD_OUT = 32
"""Held-out worlds in which a run is judged; each seed has its own."""
QUIET = ["--model.threads", "1", "--log.episode_every", "0", "--log.recordings_mb", "0", "--log.adapters_every", "1000"]
Item = TypeVar("Item")


def options_of(about: str | None, name: str, generations: int) -> argparse.ArgumentParser:
    """The options that all comparisons have; `name` is that of their folder of runs and of their page."""
    parser = argparse.ArgumentParser(
        description=about, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--generations", type=int, default=generations)
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, each on one thread (2)")
    parser.add_argument("--runs", type=Path, default=Path("runs") / name)
    parser.add_argument("--page", type=Path, default=Path("docs") / f"{name}.md")
    return parser


class Run(NamedTuple):
    """One run of a comparison."""

    run_dir: Path
    seed: int
    arguments: Sequence[object]  # of the main program

    def live(self) -> None:
        """Train, or go on training, unless it is done. RuntimeError where another run is in its place."""
        words = [str(word) for word in (*QUIET, *self.arguments, "--run_dir", self.run_dir, "--seed", self.seed)]
        if (self.run_dir / "config.yaml").is_file():
            wanted, found = parse(words)[0], self.config
            if replace(found, model=replace(found.model, dtype=wanted.model.dtype)) != wanted:
                raise RuntimeError(f"{self.run_dir}: was made with other settings; name another folder for the runs")
        if (self.run_dir / "results.json").is_file():
            return
        if any((self.run_dir / "checkpoints").glob("gen_*")):
            command("trainers.train", "--resume", self.run_dir)
        else:
            shutil.rmtree(self.run_dir, ignore_errors=True)
            command("trainers.train", *words)

    @property
    def config(self) -> TrainConfig:
        """What it was told to do."""
        return read_config(self.run_dir)

    @property
    def last(self) -> dict[str, Any]:
        """The comparison with the yardsticks after the last generation."""
        found: dict[str, Any] = json.loads((self.run_dir / "results.json").read_text(encoding="utf-8"))["last"]
        return found

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """The figures of each generation."""
        return [json.loads(line) for line in (self.run_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def command(module: str, *arguments: object) -> str:
    """Run a module of this project; what it printed, or RuntimeError with the end of what it said where it fails."""
    words = [sys.executable, "-m", module, *map(str, arguments)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)}\n{done.stderr[-2000:]}")
    return done.stdout


def all_at(jobs: int, work: Callable[[Item], None], items: Iterable[Item]) -> None:
    """Do the work, so many items at a time; the first failure is raised."""
    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(work, items))


def curve(run: Run) -> list[dict[str, float]]:
    """By generation the steps for learning and in all, the seconds so far, and the food as a share of the planner's."""
    planner, seconds, points = run.last["food_eaten"]["planner"]["mean"], 0.0, []
    learns = run.config.learn.algorithm != "none"
    for line in run.metrics:
        seconds += line["wall_s"]
        steps = {"learning": line["env_steps"] * learns, "all": line["env_steps"] + line["fitness_steps"]}
        points.append(steps | {"seconds": seconds, "share": line["food_eaten_mean"] / planner})
    return points


def interval(scores: Sequence[float]) -> dict[str, float]:
    """Interquartile mean over seeds and its 95 % bootstrap interval, or of fewer than five the lowest and highest."""
    column = np.array(scores)[:, None]
    low, high = spread(column)
    return {"iqm": interquartile_mean(column), "low": low, "high": high, "runs": len(scores)}


def told(figure: Mapping[str, float], form: str = ".0%") -> str:
    """An interval as text."""
    return f"{figure['iqm']:{form}} [{figure['low']:{form}}, {figure['high']:{form}}]"


def plain(chart: Any) -> None:
    """Give a chart of generations whole numbers along, and no frame."""
    from matplotlib.ticker import MaxNLocator

    chart.xaxis.set_major_locator(MaxNLocator(integer=True))
    chart.spines[["top", "right"]].set_visible(False)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Markdown."""
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows))


def put(page: Path, name: str, text: str) -> None:
    """Put text in its place in a page, between the comments `name` and `end`; ValueError where it has no place."""
    check_places(page, name)
    page.write_text(
        _place(name).sub(lambda match: f"{match[1]}\n{text}\n\n{match[2]}", page.read_text(encoding="utf-8")),
        encoding="utf-8",
    )


def check_places(page: Path, *names: str) -> None:
    """Before hours of work: ValueError where a page is missing or has no place of such a name."""
    for name in names:
        if not page.is_file() or not _place(name).search(page.read_text(encoding="utf-8")):
            raise ValueError(f"--page {page}: must be a file with a place <!-- {name} --> ... <!-- end -->")


def _place(name: str) -> re.Pattern[str]:
    return re.compile(rf"(<!-- {name} -->\n).*?(<!-- end -->)", re.DOTALL)
