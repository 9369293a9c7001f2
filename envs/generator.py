"""The first state of a world, from its seed.

All free cells are connected, so every food item can be reached from everywhere.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from envs import rng
from envs.paths import UNREACHED, distances
from envs.rng import Stream
from envs.types import MOVES, WorldConfig, WorldState, members

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
    layout, attempt = _roomy_layouts(config, seed)
    worlds, agents = len(seed), (len(seed), config.agents)
    return WorldState(
        seed=seed,
        step=np.zeros(worlds, np.int32),
        rock=layout.rock,
        food=_scatter_food(config, seed, attempt, _fertile(config, layout)),
        patch=layout.patch,
        home=layout.home,
        position=_birthplaces(config, layout.rock, layout.home, seed, Stream.BIRTH, attempt),
        energy=np.full(agents, config.energy_start, np.float32),
        is_alive=np.ones(agents, bool),
        food_eaten=np.zeros(agents, np.int32),
        lifetime=np.zeros(agents, np.int32),
    )


def give_birth(config: WorldConfig, state: WorldState, is_born: np.ndarray) -> WorldState:
    """Return the state with new agents, near their homes, in the slots where `is_born` (W, N) says so.

    Who had such a slot is gone, dead or alive.
    """
    place = _birthplaces(config, state.rock, state.home, state.seed, Stream.NEWBORN, state.step.astype(np.uint64))
    return state._replace(
        position=np.where(is_born[..., None], place, state.position),
        energy=np.where(is_born, np.float32(config.energy_start), state.energy),
        is_alive=state.is_alive | is_born,
        food_eaten=np.where(is_born, np.int32(0), state.food_eaten),
        lifetime=np.where(is_born, np.int32(0), state.lifetime),
    )


class _Layout(NamedTuple):
    """What stays as it is through an episode."""

    rock: np.ndarray  # (W, H, B) bool, around one connected region of free cells
    home: np.ndarray  # (W, Q, 2), in that region
    patch: np.ndarray  # (W, K, 2)


def _checked_seeds(seeds: ArrayLike) -> np.ndarray:
    array = np.asarray(seeds)
    is_valid = array.ndim == 1 and array.size > 0 and array.dtype.kind in "iu"
    if not is_valid or array.min() < 0 or array.max() >= SEED_LIMIT:
        raise ValueError(f"seeds = {seeds!r}: must be a list of whole numbers from 0 to 2**53 - 1")
    return array.astype(np.uint64)


def _roomy_layouts(config: WorldConfig, seed: np.ndarray) -> tuple[_Layout, np.ndarray]:
    # -> layouts, the attempt (W,) that had room; only worlds without room are redrawn
    attempt = np.zeros_like(seed)
    layout = _layouts(config, seed, attempt)
    for number in range(ATTEMPTS):
        is_tight = _fertile(config, layout).sum((1, 2)) < config.food
        is_tight |= layout.rock[np.arange(len(seed))[:, None], layout.home[..., 0], layout.home[..., 1]].any(1)
        if not is_tight.any():
            return layout, attempt
        attempt[is_tight] = number + 1
        for array, other in zip(layout, _layouts(config, seed[is_tight], attempt[is_tight]), strict=True):
            array[is_tight] = other
    raise ValueError(
        f"WorldConfig.food = {config.food}: no room in {ATTEMPTS} layouts of seed {seed[is_tight][0]}, where food and "
        f"homes connect; lower food, rocks = {config.rocks} or populations = {config.populations}, or change "
        f"walls = {config.walls} or patches = {config.patches}"
    )


def _layouts(config: WorldConfig, seed: np.ndarray, attempt: np.ndarray) -> _Layout:
    size = config.height, config.width
    cell = np.arange(config.height * config.width)
    rock = rng.uniform(seed[:, None], Stream.ROCK, attempt[:, None], cell) < config.rocks  # (W, H * B)
    rock = rock.reshape(-1, *size)
    if config.walls:
        _raise_walls(config, seed, attempt, rock)
    home = _homes(config, seed, attempt)
    patch = rng.below(
        np.tile(size, config.patches), seed[:, None], Stream.PATCH, attempt[:, None], np.arange(2 * config.patches)
    )
    distance = _from_nearest(size, home)
    rock &= distance > 1
    rock |= distances(~rock, _from_nearest(size, home[:, :1]) == 0) == UNREACHED
    return _Layout(rock, home, patch.reshape(len(seed), config.patches, 2))


def _homes(config: WorldConfig, seed: np.ndarray, attempt: np.ndarray) -> np.ndarray:
    # -> (W, Q, 2): each population's in a strip of the columns of its own, so that no two homes are one
    edge = np.arange(config.populations + 1) * config.width // config.populations
    room = np.stack([np.full(config.populations, config.height), np.diff(edge)], axis=-1)  # (Q, 2)
    home = rng.below(room.ravel(), seed[:, None], Stream.HOME, attempt[:, None], np.arange(room.size))
    home = home.reshape(len(seed), config.populations, 2)
    home[..., 1] += edge[:-1]
    return home


def _raise_walls(config: WorldConfig, seed: np.ndarray, attempt: np.ndarray, rock: np.ndarray) -> None:
    # Every pillar drops a wall to one of its four neighbours: a maze with loops, and few lines to make it
    rows, columns = (np.arange(config.walls - 1, end, config.walls) for end in (config.height, config.width))
    pillar = np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1).reshape(-1, 2)  # (pillars, 2)
    side = rng.below(len(MOVES) - 1, seed[:, None], Stream.WALL, attempt[:, None], np.arange(len(pillar)))
    brick = np.arange(config.walls)[:, None] * MOVES[1:][side][..., None, :]  # (W, pillars, walls, 2)
    place = np.clip(pillar[:, None] + brick, 0, np.subtract(rock.shape[1:], 1))
    rock[np.arange(len(seed))[:, None, None], place[..., 0], place[..., 1]] = True


def _scatter_food(config: WorldConfig, seed: np.ndarray, attempt: np.ndarray, fertile: np.ndarray) -> np.ndarray:
    # -> (W, H, B): the F fertile cells with the lowest random keys
    worlds = len(seed)
    cell = np.arange(config.height * config.width)
    key = rng.uniform(seed[:, None], Stream.FOOD, attempt[:, None], cell)
    key[~fertile.reshape(worlds, -1)] = 1.0
    chosen = np.argsort(key, axis=1, kind="stable")[:, : config.food]
    food = np.zeros(key.shape, bool)
    np.put_along_axis(food, chosen, True, axis=1)
    return food.reshape(fertile.shape)


def _birthplaces(
    config: WorldConfig, rock: np.ndarray, home: np.ndarray, seed: np.ndarray, stream: Stream, counter: np.ndarray
) -> np.ndarray:
    # -> (W, N, 2): free cells within the view of each agent's home, drawn with repetition
    position = np.empty((len(seed), config.agents, 2), np.int64)
    for population, agents in enumerate(members(config)):
        is_near = ~rock & (_from_nearest(rock.shape[1:], home[:, [population]]) <= config.view_radius)
        is_near = is_near.reshape(len(seed), -1)
        near_first = np.argsort(~is_near, axis=1, kind="stable")
        index = np.arange(agents.start, agents.stop)
        choice = rng.below(is_near.sum(1)[:, None], seed[:, None], stream, counter[:, None], index)
        cell = np.take_along_axis(near_first, choice, axis=1)
        position[:, agents] = np.stack(np.divmod(cell, config.width), axis=-1)
    return position


def _fertile(config: WorldConfig, layout: _Layout) -> np.ndarray:
    # -> (W, H, B): where food may lie
    size = layout.rock.shape[1:]
    fertile = ~layout.rock & (_from_nearest(size, layout.home) > 0)
    if config.patches:
        fertile &= _from_nearest(size, layout.patch) <= config.patch_radius
    return fertile


def _from_nearest(size: tuple[int, int], places: np.ndarray) -> np.ndarray:
    # places: (W, n, 2). -> (W, H, B): Chebyshev distance to the nearest, the one that views are measured in
    rows = np.abs(np.arange(size[0]) - places[..., :1])  # (W, n, H)
    columns = np.abs(np.arange(size[1]) - places[..., 1:])
    return np.maximum(rows[..., :, None], columns[..., None, :]).min(axis=1)
