"""Gymnasium's single-agent worlds for a population: one copy for each agent, side by side.

Agents of the same world have the same seed, so all are judged by the same layouts; unless each is to have its own,
from which a population that learns sees more.
"""

import importlib
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Discrete
from numpy.typing import ArrayLike

from envs.worlds.faults import NoWorld, WorldFault, five, flag, mapping, number
from envs.worlds.foreign import Conduct, ForeignWorld, aside, derived, fitting, open_actions, said_of
from envs.worlds.successes import Successes
from envs.worlds.world import Step

REGISTERED_BY = {"MiniGrid-": "minigrid", "BabyAI-": "minigrid"}
"""Packages to import for ids that begin so; for others write package:Id, as Gymnasium has it."""
EXPERT_ACTION, NO_ADVICE = "expert_action", -1
"""Where an info tells what an expert would do now, and what stands for an info that does not."""


def make_gym(env_id: str, options: dict[str, Any]) -> gymnasium.Env:
    """Make one environment. NoWorld, with the reason, where there is none or its actions are not Discrete."""
    package = env_id.rpartition(":")[0]
    package = package or next((name for prefix, name in REGISTERED_BY.items() if env_id.startswith(prefix)), "")
    try:
        if package:
            importlib.import_module(package)
        env = gymnasium.make(env_id, **options)
    except ImportError as error:
        raise NoWorld(said_of(error, package)) from error
    except gymnasium.error.Error as error:
        raise NoWorld(str(error)) from error
    except (KeyError, AssertionError, TypeError) as error:
        raise NoWorld(f"it cannot be made with options {options}: {error!r}") from error
    if not isinstance(env.action_space, Discrete):
        env.close()
        raise NoWorld(f"its actions are {env.action_space}: must be Discrete")
    return env


class GymWorld(ForeignWorld):
    """W x N copies of a Gymnasium environment. Episodes follow one another for a life, or each agent plays but one."""

    def __init__(
        self,
        env_id: str,
        options: dict[str, Any],
        agents: int,
        max_steps: int,
        *,
        renews: bool,
        conduct: Conduct | None = None,
        is_shared: bool = True,
    ) -> None:
        """renews: begin a new episode where one ended, until `max_steps`; else that agent is done.

        is_shared: all agents of a world have its seed; else each has one that follows from it. conduct: what is done
        about a copy that misbehaves.
        """
        make = lambda: make_gym(env_id, options)  # noqa: E731
        super().__init__(env_id, make, 1, agents, max_steps, renews=renews, conduct=conduct)
        self._is_shared, self._successes, self._advice = is_shared, Successes(0), np.zeros(0, int)

    def reset(self, seeds: ArrayLike) -> np.ndarray:
        """Begin one world per seed (W,); return the observations (W, N) object. WorldFault where one misbehaves."""
        ours = [fitting(int(seed)) for seed in np.asarray(seeds)]
        shape = len(ours), self.agents
        self._start(ours)
        self._successes, self._advice = Successes(shape[0] * shape[1]), np.full(shape[0] * shape[1], NO_ADVICE)
        seeds_of = {(w, n): ours[w] if self._is_shared else derived(ours[w], n) for w, n in np.ndindex(shape)}
        begun = {(w, n): self._begin(w * self.agents + n, seed) for (w, n), seed in seeds_of.items()}
        self._space = self._copies[0].action_space
        self._is_playing, self._open = np.ones(shape, bool), np.ones((*shape, int(self._space.n)), bool)
        self._is_void, seen = np.zeros(shape, bool), np.empty(shape, object)
        for place, (observation, is_open) in begun.items():
            seen[place], self._open[place] = observation, is_open
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
        self._steps += 1
        self._is_void = np.zeros(shape, bool)
        with aside(), self._chance:
            for place in zip(*self._is_playing.nonzero(), strict=True):
                self._step_copy(place, int(self._space.start + actions[place]), step)
        self._is_playing = step.is_playing
        return step

    def _step_copy(self, place: tuple[int, ...], action: int, step: Step) -> None:
        """Let one agent act, and note what came of it; nothing did where its copy failed."""
        copy = int(place[0] * self.agents + place[1])
        try:
            with self._asked(copy, "step"):
                observation, reward, terminated, truncated, info = five(self._copies[copy].step(action))
                earned = number(reward, "the reward")
                over, cut = flag(terminated, "terminated"), flag(truncated, "truncated")
                self._note(copy, info, is_over=over or cut)
                seen, self._open[place] = self._open_to(copy, observation, info)
        except WorldFault as fault:
            seen, self._open[place] = self._begin_anew(copy, fault)
            self._is_void[place], step.is_playing[place] = True, self._renews
            step.observation[place] = step.last_seen[place] = seen
            return
        self._in_a_row.pop(copy, None)
        step.reward[place], step.is_terminal[place], step.is_truncated[place] = earned, over, cut and not over
        step.observation[place] = step.last_seen[place] = seen
        if self._renews and (over or cut):
            step.observation[place], self._open[place] = self._renewed(copy)
        step.is_playing[place] = self._renews or not (over or cut)

    def figures(self) -> dict[str, np.ndarray]:
        """Which share of each agent's episodes succeeded, where the world's infos say that (`Successes.figures`)."""
        return self._successes.figures((len(self._is_playing), self.agents))

    def advice(self) -> np.ndarray:
        """What each agent's world says that an expert would do now, (W, N), the number of an action.

        An info says so by "expert_action"; `NO_ADVICE` where it does not.
        """
        return self._advice.reshape(len(self._is_playing), self.agents).copy()

    def _looked(self, place: int, seen: Any, info: Any) -> tuple[Any, np.ndarray]:
        """The first observation of an episode, and which actions are open then."""
        self._note(place, info, is_over=False)
        return self._open_to(place, seen, info)

    def _note(self, copy: int, info: Any, *, is_over: bool) -> None:
        """Keep what the info of a reset or a step says; is_over: its episode ended with the step."""
        told, actions = mapping(info, "info"), self._copies[copy].action_space
        advice = told.get(EXPERT_ACTION)
        if advice is not None and not actions.contains(advice):
            raise WorldFault(f"its {EXPERT_ACTION} is {advice!r}: must be one of its actions, {actions}")
        self._advice[copy] = NO_ADVICE if advice is None else advice - actions.start
        self._successes.note(copy, told, is_over=is_over)

    def _open_to(self, place: int, seen: Any, info: Any) -> tuple[Any, np.ndarray]:
        """An observation, and which actions are open then."""
        env = self._copies[place]
        is_open = open_actions(int(env.action_space.n), seen, info)
        return self._kept(place, "", getattr(env, "observation_space", None), seen), is_open
