"""Let agents live: a life in a batch of worlds, with everything that learning and fitness need of it.

Symbols: T steps, W worlds, N agents in a world, M = W * N, A actions.
"""

from collections.abc import Callable
from time import perf_counter
from typing import Any, NamedTuple, Protocol

import numpy as np

from agents.codec import TextCodec, naming
from agents.forage_codec import ForageCodec
from agents.policy import Decision
from agents.types import UserError
from envs.worlds.foreign import ForeignWorld
from envs.worlds.world import Step, World

Moment = dict[str, Any]  # a step of a trajectory, by the names of its columns
OnStep = Callable[[int, int, int], None]
Births = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
OnMoment = Callable[[list[str], Moment], None]


class Actor(Protocol):
    """Who decides: `agents.policy.Policy`, or anything that answers the same two questions."""

    def act(self, texts: list[str], adapters: np.ndarray, legal: np.ndarray, rng: np.random.Generator) -> Decision:
        """An action for each of R texts; adapters (R,), legal (R, A)."""

    def values(self, texts: list[str]) -> np.ndarray:
        """What is still to be expected after each text, (R,)."""


class Outcome(NamedTuple):
    """How a life went, for each agent."""

    episode_return: np.ndarray  # (W, N) undiscounted sum of rewards
    lifetime: np.ndarray  # (W, N) steps
    is_alive: np.ndarray  # (W, N) its last episode did not end in a terminal state
    figures: dict[str, np.ndarray]  # (W, N) each, what else the world tells


class Trajectory(NamedTuple):
    """What M agents saw, did and got in T steps. Entries where `is_lived` is False mean nothing."""

    texts: list[str]  # the distinct texts, by number
    text: np.ndarray  # (T, M) number of the text read
    legal: np.ndarray  # (T, M, A) bool
    action: np.ndarray  # (T, M) int
    log_prob: np.ndarray  # (T, M) float32, of the action when it was taken
    value: np.ndarray  # (T, M) float32, the critic's estimate then
    reward: np.ndarray  # (T, M) float32
    is_alive: np.ndarray  # (T, M) bool, who has the place at the end acted in the step
    is_terminal: np.ndarray  # (T, M) bool, the episode ended in the step (in the forage world: the agent died)
    is_cut: np.ndarray  # (T, M) bool, the episode, or the life, was cut off after the step
    cut_value: np.ndarray  # (T, M) float32, the critic's estimate of what was seen then
    is_lived: np.ndarray  # (T, M) bool, somebody acted in the step: who is alive, or had the place before


class Life(NamedTuple):
    """A life of agents."""

    trajectory: Trajectory
    outcome: Outcome
    decide_s: np.ndarray  # (T,) seconds of each step's decisions, of all agents together
    log_probs: np.ndarray  # (T, M, A) float32, of all actions when one was chosen, -inf where illegal
    states: list[Any]  # one a step, the first before it; empty unless asked for
    positions: np.ndarray  # (T, W, N, 2) where each was after a step; (0,) unless asked for


def rollout(
    policy: Actor,
    codec: TextCodec,
    world: World,
    seeds: np.ndarray,
    rng: np.random.Generator,
    *,
    carried: np.ndarray | None = None,
    keep_states: bool = False,
    keep_positions: bool = False,
    on_step: OnStep | None = None,
    on_moment: OnMoment | None = None,
    births: Births | None = None,
) -> Life:
    """Live in the worlds of `seeds` (W,), for `world.max_steps` or until nobody plays.

    carried: (W, N), who acts by which adapter, -1 for the frozen base; None: agent n of every world by adapter n.
    rng: samples the actions. keep_states: needs a world that has `state()`; keep_positions: one that has
    `positions()`. on_step: is told of each step how many were done, how many agents play and how many there are.
    on_moment: is told of each step all that there is to learn from, the texts so far by number and the columns (M,
    ...) of `Trajectory`; it may change the policy. births: needs the forage world. It is told after a step who died
    in it, who lives, and what each has earned since birth, (M,) each; it puts newcomers into the policy, and says
    in whose slots, (M,) bool. What the dead lived through is no experience of theirs: it is lived, but nobody who is
    alive did it. UserError where the world gives a reward that is not finite.
    """
    observation = world.reset(seeds)
    worlds, agents = observation.shape[:2]
    everyone = worlds * agents
    adapters = np.tile(np.arange(agents), worlds) if carried is None else carried.reshape(-1)
    reader = _Reader(codec, world, everyone)
    moments: list[Moment] = []
    is_playing, action = np.ones(everyone, bool), np.full(everyone, -1)
    if isinstance(world, ForeignWorld):  # in which not everybody need be there from the beginning
        is_playing = world.is_playing.reshape(-1)
    states = [world.state()] if keep_states else []  # type: ignore[attr-defined]
    positions = []
    while len(moments) < world.max_steps and is_playing.any():
        moment = _decide(policy, reader, _rows(observation), action, adapters, is_playing, rng)
        step = world.step(moment["action"].reshape(worlds, agents))
        _check_rewards(step.reward, is_playing.reshape(worlds, agents), seeds, len(moments) + 1)
        did = np.where(is_playing, moment["action"], -1)
        moment |= _end(policy, reader, step, did, is_playing, is_last=len(moments) + 1 == world.max_steps)
        moments.append(moment)
        if keep_positions:
            positions.append(world.positions())  # type: ignore[attr-defined]
        if on_moment:
            on_moment(list(reader.numbers), moment)
        observation, is_playing = step.observation, step.is_playing.reshape(-1)
        action = np.where(moment["is_terminal"] | moment["is_cut"], -1, did)
        if births and moment["is_terminal"].any() and len(moments) < world.max_steps:
            earned = sum(m["reward"] * m["is_alive"] for m in moments)
            is_born = births(moment["is_terminal"], is_playing, earned)
            observation = world.give_birth(is_born.reshape(worlds, agents))  # type: ignore[attr-defined]
            is_playing = is_playing | is_born
            for earlier in moments:
                earlier["is_alive"] = earlier["is_alive"] & ~is_born
        if keep_states:
            states.append(world.state())  # type: ignore[attr-defined]
        if on_step:
            on_step(len(moments), int(is_playing.sum()), everyone)
    life = _life(moments, reader, (worlds, agents), world.figures())
    return life._replace(states=states, positions=np.array(positions))


def mean_return(t: Trajectory) -> np.ndarray:
    """Of each place (M,) the mean return of the episodes that its owner finished; what it got so far if none was.

    Where episodes renew, the last of a life ends with it, unfinished; where they do not, it is the only one.
    """
    ends = (t.is_terminal | t.is_cut) & t.is_alive
    ends[-1] &= t.is_terminal[-1] | ~ends[:-1].any(axis=0)
    is_counted = ends[::-1].cumsum(axis=0)[::-1] > 0
    earned: np.ndarray = (t.reward * (t.is_alive & is_counted)).sum(axis=0)
    return earned / ends.sum(axis=0, dtype=earned.dtype).clip(min=1)


def texts_read_last(t: Trajectory, count: int) -> list[str]:
    """The texts that were read last in a life, at most so many, the last one at the end."""
    latest_first = dict.fromkeys(t.text[t.is_lived][::-1].tolist())
    return [t.texts[number] for number in list(latest_first)[:count]][::-1]


class _Reader:
    """Reads for M agents: keeps their memories and gives each distinct text a number.

    In a foreign world each copy has a codec of its own, that sees only that copy: what it says may depend on the map.
    """

    def __init__(self, codec: TextCodec, world: World, everyone: int):
        self.numbers: dict[str, int] = {}
        self._world, self._seen = world, np.empty(0)
        self._codecs = [(codec, np.arange(everyone))]  # with those for whom they read
        if isinstance(world, ForeignWorld):
            self._codecs = _codecs_of(type(codec), world.copies())
        self._memories: list[Any] = [None] * len(self._codecs)

    def look(self, observation: np.ndarray, action: np.ndarray) -> None:
        """Each saw (M, ...) after it did `action` (M,)."""
        self._seen, self._memories = observation, self._remembered(observation, action)

    def texts(self, rows: np.ndarray) -> list[str]:
        """What some of them read."""
        return self._told(self._seen, self._memories, rows)

    def legal(self) -> np.ndarray:
        """What the codec and the world allow, (M, A) bool."""
        legal = np.empty((len(self._seen), len(self._codecs[0][0].action_words)), bool)
        for codec, own in self._codecs:
            legal[own] = _asked(codec, "legal", self._seen[own])
        if isinstance(self._world, ForeignWorld):
            legal &= self._world.legal().reshape(legal.shape)
        return legal

    def numbered(self, texts: list[str]) -> np.ndarray:
        """The numbers (R,) of texts that were acted on."""
        return np.array([self.numbers.setdefault(text, len(self.numbers)) for text in texts])

    def peek(self, observation: np.ndarray, action: np.ndarray, rows: np.ndarray) -> list[str]:
        """What some of them would read of an observation that they do not act on."""
        return self._told(observation, self._remembered(observation, action), rows)

    def _remembered(self, observation: np.ndarray, action: np.ndarray) -> list[Any]:
        pairs = zip(self._codecs, self._memories, strict=True)
        return [_asked(codec, "remember", memory, observation[own], action[own]) for (codec, own), memory in pairs]

    def _told(self, observation: np.ndarray, memories: list[Any], rows: np.ndarray) -> list[str]:
        is_asked = np.zeros(len(observation), bool)
        is_asked[rows] = True
        texts: dict[int, str] = {}
        for (codec, own), memory in zip(self._codecs, memories, strict=True):
            here = np.flatnonzero(is_asked[own])
            if len(here):
                told = _asked(codec, "encode", observation[own[here]], _of(memory, here))
                texts |= zip(own[here].tolist(), told, strict=True)
        return [texts[row] for row in rows.tolist()]


def _codecs_of(kind: Any, copies: list[Any]) -> list[tuple[TextCodec, np.ndarray]]:
    """A codec for each different environment among those of M agents, with the numbers of the agents in it."""
    seats: dict[int, list[int]] = {}
    for agent, copy in enumerate(copies):
        seats.setdefault(id(copy), []).append(agent)
    with naming(kind, "__init__"):
        return [(kind(copies[agents[0]]), np.array(agents)) for agents in seats.values()]


def _asked(codec: TextCodec, method: str, *given: Any) -> Any:
    """What a method of a codec says; a UserError where it fails, but for our own codec: there it is a bug of ours."""
    if type(codec) is ForageCodec:
        return getattr(codec, method)(*given)
    with naming(type(codec), method):
        return getattr(codec, method)(*given)


def _decide(
    policy: Actor,
    reader: _Reader,
    observation: np.ndarray,
    action: np.ndarray,
    adapters: np.ndarray,
    is_playing: np.ndarray,
    rng: np.random.Generator,
) -> Moment:
    """What those who play read and chose after `action` led to `observation`; all (M, ...)."""
    start = perf_counter()
    reader.look(observation, action)
    rows = np.flatnonzero(is_playing)
    texts, legal = reader.texts(rows), reader.legal()
    decision = policy.act(texts, adapters[rows], legal[rows], rng)
    moment: Moment = {
        "decide_s": perf_counter() - start,
        "legal": legal,
        "is_alive": is_playing,
        "is_lived": is_playing,
    }
    read = decision._asdict() | {"text": reader.numbered(texts)}
    return moment | {name: _spread(values, rows, len(is_playing)) for name, values in read.items()}


def _end(
    policy: Actor, reader: _Reader, step: Step, action: np.ndarray, was_playing: np.ndarray, is_last: bool
) -> Moment:
    """What a step gave, and for those whose episode or life was cut off the value of what they saw last."""
    is_terminal = step.is_terminal.reshape(-1)
    is_cut = was_playing & ~is_terminal & (step.is_truncated.reshape(-1) | is_last)
    cut_value = np.zeros(len(is_cut), np.float32)
    rows = np.flatnonzero(is_cut)
    if len(rows):
        cut_value[rows] = policy.values(reader.peek(_rows(step.last_seen), action, rows))
    reward = step.reward.reshape(-1)
    return {"reward": reward, "is_terminal": is_terminal, "is_cut": is_cut, "cut_value": cut_value}


def _check_rewards(reward: np.ndarray, was_playing: np.ndarray, seeds: np.ndarray, step: int) -> None:
    """UserError, saying where, if somebody who acted got a reward (W, N) that is NaN or infinite."""
    wrong = was_playing & ~np.isfinite(reward)
    if wrong.any():
        w, n = np.argwhere(wrong)[0]
        raise UserError(
            f"the reward of agent {n} in world {w} (seed {seeds[w]}) is {reward[w, n]} in step {step}: must be "
            "finite, and below 3e38, in float32"
        )


def _life(
    moments: list[Moment],
    reader: _Reader,
    shape: tuple[int, int],
    figures: dict[str, np.ndarray],
) -> Life:
    columns = {name: np.stack([moment[name] for moment in moments]) for name in moments[0]}
    decide_s, log_probs = columns.pop("decide_s"), columns.pop("log_probs")
    trajectory = Trajectory(texts=list(reader.numbers), **columns)
    earned = trajectory.reward * trajectory.is_alive
    total, lifetime = (x.sum(axis=0).reshape(shape) for x in (earned, trajectory.is_alive))
    last = len(moments) - 1 - trajectory.is_alive[::-1].argmax(axis=0)  # (M,), of each agent's own steps
    has_died = np.take_along_axis(trajectory.is_terminal, last[None], axis=0)[0]
    is_alive = (trajectory.is_alive.any(axis=0) & ~has_died).reshape(shape)  # who never came is not alive
    return Life(trajectory, Outcome(total, lifetime, is_alive, figures), decide_s, log_probs, [], np.array([]))


def _rows(observation: np.ndarray) -> np.ndarray:
    """(W, N, ...) -> (M, ...)."""
    return observation.reshape(-1, *observation.shape[2:])


def _of(memory: tuple | None, rows: np.ndarray) -> tuple | None:
    return memory if memory is None else type(memory)(*(array[rows] for array in memory))


def _spread(values: np.ndarray, rows: np.ndarray, length: int) -> np.ndarray:
    """Values (R, ...) of some rows as (length, ...) that is zero elsewhere (for actions: one that exists)."""
    spread = np.zeros((length, *values.shape[1:]), values.dtype)
    spread[rows] = values
    return spread
