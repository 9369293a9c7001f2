"""The section `replay`: how much agents remember to learn from again. Imports no torch."""

from dataclasses import dataclass

from agents.types import require, require_at_least
from trainers.config import TrainConfig
from trainers.variants.variant import VariantConfig


@dataclass(frozen=True)
class ReplayConfig(VariantConfig):
    """A replay buffer for each agent: what went well in former rollouts is imitated."""

    steps: int = 0
    """Steps of former rollouts that each agent keeps; 0 for none."""

    def __post_init__(self) -> None:
        """Reject values that are out of range."""
        require_at_least(self, "replay.", "steps", 0, 10_000_000, "none")

    def is_on(self, config: TrainConfig) -> bool:
        """Whether anything is kept."""
        return self.steps > 0

    def check(self, config: TrainConfig) -> None:
        """Somebody must learn."""
        learns = config.learn.algorithm != "none"
        require(learns or not self.is_on(config), "replay.steps", self.steps, "0 with learn.algorithm = none")
