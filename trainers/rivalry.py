"""What is different where populations breed apart: who shares worlds with whom, and how their arms race goes.

Some of the worlds in which fitness is measured are shared with champions of the past, so that what once worked is not
forgotten; after each generation the new champions play past ones (see `trainers.matches`).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from envs.types import WorldConfig, members
from trainers.matches import Hall, Player, pairings, play_matches, ratings, share_won, with_guests
from trainers.rollout import Outcome, rollout
from trainers.run import Run


def beside_champions(run: Run, hall: Hall, seeds: np.ndarray) -> Outcome:
    """What everybody came to in as many worlds (E,), the last of which each population shares with past champions."""
    env, shared, stream = run.config.env, run.config.evolution.hall_episodes, run.colony.streams["fitness"]
    among_us = len(seeds) - shared
    guests = [hall.draw(population, shared, stream) for population in range(env.populations)]
    values = torch.cat([run.colony.policy.mind.bank.values, *guests])
    numbers = np.arange(shared * env.populations).reshape(env.populations, shared)
    carried = line_up(env, among_us, numbers.tolist())
    seeds = np.concatenate([seeds[:among_us], np.tile(seeds[among_us:], env.populations)])
    policy, stream = with_guests(run.colony.policy, values), run.colony.streams["policy"]
    return of_themselves(rollout(policy, run.colony.codec, run.trial, seeds, stream, carried=carried).outcome, carried)


def compete(run: Run) -> dict[str, float]:
    """Let the new champions of populations that breed apart play past ones.

    Returns their ratings, from all matches so far, over those of the first generation's champions.
    """
    if run.hall is None:
        return {}
    run.progress.stage("competing")
    env, colony, generation = run.config.env, run.colony, run.generation
    fittest = [max(range(*own.indices(env.agents)), key=lambda n: colony.population[n].fitness) for own in members(env)]
    run.hall.add(colony.policy.mind.bank.values[fittest])
    pairs = pairings(generation, env.populations)
    food = play_matches(colony.policy, colony.codec, env, [[run.hall.of(p) for p in pair] for pair in pairs])
    matches: list[dict[str, Any]] = [
        {"generation": generation, "sides": [list(player) for player in pair], "food": told}
        for pair, told in zip(pairs, food, strict=True)
    ]
    run.log.matches(matches)
    rated, figures = ratings(run.log.played), dict[str, float]()
    founders = float(np.mean([rated[Player(population, 0)] for population in range(env.populations)]))
    for population in range(env.populations):
        own = [m for m in matches if m["sides"][0][0] == population and m["sides"][1][1] < generation]
        fitness = [genome.fitness for genome in colony.population[members(env)[population]]]
        figures |= {f"fitness_{population}": float(np.mean(fitness))}
        figures |= {f"rating_{population}": rated[Player(population, generation)] - founders}
        figures |= {f"won_{population}": share_won(own)} if own else {}
    return figures


def line_up(world: WorldConfig, episodes: int, guests: Sequence[Sequence[int]]) -> np.ndarray:
    """Who carries which adapter where fitness is measured, (W, N): rows of the bank, then those of guests.

    episodes: worlds of everybody with everybody, where agent n carries row n. guests: for each population the numbers
    of guests that it meets, one a world; they have the places of all others.
    """
    everyone = np.arange(world.agents)
    rows = [everyone] * episodes
    for own, numbers in zip(members(world), guests, strict=True):
        is_own = np.zeros(world.agents, bool)
        is_own[own] = True
        rows += [np.where(is_own, everyone, world.agents + number) for number in numbers]
    return np.stack(rows)


def of_themselves(outcome: Outcome, adapters: np.ndarray) -> Outcome:
    """The part of an outcome (W, N) in which agent n carried adapter n, (E, N): each did in as many worlds."""
    is_own = adapters == np.arange(adapters.shape[1])
    world = np.stack([np.flatnonzero(own) for own in is_own.T], axis=1)  # (E, N)

    def own(values: np.ndarray) -> np.ndarray:
        return np.take_along_axis(values, world, axis=0)

    figures = {name: own(values) for name, values in outcome.figures.items()}
    return Outcome(own(outcome.episode_return), own(outcome.lifetime), own(outcome.is_alive), figures)
