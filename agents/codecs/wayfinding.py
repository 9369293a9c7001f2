"""Steps over small maps, a row of 32 cells in one number: many agents learn at once which move leads nearer to what.

A wave spreads from all goals together, one step at a time, in a few operations on whole rows of bits; when it comes by
the agent's neighbours, the step is noted (Lee 1961, "An algorithm for path connections and its applications").
"""

import numpy as np

from envs.types import MOVES

NO_WAY = 99
"""Stands for the steps to what cannot be reached, or is too far."""


def as_bits(planes: np.ndarray) -> np.ndarray:
    """Planes (..., S, S) bool as rows of bits (..., S) uint32: column c is bit c. S is at most 32."""
    whole = np.zeros((*planes.shape[:-1], 32), bool)
    whole[..., : planes.shape[-1]] = planes
    return np.packbits(whole, axis=-1, bitorder="little").view("<u4")[..., 0]


def steps_by_move(is_free: np.ndarray, goals: np.ndarray, most: int) -> np.ndarray:
    """How many steps lead to the nearest goal if the first of them is each move: (K, A), `NO_WAY` beyond `most`.

    is_free, goals: K maps as rows of bits (K, S), S odd; who asks stands in the middle. Staying is no step: it tells
    whether the goal is here (0), or how far it is.
    """
    middle = is_free.shape[1] // 2
    row, column = (MOVES + middle).T
    column = column.astype(np.uint32)
    after = np.full((len(is_free), len(MOVES)), NO_WAY)  # steps that are left after the move
    can_enter = (is_free[:, row] >> column) & 1 > 0
    spreading, reached = np.arange(len(is_free)), goals & is_free  # the maps in which a wave still has somewhere to go
    for step in range(most + 1):
        is_new = ((reached[:, row] >> column) & 1 > 0) & (after[spreading] == NO_WAY)
        here, move = np.nonzero(is_new)
        after[spreading[here], move] = step
        wider = reached | (reached << np.uint32(1)) | (reached >> np.uint32(1))
        wider[:, 1:] |= reached[:, :-1]
        wider[:, :-1] |= reached[:, 1:]
        wider &= is_free
        goes_on = (wider != reached).any(axis=1) & ((after[spreading] == NO_WAY) & can_enter).any(axis=1)
        if not goes_on.any():
            break
        spreading, reached = spreading[goes_on], wider[goes_on]
        is_free, can_enter = is_free[goes_on], can_enter[goes_on]
    after[:, 1:] = np.minimum(after[:, 1:] + 1, NO_WAY)
    return after
