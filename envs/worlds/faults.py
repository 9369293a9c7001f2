"""What a world that somebody else wrote may give, and what is said of one that gives something else.

Knows shapes and numbers only: what an observation means is for the codec to say.
"""

import traceback
from collections.abc import Mapping
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces

NUMBERS = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)
"""Spaces whose observations have one shape."""


class WorldFault(ValueError):
    """A world did what no world may do; the message says what, and `ForeignWorld` adds which copy, agent and step."""


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
    """A reward; WorldFault unless it is one number, finite in float32."""
    array = np.asarray(given)
    if array.dtype.kind not in "biuf" or array.size != 1:
        raise WorldFault(f"{name} is {short(given)}: must be one number")
    value = float(array.item())
    if not (isfinite(value) and abs(value) < 3e38):
        raise WorldFault(f"{name} is {value}: must be finite, and below 3e38, in float32")
    return value


def flag(given: Any, name: str) -> bool:
    """Whether an episode is over; WorldFault unless it is one truth value, or 0 or 1."""
    array = np.asarray(given)
    if array.dtype.kind not in "biuf" or array.size != 1 or array.item() not in (0, 1):
        raise WorldFault(f"{name} is {short(given)}: must be true or false")
    return bool(array.item())


def form(observation: Any, space: Any) -> Any:
    """What must stay the same in all observations of a space, in words: the keys, and the shapes of numbers."""
    if isinstance(space, spaces.Dict) and isinstance(observation, Mapping):
        return {key: form(part, space.spaces.get(key)) for key, part in observation.items()}
    if isinstance(space, spaces.Tuple) and isinstance(observation, tuple | list):
        return [form(part, own) for part, own in zip(observation, [*space.spaces, *observation], strict=False)]
    if isinstance(space, NUMBERS) and not isinstance(observation, Mapping | str | None):
        array = np.asarray(observation)
        return f"numbers of shape {array.shape}" if array.dtype.kind in "biufc" else f"of type {array.dtype}"
    if isinstance(space, NUMBERS) or observation is None:  # it need not be what its space says, but always the same
        return "None" if observation is None else f"a {type(observation).__name__}"
    return "anything"


def is_finite(observation: Any) -> bool:
    """Whether there is no NaN and no infinity in an observation, as deep as dicts, tuples and lists go."""
    if isinstance(observation, Mapping):
        return all(map(is_finite, observation.values()))
    if isinstance(observation, tuple | list):
        return all(map(is_finite, observation))
    if isinstance(observation, float | np.ndarray | np.generic):
        array = np.asarray(observation)
        return array.dtype.kind not in "fc" or bool(np.isfinite(array).all())
    return True


def raised(error: BaseException) -> str:
    """What code of a world raised, and in which line."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    return f"raised {type(error).__name__}: {' '.join(str(error).split())}{where}"


def short(value: Any) -> str:
    """A value as it may stand in a sentence."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else f"{text[:77]}..."
