"""Read for all agents of a rollout: from observations to texts, with what each agent remembers.

Symbols: W worlds, N agents in a world, M = W * N, A actions.
"""

from typing import Any, cast

import numpy as np

from agents.codecs.codec import TextCodec, naming
from agents.codecs.forage import ForageCodec
from agents.types import require
from envs.worlds.foreign import ForeignWorld
from envs.worlds.world import World


class Reader:
    """Reads for M agents: keeps their memories and gives each distinct text a number.

    In a foreign world each copy has a codec of its own, that sees only that copy: what it says may depend on the map.
    """

    def __init__(self, codec: TextCodec, world: World, everyone: int):
        self.texts: list[str] = []  # the distinct texts that were acted on, by number
        self._numbers: dict[str, int] = {}
        self._world, self._seen = world, np.empty(0)
        self._codecs = [(codec, np.arange(everyone))]  # with those for whom they read
        self._copies: list[Any] = []  # of a foreign world, in which they are
        if isinstance(world, ForeignWorld):
            self._copies = world.copies()
            self._codecs = _codecs_of(type(codec), self._copies)
            self._restarts = world.restarts
        self._memories: list[Any] = [None] * len(self._codecs)

    def look(self, observation: np.ndarray, action: np.ndarray) -> None:
        """Each saw (M, ...) after it did `action` (M,)."""
        if isinstance(self._world, ForeignWorld) and self._world.restarts > self._restarts:
            self._begin_anew(self._world)
        self._seen, self._memories = observation, self._remember(observation, action)

    def read(self, rows: np.ndarray) -> list[str]:
        """What some of them read."""
        return self._encoded(self._seen, self._memories, rows)

    def legal(self) -> np.ndarray:
        """What the codec and the world allow, (M, A) bool."""
        legal = np.empty((len(self._seen), len(self._codecs[0][0].action_words)), bool)
        for codec, own in self._codecs:
            legal[own] = _masks(codec, _call(codec, "legal", self._seen[own]), legal[own].shape)
        if isinstance(self._world, ForeignWorld):
            legal &= self._world.legal().reshape(legal.shape)
        return legal

    def numbered(self, texts: list[str]) -> np.ndarray:
        """The numbers (R,) of texts that were acted on."""
        for text in texts:
            if text not in self._numbers:
                self._numbers[text] = len(self.texts)
                self.texts.append(text)
        return np.array([self._numbers[text] for text in texts])

    def peek(self, observation: np.ndarray, action: np.ndarray, rows: np.ndarray) -> list[str]:
        """What some of them would read of an observation that they do not act on."""
        return self._encoded(observation, self._remember(observation, action), rows)

    def _begin_anew(self, world: ForeignWorld) -> None:
        """Copies were made anew: new codecs look at them, which remember nothing."""
        before, self._copies, self._restarts = self._copies, world.copies(), world.restarts
        for number, (codec, own) in enumerate(self._codecs):
            copy, kind = self._copies[own[0]], cast(Any, type(codec))
            if copy is not before[own[0]]:
                with naming(kind, "__init__"):
                    self._codecs[number] = kind(copy), own
                self._memories[number] = None

    def _remember(self, observation: np.ndarray, action: np.ndarray) -> list[Any]:
        pairs = zip(self._codecs, self._memories, strict=True)
        return [_call(codec, "remember", memory, observation[own], action[own]) for (codec, own), memory in pairs]

    def _encoded(self, observation: np.ndarray, memories: list[Any], rows: np.ndarray) -> list[str]:
        is_asked = np.zeros(len(observation), bool)
        is_asked[rows] = True
        texts: dict[int, str] = {}
        for (codec, own), memory in zip(self._codecs, memories, strict=True):
            here = np.flatnonzero(is_asked[own])
            if len(here):
                encoded = _call(codec, "encode", observation[own[here]], _of(memory, here))
                texts |= zip(own[here].tolist(), _texts(codec, encoded, len(here)), strict=True)
        return [texts[row] for row in rows.tolist()]


def _codecs_of(kind: Any, copies: list[Any]) -> list[tuple[TextCodec, np.ndarray]]:
    """A codec for each different environment among those of M agents, with the numbers of the agents in it."""
    agents_of: dict[int, list[int]] = {}
    for agent, copy in enumerate(copies):
        agents_of.setdefault(id(copy), []).append(agent)
    with naming(kind, "__init__"):
        return [(kind(copies[agents[0]]), np.array(agents)) for agents in agents_of.values()]


def _call(codec: TextCodec, method: str, *arguments: Any) -> Any:
    """What a method of a codec says; a UserError where it fails, but for our own codec: there it is a bug of ours."""
    if type(codec) is ForageCodec:
        return getattr(codec, method)(*arguments)
    with naming(type(codec), method):
        return getattr(codec, method)(*arguments)


def _texts(codec: TextCodec, given: Any, count: int) -> list[str]:
    """What a codec's `encode` gave; UserError unless it is so many texts."""
    is_fine = isinstance(given, list | tuple) and len(given) == count and all(isinstance(text, str) for text in given)
    require(is_fine, f"{type(codec).__name__}.encode", given, f"a list of {count} texts, one for each observation")
    return list(given)


def _masks(codec: TextCodec, given: Any, shape: tuple[int, ...]) -> np.ndarray:
    """What a codec's `legal` gave; UserError unless it has this shape."""
    with naming(type(codec), "legal"):
        masks = np.asarray(given, bool)
    allowed = f"{shape}, for each observation one for each action word"
    require(masks.shape == shape, f"the shape of {type(codec).__name__}.legal", masks.shape, allowed)
    return masks


def _of(memory: tuple | None, rows: np.ndarray) -> tuple | None:
    return memory if memory is None else type(memory)(*(array[rows] for array in memory))
