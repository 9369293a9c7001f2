"""Which places others will be at first, as far as an agent can tell from seeing them.

Agents cannot speak, but all see the same compass: what one works out about itself and another, the other works out too,
so that two do not walk to the same food. Arrays over M agents; V * V cells of a view, S * S of a map, odd sides, who
looks stands in the middle.
"""

from functools import lru_cache

import numpy as np

_NOBODY = 99


def food_for_others(others: np.ndarray, food: np.ndarray) -> np.ndarray:
    """Food in view that is another's: (M, V, V) bool, of food and others, (M, V, V) bool each, as they are seen.

    The closest pair of agent and food is matched first, then the closest of the rest (as `envs.bots.Planner` does);
    of two as close, the one further north, then west. Where others stand in one's own cell, which of them is first
    cannot be known: then two foods are one's own.
    """
    theirs = np.zeros_like(food)
    is_unsure = others.any(axis=(1, 2)) & food.any(axis=(1, 2))  # where nobody else is seen all is one's own
    if is_unsure.any():
        theirs[is_unsure] = _matched(others[is_unsure], food[is_unsure])
    return theirs


def _matched(others: np.ndarray, food: np.ndarray) -> np.ndarray:
    agents, side, _ = food.shape
    cells, middle = side * side, side * side // 2
    walkers, own = others.reshape(agents, cells).copy(), 1 + others[:, side // 2, side // 2]
    walkers[:, middle] = True
    who, walker, item = _pairs(walkers, food.reshape(agents, cells))
    nearest_first = np.argsort(who * cells**2 * (2 * side) + _order(side)[walker, item])
    who, walker, item = who[nearest_first], walker[nearest_first], item[nearest_first]
    theirs, is_free = np.zeros((agents, cells), bool), np.ones((agents, cells), bool)
    while len(who):
        first = np.flatnonzero(np.diff(who, prepend=-1))  # of each agent's pairs
        looks, goes, eaten = who[first], walker[first], item[first]
        is_own = goes == middle
        theirs[looks, eaten] = ~is_own
        own[looks] -= is_own
        is_free[looks, eaten] = False
        walkers[looks, goes] = is_own & (own[looks] > 0)
        is_left = is_free[who, item] & walkers[who, walker]
        who, walker, item = who[is_left], walker[is_left], item[is_left]
    return theirs.reshape(food.shape)


def _pairs(walkers: np.ndarray, food: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Each agent's walkers with each of its foods: three columns, agent, cell of the walker, cell of the food.

    walkers, food: (M, V * V) bool. The agents' numbers rise.
    """
    (who, walker), foods = np.nonzero(walkers), food.sum(axis=1)
    counts = foods[who]
    first = (foods.cumsum() - foods)[who] - (counts.cumsum() - counts)
    item = np.nonzero(food)[1][np.arange(counts.sum()) + first.repeat(counts)]
    return who.repeat(counts), walker.repeat(counts), item


def others_are_nearer(others: np.ndarray, side: int) -> np.ndarray:
    """Cells of a map to which another has fewer steps, as the crow walks: (M, S, S) bool for S = side.

    others: (M, V, V) bool, V at most S. A distance transform by two sweeps along each axis (Rosenfeld & Pfaltz 1966).
    """
    crow = np.abs(np.arange(side, dtype=np.int8) - np.int8(side // 2))
    nearer = np.zeros((len(others), side, side), bool)
    is_seen = others.any(axis=(1, 2))
    if is_seen.any():
        nearer[is_seen] = _steps_to(others[is_seen], side) < crow[:, None] + crow
    return nearer


def _steps_to(others: np.ndarray, side: int) -> np.ndarray:
    """Steps from each cell of a map to the nearest other: (M, S, S) int8."""
    reach, view = side // 2, others.shape[1] // 2
    steps = np.full((len(others), side, side), _NOBODY, np.int8)
    steps[:, reach - view : reach + view + 1, reach - view : reach + view + 1][others] = 0
    for axis in (1, 2):
        lines = np.moveaxis(steps, axis, 0)
        for to, back in ((range(1, side), -1), (range(side - 2, -1, -1), 1)):
            for i in to:
                np.minimum(lines[i], lines[i + back] + 1, out=lines[i])
    return steps


@lru_cache(maxsize=8)
def _order(side: int) -> np.ndarray:
    """(V * V, V * V) int32: steps between walker and food; of equals the walker further north, then west, is first."""
    row, column = np.indices((side, side), np.int32).reshape(2, -1)
    steps = np.abs(row[:, None] - row) + np.abs(column[:, None] - column)
    walker, item = np.indices(steps.shape, np.int32)
    return (steps * side**2 + walker) * side**2 + item
