"""What an agent remembers of the forage world: where it last saw food and home, and which way it was going.

An agent is never told where it is. It keeps both as an offset from itself and corrects that offset with each step
it takes, the way a walking animal integrates its path. Arrays over M agents; nothing here knows words.
"""

from typing import NamedTuple

import numpy as np

from envs.observe import legal_from, unpack
from envs.types import MOVES


class ForageMemory(NamedTuple):
    """What M agents know: offsets are (rows south, columns east) of the agent."""

    food: np.ndarray  # (M, 2) int, where food was seen last
    knows_food: np.ndarray  # (M,) bool
    sees_food: np.ndarray  # (M,) bool, the food is in view now
    home: np.ndarray  # (M, 2) int
    knows_home: np.ndarray  # (M,) bool
    heading: np.ndarray  # (M, 2) int, the last move that led anywhere
    legal: np.ndarray  # (M, A) bool, which moves are free from here
    hour: np.ndarray  # (M,) int: DAY, DUSK or NIGHT


DAY, DUSK, NIGHT = range(3)
DUSK_BEGINS = 0.3
"""Share of the day that is left at dusk."""


def newborn(agents: int) -> ForageMemory:
    """Memory of M agents that have seen nothing yet."""
    nowhere, no = np.zeros((agents, 2), int), np.zeros(agents, bool)
    return ForageMemory(nowhere, no, no, nowhere, no, nowhere, np.zeros((agents, len(MOVES)), bool), no + DAY)


def remember(memory: ForageMemory, observation: np.ndarray, action: np.ndarray, view_radius: int) -> ForageMemory:
    """Memory after `action` (M,) led to `observation` (M, O); where `action` is -1, somebody new is born.

    Food in view replaces food remembered; food remembered is forgotten once its place is in view and bare.
    """
    old = ~(action < 0)
    was_free = np.take_along_axis(memory.legal, np.maximum(action, 0)[:, None], axis=1)
    moved = MOVES[action] * (was_free & old[:, None])
    view = unpack(observation, view_radius)
    food, sees_food = nearest(view.food, view_radius)
    remembered = memory.food - moved
    out_of_view = np.abs(remembered).max(axis=1) > view_radius
    home, sees_home = nearest(view.home, view_radius)
    heading = np.where(np.any(moved, axis=1, keepdims=True), moved, memory.heading)
    return ForageMemory(
        food=np.where(sees_food[:, None], food, remembered),
        knows_food=sees_food | (memory.knows_food & out_of_view & old),
        sees_food=sees_food,
        home=np.where(sees_home[:, None], home, memory.home - moved),
        knows_home=sees_home | (memory.knows_home & old),
        heading=heading * old[:, None],
        legal=legal_from(observation, view_radius),
        hour=np.where(view.is_night, NIGHT, np.where(view.phase_left <= DUSK_BEGINS, DUSK, DAY)),
    )


def nearest(plane: np.ndarray, view_radius: int) -> tuple[np.ndarray, np.ndarray]:
    """Offset (M, 2) of the nearest True cell of a view (M, V, V), in steps, and whether there is one (M,)."""
    side = np.arange(-view_radius, view_radius + 1)
    steps = np.abs(side)[:, None] + np.abs(side)
    distance = np.where(plane, steps, steps.max() + 1).reshape(len(plane), -1)
    closest = distance.argmin(axis=1)
    offset = np.stack(np.divmod(closest, len(side)), axis=1) - view_radius
    return offset, np.any(plane, axis=(1, 2), keepdims=False)
