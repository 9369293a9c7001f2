"""What agents see: the square around them, their energy, the time, and nothing else of the world.

An observation is a vector of O = 5 * V * V + 4 float32 in [0, 1], with V = 2 * view_radius + 1:

    5 planes of V x V cells, row by row, north up, the agent in the middle, each cell 0 or 1:
        rock    also everything outside the grid
        food
        home    that of the agent's own population
        kin     at least one other living agent of its population
        rivals  at least one living agent of another population
    energy      share of energy_max
    time left   share of max_steps
    night       1 at night, 0 by day
    phase left  share of this day, or night, that is left; 1 where there are no nights
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from envs.dynamics import cell_index
from envs.types import MOVES, WorldConfig, WorldState, is_night, members, phase_left

_PLANES, _NUMBERS = 5, 4
_ROCK, _FOOD, _HOME, _KIN, _RIVALS = (np.uint8(1 << plane) for plane in range(_PLANES))
_SHIFTS = np.arange(_PLANES, dtype=np.uint8)[:, None, None, None]
_NO_NIGHT = np.array([0, 1], np.float32)


class Observation(NamedTuple):
    """An unpacked observation; `...` is any batch shape. V = 2 * view_radius + 1 cells."""

    rock: np.ndarray  # (..., V, V) bool
    food: np.ndarray  # (..., V, V) bool
    home: np.ndarray  # (..., V, V) bool
    kin: np.ndarray  # (..., V, V) bool
    rivals: np.ndarray  # (..., V, V) bool
    energy: np.ndarray  # (...) share of energy_max, 0 to 1
    time_left: np.ndarray  # (...) share of max_steps, 0 to 1
    is_night: np.ndarray  # (...) bool
    phase_left: np.ndarray  # (...) share of the day or night, 0 to 1


def observation_size(view_radius: int) -> int:
    """Return O, the numbers in one observation."""
    return _PLANES * (2 * view_radius + 1) ** 2 + _NUMBERS


def observe(config: WorldConfig, state: WorldState) -> np.ndarray:
    """Return what every agent sees, (W, N, O) float32 in a new array.

    The dead see from where they fell, with energy 0, so those who die get a last observation.
    """
    cells = (2 * config.view_radius + 1) ** 2
    result = np.empty((*state.energy.shape, observation_size(config.view_radius)), np.float32)
    for population in range(config.populations):
        _look(config, state, population, result)
    numbers = result[..., _PLANES * cells :]
    numbers[..., 0] = state.energy / np.float32(config.energy_max)
    numbers[..., 1] = (np.maximum(config.max_steps - state.step, 0) / config.max_steps)[:, None]
    numbers[..., 2:] = _NO_NIGHT
    if config.night_length:
        night = is_night(config, state.step)
        whole = np.where(night, config.night_length, config.day_length)
        numbers[..., 2] = night[:, None]
        numbers[..., 3] = (phase_left(config, state.step) / whole)[:, None]
    return result


def unpack(observation: np.ndarray, view_radius: int) -> Observation:
    """Return the named parts of observations (..., O). Raises ValueError where O does not fit the radius."""
    side = 2 * view_radius + 1
    if observation.shape[-1] != observation_size(view_radius):
        raise ValueError(_misfit(observation, view_radius))
    planes = observation[..., :-_NUMBERS].reshape(*observation.shape[:-1], _PLANES, side, side) > 0.5
    energy, time_left, night, left = np.moveaxis(observation[..., -_NUMBERS:], -1, 0)
    rock, food, home, kin, rivals = np.moveaxis(planes, -3, 0)
    return Observation(rock, food, home, kin, rivals, energy, time_left, night > 0.5, left)


def legal_from(observation: np.ndarray, view_radius: int) -> np.ndarray:
    """Return (..., A) bool, the legal actions as an agent can tell them from its observation (..., O)."""
    if observation.shape[-1] != observation_size(view_radius):
        raise ValueError(_misfit(observation, view_radius))
    return observation.take(_reached(view_radius), axis=-1) < 0.5


@lru_cache(maxsize=8)
def _reached(view_radius: int) -> np.ndarray:
    # (A,) where an observation says whether the cell that each action leads to is rock
    row, column = (MOVES + view_radius).T
    return row * (2 * view_radius + 1) + column


def _misfit(observation: np.ndarray, view_radius: int) -> str:
    return (
        f"observation has shape {observation.shape}: its last axis must be "
        f"{observation_size(view_radius)} for view_radius = {view_radius}"
    )


def _look(config: WorldConfig, state: WorldState, population: int, result: np.ndarray) -> None:
    # Fill the planes of the agents of one population: gather bit codes around each, then take them apart
    radius, agents = config.view_radius, members(config)[population]
    worlds, height, width = state.rock.shape
    grid = worlds, height + 2 * radius, width + 2 * radius
    code = np.empty(grid, np.uint8)
    code.fill(_ROCK)
    code[:, radius:-radius, radius:-radius] = state.rock.view(np.uint8) | (state.food.view(np.uint8) << 1)
    flat = code.reshape(-1)
    rim = radius * grid[2] + radius
    home = cell_index(grid, state.home[:, population : population + 1]) + rim  # (W, 1)
    flat[home] = flat.take(home) | _HOME
    place = cell_index(grid, state.position)  # (W, N)
    place += rim
    centre, is_alive = place[:, agents], state.is_alive[:, agents]
    kin = centre[is_alive]
    flat[kin] = flat.take(kin) | _KIN
    if config.populations > 1:
        is_rival = state.is_alive.copy()
        is_rival[:, agents] = False
        flat[place[is_rival]] |= _RIVALS
    views = flat.take(centre[..., None] + _offsets(radius, grid[2]))  # (W, n, V * V)
    cells = views.shape[-1]
    planes = result[..., : _PLANES * cells].reshape(*result.shape[:2], _PLANES, cells)  # a view
    planes[:, agents].transpose(2, 0, 1, 3)[:] = (views >> _SHIFTS) & np.uint8(1)
    count = np.bincount(kin, minlength=flat.size)
    result[:, agents, 3 * cells + cells // 2] = count.take(centre) > is_alive


@lru_cache(maxsize=64)
def _offsets(radius: int, width: int) -> np.ndarray:
    # (V * V,) index distance from the agent of each cell it sees, in a grid of that width
    around = np.arange(-radius, radius + 1)
    return (around[:, None] * width + around).ravel()
