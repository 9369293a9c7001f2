"""Gymnasium's single-agent worlds for a population: one copy for each agent, side by side.

Agents of the same world have the same seed, so all are judged by the same layouts.
"""

import importlib
from copy import deepcopy
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Discrete
from numpy.typing import ArrayLike

from envs.worlds.foreign import Chance, ForeignWorld, aside, fitting, open_actions, said_of
from envs.worlds.world import Step

REGISTERED_BY = {"MiniGrid-": "minigrid", "BabyAI-": "minigrid"}
"""Packages to import for ids that begin so; for others write package:Id, as Gymnasium has it."""


def make_gym(env_id: str, options: dict[str, Any]) -> gymnasium.Env:
    """Make one environment. Raises ValueError, with the reason, where there is none or its actions are not Discrete."""
    package = env_id.rpartition(":")[0]
    package = package or next((name for prefix, name in REGISTERED_BY.items() if env_id.startswith(prefix)), "")
    try:
        if package:
            importlib.import_module(package)
        env = gymnasium.make(env_id, **options)
    except ImportError as error:
        raise ValueError(said_of(error, package)) from error
    except gymnasium.error.Error as error:
        raise ValueError(str(error)) from error
    except (KeyError, AssertionError, TypeError) as error:
        raise ValueError(f"it cannot be made with options {options}: {error!r}") from error
    if not isinstance(env.action_space, Discrete):
        env.close()
        raise ValueError(f"its actions are {env.action_space}: must be Discrete")
    return env


class GymWorld(ForeignWorld):
    """W x N copies of a Gymnasium environment. Episodes follow one another for a life, or each agent plays but one."""

    def __init__(self, env_id: str, options: dict[str, Any], agents: int, max_steps: int, *, renews: bool) -> None:
        """renews: begin a new episode where one ended, until `max_steps`; else that agent is done."""
        super().__init__(lambda: make_gym(env_id, options), 1, agents, max_steps, renews=renews)

    def reset(self, seeds: ArrayLike) -> np.ndarray:
        """Begin one world per seed (W,); return the observations (W, N) object."""
        ours = [fitting(int(seed)) for seed in np.asarray(seeds)]
        shape = len(ours), self.agents
        begun = {(w, n): self._begin(w * self.agents + n, ours[w]) for w, n in np.ndindex(shape)}
        self._chance, self._space = Chance(ours[0]), begun[0, 0][0].action_space
        self._is_playing, self._open = np.ones(shape, bool), np.ones((*shape, int(self._space.n)), bool)
        seen = np.empty(shape, object)
        for place, (_, observation, info) in begun.items():
            seen[place] = self._kept(place, observation, info)
        return seen

    def step(self, actions: np.ndarray) -> Step:
        """Do what each agent (W, N) chose; what is chosen for those not playing is ignored."""
        shape = self._is_playing.shape
        reward = np.zeros(shape, np.float32)
        is_terminal, is_truncated = np.zeros(shape, bool), np.zeros(shape, bool)
        seen, last_seen = np.empty(shape, object), np.empty(shape, object)
        with aside(), self._chance:
            for place in zip(*self._is_playing.nonzero(), strict=True):
                env = self._copies[place[0] * self.agents + place[1]]
                observation, reward[place], over, cut, info = env.step(int(self._space.start + actions[place]))
                is_terminal[place], is_truncated[place] = over, cut and not over
                seen[place] = last_seen[place] = self._kept(place, observation, info)
                if self._renews and (over or cut):
                    seen[place] = self._kept(place, *env.reset())
        if not self._renews:
            self._is_playing = self._is_playing & ~is_terminal & ~is_truncated
        return Step(seen, reward, is_terminal, is_truncated, self._is_playing, last_seen)

    def _kept(self, place: tuple[int, ...], observation: Any, info: dict[str, Any]) -> Any:
        """Note which actions are open, and return a copy: an environment may write into what it gave before."""
        self._open[place] = open_actions(int(self._space.n), observation, info)
        return deepcopy(observation)
