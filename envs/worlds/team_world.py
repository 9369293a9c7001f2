"""PettingZoo's parallel worlds for a population: as many copies as it takes to seat every agent.

Where the last copy has seats left over, its first agents take them a second time, and that is not counted. Who is not
there when an episode begins, or leaves early, does not play; who comes in the middle of one plays from then on.
"""

import importlib
import re
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import numpy as np
from gymnasium.spaces import Discrete
from numpy.typing import ArrayLike

from envs.worlds.foreign import Chance, ForeignWorld, aside, fitting, open_actions, said_of
from envs.worlds.world import Step


def make_team(module: str, options: dict[str, Any]) -> Any:
    """Make one `parallel_env` of a module. Raises ValueError, with the reason, where there is none that fits."""
    try:
        env = _parallel(module, options)
    except ImportError as error:
        raise ValueError(said_of(error, module)) from error
    except (KeyError, AssertionError, TypeError) as error:
        raise ValueError(f"it cannot be made with options {options}: {error!r}") from error
    names = list(getattr(env, "possible_agents", []))
    spaces = [env.action_space(agent) for agent in names]
    is_fine = all(isinstance(space, Discrete) and space == spaces[0] for space in spaces)
    if names and is_fine:
        return env
    env.close()
    if not names:
        raise ValueError("it has no possible_agents: who can ever play must be known beforehand")
    raise ValueError(f"its actions are {spaces}: must be Discrete, and the same for all agents")


def _parallel(name: str, options: dict[str, Any]) -> Any:
    module = importlib.import_module(name)
    if hasattr(module, "parallel_env"):
        return module.parallel_env(**options)
    if not hasattr(module, "env"):
        raise ValueError(f"{name} has neither parallel_env nor env: it is no module of a PettingZoo world")
    env = module.env(**options)
    if not env.metadata.get("is_parallelizable", False):
        env.close()
        raise ValueError("its agents move by turns (AEC), and its metadata does not allow it to be made parallel")
    from pettingzoo.utils import aec_to_parallel

    return aec_to_parallel(env)


def roles(env: Any) -> list[str]:
    """Return the role of each possible agent of a PettingZoo environment: its name without the number at its end.

    Agents of one name whose observation or action spaces differ are told apart by a number behind it.
    """
    kinds: dict[str, list[tuple]] = {}
    told = []
    for agent in env.possible_agents:
        name = re.sub(r"[_-]?\d+$", "", str(agent)) or "agent"
        spaces = env.observation_space(agent), env.action_space(agent)
        known = kinds.setdefault(name, [])
        if spaces not in known:
            known.append(spaces)
        number = known.index(spaces)
        told.append(f"{name} {number + 1}" if number else name)
    return told


class TeamWorld(ForeignWorld):
    """W times as many copies of a PettingZoo environment as seat N agents."""

    def __init__(self, module: str, options: dict[str, Any], agents: int, max_steps: int, *, renews: bool) -> None:
        """renews: begin a new episode where a copy's is over, until `max_steps`; else its agents are done."""
        with aside(), Chance(0):
            sample = make_team(module, options)
            self._names = list(sample.possible_agents)
            space = sample.action_space(self._names[0])
            kinds = roles(sample)
            sample.close()
        super().__init__(lambda: make_team(module, options), len(self._names), agents, max_steps, renews=renews)
        self._space = space
        self.roles = tuple(kinds[n % len(kinds)] for n in range(agents))

    def reset(self, seeds: ArrayLike) -> np.ndarray:
        """Begin one world per seed (W,); return the observations (W, N) object, None for those who are not there."""
        ours = [fitting(int(seed)) for seed in np.asarray(seeds)]
        self._chance = Chance(ours[0])
        self._is_playing = np.zeros((len(ours), self.agents), bool)
        self._open = np.ones((len(ours), self._tables * self._seats, self._space.n), bool)
        seen = np.empty((len(ours), self.agents), object)
        for w, seed in enumerate(ours):
            for table in range(self._tables):
                env, rows, infos = self._begin(w * self._tables + table, seed)
                self._look(w, table, env, rows, infos, seen)
        return seen

    def step(self, actions: np.ndarray) -> Step:
        """Do what each agent (W, N) chose; what is chosen for those not playing is ignored."""
        shape = self._is_playing.shape
        step = Step(
            observation=np.empty(shape, object),
            reward=np.zeros(shape, np.float32),
            is_terminal=np.zeros(shape, bool),
            is_truncated=np.zeros(shape, bool),
            is_playing=np.zeros(shape, bool),
            last_seen=np.empty(shape, object),
        )
        was_playing, self._is_playing = self._is_playing, step.is_playing
        with aside(), self._chance:
            for w in range(shape[0]):
                for table in range(self._tables):
                    self._step_table(w, table, actions[w], was_playing[w], step)
        return step

    def _step_table(self, w: int, table: int, actions: np.ndarray, was_playing: np.ndarray, step: Step) -> None:
        env = self._copies[w * self._tables + table]
        if not env.agents:
            return
        chosen = {name: self._choice(w, self._seat(table, name), actions, was_playing) for name in env.agents}
        rows, reward, over, cut, infos = env.step(chosen)
        self._look(w, table, env, rows, infos, step.last_seen)
        for name in chosen:
            seat, has_left = self._seat(table, name), name not in env.agents
            if seat < self.agents and was_playing[seat]:
                step.reward[w, seat] = reward.get(name, 0.0)
                is_over = over.get(name, False) or (has_left and name not in rows)  # who sees no more expects no more
                step.is_terminal[w, seat] = is_over
                step.is_truncated[w, seat] = (has_left or cut.get(name, False)) and not is_over
        if self._renews and not env.agents:
            rows, infos = env.reset()
        self._look(w, table, env, rows, infos, step.observation)

    def _look(self, w: int, table: int, env: Any, rows: Mapping, infos: Mapping, seen: np.ndarray) -> None:
        """Note who is there and which actions are open to them; copy what they see, as it may be written into."""
        for name, row in rows.items():
            seat = self._seat(table, name)
            self._open[w, seat] = open_actions(int(self._space.n), row, infos.get(name, {}))
            if seat < self.agents:
                seen[w, seat] = deepcopy(row)
                self._is_playing[w, seat] = name in env.agents

    def _choice(self, w: int, seat: int, actions: np.ndarray, was_playing: np.ndarray) -> int:
        """What is done in a seat; where nobody chose for it (a second seat, or no sight yet) something that is open."""
        action, is_open = int(actions[seat % self.agents]), self._open[w, seat]
        is_chosen = seat < self.agents and was_playing[seat]
        return int(self._space.start) + (action if is_chosen or is_open[action] else int(is_open.argmax()))

    def _seat(self, table: int, name: str) -> int:
        return table * self._seats + self._names.index(name)
