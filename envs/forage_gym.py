"""The Gymnasium interface: one agent learns, bots play the others.

    gymnasium.make("envs:Forage-v0", preset="maze", others="greedy")

`gymnasium.make_vec("envs:Forage-v0", num_envs=64)` gives the same worlds stepped together (`envs.forage_vector`).
Contract: https://gymnasium.farama.org/api/env/.
"""

import operator
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium.spaces import Discrete

from envs.batch import ForageBatch
from envs.bots import Bot, bots
from envs.interfaces import (
    DEFAULT_PRESET,
    FPS,
    RENDER_MODES,
    Viewer,
    action_mask,
    checked_action,
    first_seed,
    observation_box,
    seed_after,
    world_config,
)
from envs.types import Action, WorldConfig, WorldState

EMPTY = "empty"


class ForageEnv(gymnasium.Env[np.ndarray, int]):
    """The learner is agent 0 of a world; see `WorldConfig` for its rules and `envs.observe` for observations.

    Observations are (O,) float32 in [0, 1], actions `Action` values. The info has "action_mask", (A,) int8 with 1 for
    legal, "food_eaten" since birth, and "energy". Its death terminates the episode, `max_steps` truncates it; the
    deaths of others do not matter. No wrapper is needed for the time limit.
    """

    metadata: ClassVar = {"render_modes": list(RENDER_MODES), "render_fps": FPS}  # type: ignore[misc]

    def __init__(
        self,
        preset: str = DEFAULT_PRESET,
        others: str = "greedy",
        config: WorldConfig | None = None,
        render_mode: str | None = None,
        **overrides: float,
    ) -> None:
        """Make an environment; `reset` begins an episode.

        preset: a world of `envs.presets`; or `config`, a world of your own. overrides: fields of `WorldConfig` that
        differ from it. others: the bot of `envs.bots` that plays all other agents; "empty" for a world without
        others, and with all its food. Raises TypeError for an unknown field, ValueError for an impossible value.
        """
        self.config = learner_config(preset, others, config, overrides)
        self.others, self.render_mode = others, render_mode
        self._viewer = Viewer(self.config, render_mode)
        self.observation_space = observation_box(self.config)
        self.action_space = Discrete(len(Action))  # type: ignore[assignment]
        self._batch = ForageBatch(self.config)
        self._bot: Bot = idle
        self._seed: int | None = None
        self._is_over = True
        self._mask = np.zeros(len(Action), np.int8)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin an episode; return the learner's observation and info.

        seed: of the layout and all that happens in it, 0 to 2**53 - 1. Without one, each episode is another;
            which ones follow is fixed by the last seed, and they stay held out if it was.
        options: ignored.
        """
        super().reset(seed=seed)
        if seed is None:
            seed = first_seed() if self._seed is None else seed_after(self._seed)
        observations = self._batch.reset([operator.index(seed)])
        self._seed = operator.index(seed)
        self._bot = player_of(self.config, self.others, self._seed)
        self._is_over = False
        return self._seen(observations)

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Step the world; return observation, reward, whether the learner died, whether time is up, and info.

        Raises ValueError for an action that does not exist, RuntimeError where no episode is going on.
        """
        if self._is_over:
            raise RuntimeError("the episode has not begun or is over: call reset() first")
        actions = np.array(self._bot(self._batch.state()))
        actions[0, 0] = checked_action(action, "action")
        observations, result = self._batch.step(actions)
        is_dead = bool(result.is_terminal[0, 0])
        is_late = bool(result.is_truncated[0]) and not is_dead
        self._is_over = is_dead or is_late
        observation, info = self._seen(observations)
        return observation, float(result.reward[0, 0]), is_dead, is_late, info

    def action_masks(self) -> np.ndarray:
        """Return (A,) bool, the legal actions, where sb3-contrib's MaskablePPO looks for them."""
        return self._mask.astype(bool)

    def render(self) -> str | np.ndarray | None:  # type: ignore[override]
        """Return the world as coloured text or as (height, width, 3) uint8; None in a window or without a mode."""
        return self._viewer.show(self._batch.state()) if self.render_mode else None

    def close(self) -> None:
        """Close the window, if there is one."""
        self._viewer.close()

    def _seen(self, observations: np.ndarray) -> tuple[np.ndarray, dict[str, Any]]:
        # observations: (1, N, O). -> the learner's, with its info; a copy, or the others' would be kept with it
        observation, state = observations[0, 0].copy(), self._batch.state()
        self._mask = action_mask(self.config, observation)
        info = {
            "action_mask": self._mask.copy(),
            "food_eaten": int(state.food_eaten[0, 0]),
            "energy": float(state.energy[0, 0]),
        }
        self._show()
        return observation, info

    def _show(self) -> None:
        if self.render_mode == "human":
            self.render()


def learner_config(preset: str, others: str, config: WorldConfig | None, overrides: Mapping[str, Any]) -> WorldConfig:
    """Return the world of one learner among `others`; raises as `ForageEnv` does."""
    world = world_config(preset, config, overrides)
    names = (EMPTY, *bots(world))
    if others not in names:
        raise ValueError(f"others = {others!r}: must be one of {', '.join(names)}")
    return replace(world, agents=1, populations=1) if others == EMPTY else world


def player_of(config: WorldConfig, others: str, seed: int) -> Bot:
    """Return the bot named `others`, whose chance is fixed by `seed`; in an empty world, one that stays."""
    return idle if others == EMPTY else bots(config, seed)[others]


def idle(state: WorldState) -> np.ndarray:
    """Return STAY for all, (W, N)."""
    return np.zeros(state.is_alive.shape, np.int64)
