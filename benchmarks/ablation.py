"""Does learning help, does evolution, do both? Every condition with the same seeds; what is left without a part.

    python -m benchmarks.ablation [--presets meadow ...] [--conditions NAME ...] [--seeds N] [--generations N] [--short]
                                  [--jobs N] [--runs DIR] [--out DIR]

Each run is an ordinary one of `trainers.train` in a folder of its own under --runs; what is finished is not done again,
and what was interrupted goes on: for other code or defaults, name another folder. Then all runs are read, and
`results.md`, `results.json` and pictures go to --out.

A score is the food eaten in held-out worlds by a run's last generation, as a share of what the full-knowledge planner
eats in them. Told are interquartile means over seeds with 95 % stratified bootstrap intervals
(`benchmarks.statistics`), and how often a run of the whole method beats one of the condition. Needs the `dev` extra.
--short: one seed, few generations, the main conditions, in less than ten minutes.
"""

import argparse
import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.controls import random_weights_folder
from benchmarks.statistics import bootstrap, interquartile_mean, probability_of_improvement
from envs.presets import PRESETS
from trainers.config import EvolutionConfig

FEW = 3
"""Runs below which there is no telling of intervals."""
HELD_OUT = 32
"""Held-out worlds in which a run is judged; each seed has its own."""

CONDITIONS: dict[str, list[str]] = {
    "both": [],
    "learning only": ["--evolution.enabled", "false"],
    "evolution only": ["--learn.algorithm", "none", "--evolution.mutation", "safe", "--evolution.mutation_kl", "0.1"],
    "random parents": ["--evolution.selection", "random"],
    "mean": ["--evolution.crossover", "mean"],
    "components": ["--evolution.crossover", "components"],
    "merge": ["--evolution.crossover", "merge"],
    "mutation only": ["--evolution.crossover", "clone"],
    "crossover only": ["--evolution.mutation_rate", "0", "--evolution.hyperparameter_factor", "1"],
    "baldwinian": ["--evolution.inheritance", "baldwinian"],
    "reinforce": ["--learn.algorithm", "reinforce"],
    "online": ["--learn.algorithm", "online", "--learn.learning_rate", "5e-4"],
    "replay": ["--learn.replay", "512"],
    "births in life": ["--evolution.births_in_life", "true"],
    "random weights": ["--model.name", "{random_weights}"],
    "adapters on all tokens": ["--adapter.tokens", "text"],
    "MLP": [],
}
"""What is changed in the default config, by name; an MLP is no run of ours."""
WHOLE, MLP = "both", "MLP"
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
    """Train, or go on training, unless it is done; RuntimeError with what the run said where it fails."""
    if job.condition == MLP:
        return run_mlp(job, options)
    if not (job.run_dir / "results.json").is_file():
        if any((job.run_dir / "checkpoints").glob("gen_*")):
            command("trainers.train", "--resume", job.run_dir)
        else:
            shutil.rmtree(job.run_dir, ignore_errors=True)
            changed = [word.format(random_weights=options.random_weights) for word in CONDITIONS[job.condition]]
            arguments = ["--run_dir", job.run_dir, "--seed", job.seed, "--env.preset", job.preset, *changed]
            arguments += ["--generations", options.generations, "--held_out_episodes", HELD_OUT]
            arguments += ["--model.threads", 1, "--log.episode_every", 0, "--log.adapters_every", 1000]
            command("trainers.train", *arguments)
    if job.condition == WHOLE and not (job.run_dir / "words.json").is_file():
        command("benchmarks.words", job.run_dir, "--episodes", HELD_OUT, "--json", job.run_dir / "words.json")
    result = read(job)
    print(f"{job.preset:8s} {job.condition:24s} seed {job.seed}  {result['score']:.0%}", flush=True)


def run_mlp(job: Job, options: argparse.Namespace) -> None:
    """Train a plain network on the most steps that a run of the language model can take, fitness included."""
    file = job.run_dir / "mlp.json"
    if not file.is_file():
        job.run_dir.mkdir(parents=True, exist_ok=True)
        steps = options.generations * 20 * 128 * (1 + options.fitness_episodes)
        settings = ["--preset", job.preset, "--steps", steps, "--seed", job.seed, "--episodes", HELD_OUT]
        command("benchmarks.mlp", *settings, "--json", file)


def command(module: str, *arguments: object) -> None:
    """Run a module of this project; RuntimeError with the end of what it said where it fails."""
    words = [sys.executable, "-m", module, *map(str, arguments)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)}\n{done.stderr[-2000:]}")


def read(job: Job) -> dict[str, Any]:
    """What a finished run found: its score, and by generation its steps, seconds and food."""
    if job.condition == MLP:
        return read_mlp(job)
    last = json.loads((job.run_dir / "results.json").read_text())["last"]
    lines = [json.loads(line) for line in (job.run_dir / "metrics.jsonl").read_text().splitlines()]
    planner, seconds = last["food_eaten"]["planner"]["mean"], 0.0
    curve = []
    for line in lines:
        seconds += line["wall_s"]
        steps = {"learning": line["env_steps"], "all": line["env_steps"] + line["fitness_steps"]}
        curve.append(steps | {"seconds": seconds, "share": line["food_eaten_mean"] / planner})
    yardsticks = {who: figure["mean"] / planner for who, figure in last["food_eaten"].items() if who != "agents"}
    others = json.loads((job.run_dir / "words.json").read_text()) if (job.run_dir / "words.json").is_file() else {}
    return {
        "preset": job.preset,
        "condition": job.condition,
        "seed": job.seed,
        "score": last["share_of_planner"],
        "yardsticks": yardsticks | {name: food / planner for name, food in others.items()},
        "curve": curve,
    }


def read_mlp(job: Job) -> dict[str, Any]:
    """The same of a plain network, whose steps are all for learning."""
    found = json.loads((job.run_dir / "mlp.json").read_text())
    curve = [
        {"learning": r["steps"], "all": r["steps"], "seconds": r["seconds"], "share": r["share_of_planner"]}
        for r in found["curve"]
    ]
    about = {"preset": job.preset, "condition": job.condition, "seed": job.seed, "yardsticks": {}}
    return about | {"score": curve[-1]["share"], "curve": curve}


def report(results: list[dict[str, Any]], options: argparse.Namespace) -> None:
    """Write the table for each preset and for all together, pictures, and every number."""
    from trainers.run_folder import machine

    options.out.mkdir(parents=True, exist_ok=True)
    parts = [f"# Results\n\nWritten by `python -m benchmarks.ablation`, {options.generations} generations a run."]
    tables = {}
    for preset in options.presets:
        tables[preset] = summary([r for r in results if r["preset"] == preset])
        picture = options.out / f"results_{preset}.png"
        draw(results, preset, picture)
        parts.append(f"## {preset}\n\n{markdown(tables[preset])}\n\n![{preset}]({picture.name})")
    if len(options.presets) > 1:
        tables["all"] = summary(results)
        parts.append(f"## All presets\n\n{markdown(tables['all'])}")
    (options.out / "results.md").write_text("\n\n".join(parts) + "\n")
    numbers = {"machine": machine(), "summary": tables, "runs": results}
    (options.out / "results.json").write_text(json.dumps(numbers, indent=1) + "\n")
    print("\n\n".join(parts[1:]))


def summary(results: list[dict[str, Any]], whole: str = WHOLE) -> dict[str, dict[str, Any]]:
    """Of each condition: interquartile mean and interval over all presets, and how often `whole` is better."""
    scores = {name: _scores(results, name) for name in dict.fromkeys(r["condition"] for r in results)}
    for name in dict.fromkeys(name for r in results for name in r["yardsticks"]):
        rows = [r for r in results if r["condition"] == whole and name in r["yardsticks"]]
        if rows:
            scores[name] = _matrix(rows, [r["yardsticks"][name] for r in rows])
    table = {}
    for name, values in scores.items():
        low, high = bootstrap([values], interquartile_mean)
        table[name] = {"iqm": interquartile_mean(values), "low": low, "high": high, "runs": values.size}
        if name != whole and whole in scores:
            pair = [scores[whole], values]
            low, high = bootstrap(pair, probability_of_improvement)
            table[name] |= {"whole_is_better": probability_of_improvement(*pair), "from": low, "to": high}
    return table


def _scores(results: list[dict[str, Any]], condition: str) -> np.ndarray:
    rows = [r for r in results if r["condition"] == condition]
    return _matrix(rows, [r["score"] for r in rows])


def _matrix(rows: list[dict[str, Any]], scores: list[float]) -> np.ndarray:
    """(runs, presets), of the seeds that all presets have."""
    by = {(r["preset"], r["seed"]): score for r, score in zip(rows, scores, strict=True)}
    presets = list(dict.fromkeys(preset for preset, _ in by))
    seeds = [s for s in dict.fromkeys(seed for _, seed in by) if all((p, s) in by for p in presets)]
    return np.array([[by[preset, seed] for preset in presets] for seed in seeds])


def markdown(table: dict[str, dict[str, Any]], whole: str = WHOLE) -> str:
    """The summary as a table, best first."""
    lines = [f"| condition | share of the planner | runs | `{whole}` is better |", "|---|---|---|---|"]
    for name, row in sorted(table.items(), key=lambda item: -item[1]["iqm"]):
        if row["runs"] < FEW:
            lines.append(f"| {name} | {row['iqm']:.1%} | {row['runs']} | |")
            continue
        better = f"{row['whole_is_better']:.0%} [{row['from']:.0%}, {row['to']:.0%}]" if "from" in row else ""
        lines.append(f"| {name} | {row['iqm']:.1%} [{row['low']:.1%}, {row['high']:.1%}] | {row['runs']} | {better} |")
    return "\n".join(lines)


def draw(results: list[dict[str, Any]], preset: str, file: Path) -> None:
    """Share of the planner against all steps in the world and against seconds, a line a condition, mean and range."""
    from matplotlib.figure import Figure  # here, so that only those who want a picture need it

    figure = Figure(figsize=(11, 4.2), layout="constrained")
    for axes, key in zip(figure.subplots(1, 2, sharey=True), ("all", "seconds"), strict=True):
        for name in dict.fromkeys(r["condition"] for r in results):
            curves = [r["curve"] for r in results if (r["preset"], r["condition"]) == (preset, name)]
            if not curves or not curves[0]:
                continue
            length = min(map(len, curves))
            x = np.mean([[row[key] for row in curve[:length]] for curve in curves], axis=0)
            y = np.array([[row["share"] for row in curve[:length]] for curve in curves])
            (line,) = axes.plot(x, y.mean(axis=0), label=name, linewidth=1.2)
            axes.fill_between(x, y.min(axis=0), y.max(axis=0), alpha=0.12, color=line.get_color(), linewidth=0)
        axes.set(xlabel={"all": "steps of single agents, fitness included", "seconds": "seconds"}[key])
    figure.axes[0].set(ylabel="share of the planner's food")
    figure.axes[0].legend(fontsize=7)
    figure.suptitle(f"{preset}: mean and range over seeds")
    figure.savefig(file, dpi=120)


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """The options; --short fills in what it stands for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--presets", nargs="+", default=["meadow"], choices=sorted(PRESETS))
    parser.add_argument("--conditions", nargs="+", default=list(CONDITIONS), choices=CONDITIONS, metavar="NAME")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--generations", type=int, default=20)
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, each on one thread (2)")
    parser.add_argument("--runs", type=Path, default=Path("runs/ablation"))
    parser.add_argument("--out", type=Path, default=Path("docs"))
    options = parser.parse_args(argv)
    options.fitness_episodes = EvolutionConfig().episodes
    if options.short:
        options.seeds, options.generations, options.conditions = 1, 8, list(MAIN)
        options.runs, options.out = options.runs / "short", options.runs / "short"
    return options


def main(argv: list[str] | None = None) -> None:
    """Run what is missing, then write the results."""
    options = parse(argv)
    options.random_weights = random_weights_folder() if "random weights" in options.conditions else ""
    wanted = jobs(options)
    with ThreadPoolExecutor(options.jobs) as pool:
        list(pool.map(lambda job: run(job, options), wanted))
    results = [read(job) for job in wanted]
    report(results, options)


if __name__ == "__main__":
    main()
