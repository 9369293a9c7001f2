"""Steady-state evolution within a rollout: whoever starves is replaced at once by a child of the fittest that live.

Fitness is then the sum of rewards since birth. What the dead did is no experience of the newcomer.
"""

from dataclasses import replace

import numpy as np

from envs.worlds.world import ForageWorld
from evolution.events import births, deaths
from evolution.generation import breed_into
from evolution.selection import select_top_k
from trainers.rollout import Newcomers, Observed, Observer
from trainers.stages import Generation, Run
from trainers.variants.variant import Variant


class SteadyState(Variant):
    """Births within a rollout."""

    def observers(self, run: Run, generation: Generation) -> list[Observer]:
        """What replaces the starved."""
        return [Births(run, generation)]


class Births(Observer):
    """Gives the slots of agents that died to children of two of the fittest that live."""

    def __init__(self, run: Run, generation: Generation):
        self.run, self.generation = run, generation

    def step(self, seen: Observed) -> Newcomers | None:
        """Nobody is born after the last step, or where fewer than two live."""
        died = seen.transition["is_terminal"]
        if seen.is_last or not died.any() or seen.is_playing.sum() < 2:
            return None
        self._breed(died, seen.is_playing, seen.earned)
        assert isinstance(seen.world, ForageWorld)
        return Newcomers(died, seen.world.give_birth(died[None]))

    def _breed(self, died: np.ndarray, living: np.ndarray, earned: np.ndarray) -> None:
        """All (N,), of one world."""
        run, population, settings = self.run, self.run.population, self.run.config.evolution
        so_far = zip(population.inherited(), earned.tolist(), strict=True)
        before = [replace(genome, fitness=fitness) for genome, fitness in so_far]
        pool = [before[slot] for slot in np.flatnonzero(living)]
        after = breed_into(
            before,
            np.flatnonzero(died).tolist(),
            select_top_k(pool, len(pool)),
            replace(settings, parents=min(settings.parents, len(pool))),
            generation=self.generation.number,
            rng=population.streams["evolution"],
            divergence=population.divergence,
        )
        population.replace_slots(after, in_rollout=True)
        starved = deaths(before, after, self.generation.number, cause="starved")
        run.log.events(starved + births(before, after, in_rollout=True))
