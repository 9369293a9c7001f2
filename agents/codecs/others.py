"""Codecs of other people's worlds: FrozenLake, MiniGrid (empty rooms and locked doors), simple_spread.

Each reads the environment's documented observation and nothing behind it, except FrozenLake, whose observation is a
bare number: there the agent is given the map, as a person is who plays it.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from agents.codecs.babyai import BabyAITextCodec
from agents.codecs.codec import NUMBERS, PlainCodec, TextCodec, way
from agents.types import UserError


class FrozenLakeCodec(PlainCodec):
    """FrozenLake: the way to the goal, and the holes around."""

    instructions = "You are on ice. Walk to the goal, not into holes.\n"
    action_words = ("left", "down", "right", "up")
    _MOVES = ((0, -1), (1, 0), (0, 1), (-1, 0))

    def describe(self, observation: int) -> str:
        """As in "goal two south one east, hole left"."""
        field = self.world.unwrapped.desc
        here = np.array(divmod(int(observation), field.shape[1]))
        goal = np.argwhere(field == b"G")[0] - here
        beside = [(word, here + move) for word, move in zip(self.action_words, self._MOVES, strict=True)]
        holes = "".join(
            f", hole {word}"
            for word, place in beside
            if (place >= 0).all() and (place < field.shape).all() and field[tuple(place)] == b"H"
        )
        return f"goal{way(goal.tolist(), exact=abs(goal).max() < len(NUMBERS))}{holes}"


class MiniGridCodec(PlainCodec):
    """MiniGrid's rooms with a goal (Empty, FourRooms) and with a key and a door on the way (DoorKey)."""

    instructions = "You are in a room. Go to the goal; a key opens the door.\n"
    action_words = ("left", "right", "forward", "pick", "drop", "open", "done")
    _FREE, _WALL, _DOOR, _KEY, _GOAL = (1, 3, 8), 2, 4, 5, 8

    def describe(self, observation: dict[str, Any]) -> str:
        """As in "goal two forward one left, wall": the thing that matters next, and what is in front."""
        image = observation["image"]  # (V, V, 3): column, row, (kind, colour, state)
        has_key = self._here(image)[0] == self._KEY  # what it carries is shown where it stands
        wanted = [("goal", self._GOAL), *([("door", self._DOOR)] if has_key else [("key", self._KEY)])]
        wanted.append(("door", self._DOOR))
        seen = next((f"{name}{self._where(image, kind)}" for name, kind in wanted if (image[..., 0] == kind).any()), "")
        wall = ", wall" if self._front(image)[0] == self._WALL else ""
        return ("with key, " if has_key else "") + (seen or "nothing") + wall

    def allowed(self, observation: dict[str, Any]) -> list[bool]:
        """Turns, steps into what is free, and the key and the door where they are in front; never drop or done."""
        image = observation["image"]
        front, _, state = self._front(image)
        has_key = self._here(image)[0] == self._KEY
        is_shut = front == self._DOOR and state != 0
        can_open = is_shut and (has_key or state == 1)
        is_free = front in self._FREE or (front == self._DOOR and state == 0)
        return [True, True, is_free, front == self._KEY and not has_key, False, can_open, False]

    # The agent stands in the middle of the last row of its view and looks up it

    def _here(self, image: np.ndarray) -> np.ndarray:
        return image[len(image) // 2, -1]

    def _front(self, image: np.ndarray) -> np.ndarray:
        return image[len(image) // 2, -2]

    def _where(self, image: np.ndarray, kind: int) -> str:
        column, row = np.argwhere(image[..., 0] == kind)[0]
        aside = int(column) - len(image) // 2
        return self._steps(len(image) - 1 - row, "forward") + self._steps(abs(aside), "right" if aside > 0 else "left")

    @staticmethod
    def _steps(count: int, word: str) -> str:
        number = f" {NUMBERS[count]}" if count < len(NUMBERS) else ""
        return f"{number} {word}" if count else ""


class SpreadCodec(PlainCodec):
    """MPE's simple_spread: the way to the nearest landmark that nobody else is closer to."""

    instructions = "Each stands on a spot of its own. Go to yours.\n"
    action_words = ("stay", "left", "right", "down", "up")

    def describe(self, observation: np.ndarray) -> str:
        """As in "spot far left near up"."""
        if not np.isfinite(observation).all():  # a comparison with NaN would be put into words as a way
            raise UserError(f"the world gave the observation {observation.tolist()}: must be finite numbers")
        team = len(observation) // 6  # velocity, position, landmarks, others, what others say
        landmarks = observation[4 : 4 + 2 * team].reshape(team, 2)
        others = observation[4 + 2 * team : 2 + 4 * team].reshape(team - 1, 2)
        mine = np.hypot(*landmarks.T)
        theirs = np.hypot(*(landmarks[:, None] - others).transpose(2, 0, 1)).min(1, initial=np.inf)
        x, y = landmarks[np.argmin(np.where(theirs < mine, mine + mine.max(), mine))]
        return "spot" + (self._far(x, "left", "right") + self._far(y, "down", "up") or " here")

    @staticmethod
    def _far(offset: float, back: str, forth: str) -> str:
        if abs(offset) < 0.1:
            return ""
        return (" near " if abs(offset) < 0.5 else " far ") + (forth if offset > 0 else back)


CODECS: dict[str, type[PlainCodec]] = {
    "FrozenLake": FrozenLakeCodec,
    "MiniGrid-Empty": MiniGridCodec,
    "MiniGrid-FourRooms": MiniGridCodec,
    "MiniGrid-DoorKey": MiniGridCodec,
    "BabyAI-": BabyAITextCodec,
    "mpe2.simple_spread": SpreadCodec,
}
"""Beginnings of the ids of worlds that have a codec."""


def built_in(env_id: str, world: Any) -> TextCodec | None:
    """The codec that comes with Terrarium for a world of that id; None where there is none."""
    name = env_id.rpartition(":")[2]
    kinds: Sequence[type[PlainCodec]] = [kind for begins, kind in CODECS.items() if name.startswith(begins)]
    return kinds[0](world) if kinds else None
