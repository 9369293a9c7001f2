"""How one generation becomes the next, as plain settings. Never imports torch, so that `--help` answers at once.

A new operator is a function in `evolution.crossover` (or `selection`, `mutation`) and its name here.
"""

from dataclasses import dataclass
from typing import Literal, get_args

Strategy = Literal["genetic", "es"]
Selection = Literal["truncation", "rank", "tournament", "random"]
Crossover = Literal["mean", "uniform_layers", "uniform_components", "merge", "clone"]
Mutation = Literal["noise", "safe"]

RENAMED = {
    "selection": {"top": "truncation"},
    "crossover": {"swap": "uniform_layers", "components": "uniform_components"},
}
"""By field: values of earlier versions, and what they are called now. The lineage of an old run still has the old ones,
as the names of its operators."""


@dataclass(frozen=True)
class EvolutionConfig:
    """How a generation becomes the next. ValueError for a value that is impossible."""

    enabled: bool = True
    """false: the founders live on and only learn. So does one agent alone (env.agents = 1), which has nobody to breed
    with; parents and elites then mean nothing."""
    strategy: Strategy = "genetic"
    """How a generation follows another: genetic (the fittest breed), or es (an evolution strategy: one mean adapter
    moves towards what its samples did better; nobody learns, and the rest of this section but episodes means nothing).
    """
    selection: Selection = "truncation"
    """How parents are selected: truncation (the fittest few, all equally likely), rank (the fittest few, the better
    the likelier), tournament (the fittest of a few drawn at random), or random (fitness counts for nothing; the
    control)."""
    parents: int = 5
    """How many of the fittest can be parents; in a tournament, how many take part."""
    elites: int = 5
    """How many of the fittest live on."""
    crossover: Crossover = "uniform_layers"
    """mean (of the factors, the original idea), uniform_layers (each layer from either parent), uniform_components
    (each rank-1 part from either parent), merge (of what the adapters do) or clone (one parent)."""
    mutation: Mutation = "noise"
    """noise (relative to a tensor's size) or safe (scaled so that behaviour changes by mutation_kl)."""
    mutation_std: float = 0.05
    """Standard deviation of the noise on a child's tensors, relative to their size, where mutation is noise."""
    mutation_kl: float = 0.02
    """Mean KL by which the actions of a child differ from what it inherited, where mutation is safe."""
    hyperparameter_factor: float = 1.25
    """A child's learning rate and entropy coefficient change by this factor, up, down or not; 1 fixes them."""
    episodes: int = 8
    """Worlds, common to all agents, in which fitness is measured."""

    def __post_init__(self) -> None:
        """Raise ValueError, naming the field, its value and what is allowed, for a value that is impossible."""
        for name, words in (
            ("strategy", Strategy),
            ("selection", Selection),
            ("crossover", Crossover),
            ("mutation", Mutation),
        ):
            value = getattr(self, name)
            new_name = RENAMED.get(name, {}).get(str(value))
            hint = f" ({value} is now called {new_name})" if new_name else ""
            self._require(value in get_args(words), name, f"one of {', '.join(get_args(words))}{hint}")
        for name, least, most in (("parents", 2, 1024), ("elites", 0, 1024), ("episodes", 1, 100_000)):
            self._require(least <= getattr(self, name) <= most, name, f"{least} or more, at most {most:,}")
        for name, least in (("mutation_std", 0), ("mutation_kl", 0), ("hyperparameter_factor", 1)):
            is_fine = least <= getattr(self, name) <= 100
            self._require(is_fine, name, f"finite and {least} or more, at most 100")

    def _require(self, is_fine: bool, name: str, allowed: str) -> None:
        if not is_fine:
            raise ValueError(f"evolution.{name} = {getattr(self, name)!r}: must be {allowed}")
