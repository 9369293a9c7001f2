"""The vector face of Gymnasium: the worlds of W learners, stepped together.

    gymnasium.make_vec("envs:Forage-v0", num_envs=64, preset="maze", others="greedy")

Contract: https://gymnasium.farama.org/api/vector/, in the mode SAME_STEP: where an episode ends, the step gives the
first observation of the next one, and the last observation and info in `infos["final_obs"]` and `["final_info"]`.
NEXT_STEP would waste a step of each episode, in which an action does nothing. Equal to a `SyncVectorEnv` of
`ForageEnv` in that mode, to the last bit, but for `others` that draw: one bot with one seed plays in all worlds.
"""

from typing import Any, ClassVar

import numpy as np
from gymnasium.spaces import Discrete
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from envs.batch import ForageBatch
from envs.bots import Bot
from envs.faces import (
    DEFAULT_PRESET,
    FPS,
    action_mask,
    first_seed,
    observation_box,
    renewed,
    seeds_from,
)
from envs.forage_gym import idle, learner_config, player_of
from envs.look import render
from envs.types import Action, WorldConfig

Infos = dict[str, Any]


class ForageVectorEnv(VectorEnv[np.ndarray, np.ndarray, np.ndarray]):
    """W worlds with one learner in each, agent 0; see `ForageEnv` for spaces, infos and what ends an episode."""

    metadata: ClassVar = {  # type: ignore[misc]
        "render_modes": ["ansi", "rgb_array"],
        "render_fps": FPS,
        "autoreset_mode": AutoresetMode.SAME_STEP,
    }

    def __init__(
        self,
        num_envs: int = 1,
        preset: str = DEFAULT_PRESET,
        others: str = "greedy",
        config: WorldConfig | None = None,
        render_mode: str | None = None,
        **overrides: float,
    ) -> None:
        """Make W = num_envs environments; `reset` begins their episodes. The other arguments are `ForageEnv`'s."""
        if num_envs < 1:
            raise ValueError(f"num_envs = {num_envs}: must be at least 1")
        if render_mode not in (None, "ansi", "rgb_array"):
            raise ValueError(f"render_mode = {render_mode!r}: must be None, 'ansi' or 'rgb_array'")
        self.config = learner_config(preset, others, config, overrides)
        self.num_envs, self.others, self.render_mode = num_envs, others, render_mode
        self.single_observation_space = observation_box(self.config)
        self.single_action_space = Discrete(len(Action))
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._batch = ForageBatch(self.config)
        self._bot: Bot = idle
        self._has_begun = False

    def reset(  # type: ignore[override]
        self, *, seed: int | list[int] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, Infos]:
        """Begin all episodes anew; return observations (W, O) and infos.

        seed: of the first world, the others follow by 1; or one for each. Without seeds, each episode is another;
            which ones follow is fixed by the last seeds, and they stay held out if those were.
        options: ignored.
        """
        if seed is None and self._has_begun:
            everywhere = np.ones(self.num_envs, bool)
            observations = self._batch.set_state(renewed(self.config, self._batch.state(), everywhere))
        else:
            observations = self._batch.reset(self._seeds(seed))
        self._has_begun = True
        first = int(self._batch.state().seed[0])
        super().reset(seed=None if seed is None else first)
        self._bot = player_of(self.config, self.others, first)
        return observations[:, 0].copy(), self._infos(observations)

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, Infos]:
        """Step all worlds; return observations (W, O), rewards, terminations, truncations (W,) and infos.

        actions: (W,) integers. Raises ValueError for another shape or dtype and for an action that does not exist.
        """
        given = np.asarray(actions)
        if given.dtype.kind not in "iu" or given.shape != (self.num_envs,):
            raise ValueError(f"actions are {given.dtype} {given.shape}: must be integers of shape ({self.num_envs},)")
        everyone = np.array(self._bot(self._batch.state()))
        everyone[:, 0] = given
        observations, result = self._batch.step(everyone)
        terminations = result.is_terminal[:, 0]
        truncations = result.is_truncated & ~terminations
        is_over = terminations | truncations
        infos = self._infos(observations)
        if is_over.any():
            last = _final(observations[:, 0], infos, is_over)
            state = renewed(self.config, self._batch.state(), is_over)
            observations = self._batch.set_state(state)
            infos = self._infos(observations) | last
        rewards = result.reward[:, 0].astype(np.float64)
        return observations[:, 0].copy(), rewards, terminations.copy(), truncations, infos

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
    final_info = {}
    for key, array in infos.items():
        keep = is_over.reshape(-1, *[1] * (array.ndim - 1))
        final_info[key] = array * keep
    return {
        "final_obs": final_obs,
        "_final_obs": is_over.copy(),
        "final_info": final_info,
        "_final_info": is_over.copy(),
    }
