"""A run under way: everything that its stages share."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from envs.types import members
from envs.worlds.world import World
from trainers.colony import Colony
from trainers.config import EnvConfig, TrainConfig
from trainers.matches import Hall
from trainers.progress import Progress
from trainers.run_log import RunLog
from trainers.teacher import Teacher


def roles_of(env: EnvConfig, world: World) -> list[str]:
    """The role of each agent, within which fitness is compared and agents breed; [] where all have the same."""
    return list(world.roles) if env.by_role and len(set(world.roles)) > 1 else []


@dataclass
class Run:
    """A run under way."""

    config: TrainConfig
    run_dir: Path
    colony: Colony
    log: RunLog
    history: dict[str, Any]  # what must be known of the generations before: saved in every checkpoint
    progress: Progress
    worlds: list[World]  # to learn in, by turns
    trials: list[World]  # to be judged in, by turns
    hall: Hall | None  # champions of the past, where populations breed apart
    teacher: Teacher | None  # where somebody says how it is done
    started: float = 0.0  # of this generation, perf_counter
    steps: int = 0  # of this generation, of all agents together
    first_return: np.ndarray | None = None  # (W, N), of this generation's first life, the mean over its episodes

    @property
    def generation(self) -> int:
        """The generation that is living now."""
        return self.history["generation"] + 1

    def env_of(self, generation: int) -> EnvConfig:
        """The world in which a generation lives."""
        env = self.config.env
        return list(env.kinds.values())[generation % len(self.worlds)] if env.by_turns else env

    @property
    def roles(self) -> list[str]:
        """The role of each agent, within which fitness is compared; [] where all have the same."""
        return roles_of(self.config.env, self.worlds[0])

    def breeding_groups(self) -> list[list[int]]:
        """The agents who may breed with each other, as slots: those of a population that is apart, or of a role."""
        everyone = range(self.config.env.agents)
        if self.config.evolution.apart:
            return [list(everyone[group]) for group in members(self.config.env)]
        roles = self.roles or ["agent"] * len(everyone)
        return [[slot for slot in everyone if roles[slot] == role] for role in dict.fromkeys(roles)]

    @property
    def world(self) -> World:
        """In which this generation learns."""
        return self.worlds[self.generation % len(self.worlds)]

    @property
    def trial(self) -> World:
        """In which this generation is judged."""
        return self.trials[self.generation % len(self.trials)]

    def close(self) -> None:
        """Let go of what the worlds hold."""
        for world in (*self.worlds, *self.trials):
            world.close()

    def is_shown(self, generation: int) -> bool:
        """Whether this is one of the generations of which there are pictures."""
        every = self.config.log.episode_every
        return self.config.env.is_forage and bool(every) and generation % every == 0
