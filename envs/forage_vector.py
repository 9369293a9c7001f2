"""The vector interface of Gymnasium: the worlds of W learners, stepped together.

    gymnasium.make_vec("envs:Forage-v0", num_envs=64, preset="maze", others="greedy")

Contract: https://gymnasium.farama.org/api/vector/. `autoreset_mode` says when the next episode begins, as it does for
Gymnasium's own vectors: "NextStep", the default, in the step after the end, whose action does nothing and whose reward
is 0; "SameStep", which wastes no step, in that of the end, with the last observation and info in `infos["final_obs"]`
and `["final_info"]`; "Disabled", not before `reset(options={"reset_mask": ...})`.
Equal to a `SyncVectorEnv` of `ForageEnv` in each mode, to the last bit, but for `others` that draw: one bot with one
seed plays in all worlds.
"""

from typing import Any, ClassVar

import numpy as np
from gymnasium.spaces import Discrete
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from envs.batch import ForageBatch
from envs.bots import Bot
from envs.forage_gym import idle, learner_config, player_of
from envs.interfaces import (
    DEFAULT_PRESET,
    FPS,
    action_mask,
    first_seed,
    observation_box,
    renewed,
    seeds_from,
)
from envs.rendering import render
from envs.types import Action, WorldConfig

Infos = dict[str, Any]


class ForageVectorEnv(VectorEnv[np.ndarray, np.ndarray, np.ndarray]):
    """W worlds with one learner in each, agent 0; see `ForageEnv` for spaces, infos and what ends an episode."""

    metadata: ClassVar = {  # type: ignore[misc]
        "render_modes": ["ansi", "rgb_array"],
        "render_fps": FPS,
        "autoreset_mode": AutoresetMode.NEXT_STEP,
    }

    def __init__(
        self,
        num_envs: int = 1,
        preset: str = DEFAULT_PRESET,
        others: str = "greedy",
        config: WorldConfig | None = None,
        render_mode: str | None = None,
        autoreset_mode: str | AutoresetMode = AutoresetMode.NEXT_STEP,
        **overrides: float,
    ) -> None:
        """Make W = num_envs environments; `reset` begins their episodes.

        autoreset_mode: a value of `gymnasium.vector.AutoresetMode`, or its name there. The other arguments are
        `ForageEnv`'s. Raises as it does.
        """
        modes = [mode.value for mode in AutoresetMode]
        if not isinstance(autoreset_mode, AutoresetMode) and autoreset_mode not in modes:
            raise ValueError(f"autoreset_mode = {autoreset_mode!r}: must be one of {', '.join(modes)}")
        if num_envs < 1:
            raise ValueError(f"num_envs = {num_envs}: must be at least 1")
        if render_mode not in (None, "ansi", "rgb_array"):
            raise ValueError(f"render_mode = {render_mode!r}: must be None, 'ansi' or 'rgb_array'")
        self.config = learner_config(preset, others, config, overrides)
        self.num_envs, self.others, self.render_mode = num_envs, others, render_mode
        self.autoreset_mode = AutoresetMode(autoreset_mode)
        self.metadata = {**self.metadata, "autoreset_mode": self.autoreset_mode}  # type: ignore[misc]
        self.single_observation_space = observation_box(self.config)
        self.single_action_space = Discrete(len(Action))
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._batch = ForageBatch(self.config)
        self._bot: Bot = idle
        self._has_begun = False
        self._is_over = np.zeros(num_envs, bool)  # the episode ended in the last step, and the next has not begun

    def reset(  # type: ignore[override]
        self, *, seed: int | list[int] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, Infos]:
        """Begin all episodes anew; return observations (W, O) and infos.

        seed: of the first world, the others follow by 1; or one for each. Without seeds, each episode is another;
            which ones follow is fixed by the last seeds, and they stay held out if those were.
        options: "reset_mask", (W,) bool, says which episodes alone are begun anew; what else there is, is ignored.
        """
        mask = (options or {}).get("reset_mask")
        if mask is not None:
            return self._reset_some(_checked_mask(mask, self.num_envs), seed)
        if seed is None and self._has_begun:
            everywhere = np.ones(self.num_envs, bool)
            observations = self._batch.set_state(renewed(self.config, self._batch.state(), everywhere))
        else:
            observations = self._batch.reset(self._seeds(seed))
        self._has_begun, self._is_over = True, np.zeros(self.num_envs, bool)
        first = int(self._batch.state().seed[0])
        super().reset(seed=None if seed is None else first)
        self._bot = player_of(self.config, self.others, first)
        return observations[:, 0].copy(), self._infos(observations)

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, Infos]:
        """Step all worlds; return observations (W, O), rewards, terminations, truncations (W,) and infos.

        actions: (W,) integers. Raises ValueError for another shape or dtype and for an action that does not exist,
        RuntimeError for an episode that is over and that `reset` must begin anew.
        """
        given = np.asarray(actions)
        if given.dtype.kind not in "iu" or given.shape != (self.num_envs,):
            raise ValueError(f"actions are {given.dtype} {given.shape}: must be integers of shape ({self.num_envs},)")
        was_over = self._is_over
        if was_over.any() and self.autoreset_mode is AutoresetMode.DISABLED:
            over = np.flatnonzero(was_over).tolist()
            raise RuntimeError(f"the episodes of worlds {over} are over: call reset with a reset_mask first")
        everyone = np.array(self._bot(self._batch.state()))
        everyone[:, 0] = given
        observations, result = self._batch.step(everyone)
        terminations = result.is_terminal[:, 0] & ~was_over
        truncations = result.is_truncated & ~terminations & ~was_over
        rewards = np.where(was_over, 0.0, result.reward[:, 0].astype(np.float64))
        is_over, last = terminations | truncations, {}
        begins = was_over
        if self.autoreset_mode is AutoresetMode.SAME_STEP:
            begins, is_over = is_over, np.zeros(self.num_envs, bool)
            last = _final(observations[:, 0], self._infos(observations), begins) if begins.any() else {}
        if begins.any():
            observations = self._batch.set_state(renewed(self.config, self._batch.state(), begins))
        self._is_over = is_over
        return observations[:, 0].copy(), rewards, terminations, truncations, self._infos(observations) | last

    def action_masks(self) -> np.ndarray:
        """Return (W, A) bool, the legal actions of the learners."""
        return self._batch.legal()[:, 0].copy()

    def render(self) -> tuple[Any, ...] | None:
        """Return a picture of each world, as text or as (height, width, 3) uint8; None without a render mode."""
        if self.render_mode is None:
            return None
        draw = render.ansi if self.render_mode == "ansi" else render.rgb_array
        state = self._batch.state()
        return tuple(draw(state, self.config, w=w) for w in range(self.num_envs))

    def _reset_some(self, mask: np.ndarray, seed: int | list[int] | None) -> tuple[np.ndarray, Infos]:
        seeds = None if seed is None else np.array(self._seeds(seed))[mask].tolist()
        observations = self._batch.set_state(renewed(self.config, self._batch.state(), mask, seeds))
        self._is_over = self._is_over & ~mask
        return observations[:, 0].copy(), _only(self._infos(observations), mask)

    def _seeds(self, seed: int | list[int] | None) -> list[int]:
        if seed is None or isinstance(seed, (int, np.integer)):
            return seeds_from(first_seed() if seed is None else int(seed), self.num_envs)
        if len(seed) != self.num_envs:
            raise ValueError(f"seed has {len(seed)} numbers: must be one, or one for each of {self.num_envs} worlds")
        return list(seed)

    def _infos(self, observations: np.ndarray) -> Infos:
        # Every key comes with `_key`, (W,) bool: which worlds it speaks of
        state = self._batch.state()
        infos = {
            "action_mask": action_mask(self.config, observations[:, 0]),
            "food_eaten": state.food_eaten[:, 0].astype(np.int64),
            "energy": state.energy[:, 0].astype(np.float64),
        }
        return infos | {f"_{key}": np.ones(self.num_envs, bool) for key in infos}


def _final(observations: np.ndarray, infos: Infos, is_over: np.ndarray) -> Infos:
    # What is known of the episodes that are over, zero for all others, as SyncVectorEnv gives it
    final_obs = np.full(len(is_over), None, dtype=object)
    for world in np.flatnonzero(is_over):
        final_obs[world] = observations[world].copy()
    return {
        "final_obs": final_obs,
        "_final_obs": is_over.copy(),
        "final_info": _only(infos, is_over),
        "_final_info": is_over.copy(),
    }


def _only(infos: Infos, worlds: np.ndarray) -> Infos:
    # What is told of some worlds (W,) bool; zero for all others
    return {key: array * worlds.reshape(-1, *[1] * (array.ndim - 1)) for key, array in infos.items()}


def _checked_mask(mask: Any, worlds: int) -> np.ndarray:
    array = np.asarray(mask)
    if array.dtype != bool or array.shape != (worlds,) or not array.any():
        raise ValueError(f"reset_mask is {array.dtype} {array.shape}: must be bool ({worlds},), and true somewhere")
    return array
