"""What the interfaces of the world share: which world is meant, which episode follows, what is legal, how it is shown.

The interfaces are `forage` (PettingZoo), `forage_gym` and `forage_vector` (Gymnasium) and `sb3` (Stable-Baselines3).
"""

import operator
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np
from gymnasium.spaces import Box

from envs.generator import HELD_OUT, SEED_LIMIT, generate
from envs.observe import legal_from, observation_size
from envs.presets import preset as preset_named
from envs.rendering import render
from envs.types import Action, WorldConfig, WorldState

SEED_STRIDE = 0x4F1BBCDD
"""From one unseeded episode to the next. Odd and near the golden section of 2**31: every layout is visited
before one repeats, and environments that begin at neighbouring seeds stay apart for long."""

RENDER_MODES = ("human", "ansi", "rgb_array")
"""A window (needs pygame: `pip install -e '.[render]'`), coloured text, pixels."""

FPS = 8
"""Steps per second of a film or in a window."""

DEFAULT_PRESET = "meadow"


def world_config(preset: str, config: WorldConfig | None, overrides: Mapping[str, Any]) -> WorldConfig:
    """Return the world that the arguments of a interface mean: a preset by name or a config, with other values in it.

    overrides: fields of `WorldConfig`. Raises TypeError for an unknown field, ValueError for an unknown preset,
    for a value that no world can have, and for a config beside another preset than the default one.
    """
    if config is not None and preset != DEFAULT_PRESET:
        raise ValueError(f"preset = {preset!r} and a config: must be one of them")
    known = [field.name for field in fields(WorldConfig)]
    unknown = [name for name in overrides if name not in known]
    if unknown:
        raise TypeError(f"unknown WorldConfig field {unknown[0]!r}; fields are {', '.join(known)}")
    return replace(config or preset_named(preset), **overrides)


def observation_box(config: WorldConfig) -> Box:
    """Return the space of one agent's observations, (O,) float32 in [0, 1]."""
    return Box(0.0, 1.0, (observation_size(config.view_radius),), np.float32)


def first_seed() -> int:
    """Return a seed for those who gave none, another each time; never a held-out one."""
    return secrets.randbits(31)


def seed_after(seed: int) -> int:
    """Return the seed of the episode that follows without a seed of its own. It stays held out if `seed` was."""
    base = HELD_OUT if seed >= HELD_OUT else 0
    return base + (seed - base + SEED_STRIDE) % HELD_OUT


def seeds_from(seed: int, worlds: int) -> list[int]:
    """Return the seeds of that many worlds: `seed` and those after it, all held out or none."""
    base = HELD_OUT if seed >= HELD_OUT else 0
    return [base + (seed - base + world) % (SEED_LIMIT - HELD_OUT if base else HELD_OUT) for world in range(worlds)]


def renewed(
    config: WorldConfig, state: WorldState, is_over: np.ndarray, seeds: Sequence[int] | None = None
) -> WorldState:
    """Return a copy of `state` where the next episode has begun in the worlds where `is_over` (W,) is true.

    Only those are made anew. Which episode is next is `seed_after`'s, or they have seeds of their own; `is_over` must
    be true somewhere.
    """
    following = [seed_after(seed) for seed in state.seed[is_over].tolist()]
    fresh = generate(config, following if seeds is None else seeds)
    result = WorldState(*(array.copy() for array in state))
    for array, part in zip(result, fresh, strict=True):
        array[is_over] = part
    return result


def action_mask(config: WorldConfig, observation: np.ndarray) -> np.ndarray:
    """Return (..., A) int8, 1 for the legal actions, as they show in observations (..., O)."""
    mask = legal_from(observation, config.view_radius).view(np.int8)
    mask[..., Action.STAY] = 1
    return mask


def checked_action(action: Any, name: str) -> int:
    """Return an action as an int. Raises ValueError, with its `name` and value, where there is no such action."""
    # operator.index takes Python and NumPy integers, and refuses floats, NaN, None and text
    try:
        value = operator.index(action)
    except TypeError:
        value = -1
    if isinstance(action, (bool, np.bool_)) or not 0 <= value < len(Action):
        raise ValueError(f"{name} = {action!r}: must be an integer between 0 and {len(Action) - 1}")
    return value


class Viewer:
    """Shows one world in the way that `render_mode` asks for. A copy of it opens a window of its own."""

    def __init__(self, config: WorldConfig, mode: str | None) -> None:
        """Remember how to show. Raises ValueError for a mode that is neither None nor one of `RENDER_MODES`."""
        if mode is not None and mode not in RENDER_MODES:
            raise ValueError(f"render_mode = {mode!r}: must be None, {', '.join(map(repr, RENDER_MODES))}")
        self._config, self._mode = config, mode
        self._window: Any = None

    def show(self, state: WorldState, w: int = 0) -> str | np.ndarray | None:
        """Return world `w` as text or (height, width, 3) uint8, or None where a window or nobody shows it."""
        if self._mode == "ansi":
            return render.ansi(state, self._config, w=w)
        if self._mode == "rgb_array":
            return render.rgb_array(state, self._config, w=w)
        if self._mode == "human":
            self._opened().show(state)
        return None

    def close(self) -> None:
        """Close the window, if there is one."""
        if self._window is not None:
            self._window.close()
            self._window = None

    def _opened(self) -> Any:
        if self._window is None:
            from envs.rendering.window import Window  # here, so that pygame is needed by nobody else

            self._window = Window(self._config, FPS)
        return self._window

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_window": None}
