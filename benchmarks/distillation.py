"""What does a small student keep of a large teacher, and how much faster and smaller is it?

    python -m benchmarks.distillation [--seeds N] [--generations N] [--lessons N] [--gemma] [--jobs N] [--runs DIR]
                                      [--page FILE]

A teacher is an ordinary run of `trainers.train`, or the planner. Each student is one too, with `configs/distill.yaml`;
what is finished is not done again, and keys of the main program that are given besides hold for all. Then everybody
decides for a life in the same held-out world, in a process of its own, one after the other: decision time and memory.
The table goes into the page, the picture and every number beside it. --gemma adds a larger teacher, `gemma3-270m`,
which takes longer. Needs the `dev` extra.
"""

import argparse
import json
import math
import resource
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open

from agents.weights.compact import compact_file
from agents.weights.fetch import model_folder
from benchmarks.runs import (
    HELD_OUT,
    Run,
    all_at,
    check_places,
    command,
    curve,
    interval,
    options_of,
    plain,
    put,
    table,
    told,
)
from envs.worlds.world import ForageWorld
from trainers.checkpoint import checkpoints, load_checkpoint
from trainers.colony import acting_by, found_colony, restore_adapters
from trainers.command_line import run_command
from trainers.evaluate import compare, held_out_seeds
from trainers.parser import read_config
from trainers.rollout import rollout
from trainers.run_folder import machine

CONFIG = Path(__file__).parents[1] / "configs" / "distill.yaml"
PLANNER: list[object] = ["--learn.teacher", "planner", "--learn.temperature", 1]
WHOLE: list[object] = ["--model.name", "custom-50m", "--learn.trains", "model"]
WHOLE += ["--learn.learning_rate", 3e-4, "--learn.epochs", 2, "--learn.max_grad_norm", 1]
STUDENTS: dict[str, tuple[str, list[object]]] = {
    "half the layers, adapters": ("full model", []),
    "half the layers, adapters (planner)": ("planner", PLANNER),
    "50 MB from scratch, all weights": ("full model", WHOLE),
    "50 MB from scratch, all weights (planner)": ("planner", [*WHOLE, *PLANNER]),
    "full model, adapters (planner)": ("planner", ["--model.name", "smollm2-135m", *PLANNER]),
}
"""Teacher, and what is changed in the config."""
SELF_TAUGHT = "half the layers, learns and evolves by itself"
GEMMA = "half the layers, adapters (gemma3-270m)"


def measure(run_dir: Path, memory: str) -> dict[str, float]:
    """A life of a run's agents in a held-out world, then their share of the planner's food in others.

    step_ms: mean time in which all decide, with nothing known at first. peak_mb: of this process, after that life.
    megabytes: of the weights, in bfloat16 or as compact memory has them. memory: as in the config.
    """
    config = read_config(run_dir)
    if config.learn.trains == "model":
        config = acting_by(config, run_dir / "model")
    config = replace(config, model=replace(config.model, memory=memory, threads=0))
    colony = found_colony(config)
    tensors, _ = load_checkpoint(max(checkpoints(run_dir).items())[1])
    restore_adapters(colony, tensors)
    rng, world = np.random.default_rng(0), ForageWorld(config.env)
    life = rollout(colony.policy, colony.codec, world, held_out_seeds(1, 0), rng)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    base = colony.policy.mind.base
    if memory == "compact":
        size = compact_file(base.folder, base.name, lambda: None).stat().st_size
    else:
        size = sum(map(bfloat16_bytes, base.folder.glob("*.safetensors")))
    return {
        "step_ms": 1000 * float(life.decide_s.mean()),
        "peak_mb": peak,
        "megabytes": size / 1e6,
        "share": compare(colony, config.env, HELD_OUT, config.seed)["share_of_planner"],
    }


def bfloat16_bytes(file: Path) -> int:
    """What a safetensors file would take in bfloat16."""
    with safe_open(file, "np") as opened:
        return sum(2 * math.prod(opened.get_slice(name).get_shape()) for name in opened.keys())  # noqa: SIM118


def measured(run_dir: Path, memory: str = "full") -> dict[str, float]:
    """The same in a process of its own."""
    words = ["benchmarks.distillation", "--measure", str(run_dir), "--memory", memory]
    if memory == "compact":  # the first time the file with the blocks is written, which takes memory of its own
        command(*words)
    figures: dict[str, float] = json.loads(command(*words).splitlines()[-1])
    return figures


def students(options: argparse.Namespace, keys: list[str], seed: int, teacher: Path) -> dict[str, tuple[str, Run]]:
    """The students of a seed, by name, with the names of their teachers; keys: of the main program, for all."""
    base: list[object] = ["--config", CONFIG, "--generations", options.lessons, "--held_out_episodes", HELD_OUT]
    base += [*keys, "--learn.teacher", teacher]

    def run(name: str, arguments: list[object]) -> Run:
        return Run(options.runs / name.replace(" ", "_") / f"seed_{seed}", seed, arguments)

    found = {name: (who, run(name, [*base, *changes])) for name, (who, changes) in STUDENTS.items()}
    own: list[object] = ["--model.name", "smollm2-half", "--generations", options.generations, *keys]
    found[SELF_TAUGHT] = ("nobody", run(SELF_TAUGHT, [*own, "--held_out_episodes", HELD_OUT]))
    if options.gemma:
        larger = options.runs / "gemma" / "seed_0"
        found[GEMMA] = ("gemma3-270m", run(GEMMA, [*base, "--learn.teacher", larger]))
    return found


def main(argv: list[str] | None = None) -> None:
    """Run what is missing, measure, then write the results."""
    parser = options_of(__doc__, "distillation", generations=20)
    parser.add_argument("--lessons", type=int, default=12, help="generations of the students")
    parser.add_argument("--gemma", action="store_true")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--memory", default="full", help=argparse.SUPPRESS)
    options, keys = parser.parse_known_args(argv)  # keys of the main program
    if options.measure:
        print(json.dumps(measure(options.measure, options.memory)))
        return
    check_places(options.page, "table")
    model_folder("smollm2-half"), model_folder("custom-50m")  # made once, not by two runs at a time
    grown: list[object] = ["--generations", options.generations, "--held_out_episodes", HELD_OUT, *keys]
    teachers = [Run(options.runs / "teacher" / f"seed_{seed}", seed, grown) for seed in range(options.seeds)]
    larger = Run(options.runs / "gemma" / "seed_0", 0, [*grown, "--model.name", "gemma3-270m"])
    all_at(options.jobs, Run.live, [*teachers, *([larger] if options.gemma else [])])
    taught = [students(options, keys, seed, teacher.run_dir) for seed, teacher in enumerate(teachers)]
    all_at(options.jobs, Run.live, [run for seed in taught for _, run in seed.values()])
    best = [teacher.last["share_of_planner"] for teacher in teachers]
    rows = [row("full model (the teacher)", "nobody", best, best, measured(teachers[0].run_dir))]
    numbers: dict[str, Any] = {"machine": machine(), "teachers": best}
    if options.gemma:
        share, figures = larger.last["share_of_planner"], measured(larger.run_dir)
        rows.append(row("gemma3-270m (a larger teacher)", "nobody", [share], best[:1], figures))
        numbers["gemma3-270m"] = {"shares": [share], "cost": figures}
    for name, (who, first) in taught[0].items():
        shares = [seed[name][1].last["share_of_planner"] for seed in taught]
        figures = measured(first.run_dir)
        rows.append(row(name, who, shares, best, figures))
        numbers[name] = {"shares": shares, "cost": figures}
        if "50 MB" in name and who != "planner":
            figures = measured(first.run_dir, "compact")
            rows.append(row(f"{name}, then 8 bits", who, [figures["share"]], best[:1], figures))
            numbers[f"{name}, then 8 bits"] = figures
    head = ["student", "teacher", "share of the planner's food", "of the full model's"]
    head += ["ms a step", "memory, MB", "weights, MB"]
    picture = options.page.with_suffix(".png")
    draw({name: [seed[name][1] for seed in taught] for name in taught[0]}, float(np.mean(best)), picture)
    put(options.page, "table", f"{table(head, rows)}\n\n![By generation]({picture.name})")
    options.page.with_suffix(".json").write_text(json.dumps(numbers, indent=1) + "\n")
    print(table(head, rows))


def draw(runs: dict[str, list[Run]], teacher: float, file: Path) -> None:
    """How far students had come by generation, and where the full model, their teacher, had."""
    import matplotlib.pyplot as plt

    figure, chart = plt.subplots(figsize=(9, 4), layout="constrained")
    chart.axhline(100 * teacher, color="grey", linestyle="dotted", label="full model (the teacher)")
    for name, group in runs.items():
        shares = np.mean([[point["share"] for point in curve(run)] for run in group], axis=0)
        chart.plot(100 * shares, label=name)
    chart.set(xlabel="generation", ylabel="% of the planner's food", ylim=(0, 85))
    plain(chart)
    chart.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5), title="student")
    figure.savefig(file, dpi=120)


def row(name: str, teacher: str, shares: list[float], best: list[float], cost: dict[str, float]) -> list[str]:
    """A line of the table; best: what the full model came to, by seed."""
    kept = [share / whole for share, whole in zip(shares, best, strict=True)]
    texts = [told(interval(values)) if len(values) > 1 else f"{values[0]:.0%}" for values in (shares, kept)]
    return [name, teacher, *texts, f"{cost['step_ms']:.1f}", f"{cost['peak_mb']:.0f}", f"{cost['megabytes']:.0f}"]


if __name__ == "__main__":
    run_command(main)
