"""How fast does a population learn in worlds it has never seen, by what it began with?

    python -m benchmarks.adaptation [--seeds N] [--generations N] [--lives N] [--unseen WORLD ...] [--jobs N]
                                    [--runs DIR] [--page FILE]

Beginnings are made by ordinary runs of `trainers.train` with `configs/meta.yaml` in three presets by turns: evolved by
what they can learn (Baldwinian), moved to where learning ends (Reptile), or plain evolved adapters that keep what they
learned (Lamarckian); newborns are the control. Then each learns, without breeding, in worlds that no run has seen: two
presets, and a known one in which words mean their opposite, so that what was learned is wrong. Measured is the food
eaten after every life, as a share of the planner's, and its mean over the lives: the area under the adaptation curve.
What is finished is not done again, and keys of the main program that are given besides hold for all. The table goes
into the page, the picture and every number beside it. Needs the `dev` extra.
"""

import json
from pathlib import Path

import numpy as np

from benchmarks.runs import HELD_OUT, Run, all_at, check_places, interval, options_of, plain, put, table, told
from trainers.command_line import run_command
from trainers.run_folder import machine

CONFIG = Path(__file__).parents[1] / "configs" / "meta.yaml"
BEGINNINGS: dict[str, list[object] | None] = {
    "newborn": None,
    "Lamarckian": ["--evolution.inheritance", "lamarckian"],
    "Baldwinian": [],
    "Reptile": ["--evolution.inheritance", "reptile"],
}
"""What is changed in the config; None for no run at all."""
UNSEEN: dict[str, list[object]] = {
    "night": ["--env.preset", "night"],
    "rivals": ["--env.preset", "rivals"],
    "meadow, mirrored": ["--env.preset", "meadow", "--env.codec", "benchmarks.words:Mirrored"],
}
"""The worlds that no run has seen, as keys of the main program."""


def adapting(
    folder: Path, world: str, seed: int, founders: Path | None, lives: int, keys: list[str]
) -> tuple[Run, Run]:
    """A run of so many lives in a world without breeding, and one that does not learn: what comes before the first.

    keys: of the main program, for both.
    """
    base = [*UNSEEN[world], "--evolution.enabled", "false", "--held_out_episodes", HELD_OUT, *keys]
    base += ["--founders", founders] if founders else []
    return (
        Run(folder / "before", seed, [*base, "--learn.algorithm", "none", "--generations", 1]),
        Run(folder / "after", seed, [*base, "--generations", lives]),
    )


def shares(before: Run, after: Run) -> list[float]:
    """Food as a share of the planner's before the first life and after each."""
    planner = after.last["food_eaten"]["planner"]["mean"]
    return [line["food_eaten_mean"] / planner for run in (before, after) for line in run.metrics]


def draw(curves: dict[str, dict[str, list[float]]], file: Path) -> None:
    """Adaptation curves, a chart for each world."""
    import matplotlib.pyplot as plt

    size = (2 + 3.5 * len(curves), 3.6)
    figure, charts = plt.subplots(1, len(curves), figsize=size, sharey=True, layout="constrained", squeeze=False)
    for chart, (world, lines) in zip(charts[0], curves.items(), strict=True):
        for name, line in lines.items():
            chart.plot(100 * np.array(line), label=name)
        chart.set(title=f"{world}: never seen before", xlabel="lives", ylim=(0, 80))
        plain(chart)
    charts[0][0].set_ylabel("% of the planner's food")
    charts[0][-1].legend(frameon=False, title="beginning", loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(file, dpi=120)


def main(argv: list[str] | None = None) -> None:
    """Run what is missing, then write the results."""
    parser = options_of(__doc__, "meta", generations=15)
    parser.add_argument("--lives", type=int, default=8)
    parser.add_argument("--unseen", nargs="+", default=list(UNSEEN), choices=UNSEEN, metavar="WORLD")
    options, keys = parser.parse_known_args(argv)  # keys of the main program
    check_places(options.page, "table")
    makers, learners = [], {}
    for seed in range(options.seeds):
        for name, changes in BEGINNINGS.items():
            made = options.runs / "beginnings" / name / f"seed_{seed}"
            if changes is not None:
                wanted = ["--config", CONFIG, "--generations", options.generations, *keys, *changes]
                makers.append(Run(made, seed, wanted))
            for world in options.unseen:
                folder = options.runs / world.replace(", ", "_") / name / f"seed_{seed}"
                founders = None if changes is None else made
                learners[world, name, seed] = adapting(folder, world, seed, founders, options.lives, keys)
    all_at(options.jobs, Run.live, makers)
    all_at(options.jobs, Run.live, [run for pair in learners.values() for run in pair])
    found = {key: shares(*pair) for key, pair in learners.items()}

    def of(world: str, name: str) -> np.ndarray:  # (seeds, lives + 1)
        return np.array([found[world, name, seed] for seed in range(options.seeds)])

    rows = []
    for world in options.unseen:
        for name in BEGINNINGS:
            curves = of(world, name)
            columns = (curves[:, 0], curves[:, 1], curves[:, -1], curves.mean(axis=1))
            rows.append([world, name, *(told(interval(column.tolist())) for column in columns)])
    head = ["world", "beginning", "before learning", "after one life", f"after {options.lives}", "area"]
    picture = options.page.with_suffix(".png")
    put(options.page, "table", f"{table(head, rows)}\n\n![Adaptation]({picture.name})")
    means = {world: {name: of(world, name).mean(axis=0).tolist() for name in BEGINNINGS} for world in options.unseen}
    draw(means, picture)
    lines = {" ".join(map(str, key)): line for key, line in found.items()}
    numbers = {"machine": machine(), "generations": options.generations, "shares": lines}
    options.page.with_suffix(".json").write_text(json.dumps(numbers, indent=1) + "\n")
    print(table(head, rows))


if __name__ == "__main__":
    run_command(main)
