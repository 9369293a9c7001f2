"""The section `steady_state`: births within a rollout. Imports no torch."""

from dataclasses import dataclass

from agents.types import require
from trainers.config import TrainConfig
from trainers.variants.variant import VariantConfig


@dataclass(frozen=True)
class SteadyStateConfig(VariantConfig):
    """Steady-state evolution: besides the generations, whoever starves is replaced at once."""

    enabled: bool = False
    """Whether the slot of an agent that starves in a rollout goes to a child of two of the fittest that live."""

    def is_on(self, config: TrainConfig) -> bool:
        """As `enabled` says."""
        return self.enabled

    def check(self, config: TrainConfig) -> None:
        """Slots are those of one rollout in one world, and adapters stand still within it."""
        if self.enabled:
            condition, learns = "with steady_state.enabled", config.learn.algorithm
            require(config.env.is_forage, "env.id", config.env.id, f"forage {condition}")
            rollouts = config.rollouts_per_generation
            require(rollouts == 1, "rollouts_per_generation", rollouts, f"1 {condition}")
            require(config.worlds == 1, "worlds", config.worlds, f"1 {condition}: a slot is one agent")
            require(learns != "online", "learn.algorithm", learns, f"another {condition}")
            require(config.evolution.enabled, "evolution.enabled", False, f"true {condition}")
            selection = config.evolution.selection
            require(selection == "truncation", "evolution.selection", selection, f"truncation {condition}")
