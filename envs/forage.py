"""The PettingZoo interface: one world of `ForageBatch` behind dicts keyed by agent name.

Contract: https://pettingzoo.farama.org/api/parallel/. A step's dicts are keyed by the agents in `agents` when it
began, so those who die in it get a last observation. `forager_0` is a slot in the world, not an individual.
Import it by version, `from envs import forage_v0`, as PettingZoo's own environments are.
"""

import operator
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from gymnasium.spaces import Box, Discrete
from pettingzoo import AECEnv, ParallelEnv
from pettingzoo.utils import parallel_to_aec

from envs.batch import ForageBatch
from envs.generator import SEED_LIMIT
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
from envs.state import flatten, layout, unflatten
from envs.types import Action, StepResult, WorldConfig

Observations = dict[str, np.ndarray]
Infos = dict[str, dict[str, Any]]
Step = tuple[Observations, dict[str, float], dict[str, bool], dict[str, bool], Infos]

_ACTIONS = len(Action)
_INTEGERS = frozenset({int, *(np.dtype(code).type for code in np.typecodes["AllInteger"])})


class parallel_env(ParallelEnv[str, np.ndarray, int]):  # noqa: N801, PettingZoo's convention
    """Agents forage in one world; see `WorldConfig` for its rules and `envs.observe` for observations.

    Observations are (O,) float32 in [0, 1], actions `Action` values. `infos[agent]` has "action_mask", (A,) int8
    with 1 for legal, and "is_alive". A move into rock or off the grid is allowed and leaves the agent in place.
    What a step returns is the caller's: no later step writes to it.

    on_death = "leave" is PettingZoo's rule: who dies has terminated and leaves `agents`.
    on_death = "absorb" is for tools that want the same agents in every step (vectorisers, replay buffers): `agents`
    stay complete, and nobody has terminated until all are dead, nobody is truncated before `max_steps`; then all are
    done at once. A death shows in the reward, in `is_alive` and as energy 0; the dead see the place where they fell,
    earn 0, have STAY as the only legal action, and must be given one, which does nothing.
    """

    metadata: ClassVar = {
        "name": "forage_v0",
        "render_modes": list(RENDER_MODES),
        "render_fps": FPS,
        "is_parallelizable": True,
    }

    def __init__(
        self,
        preset: str = DEFAULT_PRESET,
        config: WorldConfig | None = None,
        render_mode: str | None = None,
        on_death: str = "leave",
        max_cycles: int | None = None,
        **overrides: float,
    ) -> None:
        """Make an environment; `reset` begins an episode.

        preset: a world of `envs.presets`; or `config`, a world of your own. overrides: fields of `WorldConfig` that
        differ from it. max_cycles: PettingZoo's name for the field max_steps.
        Raises TypeError for an unknown field, ValueError for a value that is not possible.
        """
        if on_death not in ("leave", "absorb"):
            raise ValueError(f"on_death = {on_death!r}: must be 'leave' or 'absorb'")
        if max_cycles is not None:
            overrides["max_steps"] = max_cycles
        self.config = world_config(preset, config, overrides)
        self.render_mode, self.on_death = render_mode, on_death
        self._viewer = Viewer(self.config, render_mode)
        self.possible_agents = [f"forager_{i}" for i in range(self.config.agents)]
        self.agents: list[str] = []
        self._slot = {agent: i for i, agent in enumerate(self.possible_agents)}
        self._observation_spaces = {a: observation_box(self.config) for a in self.possible_agents}
        self._action_spaces = {a: Discrete(_ACTIONS) for a in self.possible_agents}
        size = sum(int(np.prod(shape)) for _, shape in layout(self.config, worlds=1).values())
        self.state_space: Box = Box(0.0, float(SEED_LIMIT), (size,), np.float64)  # type: ignore[arg-type]
        self._batch = ForageBatch(self.config)
        self._is_alive = np.zeros(self.config.agents, bool)
        self._seed: int | None = None

    def observation_space(self, agent: str) -> Box:
        """Return the space of an agent's observations, the same object each time."""
        return self._observation_spaces[agent]

    def action_space(self, agent: str) -> Discrete:
        """Return the space of an agent's actions, the same object each time."""
        return self._action_spaces[agent]

    def reset(self, seed: int | None = None, options: dict | None = None) -> tuple[Observations, Infos]:
        """Begin an episode; return observations and infos of all agents.

        seed: of the layout and all that happens in it, 0 to 2**53 - 1. Without one, each episode is another;
            which ones follow is fixed by the last seed, and they stay held out if it was.
        options: ignored.
        """
        if seed is None:
            seed = first_seed() if self._seed is None else seed_after(self._seed)
        observations = self._batch.reset([operator.index(seed)])
        self._seed = operator.index(seed)
        self._is_alive = np.ones(self.config.agents, bool)
        self.agents = self.possible_agents[:]
        self._show()
        return self._seen(self.agents, observations)

    def step(self, actions: Mapping[str, int]) -> Step:
        """Step the world; return observations, rewards, terminations, truncations and infos.

        actions: one for every agent in `agents` and no other. With nobody left, five empty dicts come back.
        Raises ValueError for a missing, dead or unknown agent and for an action that does not exist.
        """
        acting = self.agents
        array = self._to_array(actions)
        if not acting:
            return {}, {}, {}, {}, {}
        observations, result = self._batch.step(array)
        slots = self._slots(acting)
        self._is_alive = self._is_alive & ~result.is_terminal[0]
        # tolist gives plain floats and bools; NumPy's own fail `is True` in user code and JSON
        rewards = dict(zip(acting, result.reward[0, slots].tolist(), strict=True))
        terminations, truncations = self._ends(acting, result)
        self.agents = [a for a in acting if not (terminations[a] or truncations[a])]
        self._show()
        seen, infos = self._seen(acting, observations)
        return seen, rewards, terminations, truncations, infos

    def state(self) -> np.ndarray:
        """Return the whole state as one (S,) float64 vector; `set_state` goes on from it exactly."""
        return flatten(self._batch.state())

    def set_state(self, state: np.ndarray) -> tuple[Observations, Infos]:
        """Go on from what `state` gave; return observations and infos of the agents that are not done in it."""
        world = unflatten(self.config, state)
        observations = self._batch.set_state(world)
        self._seed = int(world.seed[0])
        self._is_alive = world.is_alive[0].copy()
        is_playing = self._is_alive if self.on_death == "leave" else np.full_like(self._is_alive, self._is_alive.any())
        is_playing = is_playing & (world.step[0] < self.config.max_steps)
        self.agents = [agent for agent, plays in zip(self.possible_agents, is_playing, strict=True) if plays]
        return self._seen(self.agents, observations)

    def render(self) -> str | np.ndarray | None:
        """Return the world as coloured text or as (height, width, 3) uint8; None in a window or without a mode."""
        return self._viewer.show(self._batch.state()) if self.render_mode else None

    def close(self) -> None:
        """Close the window, if there is one."""
        self._viewer.close()

    def _show(self) -> None:
        if self.render_mode == "human":
            self.render()

    def _slots(self, acting: list[str]) -> slice | list[int]:
        return slice(None) if len(acting) == self.config.agents else [self._slot[agent] for agent in acting]

    def _ends(self, acting: list[str], result: StepResult) -> tuple[dict[str, bool], dict[str, bool]]:
        # -> terminations, truncations
        is_over = bool(result.is_truncated[0])
        if self.on_death == "absorb":
            is_extinct = not self._is_alive.any()
            return dict.fromkeys(acting, is_extinct), dict.fromkeys(acting, is_over and not is_extinct)
        terminations = dict(zip(acting, result.is_terminal[0, self._slots(acting)].tolist(), strict=True))
        if not is_over:
            return terminations, dict.fromkeys(acting, False)
        return terminations, {agent: not died for agent, died in terminations.items()}

    def _seen(self, acting: list[str], observations: np.ndarray) -> tuple[Observations, Infos]:
        # observations: (1, N, O), in an array that nobody writes to again
        slots = self._slots(acting)
        rows, is_alive = observations[0, slots], self._is_alive[slots].tolist()
        mask = action_mask(self.config, rows)
        if not all(is_alive):
            mask[np.logical_not(is_alive), 1:] = 0  # all but STAY
        infos = {
            agent: {"action_mask": row, "is_alive": alive}
            for agent, row, alive in zip(acting, mask, is_alive, strict=True)
        }
        return dict(zip(acting, rows, strict=True)), infos

    def _to_array(self, actions: Mapping[str, int]) -> np.ndarray:
        # -> (1, N); those who are gone stay
        if self._seed is None:
            raise RuntimeError("the episode has not begun: call reset() first")
        acting = self.agents
        if not isinstance(actions, Mapping):
            raise ValueError(f"actions = {actions!r}: must be a dict, an action for each agent by name")
        if actions.keys() != dict.fromkeys(acting).keys():
            self._refuse(actions)
        values = [actions[agent] for agent in acting]
        # The types are looked at first because True is an int to NumPy, and NaN compares with nothing
        is_fine = _INTEGERS.issuperset(map(type, values)) and (not acting or 0 <= min(values) <= max(values) < _ACTIONS)
        if not is_fine:
            values = [checked_action(value, f"action of {agent}") for agent, value in zip(acting, values, strict=True)]
        array = np.zeros((1, self.config.agents), np.int64)
        array[0, self._slots(acting)] = values
        return array

    def _refuse(self, actions: Mapping[str, int]) -> None:
        missing = [agent for agent in self.agents if agent not in actions]
        if missing:
            raise ValueError(f"no action for {', '.join(missing)}: every agent in `agents` must act")
        extra = next(agent for agent in actions if agent not in self.agents)
        reason = "dead or done" if extra in self._slot else "no agent of this world"
        raise ValueError(f"action for {extra!r}, which is {reason}; agents are {self.agents}")


def raw_env(*args: Any, **kwargs: Any) -> AECEnv:
    """Return the environment as an AEC one, where agents act in turn; arguments as in `parallel_env`."""
    return parallel_to_aec(parallel_env(*args, **kwargs))


env = raw_env  # parallel_to_aec already enforces the order of calls, the one wrapper needed here
