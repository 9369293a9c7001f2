"""The forage world in words."""

import numpy as np

from agents.codecs.codec import NUMBERS
from agents.codecs.forage_map import DAY, DUSK, NIGHT, ForageMap, newborn, remember, ways
from agents.codecs.wayfinding import NO_WAY
from envs.observe import legal_from


class ForageCodec:
    """The forage world in words, as in " food north two, east three" or " no food, grown west, new south".

    The text names the move that leads to each thing, around rocks that are known (`agents.codecs.forage_map.Ways`).
    """

    instructions = "You are hungry. Walk to food.\n"
    action_words = ("stay", "north", "south", "east", "west")
    answer = "go"

    def __init__(self, view_radius: int):
        self.view_radius = view_radius

    def remember(self, memory: ForageMap | None, observation: np.ndarray, action: np.ndarray) -> ForageMap:
        """A map, see `agents.codecs.forage_map`."""
        return remember(memory or newborn(len(observation)), observation, action, self.view_radius)

    def encode(self, observation: np.ndarray, memory: ForageMap) -> list[str]:
        """Up to two moves to food; without food, the way to where it grew, and to where nobody looked yet.

        At dusk the way home comes first; at night there is nothing else to say.
        """
        steps = (kind.tolist() for kind in ways(memory))
        return [_text(*row) for row in zip(*steps, memory.hour.tolist(), strict=True)]

    def legal(self, observation: np.ndarray) -> np.ndarray:
        """Moves that no rock and no border blocks."""
        return legal_from(observation, self.view_radius)


def _text(food: list[int], regrown: list[int], unknown: list[int], home: list[int], hour: int) -> str:
    to_home = ", home" + _way(home) if min(home) < NO_WAY else ""
    if hour == NIGHT:
        return " night" + to_home
    if min(food) < NO_WAY:
        text = " food" + _ways_to_food(food, 1 if hour == DUSK else 2)
    else:
        text = " no food"
        for word, steps in (("grown", regrown), ("new", unknown)):
            text += f", {word}{_way(steps)}" if min(steps) < NO_WAY else ""
    return text if hour == DAY else f" dusk{to_home},{text}"


def _way(steps: list[int]) -> str:
    """The first move of the shortest way, or that it is here."""
    return " here" if steps[0] == 0 else " " + ForageCodec.action_words[1 + steps[1:].index(min(steps[1:]))]


def _ways_to_food(steps: list[int], most: int) -> str:
    """The moves that lead to food soonest with their steps, nearest first: as near as any, or one step more."""
    if steps[0] == 0:
        return " here"
    near = sorted((number, move) for move, number in enumerate(steps[1:], start=1) if number <= min(steps[1:]) + 1)
    words = (f" {ForageCodec.action_words[move]} {NUMBERS[n] if n <= 3 else 'far'}" for n, move in near[:most])
    return ",".join(words)
