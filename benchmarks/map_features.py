"""What an agent's texts are made of, as numbers for a plain network, which need not learn to keep a map or find a way.

There is a number for each move and each kind of goal: 1 / (1 + steps) to the nearest goal if the first step is that
move (0 where there is none), as `agents.codecs.forage_map` finds them. Three more say whether it is day, dusk or night.
"""

import numpy as np
from gymnasium.spaces import Box
from stable_baselines3.common.vec_env import VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvStepReturn

from agents.codecs.forage_map import ForageMap, Ways, newborn, remember, ways
from agents.codecs.wayfinding import NO_WAY
from envs.sb3 import ForageVecEnv
from envs.types import MOVES

HOURS = 3
FEATURES = len(Ways._fields) * len(MOVES) + HOURS


class MapFeatures:
    """The maps of M agents, and their features."""

    def __init__(self, view_radius: int):
        self.view_radius = view_radius
        self._memory: ForageMap | None = None

    def update(self, observations: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """Features (M, FEATURES) after `actions` (M,) led to observations (M, O); action -1: a new agent."""
        self._memory = self._after(observations, actions)
        return _features_of(self._memory)

    def peek(self, observations: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """The same, without keeping the new maps."""
        return _features_of(self._after(observations, actions))

    def _after(self, observations: np.ndarray, actions: np.ndarray) -> ForageMap:
        return remember(self._memory or newborn(len(observations)), observations, actions, self.view_radius)


class MapVecEnv(VecEnvWrapper):
    """The forage world for Stable-Baselines3, seen through `MapFeatures`."""

    def __init__(self, env: ForageVecEnv):
        super().__init__(env, observation_space=Box(0.0, 1.0, (FEATURES,), np.float32))
        self._features = MapFeatures(env.config.view_radius)
        self._actions = np.full(env.num_envs, -1)

    def reset(self) -> np.ndarray:
        """Reset all worlds; features (M, FEATURES)."""
        return self._features.update(self.venv.reset(), np.full(self.num_envs, -1))  # type: ignore[arg-type]

    def step_async(self, actions: np.ndarray) -> None:
        """Keep the actions (M,) for the features, and pass them on."""
        self._actions = actions
        self.venv.step_async(actions)

    def step_wait(self) -> VecEnvStepReturn:
        """Features (M, FEATURES), rewards, dones and infos."""
        seen, rewards, dones, infos = self.venv.step_wait()
        if dones.any():
            last = np.array([info.get("terminal_observation", row) for info, row in zip(infos, seen, strict=True)])
            numbers = self._features.peek(last, self._actions)
            for slot in np.flatnonzero(dones).tolist():
                infos[slot]["terminal_observation"] = numbers[slot]
        return self._features.update(seen, np.where(dones, -1, self._actions)), rewards, dones, infos  # type: ignore[arg-type]


def _features_of(memory: ForageMap) -> np.ndarray:
    closeness = [np.where(steps < NO_WAY, 1 / (1 + steps), 0) for steps in ways(memory)]
    return np.concatenate([*closeness, np.eye(HOURS)[memory.hour]], axis=1).astype(np.float32)
