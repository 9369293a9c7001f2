"""Coevolution: each population of the world breeds within itself, and their champions play each other.

Some of the worlds in which fitness is measured are shared with champions of the past, so that what once worked is not
forgotten; after each generation the new champions play past ones (see `trainers.variants.coevolution_matches`).

Symbols: N agents in a world, E episodes, Q populations.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from agents.guests import with_guests
from envs.types import WorldConfig, members
from trainers.config import TrainConfig
from trainers.population import Population
from trainers.records.manifest import MATCHES
from trainers.records.tags import Tag
from trainers.rollout import Outcome, collect_rollout
from trainers.stages import BreedingGroup, Generation, Run
from trainers.variants.coevolution_config import CoevolutionConfig
from trainers.variants.coevolution_matches import (
    HallOfFame,
    Player,
    pairings,
    play_matches,
    ratings,
    share_won,
)
from trainers.variants.variant import Variant

_TAGS = {
    "fitness": "Mean fitness of this population.",
    "rating": "Of this population's champion, on Elo's scale, from all matches of champions so far; 400 points more "
    "are odds of ten to one.",
    "won": "Share of worlds in which this population's champion ate more than past champions of the others.",
}


class Coevolution(Variant):
    """Keeps the hall of fame, in hall/, and the matches, in matches.jsonl."""

    tags: ClassVar[dict[str, Tag]] = {
        f"rivals/{name}_{q}": Tag(f"{name}_{q}", meaning) for name, meaning in _TAGS.items() for q in range(4)
    }
    stages: ClassVar[tuple[str, ...]] = ("competing",)

    settings: CoevolutionConfig

    def __init__(self, settings: CoevolutionConfig, config: TrainConfig, population: Population, run_dir: Path):
        super().__init__(settings, config, population, run_dir)
        self.env = config.env
        self.hall = HallOfFame(run_dir / "hall")
        self.played: list[dict[str, Any]] = []  # all matches so far

    def breeding_groups(self, run: Run) -> list[BreedingGroup]:
        """The populations, each with as many parents and elites as the config says."""
        slots, settings = range(self.env.agents), run.config.evolution
        return [BreedingGroup(list(slots[own]), settings.parents, settings.elites) for own in members(self.env)]

    def evaluate(self, run: Run, generation: Generation, seeds: np.ndarray) -> Outcome | None:
        """Share some of the worlds (E,), the last ones, with past champions, as soon as there are any."""
        shared = self.settings.hall_of_fame_episodes
        if not shared or not self.hall.champions:
            return None
        population, streams = self.population, self.population.streams
        guests = [self.hall.draw(q, shared, streams["fitness"]) for q in range(self.env.populations)]
        values = torch.cat([population.policy.network.bank.values.cpu(), *guests])
        numbers = np.arange(shared * self.env.populations).reshape(self.env.populations, shared)
        among_us = len(seeds) - shared
        adapter_ids = line_up(self.env, among_us, numbers.tolist())
        seeds = np.concatenate([seeds[:among_us], np.tile(seeds[among_us:], self.env.populations)])
        policy, world = with_guests(population.policy, values), run.trial(generation.number)
        played = collect_rollout(policy, population.codec, world, seeds, streams["policy"], adapter_ids=adapter_ids)
        return of_themselves(played.outcome, adapter_ids)

    def after_evaluation(self, run: Run, generation: Generation) -> dict[str, float]:
        """Let the new champions play past ones.

        Return their ratings, from all matches so far, over those of the first generation's champions.
        """
        run.progress.stage("competing")
        number, genomes = generation.number, self.population.genomes
        slots = [range(*own.indices(self.env.agents)) for own in members(self.env)]
        fittest = [max(own, key=lambda slot: genomes[slot].fitness) for own in slots]
        self.hall.add(self.population.policy.network.bank.values[fittest].cpu())
        pairs = pairings(number, self.env.populations)
        champions = [[self.hall.of(player) for player in pair] for pair in pairs]
        food = play_matches(self.population.policy, self.population.codec, self.env, champions)
        matches: list[dict[str, Any]] = [
            {"generation": number, "sides": [list(player) for player in pair], "food": eaten}
            for pair, eaten in zip(pairs, food, strict=True)
        ]
        self.played += matches
        run.log.logs.append(MATCHES, matches)
        return self._figures(number, matches)

    def _figures(self, number: int, matches: list[dict[str, Any]]) -> dict[str, float]:
        rated, figures = ratings(self.played), dict[str, float]()
        founders = float(np.mean([rated[Player(q, 0)] for q in range(self.env.populations)]))
        for q in range(self.env.populations):
            own = [m for m in matches if m["sides"][0][0] == q and m["sides"][1][1] < number]
            fitness = [genome.fitness for genome in self.population.genomes[members(self.env)[q]]]
            figures |= {f"fitness_{q}": float(np.mean(fitness)), f"rating_{q}": rated[Player(q, number)] - founders}
            figures |= {f"won_{q}": share_won(own)} if own else {}
        return figures

    def restore(self, tensors: dict[str, Any], state: dict[str, Any], generation: int) -> None:
        """DamagedRun where a champion of the generations so far is missing."""
        self.hall.read(generation)
        self.played = state["played"]

    def state(self) -> dict[str, Any]:
        """All matches so far: ratings come from them, also where lines of matches.jsonl are lost."""
        return {"played": self.played}


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
