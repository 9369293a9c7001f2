"""Between a world's numbers and an agent's words.

A codec is all that a world needs to be lived in by a language model: the constant instructions, one word for each
action, and a text for each observation. Texts should be short and few: every distinct text is read once by the base.
`docs/worlds.md` shows how to write one.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any, Protocol

import numpy as np

from agents.types import UserError


class TextCodec(Protocol):
    """What the network must know of a kind of world. All methods work on M agents at once.

    It may also have `part_end`, as ",": what ends a part of a text. Each part is then read apart, once, as if no other
    were there (`agents.parts_cache`); without it, or where it is empty, texts are read whole.
    """

    @property
    def instructions(self) -> str:
        """The same words in front of every text; read once, so they may be long."""

    @property
    def action_words(self) -> Sequence[str]:
        """One word for each action, by its number; each must be one token."""

    @property
    def answer(self) -> str:
        """The word after the text, at which the agent's adapter takes over; must be one token."""

    def remember(self, memory: Any, observation: np.ndarray, action: np.ndarray) -> Any:
        """Memory of M agents after `action` (M,) led to `observation` (M, ...).

        None, or a NamedTuple of (M, ...) arrays; `memory` is None at first.
        Where `action` is -1 nothing led there: somebody is born, or an episode begins.
        """

    def encode(self, observation: np.ndarray, memory: Any) -> list[str]:
        """M texts, each beginning with a space."""

    def legal(self, observation: np.ndarray) -> np.ndarray:
        """Which actions are allowed: (M, A) bool, at least one in each row."""


def part_end_of(codec: object) -> str:
    """What ends a part of this codec's texts; empty where they are read whole."""
    end = getattr(codec, "part_end", "")
    if not isinstance(end, str) or (end and not end.strip()):
        raise UserError(f"codec.part_end = {end!r}: must be text that is more than spaces, or empty")
    return end


CODEC_CLASS = "package.module:Class, a class of one argument"
"""What may be given for a codec of one's own."""


def named_class(name: str) -> Any:
    """The class that `package.module:Class` means; UserError where there is none."""
    module, _, kind = name.partition(":")
    try:
        found = getattr(import_module(module), kind)
    except (Exception, SystemExit) as error:  # a module may fail in any way while it is imported
        is_absent = isinstance(error, ImportError | AttributeError)
        reason = str(error) if is_absent else f"{module} raised {type(error).__name__}: {error}"
        raise UserError(f"env.codec = {name!r}: must be {CODEC_CLASS} ({reason})") from error
    if not isinstance(found, type):
        raise UserError(f"env.codec = {name!r}: must be {CODEC_CLASS} ({kind} is {found!r})")
    return found


@contextmanager
def naming(kind: type, method: str) -> Iterator[None]:
    """Within the block a codec's method is called, which anybody may have written: its error becomes a UserError."""
    try:
        yield
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{kind.__name__}.{method} raised {type(error).__name__}: {reason}") from error


class PlainCodec:
    """A codec without memory that looks at one agent at a time: subclass it, and write `describe`.

    Its class is called with the world that it is for, a Gymnasium or a PettingZoo environment in which an episode has
    begun: once for the words, and then for each copy in which agents play, whose observations alone it is shown.
    """

    instructions = "Choose well.\n"
    action_words: Sequence[str] = ()
    answer = "go"
    part_end = ""

    def __init__(self, world: Any):
        self.world = world

    def describe(self, observation: Any) -> str:
        """One agent's observation in a few words; needed unless a subclass writes `encode` itself."""
        raise UserError(f"{type(self).__name__} has no describe: a codec must write it, or encode")

    def allowed(self, observation: Any) -> Sequence[bool]:
        """Which actions are allowed, by number; all, unless a subclass knows better."""
        return [True] * len(self.action_words)

    def remember(self, memory: None, observation: np.ndarray, action: np.ndarray) -> None:
        """Nothing."""

    def encode(self, observation: np.ndarray, memory: None) -> list[str]:
        """M texts."""
        with naming(type(self), "describe"):
            texts = [self.describe(one) for one in observation]
        wrong = [text for text in texts if not isinstance(text, str)]
        if wrong:
            raise UserError(f"{type(self).__name__}.describe gave {wrong[0]!r}: must be text")
        return [" " + text.strip() for text in texts]

    def legal(self, observation: np.ndarray) -> np.ndarray:
        """(M, A) bool; everything for those that see nothing, because they do not play."""
        actions = len(self.action_words)
        with naming(type(self), "allowed"):
            rows = [[True] * actions if one is None else list(self.allowed(one)) for one in observation]
        wrong = next((row for row in rows if len(row) != actions), None)
        if wrong is not None:
            raise UserError(f"{type(self).__name__}.allowed gave {wrong}: must be {actions}, one for each action word")
        return np.array(rows, bool).reshape(len(rows), actions)


NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven")
"""Words for steps."""


def way(offset: Sequence[int], *, exact: bool) -> str:
    """An offset (rows south, columns east) in words: " two north one east", or " north east" where not exact.

    What is in view is named exactly, what is remembered by direction only, so that texts stay few.
    """
    words = ""
    for steps, (back, forth) in zip(offset, (("north", "south"), ("west", "east")), strict=True):
        if steps:
            words += (f" {NUMBERS[abs(steps)]}" if exact else "") + f" {forth if steps > 0 else back}"
    return words or " here"
