"""How success in BabyAI-Text grows with experience: each generation of a run, in rooms that training never had.

    python -m benchmarks.babyai_curve RUN_DIR [RUN_DIR ...] [--episodes N] [--plot FILE] [--json FILE]

RUN_DIR: a run of `python -m trainers.train` in envs:BabyAI-MixedTrainLocal-v0. The agents of each generation whose
adapters were exported (`log.adapters_every`) play each of the five tasks in at least N held-out rooms (100), with all
else as in `benchmarks.babyai_words`, "as trained". Steps of the run that `init_from` names come before a run's own.

A plot has these points with their intervals, success while learning as a line, where the agents acted themselves, and
what GLAM publishes (Carta et al. 2023, arXiv:2302.02662). Needs the extra `worlds`, and matplotlib for a plot.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from agents.backends import require_installed
from agents.types import UserError
from benchmarks.babyai_words import CONDITIONS, HEADER, Counted, held_out_env, row, success, together, trained_codec
from trainers.cli.command_line import refuse_no_folder, run_command
from trainers.cli.parser import read_config
from trainers.config import TrainConfig
from trainers.population import Population
from trainers.records.manifest import by_generation
from trainers.records.opening import open_run
from trainers.records.reading import read_log
from trainers.records.run_folder import machine
from trainers.records.sealed import check_folder
from trainers.variants import switched_on
from trainers.variants.distillation_config import DistillationConfig

GLAM = ((250_000, 0.8), (600_000, 0.9))
"""Agent-steps and success, of reward alone."""
PICTURES = (".png", ".svg", ".pdf")
"""What a plot can be."""


class Point(NamedTuple):
    """A generation of a run."""

    generation: int
    steps: int  # that agents had learned from, those of the run that it began with included
    found: dict[str, Counted]  # by task

    @property
    def all(self) -> Counted:
        """All tasks together."""
        return together(self.found)


def points(
    run_dir: Path, population: Population, config: TrainConfig, episodes: int, before: int = 0
) -> Iterator[Point]:
    """Each exported generation of an open run, judged by that many episodes of each task, the oldest first.

    before: steps that its founders had learned from.
    """
    codec = trained_codec(run_dir, population, config, episodes)
    steps = {line["generation"]: line["env_steps"] for line in read_log(run_dir, "metrics.jsonl")}
    for generation, folder in by_generation(run_dir / "adapters").items():
        check_folder(folder)
        for slot in range(config.env.agents):
            population.policy.network.load_adapter(slot, folder / f"agent_{slot:02d}")
        found = success(population.policy, codec, held_out_env(config), CONDITIONS["as trained"], episodes)
        yield Point(generation, before + steps[generation], found)


def steps_before(config: TrainConfig) -> int:
    """Agent-steps that the founders of a run had learned from; UserError where the run that they are of is gone."""
    if not config.init_from:
        return 0
    try:
        founders, lines = Path(config.init_from), read_log(Path(config.init_from), "metrics.jsonl")
        return steps_before(read_config(founders)) + lines[-1]["env_steps"]
    except (UserError, OSError, IndexError) as error:
        raise UserError(f"init_from = {config.init_from!r}: must be there, as its steps count too ({error})") from error


def while_learning(run_dir: Path, config: TrainConfig, before: int) -> list[tuple[int, float]]:
    """Agent-steps, and the success of the rollouts learned from, where the agents acted and no expert."""
    lines = [line for line in read_log(run_dir, "metrics.jsonl") if "rollout_success_mean" in line]
    section = switched_on(config).get("distillation")
    led = section.led_generations if isinstance(section, DistillationConfig) else 0
    own = [line for line in lines if line["generation"] >= led]
    return [(before + line["env_steps"], line["rollout_success_mean"]) for line in own]


def draw(curves: dict[str, tuple[list[Point], list[tuple[int, float]]]], file: Path) -> None:
    """A picture of points with intervals and lines, a colour for each run, beside GLAM's published marks."""
    from matplotlib.figure import Figure  # here, so that only those who want a picture need it

    figure = Figure(figsize=(8, 4.4), layout="constrained")
    axes = figure.subplots()
    for number, (name, (judged, learning)) in enumerate(curves.items()):
        colour = f"C{number}"
        if learning:
            axes.plot(*zip(*learning, strict=True), color=colour, linewidth=1, alpha=0.7, label=f"{name}, learning")
        if judged:
            counted = [point.all for point in judged]
            bars = [abs(edge - one.won / one.episodes) for one in counted for edge in one.interval()]
            axes.errorbar(
                [point.steps for point in judged],
                [one.won / one.episodes for one in counted],
                yerr=[bars[0::2], bars[1::2]],
                color=colour,
                fmt="o-",
                markersize=4,
                label=f"{name}, held-out rooms",
            )
    axes.plot(*zip(*GLAM, strict=True), "k*", markersize=9, label="GLAM, 780 M parameters, reward alone")
    axes.set(xlabel="agent-steps learned from", ylabel="success in five tasks", ylim=(0, 1), xlim=(0, None))
    axes.grid(alpha=0.3)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right center", fontsize=8)
    figure.savefig(file, dpi=120)


def main(argv: Sequence[str] | None = None) -> None:
    """Print a table for each run, a line a generation."""
    options = _options(argv)
    require_installed("benchmarks.babyai_curve", "worlds", "minigrid")
    if options.plot:
        require_installed(f"--plot {options.plot}", "draw", "matplotlib")
    curves: dict[str, tuple[list[Point], list[tuple[int, float]]]] = {}
    for run_dir in options.run_dirs:
        population, config, _ = open_run(run_dir)
        before, judged = steps_before(config), []
        print(f"{run_dir}; success in per cent, with 95 % intervals\n{HEADER}")
        for point in points(run_dir, population, config, options.episodes, before):
            judged.append(point)
            print(row(f"{point.steps:,} agent-steps", point.found), flush=True)
        curves[run_dir.name] = judged, while_learning(run_dir, config, before)
    if options.json:
        found = {name: _as_json(*curve) for name, curve in curves.items()}
        options.json.write_text(json.dumps({"machine": machine(), "runs": found}, indent=1))
    if options.plot:
        draw(curves, options.plot)


def _as_json(judged: list[Point], learning: list[tuple[int, float]]) -> dict[str, Any]:
    held_out = [
        point._asdict() | {"found": {task: one._asdict() for task, one in point.found.items()}} for point in judged
    ]
    return {"held_out": held_out, "while_learning": learning}


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.babyai_curve")
    parser.add_argument("run_dirs", type=Path, nargs="+", metavar="RUN_DIR")
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(argv)
    if options.episodes < 1:
        parser.error(f"--episodes {options.episodes}: must be 1 or more")
    names = [run_dir.name for run_dir in options.run_dirs]
    if len(set(names)) < len(names):
        parser.error(f"RUN_DIR {' '.join(names)}: must have different names, by which curves are told apart")
    if options.plot and options.plot.suffix not in PICTURES:
        parser.error(f"--plot {options.plot}: must end with {', '.join(PICTURES)}")
    refuse_no_folder(parser, options.json)
    refuse_no_folder(parser, options.plot)
    return options


if __name__ == "__main__":
    run_command(main)
