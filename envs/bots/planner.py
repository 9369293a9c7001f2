"""The strongest baseline: it knows the whole world and sends different agents to different foods."""

import numpy as np

from envs.dynamics import cell_index
from envs.paths import UNREACHED, distances
from envs.types import MOVES, WorldConfig, WorldState, is_night, phase_left, population_of

MAX_CELLS = 64 * 64
"""All-pairs distances take 2 * cells**2 bytes: 32 MiB for this many."""


class Planner:
    """A bot that walks each agent along a shortest path to a food of its own.

    The closest pair of agent and food is matched first, then the closest of the rest, and so on; equal
    distances go to the lower agent and then to the lower cell. Agents beyond the number of foods stay.
    Where there are nights it looks only at food from which it can be home before dark, and is home at night.
    Distances are computed once per layout. Loops over worlds: a baseline, not made for speed.
    """

    def __init__(self, config: WorldConfig) -> None:
        """Begin without any layout known."""
        self.config = config
        self._known: dict[bytes, np.ndarray] = {}

    def __call__(self, state: WorldState) -> np.ndarray:
        """Return actions (W, N); STAY for the dead. Raises ValueError for worlds beyond `MAX_CELLS`."""
        layouts = [rock.tobytes() for rock in state.rock]
        fresh = {key: rock for key, rock in zip(layouts, state.rock, strict=True) if key not in self._known}
        self._known.update({key: _all_distances(rock) for key, rock in fresh.items()})
        self._known = {key: self._known[key] for key in layouts}  # forget worlds of other batches
        actions = np.zeros(state.is_alive.shape, np.int64)
        for world, key in enumerate(layouts):
            actions[world] = _plan(self.config, self._known[key], state, world)
        return actions


def match(cost: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return pairs (rows, columns) of a greedy matching by increasing cost, without those at `UNREACHED`.

    cost: (R, C) uint16. Each row and each column is in one pair at most.
    """
    cost = cost.copy()
    pairs = []
    for _ in range(min(cost.shape)):
        row, column = divmod(int(cost.argmin()), cost.shape[1])
        if cost[row, column] == UNREACHED:
            break
        pairs.append((row, column))
        cost[row, :] = cost[:, column] = UNREACHED
    rows, columns = np.array(pairs, np.int64).reshape(-1, 2).T
    return rows, columns


def _all_distances(rock: np.ndarray) -> np.ndarray:
    # (H, B) -> (H * B, H * B) steps between cells
    if rock.size > MAX_CELLS:
        raise ValueError(f"a world of {rock.size} cells: the planner handles at most {MAX_CELLS}")
    source = np.eye(rock.size, dtype=bool).reshape(rock.size, *rock.shape)
    return distances(np.broadcast_to(~rock, source.shape), source).reshape(rock.size, rock.size)


def _plan(config: WorldConfig, distance: np.ndarray, state: WorldState, world: int) -> np.ndarray:
    # -> (N,) actions: to the neighbour cell that is nearest to the matched food, or to home; itself if it is there
    grid = (1, *state.rock.shape[1:])
    living = np.flatnonzero(state.is_alive[world])
    place = cell_index(grid, state.position[world][None])[0]  # (N,)
    home = cell_index(grid, state.home[world][None])[0][population_of(config)]  # (N,)
    food = np.flatnonzero(state.food[world])
    cost = distance[np.ix_(place[living], food)]
    goal = place.copy()
    if config.night_length:
        left = 0 if is_night(config, state.step[world]) else int(phase_left(config, state.step[world]))
        eaten_in = np.maximum(cost, 1).astype(np.int64)  # to eat what sprouted underfoot takes a step too
        there_and_home = eaten_in + distance[np.ix_(home[living], food)]
        cost = np.where(there_and_home > left, UNREACHED, cost)
        goal = home.copy()
    agent, item = match(cost)
    goal[living[agent]] = food[item]
    around = np.clip(state.position[world][:, None] + MOVES, 0, np.subtract(grid[1:], 1))  # (N, A, 2)
    remaining = distance[cell_index(grid, around[None])[0], goal[:, None]]  # (N, A)
    return np.where(state.is_alive[world], remaining.argmin(1), 0)
