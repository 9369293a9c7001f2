"""Two populations compete for food: is their arms race progress or circles, and does rivalry make better foragers?

    python -m benchmarks.rivals [--seeds N] [--generations N] [--jobs N] [--runs DIR] [--page FILE]

Each run is an ordinary one of `trainers.train` with `configs/rivals.yaml`; what is finished is not done again, and keys
of the main program that are given besides hold for all. Then champions of several generations of a run all play each
other, which rates them and counts circles; and so do the fittest of the last generation of all conditions of a seed.
Tables go into the page, the picture and every number beside it. Needs the `dev` extra.
"""

import json
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from agents.codec import TextCodec
from agents.policy import Policy
from benchmarks.runs import HELD_OUT, Run, all_at, check_places, interval, options_of, plain, put, table, told
from envs.types import WorldConfig
from evolution.rating import bradley_terry, circles
from trainers.command_line import run_command
from trainers.matches import Hall, Player, play_matches
from trainers.run_folder import machine, open_fittest, open_run, threads_kept

CONFIG = Path(__file__).parents[1] / "configs" / "rivals.yaml"
ALONE = ["--env.populations", 1, "--env.agents", 10, "--evolution.apart", "false", "--evolution.hall_episodes", 0]
POOLED: list[object] = ["--evolution.apart", "false", "--evolution.hall_episodes", 0]
POOLED += ["--evolution.parents", 5, "--evolution.elites", 5]
CONDITIONS: dict[str, list[object]] = {
    "rivals": [],
    "rivals without a hall of fame": ["--evolution.hall_episodes", 0],
    "one gene pool": POOLED,
    "no rivals": ALONE,
}
"""What is changed in the config. One gene pool: the same world, in which all breed with all. No rivals: ten alone."""
WORLDS = 32
"""Worlds of each match between champions."""
STAGES = 5
"""Generations whose champions all play each other, from the first to the last."""


def table_of_wins(players: Sequence[Tensor], policy: Policy, codec: TextCodec, world: WorldConfig) -> np.ndarray:
    """Worlds (n, n) in which the copies of one adapter (F,) ate more than those of another; draws are half."""
    pairs = list(combinations(range(len(players)), 2))
    sides = [(players[i], players[j]) for i, j in pairs]
    food = np.array([play_matches(policy, codec, world, [pair], WORLDS)[0] for pair in sides])  # (pairs, W, 2)
    won = (np.sign(food[..., 0] - food[..., 1]) + 1).sum(axis=1) / 2
    wins = np.zeros((len(players), len(players)))
    for (i, j), share in zip(pairs, won, strict=True):
        wins[i, j], wins[j, i] = share, food.shape[1] - share
    return wins


def arms_race(run: Run) -> dict[str, Any]:
    """Ratings of champions by generation, how often they beat older ones of the other side, and the circles.

    Ratings are counted from the second of the stages: how far the founders, who win next to nothing, are below it is
    more of a prior than of a measurement.
    """
    colony, config, last = open_run(run.run_dir)
    hall = Hall(run.run_dir / "hall", last)
    stages = np.linspace(0, last, STAGES).round().astype(int).tolist()
    players = [Player(population, generation) for generation in stages for population in (0, 1)]
    wins = table_of_wins([hall.of(p) for p in players], colony.policy, colony.codec, config.env)
    rating = bradley_terry(wins).reshape(STAGES, 2)
    older = [
        wins[i, j] / (wins[i, j] + wins[j, i])
        for i, a in enumerate(players)
        for j, b in enumerate(players)
        if a.population != b.population and a.generation > b.generation
    ]
    return {
        "stages": stages,
        "rating": (rating - rating[1].mean()).tolist(),
        "beats older rivals": float(np.mean(older)),
        "circles": circles(wins),
    }


def tournament(runs: dict[str, Run]) -> dict[str, float]:
    """Ratings of the fittest of all conditions' last generations, who play each other in the world of rivals."""
    champions = {}
    for name, run in runs.items():
        colony, agent = open_fittest(run.run_dir)
        champions[name] = colony.policy.mind.bank.values[agent].clone()
    colony, config, _ = open_run(runs["rivals"].run_dir)
    wins = table_of_wins(list(champions.values()), colony.policy, colony.codec, config.env)
    return dict(zip(champions, bradley_terry(wins).tolist(), strict=True))


def draw(races: dict[str, list[dict[str, Any]]], file: Path) -> None:
    """Ratings of champions by generation, a line for each run."""
    import matplotlib.pyplot as plt

    figure, charts = plt.subplots(1, len(races), figsize=(9, 3.6), sharey=True, layout="constrained", squeeze=False)
    for chart, (name, found) in zip(charts[0], races.items(), strict=True):
        for race in found:
            chart.plot(race["stages"], np.mean(race["rating"], axis=1), marker="o", alpha=0.7)
        chart.set(title=name, xlabel="generation of the champion")
        plain(chart)
    charts[0][0].set_ylabel("rating (Elo), the second at 0")
    figure.savefig(file, dpi=120)


def main(argv: list[str] | None = None) -> None:
    """Run what is missing, let champions play, then write the results."""
    parser = options_of(__doc__, "rivals", generations=20)
    options, keys = parser.parse_known_args(argv)  # keys of the main program
    check_places(options.page, "champions", "race")
    if options.generations < STAGES:
        parser.error(f"--generations {options.generations}: must be {STAGES} or more")
    base = ["--config", CONFIG, "--generations", options.generations, "--held_out_episodes", HELD_OUT, *keys]
    runs = [
        {
            name: Run(options.runs / name.replace(" ", "_") / f"seed_{seed}", seed, [*base, *changes])
            for name, changes in CONDITIONS.items()
        }
        for seed in range(options.seeds)
    ]
    all_at(options.jobs, Run.live, [run for seed in runs for run in seed.values()])
    apart = [name for name in CONDITIONS if name.startswith("rivals")]
    with threads_kept():
        races = {name: [arms_race(seed[name]) for seed in runs] for name in apart}
        finals = [tournament(seed) for seed in runs]
    shares = {name: [seed[name].last["share_of_planner"] for seed in runs] for name in CONDITIONS}
    ends = [
        [name, told(interval(shares[name])), told(interval([final[name] for final in finals]), ".0f")]
        for name in CONDITIONS
    ]
    head = ["population", "share of the planner's food", "rating of its last champion among all"]
    put(options.page, "champions", table(head, ends))
    lines = [
        [
            name,
            *(
                told(interval([float(np.mean(race["rating"][stage])) for race in found]), ".0f")
                for stage in range(STAGES)
            ),
            told(interval([race["beats older rivals"] for race in found])),
            told(interval([race["circles"] for race in found])),
        ]
        for name, found in races.items()
    ]
    stages = [f"generation {generation}" for generation in races["rivals"][0]["stages"]]
    picture = options.page.with_suffix(".png")
    draw(races, picture)
    race = table(["", *stages, "beats older rivals", "circles"], lines)
    put(options.page, "race", f"{race}\n\n![Ratings of champions by generation]({picture.name})")
    numbers = {
        "machine": machine(),
        "generations": options.generations,
        "races": races,
        "finals": finals,
        "shares": shares,
    }
    options.page.with_suffix(".json").write_text(json.dumps(numbers, indent=1) + "\n")
    print(table(head, ends), table(["", *stages, "beats older rivals", "circles"], lines), sep="\n\n")


if __name__ == "__main__":
    run_command(main)
