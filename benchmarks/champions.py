"""Matches between the champions of runs in the world of rivals: how strong they are, and whether they go in circles."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from torch import Tensor

from agents.codecs.codec import TextCodec
from agents.policy import Policy
from benchmarks.runs import Run
from envs.types import WorldConfig
from evolution.rating import bradley_terry, circles
from trainers.records.opening import open_fittest, open_run
from trainers.variants.coevolution_matches import HallOfFame, Player, play_matches

WORLDS = 32
"""Worlds of each match between champions."""
STAGES = 5
"""Generations whose champions all play each other, from the first to the last."""


def count_wins(players: Sequence[Tensor], policy: Policy, codec: TextCodec, world: WorldConfig) -> np.ndarray:
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

    Ratings are counted from the second of the stages. The founders win next to nothing, so how far they are below it
    is more of a prior than of a measurement.
    """
    population, config, last = open_run(run.run_dir)
    hall = HallOfFame(run.run_dir / "hall")
    hall.read(last)
    stages = np.linspace(0, last, STAGES).round().astype(int).tolist()
    players = [Player(side, generation) for generation in stages for side in (0, 1)]
    wins = count_wins([hall.of(p) for p in players], population.policy, population.codec, config.env)
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


def tournament(runs: Mapping[str, Run], world_of: str) -> dict[str, float]:
    """Ratings of the fittest agent of each run's last generation; all play each other in the world of one of them."""
    champions = {}
    for name, run in runs.items():
        population, agent = open_fittest(run.run_dir)
        champions[name] = population.policy.network.bank.values[agent].to("cpu", copy=True)
    population, config, _ = open_run(runs[world_of].run_dir)
    wins = count_wins(list(champions.values()), population.policy, population.codec, config.env)
    return dict(zip(champions, bradley_terry(wins).tolist(), strict=True))
