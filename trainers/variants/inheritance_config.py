"""The section `inheritance`: what children inherit of what their parents learned. Imports no torch."""

from dataclasses import dataclass
from typing import Literal

from agents.types import require, require_word
from trainers.config import TrainConfig
from trainers.variants.variant import VariantConfig, is_on

Kind = Literal["lamarckian", "baldwinian", "darwinian", "reptile"]
Weights = Literal["equal", "fitness"]


@dataclass(frozen=True)
class InheritanceConfig(VariantConfig):
    """What is passed on."""

    kind: Kind = "lamarckian"
    """lamarckian: children inherit what their parents learned. baldwinian: what their parents were born with, and all
    begin anew each generation; learning decides who breeds. darwinian: where nobody learns. reptile: nobody breeds, and
    all begin anew each generation where the last one ended up on average."""
    reptile_weights: Weights = "equal"
    """Whose end counts, where kind is reptile: that of all (equal), or of the fitter half, the fitter the more
    (fitness)."""
    reptile_step: float = 1.0
    """How far the beginning moves to that end, where kind is reptile: 1 is all the way."""

    def __post_init__(self) -> None:
        """Reject values that are out of range."""
        require_word(self, "inheritance", "kind", Kind)
        require_word(self, "inheritance", "reptile_weights", Weights)
        step = self.reptile_step
        require(0 < step <= 1, "inheritance.reptile_step", step, "above 0 and at most 1")

    def is_on(self, config: TrainConfig) -> bool:
        """Whether all begin anew each generation."""
        return self.kind in ("baldwinian", "reptile")

    def check(self, config: TrainConfig) -> None:
        """There must be generations; what begins anew after every rollout has nothing to replay."""
        learns, condition = config.learn.algorithm, f"with inheritance.kind = {self.kind}"
        if self.kind == "darwinian":
            require(learns == "none", "learn.algorithm", learns, f"none {condition}")
        if self.is_on(config):
            require(config.evolution.enabled, "evolution.enabled", False, f"true {condition}")
            replays = is_on(config, "replay") and config.rollouts_per_generation == 1
            allowed = f"left out {condition} and rollouts_per_generation = 1, since all begin anew after every rollout"
            require(not replays, "replay", "on", allowed)
        if self.kind == "reptile":
            require(learns != "none", "learn.algorithm", learns, f"another {condition}")
            for name in ("steady_state", "coevolution"):
                require(not is_on(config, name), f"{name}.enabled", True, f"false {condition}")

    def breeding_sizes(self, config: TrainConfig) -> list[int] | None:
        """With Reptile nobody breeds."""
        return [] if self.kind == "reptile" else None
