"""The section `social`: whom agents imitate. Imports no torch."""

from dataclasses import dataclass
from typing import Literal

from agents.types import require, require_at_least, require_word
from trainers.config import TrainConfig
from trainers.variants.variant import VariantConfig, is_on

Model = Literal["nobody", "neighbour", "best", "anyone", "shuffled"]


@dataclass(frozen=True)
class SocialConfig(VariantConfig):
    """Social learning: agents imitate others within a rollout."""

    imitate: Model = "nobody"
    """nobody; neighbour, the one near it that has earned most, if more than itself; or, as controls, best (the same of
    all in its world), anyone, shuffled (as neighbour, with the actions dealt out anew)."""
    window: int = 8
    """How many of the latest steps of another agent are imitated."""

    def __post_init__(self) -> None:
        """Reject values that are out of range."""
        require_word(self, "social", "imitate", Model)
        require_at_least(self, "social.", "window", 1, 1_000_000)

    def is_on(self, config: TrainConfig) -> bool:
        """Whether anybody is imitated."""
        return self.imitate != "nobody"

    def check(self, config: TrainConfig) -> None:
        """Agents must have positions, and learn; who has a slot must not change within a rollout."""
        if self.is_on(config):
            learns = config.learn.algorithm != "none"
            require(learns, "social.imitate", self.imitate, "nobody with learn.algorithm = none")
            require(config.env.is_forage, "env.id", config.env.id, "forage with social.imitate")
            require(not is_on(config, "steady_state"), "steady_state.enabled", True, "false with social.imitate")
