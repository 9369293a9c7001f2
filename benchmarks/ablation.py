"""Does learning help, does evolution, do both? What is left of the whole method without one of its parts.

    python -m benchmarks.ablation [--presets meadow ...] [--conditions NAME ...] [--seeds N] [--generations N] [--short]
                                  [--jobs N] [--runs DIR] [--out DIR] [--finished]

All conditions have the same seeds. Each run is an ordinary one of `trainers.train` in a folder of its own under --runs.
A finished run is not made again and an interrupted one is resumed: for other code or defaults, name another folder.
Then all runs are read, and `results.md`, `results.json` and pictures are written to --out.

A score is the food that the last generation of a run eats in held-out worlds, as a share of what the full-knowledge
planner eats in them. The tables show interquartile means over seeds with 95 % stratified bootstrap intervals, how often
a run of the whole method beats one of the condition, and which learns how fast (`benchmarks.report`). Needs the `dev`
extra. --short: one seed, few generations, the main conditions, in less than ten minutes. --finished: make no run, read
those that are finished.
"""

import argparse
import json
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.controls import random_weights_folder
from benchmarks.report import MLP, WHOLE, report
from benchmarks.runs import HELD_OUT_EPISODES, Run, learning_curve, run_module, run_parallel
from envs.presets import PRESETS
from evolution.config import EvolutionConfig
from trainers.cli.command_line import run_command

CONDITIONS: dict[str, list[str]] = {
    "both": [],
    "learning only": ["--evolution.enabled", "false"],
    "learning only, all steps": [  # one world is left to measure in, the others are learned in
        *("--evolution.enabled", "false", "--evolution.episodes", "1"),
        *("--rollouts_per_generation", f"{EvolutionConfig().episodes}"),
    ],
    "4 lives, 5 worlds of fitness": ["--rollouts_per_generation", "4", "--evolution.episodes", "5"],
    "evolution only": ["--learn.algorithm", "none", "--evolution.mutation", "safe", "--evolution.mutation_kl", "0.1"],
    "random parents": ["--evolution.selection", "random"],
    "2 worlds of fitness": ["--evolution.episodes", "2"],
    "mean": ["--evolution.crossover", "mean"],
    "components": ["--evolution.crossover", "uniform_components"],
    "merge": ["--evolution.crossover", "merge"],
    "mutation only": ["--evolution.crossover", "clone"],
    "crossover only": ["--evolution.mutation_std", "0", "--evolution.hyperparameter_factor", "1"],
    "baldwinian": ["--inheritance.kind", "baldwinian"],
    "reinforce": ["--learn.algorithm", "reinforce"],
    "online": ["--learn.algorithm", "online", "--learn.learning_rate", "5e-4"],
    "replay": ["--replay.steps", "512"],
    "births in life": ["--steady_state.enabled", "true"],
    # Not in bfloat16: through shuffled weights its rounding grows so large that such a model is refused
    "random weights": ["--model.name", "{random_weights}", "--model.dtype", "float32"],
    "no memory": ["--env.codec", "benchmarks.controls:Forgetful"],
    "adapters on all tokens": ["--adapter.tokens", "text"],
    "MLP": ["--sees", "view"],
    "MLP, sees the map": ["--sees", "map"],
}
"""What each condition changes in the default config; for an MLP, the options of `benchmarks.mlp`."""
MAIN = (WHOLE, "learning only", "evolution only", "random weights")


class Job(NamedTuple):
    """One run."""

    preset: str
    condition: str
    seed: int
    run_dir: Path


def jobs(options: argparse.Namespace) -> list[Job]:
    """All runs, seed by seed, so that an interrupted comparison has whole seeds."""
    return [
        Job(
            preset,
            name,
            seed,
            options.runs / f"{options.generations}_generations" / preset / name.replace(" ", "_") / f"seed_{seed}",
        )
        for seed in range(options.seeds)
        for preset in options.presets
        for name in options.conditions
    ]


def run(job: Job, options: argparse.Namespace) -> None:
    """Train, or resume training, unless it is finished; RuntimeError with the run's error where it fails."""
    if job.condition.startswith(MLP):
        return run_mlp(job, options)
    changes = [word.format(**options.words) for word in CONDITIONS[job.condition]]
    world = ["--env.preset", job.preset, "--generations", options.generations, "--held_out_episodes", HELD_OUT_EPISODES]
    Run(job.run_dir, job.seed, [*world, *changes]).train()
    if job.condition == WHOLE and not (job.run_dir / "words.json").is_file():
        run_module(
            "benchmarks.words", job.run_dir, "--episodes", HELD_OUT_EPISODES, "--json", job.run_dir / "words.json"
        )
    result = read(job)
    print(f"{job.preset:8s} {job.condition:24s} seed {job.seed}  {result['score']:.0%}", flush=True)


def is_finished(job: Job) -> bool:
    """Whether a run is finished."""
    return (job.run_dir / ("mlp.json" if job.condition.startswith(MLP) else "results.json")).is_file()


def run_mlp(job: Job, options: argparse.Namespace) -> None:
    """Train a plain network on the most steps that a run of the language model can take, fitness included."""
    file = job.run_dir / "mlp.json"
    if not file.is_file():
        job.run_dir.mkdir(parents=True, exist_ok=True)
        steps = options.generations * 20 * 128 * (1 + EvolutionConfig().episodes)
        settings = ["--preset", job.preset, "--steps", steps, "--seed", job.seed, "--episodes", HELD_OUT_EPISODES]
        settings += ["--worlds", 2, "--epochs", 10]  # the best that were tried for so few steps
        run_module("benchmarks.mlp", *settings, *CONDITIONS[job.condition], "--json", file)


def read(job: Job) -> dict[str, Any]:
    """The score of a finished run, those of its baselines, and by generation its steps, seconds and food."""
    if job.condition.startswith(MLP):
        return read_mlp(job)
    run = Run(job.run_dir, job.seed, [])
    last = run.evaluation
    planner = last["food_eaten"]["planner"]["mean"]
    baselines = {who: figure["mean"] / planner for who, figure in last["food_eaten"].items() if who != "agents"}
    words = job.run_dir / "words.json"
    others = json.loads(words.read_text(encoding="utf-8")) if words.is_file() else {}
    return {
        "preset": job.preset,
        "condition": job.condition,
        "seed": job.seed,
        "score": last["share_of_planner"],
        "baselines": baselines | {name: food / planner for name, food in others.items()},
        "curve": learning_curve(run),
    }


def read_mlp(job: Job) -> dict[str, Any]:
    """The same of a plain network, whose steps are all for learning."""
    found = json.loads((job.run_dir / "mlp.json").read_text(encoding="utf-8"))
    points = [
        {"learning": r["steps"], "all": r["steps"], "seconds": r["seconds"], "share": r["share_of_planner"]}
        for r in found["curve"]
    ]
    about = {"preset": job.preset, "condition": job.condition, "seed": job.seed, "baselines": {}}
    return about | {"score": points[-1]["share"], "curve": points}


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """The options; --short fills in what it stands for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--presets", nargs="+", default=["meadow"], choices=sorted(PRESETS))
    parser.add_argument("--conditions", nargs="+", default=list(CONDITIONS), choices=CONDITIONS, metavar="NAME")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--generations", type=int, default=20)
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--finished", action="store_true")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, each on one thread (2)")
    parser.add_argument("--runs", type=Path, default=Path("runs/ablation"))
    parser.add_argument("--out", type=Path, default=Path("docs"))
    options = parser.parse_args(argv)
    if options.short:
        options.seeds, options.generations, options.conditions = 1, 8, list(MAIN)
        options.runs, options.out = options.runs / "short", options.runs / "short"
    return options


def main(argv: list[str] | None = None) -> None:
    """Run what is missing, then write the results."""
    options = parse(argv)
    needs_random = "random weights" in options.conditions and not options.finished
    options.words = {"random_weights": random_weights_folder() if needs_random else ""}  # which conditions refer to
    wanted = jobs(options)
    if options.finished:
        wanted = [job for job in wanted if is_finished(job)]
    else:
        run_parallel(options.jobs, lambda job: run(job, options), wanted)
    results = [read(job) for job in wanted]
    changes = {name: CONDITIONS[name] for name in options.conditions if name in {job.condition for job in wanted}}
    report(results, options.out, options.presets, options.generations, changes)


if __name__ == "__main__":
    run_command(main)
