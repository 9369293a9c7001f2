"""Gymnasium's single-agent worlds for a population: one copy for each agent, side by side.

Agents of the same world have the same seed, so all are judged by the same layouts.
"""

import importlib
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Discrete
from numpy.typing import ArrayLike

from envs.worlds.world import Step

REGISTERED_BY = {"MiniGrid-": "minigrid", "BabyAI-": "minigrid"}
"""Packages to import for ids that begin so; for others write package:Id, as Gymnasium has it."""


def make_gym(env_id: str, options: dict[str, Any]) -> gymnasium.Env:
    """Make one environment. Raises ValueError, with the reason, where there is none or its actions are not Discrete."""
    package = next((name for prefix, name in REGISTERED_BY.items() if env_id.startswith(prefix)), None)
    try:
        if package:
            importlib.import_module(package)
        env = gymnasium.make(env_id, **options)
    except ImportError as error:
        raise ValueError(f"{error}; `pip install 'terrarium-lm[worlds]'` brings MiniGrid and MPE2") from error
    except gymnasium.error.Error as error:
        raise ValueError(str(error)) from error
    except (KeyError, AssertionError, TypeError) as error:
        raise ValueError(f"it cannot be made with options {options}: {error!r}") from error
    if not isinstance(env.action_space, Discrete) or env.action_space.start != 0:
        raise ValueError(f"its actions are {env.action_space}: must be Discrete, from 0")
    return env


class GymWorld:
    """W x N copies of a Gymnasium environment. Episodes follow one another for a life, or each agent plays but one."""

    def __init__(self, env_id: str, options: dict[str, Any], agents: int, max_steps: int, *, renews: bool) -> None:
        """renews: begin a new episode where one ended, until `max_steps`; else that agent is done."""
        self.agents, self.max_steps, self._renews = agents, max_steps, renews
        self._make = lambda: make_gym(env_id, options)
        self._copies: list[gymnasium.Env] = []  # W * N, agent by agent of each world
        self._is_playing = np.zeros((0, agents), bool)

    def reset(self, seeds: ArrayLike) -> np.ndarray:
        """Begin one world per seed (W,); return the observations (W, N) object."""
        seeds = np.asarray(seeds)
        while len(self._copies) < len(seeds) * self.agents:
            self._copies.append(self._make())
        self._is_playing = np.ones((len(seeds), self.agents), bool)
        seen = [
            self._copies[w * self.agents + n].reset(seed=int(seed))[0]
            for w, seed in enumerate(seeds)
            for n in range(self.agents)
        ]
        return _objects(seen, self._is_playing.shape)

    def step(self, actions: np.ndarray) -> Step:
        """Do what each agent (W, N) chose; what is chosen for those not playing is ignored."""
        shape = self._is_playing.shape
        reward = np.zeros(shape, np.float32)
        is_terminal, is_truncated = np.zeros(shape, bool), np.zeros(shape, bool)
        seen, last_seen = np.empty(shape, object), np.empty(shape, object)
        for place in zip(*self._is_playing.nonzero(), strict=True):
            env = self._copies[place[0] * self.agents + place[1]]
            last_seen[place], reward[place], over, cut, _ = env.step(int(actions[place]))
            is_terminal[place], is_truncated[place] = over, cut and not over
            seen[place] = env.reset()[0] if self._renews and (over or cut) else last_seen[place]
        if not self._renews:
            self._is_playing = self._is_playing & ~is_terminal & ~is_truncated
        return Step(seen, reward, is_terminal, is_truncated, self._is_playing, last_seen)

    def figures(self) -> dict[str, np.ndarray]:
        """Return nothing: of these worlds only the reward is known."""
        return {}


def _objects(items: list, shape: tuple[int, ...]) -> np.ndarray:
    # np.array(items) would take observations that are arrays apart
    array = np.empty(len(items), object)
    for i, item in enumerate(items):
        array[i] = item
    return array.reshape(shape)
