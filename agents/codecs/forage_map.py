"""What an agent remembers of the forage world: a map of what it has seen, with itself in the middle.

An agent never reads where it is. Its map moves against each step that it takes, the way a walking animal integrates
its path; what slides over the edge is forgotten. Arrays over M agents; nothing here knows words.

Symbols: M agents, S = 2 * REACH + 1 cells of a map, V = 2 * view_radius + 1 cells of a view.
"""

from typing import NamedTuple

import numpy as np

from agents.codecs.food_assignment import food_for_others, others_are_nearer
from agents.codecs.wayfinding import as_bits, steps_by_move
from envs.observe import legal_from, unpack
from envs.types import MOVES

REACH = 15
"""Cells that a map reaches in each direction; 15 is the most for which a row fits into 32 bits."""
SIDE = 2 * REACH + 1
NEVER = 255
"""Age of what was never seen."""
STALE = 6
"""Steps after which food may have grown again where there was some."""
FAR = 40
"""Steps beyond which a way is not worth knowing."""
DAY, DUSK, NIGHT = range(3)
DUSK_BEGINS = 0.3
"""Share of the day that is left at dusk."""


class ForageMap(NamedTuple):
    """What M agents know. What was never seen counts as free."""

    rock: np.ndarray  # (M, S, S) bool
    food: np.ndarray  # (M, S, S) bool, when last seen
    grew: np.ndarray  # (M, S, S) bool, food was there once
    home: np.ndarray  # (M, S, S) bool
    age: np.ndarray  # (M, S, S) uint8, steps since the cell was in view
    contested: np.ndarray  # (M, S, S) bool, another agent in view will be there first
    legal: np.ndarray  # (M, A) bool, which moves are free from here
    hour: np.ndarray  # (M,) int: DAY, DUSK or NIGHT


class Ways(NamedTuple):
    """Steps to the nearest of each kind if the first is each move, (M, A) int; NO_WAY where there is none."""

    food: np.ndarray  # of the places that nobody else will reach first
    regrown: np.ndarray  # the same: bare when last seen, not looked at for a while, and food was there once
    unknown: np.ndarray  # the same: a place never seen
    home: np.ndarray


def newborn(agents: int) -> ForageMap:
    """Memory of M agents that have seen nothing yet."""
    nothing, age = np.zeros((agents, SIDE, SIDE), bool), np.full((agents, SIDE, SIDE), NEVER, np.uint8)
    legal, hour = np.zeros((agents, len(MOVES)), bool), np.full(agents, DAY)
    return ForageMap(nothing, nothing, nothing, nothing, age, nothing, legal, hour)


def remember(memory: ForageMap, observation: np.ndarray, action: np.ndarray, view_radius: int) -> ForageMap:
    """Memory after `action` (M,) led to `observation` (M, O); where `action` is -1, somebody new is born."""
    is_old = action >= 0
    was_free = np.take_along_axis(memory.legal, np.maximum(action, 0)[:, None], axis=1)[:, 0]
    moved = np.where(is_old & was_free, action, 0)  # the moves that led anywhere; 0 is to stay
    view = unpack(observation, view_radius)
    rock, food, grew, home = (_shift(plane, moved, False, is_old) for plane in memory[:4])
    age = _shift(memory.age, moved, NEVER, is_old)
    age += age < NEVER - 1  # what was seen once stays younger than what never was
    in_view = slice(REACH - view_radius, REACH + view_radius + 1)
    for plane, seen in ((rock, view.rock), (food, view.food), (home, view.home), (age, 0)):
        plane[:, in_view, in_view] = seen
    others = view.kin | view.rivals
    contested = others_are_nearer(others, SIDE)
    contested[:, in_view, in_view] = food_for_others(others, view.food)
    hour = np.where(view.is_night, NIGHT, np.where(view.phase_left <= DUSK_BEGINS, DUSK, DAY))
    return ForageMap(rock, food, grew | food, home, age, contested, legal_from(observation, view_radius), hour)


def ways(memory: ForageMap) -> Ways:
    """Which moves lead where, by what each agent knows."""
    open_ = ~memory.contested
    goals = (
        memory.food & open_,
        memory.grew & ~memory.food & (memory.age > STALE) & open_,
        (memory.age == NEVER) & open_,
        memory.home,
    )
    is_free = np.tile(as_bits(~memory.rock), (len(goals), 1))
    steps = steps_by_move(is_free, np.concatenate([as_bits(goal) for goal in goals]), FAR)
    return Ways(*steps.reshape(len(goals), len(memory.rock), -1))


def _shift(planes: np.ndarray, moved: np.ndarray, empty: int, is_old: np.ndarray) -> np.ndarray:
    """Planes (M, S, S) after each agent's move; what comes in at the edge, and all of the newborn's, is `empty`."""
    shifted = np.full_like(planes, empty)
    for number, (down, right) in enumerate(MOVES):
        who = np.flatnonzero(is_old & (moved == number))
        rows, columns = (slice(max(step, 0), SIDE + min(step, 0)) for step in (down, right))
        to_rows, to_columns = (slice(max(-step, 0), SIDE + min(-step, 0)) for step in (down, right))
        shifted[who, to_rows, to_columns] = planes[who, rows, columns]
    return shifted
