"""PettingZoo's parallel worlds for a population: as many copies as it takes to seat every agent.

Where the last copy has seats left over, its first agents take them a second time, and that is not counted. Who is not
there when an episode begins, or leaves early, does not play; who comes in the middle of one plays from then on.
"""

import importlib
import re
from typing import Any

import numpy as np
from gymnasium.spaces import Discrete
from numpy.typing import ArrayLike

from envs.worlds.faults import NoWorld, WorldFault, asked, five, flag, mapping, number
from envs.worlds.foreign import Chance, Conduct, ForeignWorld, aside, close, fitting, open_actions, said_of
from envs.worlds.world import Step


def make_team(module: str, options: dict[str, Any]) -> Any:
    """Make one `parallel_env` of a module. NoWorld, with the reason, where there is none that fits."""
    try:
        env = _parallel(module, options)
    except ImportError as error:
        raise NoWorld(said_of(error, module)) from error
    except (KeyError, AssertionError, TypeError) as error:
        raise NoWorld(f"it cannot be made with options {options}: {error!r}") from error
    names = list(getattr(env, "possible_agents", []))
    spaces = [env.action_space(agent) for agent in names]
    is_fine = all(isinstance(space, Discrete) and space == spaces[0] for space in spaces)
    if names and is_fine:
        return env
    env.close()
    if not names:
        raise NoWorld("it has no possible_agents: who can ever play must be known beforehand")
    raise NoWorld(f"its actions are {spaces}: must be Discrete, and the same for all agents")


def _parallel(name: str, options: dict[str, Any]) -> Any:
    module = importlib.import_module(name)
    if hasattr(module, "parallel_env"):
        return module.parallel_env(**options)
    if not hasattr(module, "env"):
        raise NoWorld(f"{name} has neither parallel_env nor env: it is no module of a PettingZoo world")
    env = module.env(**options)
    if not env.metadata.get("is_parallelizable", False):
        env.close()
        raise NoWorld("its agents move by turns (AEC), and its metadata does not allow it to be made parallel")
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


Sight = dict[str, tuple[Any, np.ndarray, bool]]
"""By agent what it sees, (A,) the actions that are open to it, and whether it is there to act."""


class TeamWorld(ForeignWorld):
    """W times as many copies of a PettingZoo environment as seat N agents."""

    def __init__(
        self,
        module: str,
        options: dict[str, Any],
        agents: int,
        max_steps: int,
        *,
        renews: bool,
        conduct: Conduct | None = None,
    ) -> None:
        """renews: begin a new episode where a copy's is over, until `max_steps`; else its agents are done.

        conduct: what is done about a copy that misbehaves. WorldFault where none can be made.
        """
        with aside(), Chance(0), asked(module, "making it"):
            sample = make_team(module, options)
            try:
                self._names = list(sample.possible_agents)
                space, kinds = sample.action_space(self._names[0]), roles(sample)
            finally:
                close(sample, module, conduct.step_timeout if conduct else 0.0)
        make, seats = lambda: make_team(module, options), len(self._names)
        super().__init__(module, make, seats, agents, max_steps, renews=renews, conduct=conduct)
        self._space = space
        self.roles = tuple(kinds[n % len(kinds)] for n in range(agents))
        self._ended: dict[int, set[str]] = {}  # by place, whose part in the present episode has ended
        self._given_up: set[int] = set()  # copies that failed, in which nobody acts until the next reset

    def reset(self, seeds: ArrayLike) -> np.ndarray:
        """Begin one world per seed (W,); return the observations (W, N) object, None for those who are not there.

        WorldFault where one misbehaves.
        """
        ours = [fitting(int(seed)) for seed in np.asarray(seeds)]
        self._start(ours)
        self._given_up.clear()
        self._is_playing = np.zeros((len(ours), self.agents), bool)
        self._is_void = np.zeros_like(self._is_playing)
        self._open = np.ones((len(ours), self._tables * self._seats, self._space.n), bool)
        seen = np.empty((len(ours), self.agents), object)
        for w, seed in enumerate(ours):
            for table in range(self._tables):
                self._note(w, table, self._begin(w * self._tables + table, seed), seen)
        return seen

    def step(self, actions: np.ndarray) -> Step:
        """Do what each agent (W, N) chose; what is chosen for those not playing is ignored. WorldFault as `reset`."""
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
        self._steps += 1
        self._is_void = np.zeros(shape, bool)
        with aside(), self._chance:
            for w in range(shape[0]):
                for table in range(self._tables):
                    self._step_table(w, table, actions[w], was_playing[w], step)
        return step

    def _step_table(self, w: int, table: int, actions: np.ndarray, was_playing: np.ndarray, step: Step) -> None:
        """Let the agents of one copy act, and note what came of it; nothing did where it failed."""
        place = w * self._tables + table
        env = self._copies[place]
        if place in self._given_up or not env.agents:
            return
        try:
            with self._asked(place, "step"):
                chosen = {name: self._choice(w, self._seat(table, name), actions, was_playing) for name in env.agents}
                rows, *told, infos = five(env.step(chosen))
                ends = self._ends(place, list(chosen), rows, *told)
                sight = self._looked(place, rows, infos)
        except WorldFault as fault:
            self._void(w, table, was_playing, self._begin_anew(place, fault), step)
            return
        self._in_a_row.pop(place, None)
        self._note(w, table, sight, step.last_seen)
        for name, (earned, is_over, is_cut) in ends.items():
            seat = self._seat(table, name)
            if seat < self.agents and was_playing[seat]:
                step.reward[w, seat], step.is_terminal[w, seat], step.is_truncated[w, seat] = earned, is_over, is_cut
        if self._renews and not env.agents:
            sight = self._renewed(place)
        self._note(w, table, sight, step.observation)

    def _void(self, w: int, table: int, was_playing: np.ndarray, sight: Sight, step: Step) -> None:
        """A step of a copy came to nothing, and another copy, of which this is the first sight, has its place."""
        seats = slice(table * self._seats, (table + 1) * self._seats)
        self._is_void[w, seats] = was_playing[seats]
        if self._renews:
            self._note(w, table, sight, step.observation)
            self._note(w, table, sight, step.last_seen)
        else:
            self._given_up.add(w * self._tables + table)

    def _ends(
        self, place: int, names: list[str], rows: Any, reward: Any, over: Any, cut: Any
    ) -> dict[str, tuple[float, bool, bool]]:
        """What each of those who acted got, and whether its episode has ended or was cut off; and note who is out."""
        there, ends = self._copies[place].agents, {}
        mapping(rows, "the observations"), mapping(reward, "the rewards")
        mapping(over, "terminations"), mapping(cut, "truncations")
        for name in names:
            is_over = flag(over.get(name, False), f"the termination of {name}")
            is_cut = flag(cut.get(name, False), f"the truncation of {name}")
            if (is_over or is_cut) and name in there:
                wrong = f"the episode of {name} has ended, and it is still among the agents"
                raise WorldFault(f"{wrong}: take it off `agents` in the step in which it ends")
            if is_over or is_cut:
                self._ended[place].add(name)
            has_left = name not in there
            is_over |= has_left and name not in rows  # who sees no more expects no more
            earned = number(reward.get(name, 0.0), f"the reward of {name}")
            ends[name] = earned, is_over, (has_left or is_cut) and not is_over
        return ends

    def _reset(self, place: int, **seed: int) -> Sight:
        self._ended[place] = set()
        return super()._reset(place, **seed)  # type: ignore[no-any-return]

    def _looked(self, place: int, seen: Any, info: Any) -> Sight:
        """What everybody sees who is not out."""
        env, sight = self._copies[place], {}
        infos = mapping(info, "infos")
        for name in [*mapping(seen, "the observations"), *env.agents]:
            if name not in self._names:
                raise WorldFault(f"there is an agent {name!r}: must be one of possible_agents, {self._names}")
        back = self._ended[place].intersection(env.agents)
        if back:
            raise WorldFault(f"{min(back)} is among the agents again after its episode has ended: must not be")
        for name, row in seen.items():
            is_open = open_actions(int(self._space.n), row, infos.get(name, {}))
            sight[name] = self._kept(place, name, env.observation_space(name), row), is_open, name in env.agents
        return sight

    def _note(self, w: int, table: int, sight: Sight, seen: np.ndarray) -> None:
        """Note who is there, which actions are open to them, and what they see, in `seen` (W, N)."""
        for name, (row, is_open, is_there) in sight.items():
            seat = self._seat(table, name)
            self._open[w, seat] = is_open
            if seat < self.agents:
                seen[w, seat], self._is_playing[w, seat] = row, is_there

    def _choice(self, w: int, seat: int, actions: np.ndarray, was_playing: np.ndarray) -> int:
        """What is done in a seat; where nobody chose for it (a second seat, or no sight yet) something that is open."""
        action, is_open = int(actions[seat % self.agents]), self._open[w, seat]
        is_chosen = seat < self.agents and was_playing[seat]
        return int(self._space.start) + (action if is_chosen or is_open[action] else int(is_open.argmax()))

    def _seat(self, table: int, name: str) -> int:
        return table * self._seats + self._names.index(name)
