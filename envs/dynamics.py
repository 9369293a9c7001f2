"""The rules of the world, all of them, for all worlds and agents at once.

A step, in this order:

1. Every living agent moves. A move into rock or off the grid leaves it where it is; agents may share a cell.
2. Food under living agents is eaten: by exactly one of them, drawn at random. It gives energy, up to a cap.
3. Living costs energy, more for those who are out at night.
4. Who has no energy left dies: it stays in the arrays, never acts again, and its rewards are 0.
5. Every missing food item may cast a seed on a random cell; where the cell is bare, food sprouts.

Functions are pure: they never write to their arguments. The old and the new state share what a step leaves
alone (seed, rock, patch, home).
"""

from functools import lru_cache

import numpy as np

from envs import rng
from envs.rng import Stream
from envs.types import MOVES, Action, StepResult, WorldConfig, WorldState, is_night, population_of

_REGROW_STREAMS = np.array([[[Stream.CAST]], [[Stream.SPROUT]]], np.uint64)


def step(config: WorldConfig, state: WorldState, actions: np.ndarray) -> tuple[WorldState, StepResult]:
    """Return the next state of W worlds and what the step gave to each agent.

    actions: (W, N) int, values of `Action`; those of the dead are ignored, whatever they are.
    """
    was_alive = state.is_alive
    position, cell = _move(state, actions * was_alive)
    ate = _eat(state, cell)
    energy = _live(config, state, ate, cell)
    is_alive = energy > 0
    died = was_alive > is_alive
    new_state = WorldState(
        seed=state.seed,
        rock=state.rock,
        patch=state.patch,
        home=state.home,
        step=state.step + np.int32(1),
        food=_regrow(config, state, cell[ate]),
        position=position,
        energy=energy,
        is_alive=is_alive,
        food_eaten=state.food_eaten + ate,
        lifetime=state.lifetime + was_alive,
    )
    reward = config.reward_food * ate
    reward += config.reward_step * was_alive
    if died.any():
        reward += config.reward_death * died
    return new_state, StepResult(
        reward=reward.astype(np.float32),
        is_terminal=died,
        is_truncated=new_state.step >= config.max_steps,
        ate=ate,
    )


def legal_actions(state: WorldState) -> np.ndarray:
    """Return (W, N, A) bool: actions that do not run into rock or off the grid. To stay is always legal."""
    here = state.position[:, :, None]
    target, is_blocked = _reached(state, here + MOVES)
    is_legal = ~is_blocked & (target != here).any(-1)
    is_legal[..., Action.STAY] = True
    return is_legal


def cell_index(grid: tuple[int, int, int], position: np.ndarray) -> np.ndarray:
    """Return where positions lie in a flattened grid.

    grid: the shape (W, H, B). position: (W, ..., 2) rows and columns. Returns (W, ...) int.
    """
    stride, first = _strides(grid)
    cell: np.ndarray = position @ stride
    by_world = cell if cell.ndim == 2 else cell.reshape(len(first), -1)  # a view
    by_world += first
    return cell


@lru_cache(maxsize=64)
def _strides(grid: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    # -> index distance of a row and a column (2,), and the first cell of each world (W, 1)
    worlds, height, width = grid
    return np.array([width, 1]), np.arange(worlds)[:, None] * (height * width)


def _move(state: WorldState, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    # -> position (W, N, 2) and cell (W, N)
    target, is_blocked = _reached(state, state.position + MOVES.take(actions, axis=0))
    position = np.where(is_blocked[..., None], state.position, target)
    return position, cell_index(state.rock.shape, position)


def _reached(state: WorldState, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    # target: (W, ..., 2), written to: at the edge of the grid one stays. -> it, and whether rock is there (W, ...)
    np.maximum(target, 0, out=target)
    np.minimum(target, _last_cell(state.rock.shape[1:]), out=target)
    return target, state.rock.reshape(-1).take(cell_index(state.rock.shape, target))


@lru_cache(maxsize=64)
def _last_cell(size: tuple[int, int]) -> np.ndarray:
    return np.subtract(size, 1)


def _eat(state: WorldState, cell: np.ndarray) -> np.ndarray:
    # -> (W, N): of the candidates, sorted by cell and then by a random key, the first of each cell eats
    ate = np.zeros(cell.shape, bool)
    candidate = np.flatnonzero(state.is_alive & state.food.reshape(-1).take(cell))
    if candidate.size == 0:
        return ate
    place = cell.reshape(-1)[candidate]
    if np.unique(place).size == place.size:  # nobody shares a cell: no need to draw
        ate.reshape(-1)[candidate] = True
        return ate
    world, agent = np.divmod(candidate, cell.shape[1])
    key = rng.bits(state.seed[world], Stream.EAT, state.step[world], agent)
    order = np.lexsort((key, place))
    place = place[order]
    is_first = np.concatenate(([True], place[1:] != place[:-1]))
    ate.reshape(-1)[candidate[order[is_first]]] = True
    return ate


def _live(config: WorldConfig, state: WorldState, ate: np.ndarray, cell: np.ndarray) -> np.ndarray:
    # cell: (W, N). -> (W, N) energy after eating and the cost of living
    energy = state.energy + np.float32(config.food_energy) * ate
    np.minimum(energy, np.float32(config.energy_max), out=energy)
    cost: np.ndarray | np.float32 = np.float32(config.cost_step)
    if config.night_length:
        home = cell_index(state.rock.shape, state.home)[:, population_of(config)]  # (W, N)
        is_out = is_night(config, state.step)[:, None] & (cell != home)
        cost = np.where(is_out, np.float32(config.cost_step * config.night_cost), cost)
    energy -= cost
    np.maximum(energy, np.float32(0), out=energy)
    energy *= state.is_alive
    return energy


def _regrow(config: WorldConfig, state: WorldState, eaten: np.ndarray) -> np.ndarray:
    # eaten: cell indices. -> (W, H, B) food after eating and sprouting
    food = state.food.copy()
    flat = food.reshape(-1)
    flat[eaten] = False
    missing = config.food - food.reshape(len(food), -1).sum(1)  # (W,)
    most = missing.max()
    if most <= 0:
        return food
    item = np.arange(most)
    seed, now = state.seed[:, None], state.step[:, None]
    chance, place = rng.uniform(seed, _REGROW_STREAMS, now, item)  # (W, items) each, in one call for speed
    casts = (item < missing[:, None]) & (chance < config.food_regrow)
    target, is_on_grid = _targets(config, state, place)
    is_taken = state.rock.reshape(-1) | flat
    is_taken[cell_index(state.rock.shape, state.home)] = True
    flat[target[casts & is_on_grid & ~is_taken.take(target)]] = True
    return food


def _targets(config: WorldConfig, state: WorldState, place: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    # place: (W, items) in [0, 1). -> cell indices on which seeds fall, and whether those are on the grid
    worlds, height, width = state.rock.shape
    if not config.patches:
        first = height * width * np.arange(worlds)[:, None]
        return (place * (height * width)).astype(np.int64) + first, np.ones((), bool)
    side = 2 * config.patch_radius + 1
    patch, spot = np.divmod((place * (config.patches * side**2)).astype(np.int64), side**2)
    offset = np.stack(np.divmod(spot, side), axis=-1) - config.patch_radius
    patch += config.patches * np.arange(worlds)[:, None]
    cell = state.patch.reshape(-1, 2).take(patch, axis=0) + offset  # (W, items, 2)
    is_on_grid = ((cell >= 0) & (cell < (height, width))).all(-1)
    return cell_index(state.rock.shape, cell * is_on_grid[..., None]), is_on_grid
