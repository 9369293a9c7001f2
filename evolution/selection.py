"""Who may breed."""

from collections.abc import Sequence
from math import isnan
from typing import Protocol, TypeVar


class Measured(Protocol):
    """Anything with an id and a fitness, of which more is better."""

    @property
    def id(self) -> int:
        """Who it is; the lower, the older."""

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
