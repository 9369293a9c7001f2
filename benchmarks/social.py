"""Does culture speed up or replace breeding? Whom agents imitate within a life, with and without evolution.

    python -m benchmarks.social [--seeds N] [--generations N] [--jobs N] [--runs DIR] [--page FILE]

Each run is an ordinary one of `trainers.train` with `configs/social.yaml`, its rule changed; what is finished is not
done again. Keys of the main program that are given besides hold for all. The table goes into the page, the picture and
every number beside it. A score is as in `benchmarks.ablation`. Needs the `dev` extra.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.runs import HELD_OUT, Run, all_at, check_places, curve, interval, options_of, plain, put, table, told
from trainers.command_line import run_command
from trainers.run_folder import machine

RULES = ("nobody", "neighbour", "best", "anyone", "shuffled")
BREEDING = {"with breeding": [], "without breeding": ["--evolution.enabled", "false"]}
CONFIG = Path(__file__).parents[1] / "configs" / "social.yaml"


def compare(runs: dict[tuple[str, str], list[Run]]) -> dict[str, dict[str, Any]]:
    """Of each kind of breeding and each rule: how far runs came in the end, and on average while they learned."""
    found: dict[str, dict[str, Any]] = {}
    for (breeding, rule), group in runs.items():
        curves = [[point["share"] for point in curve(run)] for run in group]
        ends = [run.last["share_of_planner"] for run in group]
        found.setdefault(breeding, {})[rule] = {
            "end": interval(ends),
            "on the way": interval([float(np.mean(shares)) for shares in curves]),
            "ends": ends,
            "curves": curves,
            "seconds": float(np.mean([sum(line["wall_s"] for line in run.metrics) for run in group])),
        }
    return found


def rows(found: dict[str, dict[str, Any]]) -> list[list[str]]:
    """The table, without its head."""
    return [
        [rule, *(told(found[breeding][rule][when]) for breeding in found for when in ("end", "on the way"))]
        for rule in RULES
    ]


def draw(found: dict[str, dict[str, Any]], file: Path) -> None:
    """How far they had come by generation, one chart for each kind of breeding."""
    import matplotlib.pyplot as plt

    figure, charts = plt.subplots(1, len(found), figsize=(9, 3.6), sharey=True, layout="constrained")
    for chart, (breeding, rules) in zip(charts, found.items(), strict=True):
        for rule, figures in rules.items():
            chart.plot(100 * np.mean(figures["curves"], axis=0), label=rule)
        chart.set(title=breeding, xlabel="generation", ylim=(0, 80))
        plain(chart)
    charts[0].set_ylabel("% of the planner's food")
    charts[-1].legend(frameon=False, title="imitated", loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(file, dpi=120)


def main(argv: list[str] | None = None) -> None:
    """Run what is missing, then write the results."""
    parser = options_of(__doc__, "social", generations=20)
    options, keys = parser.parse_known_args(argv)  # keys of the main program
    check_places(options.page, "table")
    base = ["--config", CONFIG, "--generations", options.generations, "--held_out_episodes", HELD_OUT, *keys]
    runs = {
        (breeding, rule): [
            Run(
                options.runs / breeding.replace(" ", "_") / rule / f"seed_{seed}",
                seed,
                [*base, *changes, "--learn.social", rule],
            )
            for seed in range(options.seeds)
        ]
        for breeding, changes in BREEDING.items()
        for rule in RULES
    }
    by_seed = [run for seed in zip(*runs.values(), strict=True) for run in seed]  # an interrupted one has whole seeds
    all_at(options.jobs, Run.live, by_seed)
    found = compare(runs)
    head = ["imitated", *(f"{breeding}, {when}" for breeding in found for when in ("end", "on the way"))]
    picture = options.page.with_suffix(".png")
    draw(found, picture)
    put(options.page, "table", f"{table(head, rows(found))}\n\n![By generation]({picture.name})")
    numbers = {"machine": machine(), "seeds": options.seeds, "generations": options.generations, "found": found}
    options.page.with_suffix(".json").write_text(json.dumps(numbers, indent=1) + "\n")
    print(table(head, rows(found)))


if __name__ == "__main__":
    run_command(main)
