"""The rules of the world, all of them, for all worlds and agents at once.

A step, in this order:

1. Every living agent moves. A move into rock or off the grid leaves it where it is; agents may share a cell.
2. Food under living agents is eaten: by exactly one of them, drawn at random. It gives energy, up to a cap.
3. Living costs energy, less at home.
4. Who has no energy left dies: it stays in the arrays, never acts again, and its rewards are 0.
5. Every missing food item may cast a seed on a random cell; where the cell is bare, food sprouts.

Functions are pure: they never write to their arguments. The old and the new state share what a step leaves
alone (seed, rock, home).
"""

import numpy as np

from envs import rng
from envs.rng import Stream
from envs.types import MOVES, Action, StepResult, WorldConfig, WorldState


def step(config: WorldConfig, state: WorldState, actions: np.ndarray) -> tuple[WorldState, StepResult]:
    """Return the next state of W worlds and what the step gave to each agent.

    actions: (W, N) int, values of `Action`; those of the dead are ignored, whatever they are.
    """
    was_alive = state.is_alive
    position = _move(state, np.where(was_alive, actions, 0))
    cell = cell_index(state.rock.shape, position)  # (W, N)
    home = cell_index(state.rock.shape, state.home)[:, None]  # (W, 1)
    ate = _eat(state, cell)
    energy = _live(config, state, ate, cell == home)
    is_alive = energy > 0
    died = was_alive & ~is_alive
    new_state = state._replace(
        step=state.step + np.int32(1),
        food=_regrow(config, state, cell[ate], home),
        position=position,
        energy=energy,
        is_alive=is_alive,
        food_eaten=state.food_eaten + ate,
        lifetime=state.lifetime + was_alive,
    )
    reward = config.reward_food * ate + config.reward_step * was_alive + config.reward_death * died
    return new_state, StepResult(
        reward=reward.astype(np.float32),
        is_terminal=died,
        is_truncated=new_state.step >= config.max_steps,
        ate=ate,
    )


def legal_actions(state: WorldState) -> np.ndarray:
    """Return (W, N, A) bool: actions that do not run into rock or off the grid. To stay is always legal."""
    wall, here, stride = _walled(state)
    is_legal = ~wall[here[..., None] + MOVES @ stride]
    is_legal[..., Action.STAY] = True
    return is_legal


def cell_index(grid: tuple[int, int, int], position: np.ndarray) -> np.ndarray:
    """Return where positions lie in a flattened grid.

    grid: the shape (W, H, B). position: (W, ..., 2) rows and columns. Returns (W, ...) int.
    """
    worlds, height, width = grid
    world = np.arange(worlds).reshape(-1, *[1] * (position.ndim - 2))
    return (world * height + position[..., 0]) * width + position[..., 1]


def _walled(state: WorldState) -> tuple[np.ndarray, np.ndarray, tuple[int, int]]:
    # A rim of rock makes "off the grid" and "into rock" one case, and moves plain offsets.
    # -> flat bool, the index (W, N) of each agent in it, and the index distance of a row and a column
    worlds, height, width = state.rock.shape
    wall = np.ones((worlds, height + 2, width + 2), bool)
    wall[:, 1:-1, 1:-1] = state.rock
    return wall.reshape(-1), cell_index(wall.shape, state.position + 1), (width + 2, 1)


def _move(state: WorldState, actions: np.ndarray) -> np.ndarray:
    wall, here, stride = _walled(state)
    is_free = ~wall[here + (MOVES @ stride)[actions]]
    return state.position + MOVES[actions] * is_free[..., None]


def _eat(state: WorldState, cell: np.ndarray) -> np.ndarray:
    # -> (W, N): of the candidates, sorted by cell and then by a random key, the first of each cell eats
    ate = np.zeros(cell.shape, bool)
    candidate = np.flatnonzero(state.is_alive & state.food.reshape(-1)[cell])
    if candidate.size == 0:
        return ate
    world, agent = np.divmod(candidate, cell.shape[1])
    place = cell.reshape(-1)[candidate]
    key = rng.bits(state.seed[world], Stream.EAT, state.step[world], agent)
    order = np.lexsort((key, place))
    place = place[order]
    is_first = np.concatenate(([True], place[1:] != place[:-1]))
    ate.reshape(-1)[candidate[order[is_first]]] = True
    return ate


def _live(config: WorldConfig, state: WorldState, ate: np.ndarray, is_home: np.ndarray) -> np.ndarray:
    # -> (W, N) energy after eating and the cost of living
    fed = np.minimum(state.energy + np.float32(config.food_energy) * ate, np.float32(config.energy_max))
    cost = np.where(is_home, np.float32(config.cost_step * config.home_cost), np.float32(config.cost_step))
    return np.maximum(fed - cost, np.float32(0)) * state.is_alive


def _regrow(config: WorldConfig, state: WorldState, eaten: np.ndarray, home: np.ndarray) -> np.ndarray:
    # eaten: cell indices, home: (W, 1). -> (W, H, B) food after eating and sprouting
    food = state.food.copy()
    flat = food.reshape(-1)
    flat[eaten] = False
    missing = config.food - food.reshape(len(food), -1).sum(1)  # (W,)
    most = missing.max()
    if most <= 0:
        return food
    item = np.arange(most)
    seed, now = state.seed[:, None], state.step[:, None]
    streams = np.array([[[Stream.CAST]], [[Stream.SPROUT]]])
    chance, place = rng.uniform(seed, streams, now, item)  # (W, items) each, in one call for speed
    casts = (item < missing[:, None]) & (chance < config.food_regrow)
    cells = food[0].size
    target = (place * cells).astype(np.int64) + cells * np.arange(len(food))[:, None]
    is_bare = ~state.rock.reshape(-1)[target] & ~flat[target] & (target != home)
    flat[target[casts & is_bare]] = True
    return food
