"""The records of the world: its configuration, its state, the actions and what a step gives.

Symbols: W worlds, N agents in a world, H rows, B columns, A = 5 actions.
"""

from dataclasses import dataclass, fields
from enum import IntEnum
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
    """Everything that makes a world, except its seed.

    Raises ValueError where a value is impossible, naming the field, the value and what is allowed.
    """

    height: int = 20
    """H, rows of the grid: 4 to 256 cells."""
    width: int = 20
    """B, columns of the grid: 4 to 256 cells."""
    agents: int = 20
    """N, agents in a world: 1 to 1024. They may share a cell."""
    rocks: float = 0.10
    """Share of cells drawn as rock: 0 to 0.5. Cells cut off from home become rock too."""
    food: int = 40
    """F, food items when the world begins, and the most there can be."""
    food_regrow: float = 1.0
    """Probability per step that a missing food item casts a seed on a random cell: 0 to 1."""
    view_radius: int = 3
    """Cells an agent sees in each direction: 1 to 5. The view is a square of side 2 * view_radius + 1."""
    energy_start: float = 80.0
    """Energy at birth: above 0, at most energy_max."""
    energy_max: float = 100.0
    """The most energy an agent can store."""
    food_energy: float = 8.0
    """Energy in one food item."""
    cost_step: float = 1.0
    """Energy a living agent spends per step, moving or not."""
    home_cost: float = 0.5
    """Factor on cost_step for an agent at home: 0 to 1."""
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
            _check_range(field.name, getattr(self, field.name), field.type is int, *_RANGES[field.name])
        if self.energy_start > self.energy_max:
            raise ValueError(
                f"WorldConfig.energy_start = {self.energy_start}: must be at most energy_max = {self.energy_max}"
            )
        room = int(self.height * self.width * (1 - self.rocks)) - 1
        if self.food > room:
            raise ValueError(
                f"WorldConfig.food = {self.food}: must be at most {room}, the cells of a {self.height} x "
                f"{self.width} world with {self.rocks} rocks that are neither rock nor home"
            )


_RANGES: dict[str, tuple[float, float]] = {
    "height": (4, 256),
    "width": (4, 256),
    "agents": (1, 1024),
    "rocks": (0, 0.5),
    "food": (0, 65536),
    "food_regrow": (0, 1),
    "view_radius": (1, 5),
    "energy_start": (0.01, 1e6),
    "energy_max": (0.01, 1e6),
    "food_energy": (0, 1e6),
    "cost_step": (0, 1e6),
    "home_cost": (0, 1),
    "max_steps": (1, 1_000_000),
    "reward_food": (-1e6, 1e6),
    "reward_step": (-1e6, 1e6),
    "reward_death": (-1e6, 1e6),
}


def _check_range(name: str, value: object, is_whole: bool, low: float, high: float) -> None:
    # bool is an int to Python, but `agents = True` is a mistake
    if isinstance(value, bool) or not isinstance(value, int if is_whole else (int, float)):
        kind = "a whole number" if is_whole else "a number"
        raise ValueError(f"WorldConfig.{name} = {value!r}: must be {kind} between {low:g} and {high:g}")
    if not low <= value <= high:  # NaN fails this too
        raise ValueError(f"WorldConfig.{name} = {value!r}: must be between {low:g} and {high:g}")


class WorldState(NamedTuple):
    """The whole state of W worlds; with a `WorldConfig`, all that decides what happens next.

    There is no generator state: random numbers are a function of `seed` and `step` (see `envs.rng`).
    The annotations (dtype, shape) are checked when a state is loaded (see `envs.state`).
    """

    seed: Annotated[np.ndarray, "uint64", "W"]
    step: Annotated[np.ndarray, "int32", "W"]  # steps done since the world began
    rock: Annotated[np.ndarray, "bool", "W H B"]
    food: Annotated[np.ndarray, "bool", "W H B"]
    home: Annotated[np.ndarray, "int64", "W 2"]  # (row, column)
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
