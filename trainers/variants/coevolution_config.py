"""The section `coevolution`: populations that breed apart. Imports no torch."""

from dataclasses import dataclass

from agents.types import require
from envs.types import members
from trainers.config import TrainConfig
from trainers.variants.variant import VariantConfig, is_on


@dataclass(frozen=True)
class CoevolutionConfig(VariantConfig):
    """Rival populations: each breeds within itself, and their champions play each other."""

    enabled: bool = False
    """Whether each population of the world (env.populations) breeds only within itself; parents and elites are then
    those of each. Their champions of all generations play against each other, and are rated."""
    hall_of_fame_episodes: int = 0
    """Of the worlds in which fitness is measured, how many are shared with past champions of the other populations."""

    def is_on(self, config: TrainConfig) -> bool:
        """As `enabled` says."""
        return self.enabled

    def check(self, config: TrainConfig) -> None:
        """There must be several populations in a world of one kind."""
        shared, most = self.hall_of_fame_episodes, config.evolution.episodes
        allowed = f"between 0 and evolution.episodes = {most}"
        require(0 <= shared <= most, "coevolution.hall_of_fame_episodes", shared, allowed)
        allowed = "0 without coevolution.enabled"
        require(not shared or self.enabled, "coevolution.hall_of_fame_episodes", shared, allowed)
        if self.enabled:
            condition, env = "with coevolution.enabled", config.env
            require(env.populations > 1, "env.populations", env.populations, f"2 or more {condition}")
            require(not env.also, "env.also", env.also, f"empty {condition}")
            require(not config.learn.pool, "learn.pool", True, f"false {condition}")
            require(config.evolution.enabled, "evolution.enabled", False, f"true {condition}")
            require(not is_on(config, "social"), "social.imitate", "on", f"nobody {condition}")
            require(not is_on(config, "steady_state"), "steady_state.enabled", True, f"false {condition}")

    def breeding_sizes(self, config: TrainConfig) -> list[int] | None:
        """Of each population."""
        agents = range(config.env.agents)
        return [len(agents[own]) for own in members(config.env)] if self.enabled else None
