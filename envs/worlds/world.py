"""What a population lives in, whatever the world is: W worlds of N agents that step together.

The forage world is one, Gymnasium's and PettingZoo's are others (`envs.worlds.gym_world`, `envs.worlds.team_world`).
"""

from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike

from envs.batch import ForageBatch
from envs.types import WorldConfig, WorldState


class Step(NamedTuple):
    """What a step of W worlds gave to N agents. Where an agent was not playing, its entries mean nothing."""

    observation: np.ndarray  # (W, N, ...) what each sees now
    reward: np.ndarray  # (W, N) float32
    is_terminal: np.ndarray  # (W, N) bool, its episode ended and nothing comes after
    is_truncated: np.ndarray  # (W, N) bool, its episode was cut off; never True together with is_terminal
    is_playing: np.ndarray  # (W, N) bool, acts in the next step
    last_seen: np.ndarray  # (W, N, ...) the observation before a new episode began; else as `observation`


class World(Protocol):
    """W worlds of N agents. An observation is a row of numbers, or any object in an array of objects."""

    agents: int
    """N."""
    max_steps: int
    """Steps of a life."""
    roles: tuple[str, ...]
    """(N,), what each agent is: fitness is compared, and agents breed, within a role. Most worlds have but one."""

    def reset(self, seeds: ArrayLike) -> np.ndarray:
        """Begin one world per seed (W,); return the observations (W, N, ...)."""

    def step(self, actions: np.ndarray) -> Step:
        """Do what each agent (W, N) chose."""

    def figures(self) -> dict[str, np.ndarray]:
        """What else can be told of each agent so far, (W, N) by name."""

    def close(self) -> None:
        """Let go of windows, files and whatever else a world holds."""


@runtime_checkable
class Pictured(Protocol):
    """A world of which pictures can be drawn (`envs.rendering`): ours."""

    def state(self) -> WorldState:
        """Return a copy of the whole state, of the worlds that are drawn."""

    def positions(self) -> np.ndarray:
        """Where each agent is, (W, N, 2) rows and columns; the dead stay where they died."""


class ForageWorld:
    """The forage world; an episode is a life."""

    def __init__(self, config: WorldConfig) -> None:
        """Remember the config. `reset` makes the worlds."""
        self.agents, self.max_steps = config.agents, config.max_steps
        self.roles = ("agent",) * config.agents
        self._batch = ForageBatch(config)
        self._is_alive = np.zeros((0, 0), bool)

    def reset(self, seeds: ArrayLike) -> np.ndarray:
        """Begin one world per seed (W,); return the observations (W, N, O)."""
        observation = self._batch.reset(seeds)
        self._is_alive = np.ones(observation.shape[:2], bool)
        return observation

    def step(self, actions: np.ndarray) -> Step:
        """Do what each agent (W, N) chose."""
        observation, result = self._batch.step(actions)
        self._is_alive = self._is_alive & ~result.is_terminal
        is_truncated = self._is_alive & result.is_truncated[:, None]
        is_playing = self._is_alive & ~is_truncated
        return Step(observation, result.reward, result.is_terminal, is_truncated, is_playing, observation)

    def give_birth(self, is_born: np.ndarray) -> np.ndarray:
        """Put new agents, near home, into slots (W, N) bool; return what all see then, (W, N, O)."""
        self._is_alive = self._is_alive | is_born
        return self._batch.give_birth(is_born)

    def figures(self) -> dict[str, np.ndarray]:
        """Food eaten (items) and energy left."""
        state = self._batch.state()
        return {"food_eaten": state.food_eaten, "energy": state.energy}

    def close(self) -> None:
        """Do nothing: there is no window, file or process."""

    def positions(self) -> np.ndarray:
        """Where each agent is, (W, N, 2) rows and columns; the dead stay where they died."""
        return self._batch.state().position

    def state(self) -> WorldState:
        """Return a copy of the whole state."""
        return self._batch.state()
