"""The Stable-Baselines3 interface: every agent of W worlds is a slot of one VecEnv.

    from envs.sb3 import ForageVecEnv
    model = PPO("MlpPolicy", ForageVecEnv("meadow", worlds=8))

Needs the extra `sb3` (`pip install -e '.[sb3]'`), and nothing else here imports it.
Contract: https://stable-baselines3.readthedocs.io/en/master/guide/vec_envs.html.
"""

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Discrete
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvStepReturn

from envs.batch import ForageBatch
from envs.interfaces import DEFAULT_PRESET, action_mask, first_seed, observation_box, renewed, seeds_from, world_config
from envs.rendering import render
from envs.types import Action, StepResult, WorldConfig


class ForageVecEnv(VecEnv):
    """W worlds of N agents as M = W * N environments: slot w * N + n is agent n of world w.

    A dead agent's slot is given to a newborn of the same world, near its home, in the step of the death: the death is
    `done`, and the observation that comes with it is the newborn's. After `max_steps` of a world all its agents are
    done, those who did not die in that step with `TimeLimit.truncated`, and the next world begins. So no slot
    idles. The infos of a slot that is done have "terminal_observation" and "food_eaten".
    """

    def __init__(
        self,
        preset: str = DEFAULT_PRESET,
        worlds: int = 8,
        config: WorldConfig | None = None,
        seed: int | None = 0,
        render_mode: str | None = None,
        **overrides: float,
    ) -> None:
        """Make W = worlds worlds; `reset` begins them.

        preset: a world of `envs.presets`; or `config`, a world of your own. overrides: fields of `WorldConfig` that
        differ from it. seed: of the first world, the others follow by 1; None draws one. render_mode: None or
        "rgb_array". Raises TypeError for an unknown field, ValueError for an impossible value.
        """
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"render_mode = {render_mode!r}: must be None or 'rgb_array'")
        if worlds < 1:
            raise ValueError(f"worlds = {worlds}: must be at least 1")
        self.config = world_config(preset, config, overrides)
        self.worlds, self.render_mode = worlds, render_mode
        super().__init__(worlds * self.config.agents, observation_box(self.config), Discrete(len(Action)))
        self._batch = ForageBatch(self.config)
        self._next_seed: int | None = first_seed() if seed is None else seed  # None: go on after the present worlds
        self._actions = np.zeros((worlds, self.config.agents), np.int64)
        self._mask = np.ones((self.num_envs, len(Action)), bool)

    def reset(self) -> np.ndarray:
        """Begin all worlds anew; return the observations (M, O). Other worlds each time, fixed by the seed."""
        if self._next_seed is None:
            observations = self._renew(np.ones(self.worlds, bool))
        else:
            observations = self._batch.reset(seeds_from(self._next_seed, self.worlds))
        self._next_seed = None
        self._reset_seeds()
        self._reset_options()
        return self._seen(observations)

    def step_async(self, actions: np.ndarray) -> None:
        """Remember the actions (M,) integers. Raises ValueError for another shape or dtype."""
        given = np.asarray(actions)
        if given.shape != (self.num_envs,) or given.dtype.kind not in "iu":
            raise ValueError(f"actions are {given.dtype} {given.shape}: must be integers of shape ({self.num_envs},)")
        self._actions = given.reshape(self._actions.shape)

    def step_wait(self) -> VecEnvStepReturn:
        """Step all worlds; return observations (M, O), rewards (M,) float32, dones (M,) bool and M infos."""
        observations, result = self._batch.step(self._actions)
        dones = (result.is_terminal | result.is_truncated[:, None]).ravel()
        infos: list[dict[str, Any]] = [{"TimeLimit.truncated": False} for _ in range(self.num_envs)]
        if dones.any():
            self._tell_ends(infos, dones, observations, result)
            observations = self._begin_again(result)
        return self._seen(observations), result.reward.reshape(-1), dones, infos

    def seed(self, seed: int | None = None) -> Sequence[int | None]:
        """Choose the worlds of the next reset: the first has this seed, the others follow by 1. Return M seeds."""
        self._next_seed = first_seed() if seed is None else int(seed)
        self._seeds = np.repeat(seeds_from(self._next_seed, self.worlds), self.config.agents).tolist()
        return self._seeds

    def action_masks(self) -> np.ndarray:
        """Return (M, A) bool, the legal actions."""
        return self._mask.copy()

    def env_method(self, method_name: str, *args: Any, indices: VecEnvIndices = None, **kwargs: Any) -> list[Any]:
        """Return what a method gives for each slot; "action_masks", for sb3-contrib, is the only one there is."""
        if method_name != "action_masks":
            raise AttributeError(f"slots have no method {method_name!r}, only 'action_masks'")
        return [self._mask[slot].copy() for slot in self._get_indices(indices)]

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """Return an attribute, which all slots share, once for each slot."""
        value = getattr(self, attr_name)
        return [value for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Set an attribute, which all slots share."""
        setattr(self, attr_name, value)

    def env_is_wrapped(self, wrapper_class: type[gymnasium.Wrapper], indices: VecEnvIndices = None) -> list[bool]:
        """Return False for each slot: none is an environment of its own that could be wrapped."""
        return [False for _ in self._get_indices(indices)]

    def get_images(self) -> Sequence[np.ndarray | None]:
        """Return a picture of each world, (height, width, 3) uint8."""
        state = self._batch.state()
        return [render.rgb_array(state, self.config, w=w) for w in range(self.worlds)]

    def close(self) -> None:
        """Do nothing: there is no window, file or process."""

    def _tell_ends(
        self, infos: list[dict[str, Any]], dones: np.ndarray, observations: np.ndarray, result: StepResult
    ) -> None:
        # Before others take the slots over
        last, food_eaten = observations.reshape(self.num_envs, -1), self._batch.state().food_eaten.ravel()
        has_died = result.is_terminal.ravel()
        for slot in np.flatnonzero(dones).tolist():
            infos[slot] = {
                "TimeLimit.truncated": not has_died[slot],
                "terminal_observation": last[slot].copy(),
                "food_eaten": int(food_eaten[slot]),
            }

    def _begin_again(self, result: StepResult) -> np.ndarray:
        # -> observations (W, N, O). Worlds have the same age, so all end in the same step or none does
        if result.is_truncated.any():
            return self._renew(result.is_truncated)
        return self._batch.give_birth(result.is_terminal)

    def _renew(self, is_over: np.ndarray) -> np.ndarray:
        return self._batch.set_state(renewed(self.config, self._batch.state(), is_over))

    def _seen(self, observations: np.ndarray) -> np.ndarray:
        rows = observations.reshape(self.num_envs, -1)
        self._mask = action_mask(self.config, rows).astype(bool)
        return rows
