"""The forage world in words."""

import numpy as np

from agents.codec import way
from agents.memory import DAY, DUSK, ForageMemory, newborn, remember
from envs.observe import legal_from


class ForageCodec:
    """The forage world in words, as in " food two north one east, rock north"."""

    instructions = "You are hungry. Walk to food, around rocks.\n"
    action_words = ("stay", "north", "south", "east", "west")
    answer = "go"

    def __init__(self, view_radius: int):
        self.view_radius = view_radius

    def remember(self, memory: ForageMemory | None, observation: np.ndarray, action: np.ndarray) -> ForageMemory:
        """Path integration, see `agents.memory`."""
        return remember(memory or newborn(len(observation)), observation, action, self.view_radius)

    def encode(self, observation: np.ndarray, memory: ForageMemory) -> list[str]:
        """The way to the nearest known food, else the way it was going and the way home; and rock in that way.

        From dusk till dawn home comes first.
        """
        return [_text(*row) for row in zip(*(column.tolist() for column in memory), strict=True)]

    def legal(self, observation: np.ndarray) -> np.ndarray:
        """Moves that no rock and no border blocks."""
        return legal_from(observation, self.view_radius)


def _text(
    food: list[int],
    knows_food: bool,
    sees_food: bool,
    home: list[int],
    knows_home: bool,
    heading: list[int],
    legal: list[bool],
    hour: int,
) -> str:
    to_home = f", home{way(home, exact=False)}" if knows_home else ""
    if knows_food:
        to_food = (" food" if sees_food else " food was") + way(food, exact=sees_food) + _rocks_before(food, legal)
    else:
        going = f", going{way(heading, exact=False)}{_rocks_before(heading, legal)}" if any(heading) else ""
        to_food = " no food" + going
    if hour == DAY:
        return to_food if knows_food else to_food + to_home
    rocks = _rocks_before(home, legal) if knows_home else ""
    return (" dusk" if hour == DUSK else " night") + to_home + rocks + "," + to_food


def _rocks_before(offset: list[int], legal: list[bool]) -> str:
    """Blocked moves among those that lead closer. Others need no word: they are masked, and make texts many."""
    south, east = offset
    closer = (False, south < 0, south > 0, east > 0, east < 0)  # as ForageCodec.action_words
    rows = zip(ForageCodec.action_words, closer, legal, strict=True)
    return "".join(f", rock {word}" for word, leads_closer, is_free in rows if leads_closer and not is_free)
