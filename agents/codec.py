"""Between a world's numbers and an agent's words.

A codec is all that a world needs to be lived in by a language model: the constant instructions, one word for each
action, and a text for each observation. Texts should be short and few: every distinct text is read once by the base.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from agents.memory import ForageMemory, newborn, remember
from envs.observe import legal_from


class TextCodec(Protocol):
    """What the mind must know of a kind of world. All methods work on M agents at once."""

    @property
    def instructions(self) -> str:
        """The same words in front of every text; read once, so they may be long."""

    @property
    def action_words(self) -> Sequence[str]:
        """One word for each action, by its number; each must be one token."""

    @property
    def answer(self) -> str:
        """The word after the text, at which the agent's adapter takes over; must be one token."""

    def remember(self, memory: Any, observation: np.ndarray, action: np.ndarray | None) -> Any:
        """Memory of M agents after `action` (M,) led to `observation` (M, O); `memory` and `action` None at birth."""

    def encode(self, observation: np.ndarray, memory: Any) -> list[str]:
        """M texts, each beginning with a space."""

    def legal(self, observation: np.ndarray) -> np.ndarray:
        """Which actions are allowed: (M, A) bool."""


NUMBERS = ("zero", "one", "two", "three", "four", "five")
"""Words for steps; a view reaches at most five cells."""


class ForageCodec:
    """The forage world in words, as in " food two north one east, rock north"."""

    instructions = "You are hungry. Walk to food, around rocks.\n"
    action_words = ("stay", "north", "south", "east", "west")
    answer = "go"

    def __init__(self, view_radius: int):
        self.view_radius = view_radius

    def remember(self, memory: ForageMemory | None, observation: np.ndarray, action: np.ndarray | None) -> ForageMemory:
        """Path integration, see `agents.memory`."""
        return remember(memory or newborn(len(observation)), observation, action, self.view_radius)

    def encode(self, observation: np.ndarray, memory: ForageMemory) -> list[str]:
        """The way to the nearest known food, else the way it was going and the way home; and rock in that way."""
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
) -> str:
    if knows_food:
        return (" food" if sees_food else " food was") + way(food, exact=sees_food) + _rocks_before(food, legal)
    going = f", going{way(heading, exact=False)}{_rocks_before(heading, legal)}" if any(heading) else ""
    return " no food" + going + (f", home{way(home, exact=False)}" if knows_home else "")


def _rocks_before(offset: list[int], legal: list[bool]) -> str:
    """Blocked moves among those that lead closer. Others need no word: they are masked, and make texts many."""
    south, east = offset
    closer = (False, south < 0, south > 0, east > 0, east < 0)  # as ForageCodec.action_words
    rows = zip(ForageCodec.action_words, closer, legal, strict=True)
    return "".join(f", rock {word}" for word, leads_closer, is_free in rows if leads_closer and not is_free)


def way(offset: Sequence[int], *, exact: bool) -> str:
    """An offset (rows south, columns east) in words: " two north one east", or " north east" where not exact.

    What is in view is told exactly; what is remembered is told by direction only, so that texts stay few.
    """
    words = ""
    for steps, (back, forth) in zip(offset, (("north", "south"), ("west", "east")), strict=True):
        if steps:
            words += (f" {NUMBERS[abs(steps)]}" if exact else "") + f" {forth if steps > 0 else back}"
    return words or " here"
