"""What agents see: the square around them, their energy and the time left. Nothing else of the world.

An observation is a vector of O = 4 * V * V + 2 float32 in [0, 1], with V = 2 * view_radius + 1:

    4 planes of V x V cells, row by row, north up, the agent in the middle, each cell 0 or 1:
        rock    also everything outside the grid
        food
        home
        others  at least one other living agent
    energy      share of energy_max
    time left   share of max_steps
"""

from typing import NamedTuple

import numpy as np

from envs.dynamics import cell_index
from envs.types import MOVES, WorldConfig, WorldState

_ROCK, _FOOD, _HOME, _OTHERS = np.uint8(1), np.uint8(2), np.uint8(4), np.uint8(8)


class Observation(NamedTuple):
    """An unpacked observation; `...` is any batch shape. V = 2 * view_radius + 1 cells."""

    rock: np.ndarray  # (..., V, V) bool
    food: np.ndarray  # (..., V, V) bool
    home: np.ndarray  # (..., V, V) bool
    others: np.ndarray  # (..., V, V) bool
    energy: np.ndarray  # (...) share of energy_max, 0 to 1
    time_left: np.ndarray  # (...) share of max_steps, 0 to 1


def observation_size(view_radius: int) -> int:
    """Return O, the numbers in one observation."""
    return 4 * (2 * view_radius + 1) ** 2 + 2


def observe(config: WorldConfig, state: WorldState) -> np.ndarray:
    """Return what every agent sees, (W, N, O) float32 in a new array.

    The dead see from where they fell, with energy 0, so those who die get a last observation.
    """
    cells = (2 * config.view_radius + 1) ** 2
    views, is_shared = _views(config.view_radius, state)  # (W, N, V * V), (W, N)
    result = np.empty((*state.energy.shape, 4 * cells + 2), np.float32)
    for plane, bit in enumerate((_ROCK, _FOOD, _HOME, _OTHERS)):
        result[..., plane * cells : (plane + 1) * cells] = (views & bit).astype(bool)
    result[..., 3 * cells + cells // 2] = is_shared
    result[..., -2] = state.energy / np.float32(config.energy_max)
    result[..., -1] = (np.maximum(config.max_steps - state.step, 0) / config.max_steps)[:, None]
    return result


def unpack(observation: np.ndarray, view_radius: int) -> Observation:
    """Return the named parts of observations (..., O). Raises ValueError where O does not fit the radius."""
    side = 2 * view_radius + 1
    if observation.shape[-1] != observation_size(view_radius):
        raise ValueError(
            f"observation has shape {observation.shape}: its last axis must be "
            f"{observation_size(view_radius)} for view_radius = {view_radius}"
        )
    planes = observation[..., :-2].reshape(*observation.shape[:-1], 4, side, side) > 0.5
    rock, food, home, others = np.moveaxis(planes, -3, 0)
    return Observation(rock, food, home, others, observation[..., -2], observation[..., -1])


def legal_from(observation: np.ndarray, view_radius: int) -> np.ndarray:
    """Return (..., A) bool, the legal actions as an agent can tell them from its observation (..., O)."""
    rock = unpack(observation, view_radius).rock
    row, column = (MOVES + view_radius).T  # (A,) each
    return ~rock[..., row, column]


def _views(radius: int, state: WorldState) -> tuple[np.ndarray, np.ndarray]:
    # -> (W, N, V * V) bit codes of the cells around, and (W, N): does another living agent share the cell?
    worlds, height, width = state.rock.shape
    grid = worlds, height + 2 * radius, width + 2 * radius
    code = np.full(grid, _ROCK)
    code[:, radius:-radius, radius:-radius] = state.rock.view(np.uint8) | (state.food.view(np.uint8) << 1)
    flat = code.reshape(-1)
    flat[cell_index(grid, state.home + radius)] |= _HOME
    centre = cell_index(grid, state.position + radius)  # (W, N)
    alive = centre[state.is_alive]
    flat[alive] |= _OTHERS
    count = np.bincount(alive, minlength=flat.size)
    around = np.arange(-radius, radius + 1)
    offset = (around[:, None] * grid[2] + around).ravel()  # (V * V,)
    return flat[centre[..., None] + offset], count[centre] > state.is_alive
