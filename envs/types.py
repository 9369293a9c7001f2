"""The records of the world: its configuration, its state, the actions and what a step gives.

Symbols: W worlds, N agents in a world, Q populations, H rows, B columns, K patches, A = 5 actions.
"""

from dataclasses import dataclass, fields
from enum import IntEnum
from functools import lru_cache
from itertools import pairwise
from typing import Annotated, NamedTuple

import numpy as np


class Action(IntEnum):
    """What an agent can do in a step. North is the row above (row - 1)."""

    STAY = 0
    NORTH = 1
    SOUTH = 2
    EAST = 3
    WEST = 4


MOVES = np.array([(0, 0), (-1, 0), (1, 0), (0, 1), (0, -1)])  # (A, 2): rows and columns moved by each action
MOVES.setflags(write=False)


@dataclass(frozen=True)
class WorldConfig:
    """Everything that makes a world, except its seed. Lengths are in cells, times in steps.

    The defaults are the preset `meadow`; `envs.presets` has the others by name.
    Raises ValueError where a value is impossible, naming the field, the value and what is allowed.
    """

    height: int = 20
    """H, rows of the grid: 4 to 256 cells."""
    width: int = 20
    """B, columns of the grid: 4 to 256 cells."""
    agents: int = 20
    """N, agents in a world: 1 to 1024, no more than cells. They may share a cell."""
    populations: int = 1
    """Q, populations, each with a home of its own, that share the food: 1 to 4."""
    rocks: float = 0.25
    """Share of cells drawn as rock: 0 to 0.5. Cells cut off from home become rock too."""
    walls: int = 0
    """A maze: a pillar every so many cells, from each of which a wall falls to a side: 2 to 16; 0 for none."""
    food: int = 34
    """F, food items when the world begins, and the most there can be."""
    food_regrow: float = 1.0
    """Probability per step that a missing food item casts a seed on a random cell: 0 to 1."""
    patches: int = 10
    """K, patches, the only places where food grows: 1 to 64; 0 lets it grow everywhere."""
    patch_radius: int = 2
    """Cells that a patch reaches in each direction from its middle: 0 to 32."""
    view_radius: int = 3
    """Cells an agent sees in each direction: 1 to 5. The view is a square of side 2 * view_radius + 1."""
    energy_start: float = 70.0
    """Energy at birth: above 0, at most energy_max."""
    energy_max: float = 100.0
    """The most energy an agent can store."""
    food_energy: float = 8.0
    """Energy in one food item."""
    cost_step: float = 1.0
    """Energy a living agent spends per step, moving or not."""
    day_length: int = 40
    """Steps of daylight, before each night."""
    night_length: int = 0
    """Steps of night, after each day; 0 for a world without nights."""
    night_cost: float = 1.0
    """Factor on cost_step at night for an agent away from its home: 1 or more."""
    max_steps: int = 128
    """Steps after which the episode is truncated: 1 to 1,000,000."""
    reward_food: float = 1.0
    """Reward for eating one food item."""
    reward_step: float = -0.02
    """Reward for each step lived."""
    reward_death: float = -1.0
    """Reward for dying, once."""

    def __post_init__(self) -> None:
        """Reject values that no world can have."""
        for field in fields(self):
            if field.name in _RANGES:
                _check_range(field.name, getattr(self, field.name), field.type is int, *_RANGES[field.name])
        _require(self.energy_start <= self.energy_max, "energy_start", self.energy_start, self.energy_max, "energy_max")
        _require(self.agents <= self.height * self.width, "agents", self.agents, self.height * self.width, "the cells")
        if self.walls == 1:  # all rock
            raise ValueError("WorldConfig.walls = 1: must be 0 for none, or between 2 and 16")
        room = int(self.height * self.width * (1 - self.rocks)) - self.populations
        _require(self.food <= room, "food", self.food, room, "the cells that are neither rock nor home")
        if self.patches:
            room = self.patches * (2 * self.patch_radius + 1) ** 2
            _require(self.food <= room, "food", self.food, room, "the cells of all patches")


_RANGES: dict[str, tuple[float, float]] = {
    "height": (4, 256),
    "width": (4, 256),
    "agents": (1, 1024),
    "populations": (1, 4),
    "rocks": (0, 0.5),
    "walls": (0, 16),
    "food": (0, 65536),
    "food_regrow": (0, 1),
    "patches": (0, 64),
    "patch_radius": (0, 32),
    "view_radius": (1, 5),
    "energy_start": (0.01, 1e6),
    "energy_max": (0.01, 1e6),
    "food_energy": (0, 1e6),
    "cost_step": (0, 1e6),
    "day_length": (1, 1_000_000),
    "night_length": (0, 1_000_000),
    "night_cost": (1, 1e6),
    "max_steps": (1, 1_000_000),
    "reward_food": (-1e6, 1e6),
    "reward_step": (-1e6, 1e6),
    "reward_death": (-1e6, 1e6),
}


def _check_range(name: str, value: object, is_whole: bool, low: float, high: float) -> None:
    # bool is an int to Python, but `agents = True` is a mistake
    if isinstance(value, bool) or not isinstance(value, int if is_whole else (int, float)):
        kind = "a whole number" if is_whole else "a number"
        raise ValueError(f"WorldConfig.{name} = {value!r}: must be {kind} between {low:.10g} and {high:.10g}")
    if not low <= value <= high:  # NaN fails this too
        raise ValueError(f"WorldConfig.{name} = {value!r}: must be between {low:.10g} and {high:.10g}")


def _require(is_fine: bool, name: str, value: float, most: float, why: str) -> None:
    if not is_fine:
        raise ValueError(f"WorldConfig.{name} = {value}: must be at most {most}, {why}")


class WorldState(NamedTuple):
    """The whole state of W worlds; with a `WorldConfig`, all that decides what happens next.

    There is no generator state: random numbers are a function of `seed` and `step` (see `envs.rng`).
    The annotations (dtype, shape) are checked when a state is loaded (see `envs.state`).
    """

    seed: Annotated[np.ndarray, "uint64", "W"]
    step: Annotated[np.ndarray, "int32", "W"]  # steps done since the world began
    rock: Annotated[np.ndarray, "bool", "W H B"]
    food: Annotated[np.ndarray, "bool", "W H B"]
    patch: Annotated[np.ndarray, "int64", "W K 2"]  # (row, column) of the middle of each patch
    home: Annotated[np.ndarray, "int64", "W Q 2"]  # (row, column)
    position: Annotated[np.ndarray, "int64", "W N 2"]  # (row, column); the dead keep their last one
    energy: Annotated[np.ndarray, "float32", "W N"]  # 0 for the dead
    is_alive: Annotated[np.ndarray, "bool", "W N"]
    food_eaten: Annotated[np.ndarray, "int32", "W N"]  # items since birth
    lifetime: Annotated[np.ndarray, "int32", "W N"]  # steps lived, the one of death included


class StepResult(NamedTuple):
    """What a step gave to each agent; 0 and False for agents that were dead before it."""

    reward: np.ndarray  # (W, N) float32
    is_terminal: np.ndarray  # (W, N) bool, died in this step
    is_truncated: np.ndarray  # (W,) bool, the episode of this world is over
    ate: np.ndarray  # (W, N) bool, ate one food item


@lru_cache(maxsize=64)
def population_of(config: WorldConfig) -> np.ndarray:
    """Return (N,), the population of each agent: the first N / Q agents are population 0, and so on."""
    population = np.arange(config.agents) * config.populations // config.agents
    population.setflags(write=False)  # it is remembered
    return population


@lru_cache(maxsize=64)
def members(config: WorldConfig) -> tuple[slice, ...]:
    """Return the agents of each population, as slices of the N agents."""
    edges = np.searchsorted(population_of(config), np.arange(config.populations + 1))
    return tuple(slice(int(low), int(high)) for low, high in pairwise(edges))


def is_night(config: WorldConfig, step: np.ndarray) -> np.ndarray:
    """Return whether it is night at `step`, of the shape of `step`."""
    return step % (config.day_length + config.night_length) >= config.day_length


def phase_left(config: WorldConfig, step: np.ndarray) -> np.ndarray:
    """Return the steps until night falls, or at night until the day breaks; at least 1, of the shape of `step`."""
    phase = step % (config.day_length + config.night_length)
    night = phase >= config.day_length
    return np.where(night, config.day_length + config.night_length - phase, config.day_length - phase)
