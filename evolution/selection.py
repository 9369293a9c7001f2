"""Selection of parents. Pure functions on fitness; ties go to the older id, and NaN counts as worst."""

from collections.abc import Callable, Sequence
from math import isnan
from typing import Protocol, TypeVar

import numpy as np

from evolution.config import Selection


class Measured(Protocol):
    """Anything with an id and a fitness, of which more is better."""

    @property
    def id(self) -> int:
        """Its number; the lower, the older."""

    @property
    def fitness(self) -> float:
        """How well it did."""


Individual = TypeVar("Individual", bound=Measured)


def select_top_k(agents: Sequence[Individual], k: int = 5) -> list[Individual]:
    """The k fittest, best first (truncation selection). Ties go to the older id; NaN counts as worst.

    Raises ValueError unless 1 <= k <= len(agents).
    """
    if not 1 <= k <= len(agents):
        raise ValueError(f"k = {k}: must be between 1 and the {len(agents)} agents there are")
    return sorted(agents, key=lambda a: (isnan(a.fitness), -a.fitness if not isnan(a.fitness) else 0.0, a.id))[:k]


Pair = tuple[Individual, Individual]


def pair_of_top_k(ranked: Sequence[Individual], k: int, rng: np.random.Generator) -> Pair[Individual]:
    """Two different ones of the k fittest, all equally likely (truncation selection).

    ranked: the individuals, best first, as in all functions of this kind.
    """
    one, other = rng.choice(k, size=2, replace=False)
    return ranked[one], ranked[other]


def pair_by_tournament(ranked: Sequence[Individual], k: int, rng: np.random.Generator) -> Pair[Individual]:
    """The winners of two tournaments among k, drawn without return; the second without the first's winner.

    Goldberg & Deb 1991, "A comparative analysis of selection schemes used in genetic algorithms".
    """
    winner = int(rng.choice(len(ranked), size=k, replace=False).min())
    others = [i for i in range(len(ranked)) if i != winner]
    second = int(rng.choice(others, size=min(k, len(others)), replace=False).min())
    return ranked[winner], ranked[second]


def pair_by_rank(ranked: Sequence[Individual], k: int, rng: np.random.Generator) -> Pair[Individual]:
    """Two different ones of the k fittest: the best is k times as likely as the k-th, with equal steps between them.

    Linear ranking (Baker 1985, "Adaptive selection methods for genetic algorithms").
    """
    weight = np.arange(k, 0, -1.0)
    one, other = rng.choice(k, size=2, replace=False, p=weight / weight.sum())
    return ranked[one], ranked[other]


SELECTIONS: dict[Selection, Callable[[Sequence, int, np.random.Generator], tuple]] = {
    "truncation": pair_of_top_k,
    "tournament": pair_by_tournament,
    "rank": pair_by_rank,
    "random": pair_of_top_k,  # of a ranking in random order, see `next_generation`
}
"""How two parents are selected among individuals ranked by fitness, by name."""
