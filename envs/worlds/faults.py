"""What a world that somebody else wrote may give, and what is said of one that gives something else.

Knows shapes and numbers only: what an observation means is for the codec to say.
"""

import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces

from envs.worlds.time_limit import TookTooLong, time_limit

NUMBERS = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)
"""Spaces whose observations have one shape."""
MOST_REWARD = 1e15
"""In absolute value. Squares of returns are summed in float32, whose range ends at 3.4e38."""


class WorldFault(ValueError):
    """A world did what no world may do; the message says what, and `asked` adds where."""


class NoWorld(WorldFault):
    """There is no such world, or none in which agents can live; the message says why."""


@contextmanager
def asked(where: str, what: str, seconds: float = 0.0) -> Iterator[None]:
    """Within the block a world is called, for at most so many seconds; 0: no limit.

    What is wrong becomes a WorldFault that says where, but for a NoWorld.
    """
    too_long = f"{where}: {what} took longer than env.step_timeout = {seconds:g} s"
    try:
        with time_limit(seconds, f"{too_long}; what was saved before is kept"):
            yield
    except NoWorld:
        raise
    except WorldFault as fault:
        raise WorldFault(f"{where}: {fault}") from fault
    except TookTooLong as error:
        raise WorldFault(too_long) from error
    except (Exception, SystemExit) as error:  # anybody may have written it
        raise WorldFault(f"{where}: {what} {raised(error)}") from error


def five(given: Any) -> tuple[Any, Any, Any, Any, Any]:
    """What `step` gave; WorldFault unless it is observation, reward, terminated, truncated and info."""
    if not isinstance(given, tuple | list) or len(given) != 5:
        raise WorldFault(f"step gave {short(given)}: must be observation, reward, terminated, truncated, info")
    return tuple(given)


def two(given: Any) -> tuple[Any, Any]:
    """What `reset` gave; WorldFault unless it is observation and info."""
    if not isinstance(given, tuple | list) or len(given) != 2:
        raise WorldFault(f"reset gave {short(given)}: must be observation and info")
    return tuple(given)


def mapping(given: Any, name: str) -> Mapping:
    """A dict; WorldFault for anything else."""
    if not isinstance(given, Mapping):
        raise WorldFault(f"{name} is {short(given)}: must be a dict")
    return given


def number(given: Any, name: str) -> float:
    """A reward; WorldFault unless it is one number, finite, and not absurdly large."""
    array = _array(given)
    if array.dtype.kind not in "biuf" or array.size != 1:
        raise WorldFault(f"{name} is {short(given)}: must be one number")
    value = float(array.item())
    if not abs(value) <= MOST_REWARD:  # NaN is not, either
        raise WorldFault(f"{name} is {value}: must be finite, and at most {MOST_REWARD:g} in absolute value")
    return value


def flag(given: Any, name: str) -> bool:
    """Whether an episode is over; WorldFault unless it is one truth value, or 0 or 1."""
    array = _array(given)
    if array.dtype.kind not in "biuf" or array.size != 1 or array.item() not in (0, 1):
        raise WorldFault(f"{name} is {short(given)}: must be true or false")
    return bool(array.item())


def form(observation: Any, space: Any) -> Any:
    """What must stay the same in all observations of an episode, in words: the keys, and the shapes of numbers."""
    if isinstance(space, spaces.Dict) and isinstance(observation, Mapping):
        return {key: form(part, space.spaces.get(key)) for key, part in observation.items()}
    if isinstance(space, spaces.Tuple) and isinstance(observation, tuple | list):
        return [form(part, own) for part, own in zip(observation, [*space.spaces, *observation], strict=False)]
    if isinstance(space, NUMBERS) and not isinstance(observation, Mapping | str | None):
        array = _array(observation)
        return f"numbers of shape {array.shape}" if array.dtype.kind in "biufc" else f"of type {array.dtype}"
    if isinstance(space, NUMBERS) or observation is None:  # it need not be what its space says, but always the same
        return "None" if observation is None else f"a {type(observation).__name__}"
    return "anything"


def is_sound(observation: Any, space: Any) -> bool:
    """Whether no number of an observation is NaN, or infinite where a bound of its space forbids that.

    As deep as dicts, tuples and lists go. Where no space says what is allowed, an infinity is.
    """
    if isinstance(observation, Mapping):
        parts = space.spaces if isinstance(space, spaces.Dict) else {}
        return all(is_sound(part, parts.get(key)) for key, part in observation.items())
    if isinstance(observation, tuple | list) and not isinstance(space, NUMBERS):
        known = space.spaces if isinstance(space, spaces.Tuple) else ()
        return all(map(is_sound, observation, chain(known, repeat(None))))
    if not isinstance(space, NUMBERS) and not isinstance(observation, float | np.ndarray | np.generic):
        return True
    array = _array(observation)
    if array.dtype.kind not in "fc" or np.isfinite(array).all():
        return True
    return not np.isnan(array).any() and _may_be_infinite(array, space)


def _may_be_infinite(array: np.ndarray, space: Any) -> bool:
    """Whether the space of an array, if it is known, has no bound where the array is infinite."""
    if not isinstance(space, spaces.Box):
        return not isinstance(space, NUMBERS)
    low, high = (space.low, space.high) if space.shape == array.shape else (space.low.min(), space.high.max())
    return bool(((low <= array) & (array <= high) | np.isfinite(array)).all())


def _array(given: Any) -> np.ndarray:
    """What was given as an array; an array of objects where NumPy makes no numbers of it."""
    try:
        return np.asarray(given)
    except (ValueError, TypeError, RuntimeError):  # rows of different lengths, or a tensor with a gradient
        return np.array(None, object)


def raised(error: BaseException) -> str:
    """What code of a world raised, and in which line."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    return f"raised {type(error).__name__}: {' '.join(str(error).split())}{where}"


def short(value: Any) -> str:
    """A value as it may stand in a sentence."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else f"{text[:77]}..."
