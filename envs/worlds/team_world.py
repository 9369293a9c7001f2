"""PettingZoo's parallel worlds for a population: as many copies as it takes to seat every agent.

Where the last copy has seats left over, its first agents take them a second time, and that is not counted.
"""

import importlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium.spaces import Discrete
from numpy.typing import ArrayLike

from envs.worlds.world import Step


def make_team(module: str, options: dict[str, Any]) -> Any:
    """Make one `parallel_env` of a module. Raises ValueError, with the reason, where there is none that fits."""
    try:
        env = importlib.import_module(module).parallel_env(**options)
    except ImportError as error:
        raise ValueError(f"{error}; `pip install 'terrarium-lm[worlds]'` brings MiniGrid and MPE2") from error
    except (AttributeError, TypeError) as error:
        raise ValueError(str(error)) from error
    except (KeyError, AssertionError) as error:
        raise ValueError(f"it cannot be made with options {options}: {error!r}") from error
    spaces = [env.action_space(agent) for agent in env.possible_agents]
    if any(not isinstance(space, Discrete) or space != spaces[0] or space.start != 0 for space in spaces):
        raise ValueError(f"its actions are {spaces}: must be Discrete, from 0, and the same for all agents")
    return env


class TeamWorld:
    """W times as many copies of a PettingZoo environment as seat N agents."""

    def __init__(self, module: str, options: dict[str, Any], agents: int, max_steps: int, *, renews: bool) -> None:
        """renews: begin a new episode where a copy's is over, until `max_steps`; else its agents are done."""
        self.agents, self.max_steps, self._renews = agents, max_steps, renews
        self._make = lambda: make_team(module, options)
        self._names: list[str] = self._make().possible_agents
        self._tables = -(-agents // len(self._names))  # copies that make one world
        self._copies: list[Any] = []
        self._is_playing = np.zeros((0, agents), bool)

    def reset(self, seeds: ArrayLike) -> np.ndarray:
        """Begin one world per seed (W,); return the observations (W, N) object."""
        seeds = np.asarray(seeds)
        while len(self._copies) < len(seeds) * self._tables:
            self._copies.append(self._make())
        self._is_playing = np.ones((len(seeds), self.agents), bool)
        seen = np.empty((len(seeds), self.agents), object)
        for w, seed in enumerate(seeds):
            for table in range(self._tables):
                rows, _ = self._copies[w * self._tables + table].reset(seed=int(seed))
                self._fill(seen[w], table, rows)
        return seen

    def step(self, actions: np.ndarray) -> Step:
        """Do what each agent (W, N) chose; what is chosen for those not playing is ignored."""
        shape = self._is_playing.shape
        planes = [np.zeros(shape, kind) for kind in (np.float32, bool, bool, bool)]
        seen, last_seen = np.empty(shape, object), np.empty(shape, object)
        for w in range(shape[0]):
            for table in range(self._tables):
                self._step_table(w, table, actions, (last_seen, *planes), seen)
        reward, is_terminal, is_truncated, is_in = planes
        was_playing = self._is_playing
        is_truncated &= ~is_terminal
        self._is_playing = is_in if self._renews else was_playing & is_in
        return Step(seen, reward, is_terminal, is_truncated, self._is_playing, last_seen)

    def figures(self) -> dict[str, np.ndarray]:
        """Return nothing: of these worlds only the reward is known."""
        return {}

    def _step_table(self, w: int, table: int, actions: np.ndarray, planes: tuple, seen: np.ndarray) -> None:
        env = self._copies[w * self._tables + table]
        if not env.agents:
            return
        chosen = {name: int(actions[w, self._seat(table, name) % self.agents]) for name in env.agents}
        rows, reward, over, cut, _ = env.step(chosen)
        is_in = {name: name in env.agents for name in rows}
        for plane, given in zip(planes, (rows, reward, over, cut, is_in), strict=True):
            self._fill(plane[w], table, given)
        if self._renews and not env.agents:
            rows, _ = env.reset()
            self._fill(planes[-1][w], table, dict.fromkeys(rows, True))
        self._fill(seen[w], table, rows)

    def _seat(self, table: int, name: str) -> int:
        return table * len(self._names) + self._names.index(name)

    def _fill(self, row: np.ndarray, table: int, given: Mapping[str, Any]) -> None:
        for name, value in given.items():
            if self._seat(table, name) < self.agents:
                row[self._seat(table, name)] = value
