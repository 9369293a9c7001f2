"""The PettingZoo face: one world of `ForageBatch` behind dicts keyed by agent name.

Contract: https://pettingzoo.farama.org/api/parallel/. A step's dicts are keyed by the agents alive when it
began, so those who die in it get a last observation. `forager_0` is a slot in the world, not an individual.
Import it by version, `from envs import forage_v0`, as PettingZoo's own environments are.
"""

import operator
import secrets
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any, ClassVar

import numpy as np
from gymnasium.spaces import Box, Discrete
from pettingzoo import AECEnv, ParallelEnv
from pettingzoo.utils import parallel_to_aec

from envs import render
from envs.batch import ForageBatch
from envs.generator import HELD_OUT, SEED_LIMIT
from envs.observe import observation_size
from envs.state import flatten, layout, unflatten
from envs.types import Action, WorldConfig

SEED_STRIDE = 0x4F1BBCDD
"""From one unseeded episode to the next. Odd and near the golden section of 2**31: every layout is visited
before one repeats, and environments that begin at neighbouring seeds stay apart for long."""


class parallel_env(ParallelEnv[str, np.ndarray, int]):  # noqa: N801, PettingZoo's convention
    """Agents forage in one world; see `WorldConfig` for its rules and `envs.observe` for observations.

    Observations are (O,) float32 in [0, 1], actions `Action` values, and `infos[agent]["action_mask"]` is
    (A,) int8 with 1 for legal. A move into rock or off the grid is allowed and leaves the agent in place.
    """

    metadata: ClassVar = {"name": "forage_v0", "render_modes": ["ansi", "rgb_array"], "render_fps": 8}

    def __init__(self, config: WorldConfig | None = None, render_mode: str | None = None, **overrides: float) -> None:
        """Make an environment; `reset` begins an episode.

        overrides: fields of `WorldConfig` that differ from `config` (without it, from the default).
        Raises TypeError for an unknown field, ValueError for a value or render mode that is not possible.
        """
        if render_mode not in (None, "ansi", "rgb_array"):
            raise ValueError(f"render_mode = {render_mode!r}: must be None, 'ansi' or 'rgb_array'")
        self.config = _with_overrides(config or WorldConfig(), overrides)
        self.render_mode = render_mode
        self.possible_agents = [f"forager_{i}" for i in range(self.config.agents)]
        self.agents: list[str] = []
        self._slot = {agent: i for i, agent in enumerate(self.possible_agents)}
        seen = (observation_size(self.config.view_radius),)
        self._observation_spaces = {a: Box(0.0, 1.0, seen, np.float32) for a in self.possible_agents}
        self._action_spaces = {a: Discrete(len(Action)) for a in self.possible_agents}
        size = sum(int(np.prod(shape)) for _, shape in layout(self.config, worlds=1).values())
        self.state_space: Box = Box(0.0, float(SEED_LIMIT), (size,), np.float64)  # type: ignore[arg-type]
        self._batch = ForageBatch(self.config)
        self._seed: int | None = None

    def observation_space(self, agent: str) -> Box:
        """Return the space of an agent's observations, the same object each time."""
        return self._observation_spaces[agent]

    def action_space(self, agent: str) -> Discrete:
        """Return the space of an agent's actions, the same object each time."""
        return self._action_spaces[agent]

    def reset(
        self, seed: int | None = None, options: dict | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, dict]]:
        """Begin an episode; return observations and infos of all agents.

        seed: of the layout and all that happens in it, 0 to 2**53 - 1. Without one, each episode is another;
            which ones follow is fixed by the last seed, and they stay held out if it was.
        options: ignored.
        """
        seed = _seed_after(self._seed) if seed is None else operator.index(seed)
        observations = self._batch.reset([seed])
        self._seed = seed
        self.agents = self.possible_agents[:]
        return self._rows(self.agents, observations), self._infos(self.agents)

    def step(
        self, actions: Mapping[str, int]
    ) -> tuple[dict[str, np.ndarray], dict[str, float], dict[str, bool], dict[str, bool], dict[str, dict]]:
        """Step the world; return observations, rewards, terminations, truncations and infos.

        actions: one for every agent in `agents` and no other. With nobody left, five empty dicts come back.
        Raises ValueError for a missing, dead or unknown agent and for an action that does not exist.
        """
        acting = self.agents
        array = self._to_array(actions)
        if not acting:
            return {}, {}, {}, {}, {}
        observations, result = self._batch.step(array)
        # tolist gives plain floats and bools; NumPy's own fail `is True` in user code and JSON
        reward, died = result.reward[0].tolist(), result.is_terminal[0].tolist()
        is_over = bool(result.is_truncated[0])
        rewards = {agent: reward[self._slot[agent]] for agent in acting}
        terminations = {agent: died[self._slot[agent]] for agent in acting}
        truncations = {agent: is_over and not terminations[agent] for agent in acting}
        self.agents = [a for a in acting if not (terminations[a] or truncations[a])]
        return self._rows(acting, observations), rewards, terminations, truncations, self._infos(acting)

    def state(self) -> np.ndarray:
        """Return the whole state as one (S,) float64 vector; `set_state` goes on from it exactly."""
        return flatten(self._batch.state())

    def set_state(self, state: np.ndarray) -> tuple[dict[str, np.ndarray], dict[str, dict]]:
        """Go on from what `state` gave; return observations and infos of the agents alive in it."""
        world = unflatten(self.config, state)
        observations = self._batch.set_state(world)
        self._seed = int(world.seed[0])
        is_playing = world.is_alive[0] & (world.step[0] < self.config.max_steps)
        self.agents = [a for a in self.possible_agents if is_playing[self._slot[a]]]
        return self._rows(self.agents, observations), self._infos(self.agents)

    def render(self) -> str | np.ndarray | None:
        """Return the world as coloured text or as (height, width, 3) uint8; None without a render mode."""
        if self.render_mode is None:
            return None
        draw = render.ansi if self.render_mode == "ansi" else render.rgb_array
        return draw(self._batch.state(), energy_max=self.config.energy_max)

    def close(self) -> None:
        """Do nothing: the environment holds no window, file or process."""

    def _rows(self, agents: list[str], array: np.ndarray) -> dict[str, np.ndarray]:
        # (1, N, ...) -> a copy per agent, so that a kept observation does not keep all others alive
        return {agent: array[0, self._slot[agent]].copy() for agent in agents}

    def _infos(self, agents: list[str]) -> dict[str, dict]:
        is_legal = self._rows(agents, self._batch.legal().astype(np.int8))
        return {agent: {"action_mask": is_legal[agent]} for agent in agents}

    def _to_array(self, actions: Mapping[str, int]) -> np.ndarray:
        # -> (1, N); the dead stay
        if self._seed is None:
            raise RuntimeError("the episode has not begun: call reset() first")
        missing = [agent for agent in self.agents if agent not in actions]
        if missing:
            raise ValueError(f"no action for {', '.join(missing)}: every living agent must act")
        if len(actions) > len(self.agents):
            extra = next(agent for agent in actions if agent not in self.agents)
            reason = "dead or done" if extra in self._slot else "no agent of this world"
            raise ValueError(f"action for {extra!r}, which is {reason}; agents are {self.agents}")
        array = np.full((1, self.config.agents), Action.STAY, np.int64)
        for agent, action in actions.items():
            array[0, self._slot[agent]] = _checked_action(agent, action)
        return array


def raw_env(**kwargs: Any) -> AECEnv:
    """Return the environment as an AEC one, where agents act in turn; arguments as in `parallel_env`."""
    return parallel_to_aec(parallel_env(**kwargs))


env = raw_env  # parallel_to_aec already enforces the order of calls, the one wrapper needed here


def _with_overrides(config: WorldConfig, overrides: dict[str, Any]) -> WorldConfig:
    known = [field.name for field in fields(WorldConfig)]
    unknown = [name for name in overrides if name not in known]
    if unknown:
        raise TypeError(f"unknown WorldConfig field {unknown[0]!r}; fields are {', '.join(known)}")
    return replace(config, **overrides)


def _seed_after(seed: int | None) -> int:
    if seed is None:
        return secrets.randbits(31)
    base = HELD_OUT if seed >= HELD_OUT else 0
    return base + (seed - base + SEED_STRIDE) % HELD_OUT


def _checked_action(agent: str, action: int) -> int:
    # operator.index takes Python and NumPy integers, and refuses floats, NaN, None and text
    try:
        value = operator.index(action)
    except TypeError:
        value = -1
    if isinstance(action, (bool, np.bool_)) or not 0 <= value < len(Action):
        raise ValueError(f"action of {agent} = {action!r}: must be an integer between 0 and {len(Action) - 1}")
    return value
