"""Steps over small maps, a row of 32 cells in one number: many agents learn at once which move leads nearer to what.

A wave spreads from all goals together, one step at a time, in a few operations on whole rows of bits; when it comes by
the agent's neighbours, the step is noted (Lee 1961, "An algorithm for path connections and its applications").
"""

import numpy as np

from envs.types import MOVES

NO_WAY = 99
"""Stands for the steps to what cannot be reached, or is too far."""
LOOKS = 6
"""After so many steps each it is looked in which maps the wave goes on."""


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
    row, column = (MOVES + is_free.shape[1] // 2).T

    def around(rows: np.ndarray) -> np.ndarray:  # (K, A) bool, of the cells to which the moves lead
        return rows.take(row, axis=1) >> column.astype(np.uint32) & 1 > 0

    after = np.full((len(is_free), len(MOVES)), NO_WAY)  # steps that are left after the move
    spreading, reached = np.arange(len(is_free)), goals & is_free  # the maps in which a wave still has somewhere to go
    to_come, waited = around(is_free), np.zeros(after.shape, int)
    for step in range(most + 1):
        is_here = around(reached)
        waited += ~is_here
        wider = reached | (reached << np.uint32(1)) | (reached >> np.uint32(1))
        wider[:, 1:] |= reached[:, :-1]
        wider[:, :-1] |= reached[:, 1:]
        wider &= is_free
        if step % LOOKS == 0 or step == most:
            after[spreading] = np.where(is_here, waited, NO_WAY)
            goes_on = (wider != reached).any(axis=1) & (to_come & ~is_here).any(axis=1)
            if not goes_on.any():
                break
            spreading, wider, is_free = spreading[goes_on], wider[goes_on], is_free[goes_on]
            to_come, waited = to_come[goes_on], waited[goes_on]
        reached = wider
    after[:, 1:] = np.minimum(after[:, 1:] + 1, NO_WAY)
    return after
