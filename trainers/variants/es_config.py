"""The section `es`: an evolution strategy in place of breeding. Imports no torch."""

from dataclasses import dataclass

from agents.types import require, require_above_0, require_at_least
from trainers.config import TrainConfig
from trainers.variants.variant import VariantConfig, is_on


@dataclass(frozen=True)
class ESConfig(VariantConfig):
    """An evolution strategy, where evolution.strategy is es: one mean adapter, judged by its samples."""

    sigma: float = 0.35
    """Standard deviation of the noise on B in the first generation; then it follows noise_kl."""
    first_noise_kl: float = 0.5
    """Mean KL of a sample's actions from the mean's in the first `warm_up` generations."""
    noise_kl: float = 0.2
    """The same in the generation after; from then on it falls."""
    warm_up: int = 3
    """Generations with first_noise_kl."""
    step_kl: float = 0.15
    """KL by which the mean's actions move in a generation, at most; it falls after `hold` generations."""
    hold: int = 4
    """Generations with step_kl."""
    last_kl: float = 0.02
    """Down to which both fall."""
    noise_fall: float = 0.95
    """Share of noise_kl that is left after each generation."""
    step_fall: float = 0.7
    """Share of step_kl that is left after each generation."""
    momentum: float = 0.5
    """Share of the direction that was followed before."""
    decay: float = 0.003
    """Share of the mean that each step takes away."""
    average: float = 0.7
    """Share of the older means in what agents act by, from generation `hold` on; before it, or with 0, they act by the
    latest."""

    def __post_init__(self) -> None:
        """Reject values that are out of range."""
        for name, most in (("sigma", 100), ("first_noise_kl", 100), ("noise_kl", 100), ("step_kl", 100)):
            require_above_0(self, "es.", name, most)
        require_above_0(self, "es.", "last_kl", 100)
        least = min(self.step_kl, self.noise_kl)
        require(self.last_kl <= least, "es.last_kl", self.last_kl, f"at most {least}, from which it falls to this")
        for name in ("noise_fall", "step_fall"):
            require_above_0(self, "es.", name, 1)
        for name in ("warm_up", "hold"):
            require_at_least(self, "es.", name, 0, 1_000_000)
        for name in ("momentum", "decay", "average"):
            require(0 <= getattr(self, name) < 1, f"es.{name}", getattr(self, name), "0 or more and below 1")

    def is_on(self, config: TrainConfig) -> bool:
        """As `evolution.strategy` says."""
        return config.evolution.enabled and config.evolution.strategy == "es"

    def check(self, config: TrainConfig) -> None:
        """Nobody learns, and pairs sit side by side."""
        if config.evolution.strategy == "es":
            condition, learns = "with evolution.strategy = es", config.learn.algorithm
            require(learns == "none", "learn.algorithm", learns, f"none {condition}")
            require(config.evolution.enabled, "evolution.enabled", False, f"true {condition}")
            populations = config.env.populations if config.env.is_forage else 1
            require(populations == 1, "env.populations", populations, f"1 {condition}")
            kind = getattr(getattr(config, "inheritance", None), "kind", "")
            require(not is_on(config, "inheritance"), "inheritance.kind", kind, f"lamarckian or darwinian {condition}")
            require(config.env.agents % 2 == 0, "env.agents", config.env.agents, f"even {condition}")
            for name in ("steady_state", "coevolution"):
                require(not is_on(config, name), f"{name}.enabled", True, f"false {condition}")

    def breeding_sizes(self, config: TrainConfig) -> list[int] | None:
        """Nobody breeds."""
        return [] if self.is_on(config) else None
