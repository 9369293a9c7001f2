"""The first state of a world, from its seed.

All free cells are connected, so every food item can be reached from everywhere.
"""

import numpy as np
from numpy.typing import ArrayLike

from envs import rng
from envs.paths import UNREACHED, distances
from envs.rng import Stream
from envs.types import WorldConfig, WorldState

HELD_OUT = 2**31
"""Seeds below are layouts for training; this one and all above are for evaluation and never trained on."""

SEED_LIMIT = 2**53
"""Seeds are below this, so that a float64 (see `envs.state.flatten`) and JSON hold them exactly."""

ATTEMPTS = 64
"""Layouts tried for one seed until the free cells hold the food."""


def generate(config: WorldConfig, seeds: ArrayLike) -> WorldState:
    """Return the state at step 0 of one world per seed.

    seeds: (W,) whole numbers, 0 to 2**53 - 1. The same config and seed give the same world, in any batch.
    Raises ValueError for other seeds, and where no layout of a seed has room for the food.
    """
    seed = _checked_seeds(seeds)  # (W,)
    rock, home, attempt = _roomy_layouts(config, seed)
    worlds, agents = len(seed), (len(seed), config.agents)
    return WorldState(
        seed=seed,
        step=np.zeros(worlds, np.int32),
        rock=rock,
        food=_scatter_food(config, seed, attempt, _bare(rock, home)),
        home=home,
        position=_birthplaces(config, seed, attempt, rock, home),
        energy=np.full(agents, config.energy_start, np.float32),
        is_alive=np.ones(agents, bool),
        food_eaten=np.zeros(agents, np.int32),
        lifetime=np.zeros(agents, np.int32),
    )


def _checked_seeds(seeds: ArrayLike) -> np.ndarray:
    array = np.asarray(seeds)
    is_valid = array.ndim == 1 and array.size > 0 and array.dtype.kind in "iu"
    if not is_valid or array.min() < 0 or array.max() >= SEED_LIMIT:
        raise ValueError(f"seeds = {seeds!r}: must be a list of whole numbers from 0 to 2**53 - 1")
    return array.astype(np.uint64)


def _roomy_layouts(config: WorldConfig, seed: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    # -> rock (W, H, B), home (W, 2), the attempt (W,) that had room; only worlds without room are redrawn
    rock, home = _layouts(config, seed, np.zeros_like(seed))
    attempt = np.zeros_like(seed)
    for number in range(ATTEMPTS):
        is_tight = _bare(rock, home).sum((1, 2)) < config.food
        if not is_tight.any():
            return rock, home, attempt
        attempt[is_tight] = number + 1
        rock[is_tight], home[is_tight] = _layouts(config, seed[is_tight], attempt[is_tight])
    raise ValueError(
        f"WorldConfig.food = {config.food}: no room in {ATTEMPTS} layouts of seed {seed[is_tight][0]}; "
        f"lower food or rocks = {config.rocks}"
    )


def _layouts(config: WorldConfig, seed: np.ndarray, attempt: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    # -> rock (W, H, B) around one connected region of free cells, home (W, 2) in it
    size = config.height, config.width
    cell = np.arange(config.height * config.width)
    rock = rng.uniform(seed[:, None], Stream.ROCK, attempt[:, None], cell) < config.rocks  # (W, H * B)
    rock = rock.reshape(-1, *size)
    home = rng.below(size, seed[:, None], Stream.HOME, attempt[:, None], np.arange(2))  # (W, 2)
    distance = _from_home(size, home)
    rock &= distance > 1
    rock |= distances(~rock, distance == 0) == UNREACHED
    return rock, home


def _scatter_food(config: WorldConfig, seed: np.ndarray, attempt: np.ndarray, bare: np.ndarray) -> np.ndarray:
    # -> (W, H, B): the F bare cells with the lowest random keys
    worlds = len(seed)
    cell = np.arange(config.height * config.width)
    key = rng.uniform(seed[:, None], Stream.FOOD, attempt[:, None], cell)
    key[~bare.reshape(worlds, -1)] = 1.0
    chosen = np.argsort(key, axis=1, kind="stable")[:, : config.food]
    food = np.zeros(key.shape, bool)
    np.put_along_axis(food, chosen, True, axis=1)
    return food.reshape(bare.shape)


def _birthplaces(
    config: WorldConfig, seed: np.ndarray, attempt: np.ndarray, rock: np.ndarray, home: np.ndarray
) -> np.ndarray:
    # -> (W, N, 2): free cells within the home's view, drawn with repetition
    is_near = ~rock & (_from_home(rock.shape[1:], home) <= config.view_radius)
    is_near = is_near.reshape(len(seed), -1)
    near_first = np.argsort(~is_near, axis=1, kind="stable")
    choice = rng.below(is_near.sum(1)[:, None], seed[:, None], Stream.BIRTH, attempt[:, None], np.arange(config.agents))
    cell = np.take_along_axis(near_first, choice, axis=1)
    return np.stack(np.divmod(cell, config.width), axis=-1)


def _bare(rock: np.ndarray, home: np.ndarray) -> np.ndarray:
    # -> (W, H, B): where food may lie
    return ~rock & (_from_home(rock.shape[1:], home) > 0)


def _from_home(size: tuple[int, int], home: np.ndarray) -> np.ndarray:
    # -> (W, H, B): Chebyshev distance, the one views and neighbourhoods are measured in
    rows = np.abs(np.arange(size[0]) - home[:, :1])
    columns = np.abs(np.arange(size[1]) - home[:, 1:])
    return np.maximum(rows[:, :, None], columns[:, None, :])
