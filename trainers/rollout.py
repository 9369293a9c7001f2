"""Collect experience: a rollout of a policy in a batch of worlds, with all that learning and evaluation need of it.

Symbols: T steps, W worlds, N agents in a world, M = W * N, A actions. Row w * N + n is agent n of world w.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from time import perf_counter
from typing import Any, NamedTuple, Protocol

import numpy as np

from agents.codecs.codec import TextCodec
from agents.policy import Decision
from agents.types import UserError
from envs.worlds.faults import MOST_REWARD, WorldFault
from envs.worlds.foreign import ForeignWorld
from envs.worlds.world import Step, World
from trainers.reader import Reader

Transition = dict[str, Any]
"""One step of all M agents, by the names of a trajectory's columns: each (M, ...)."""


class Actor(Protocol):
    """Who decides: `agents.policy.Policy`, or anything that answers the same two questions."""

    def act(self, texts: list[str], adapters: np.ndarray, legal: np.ndarray, rng: np.random.Generator) -> Decision:
        """An action for each of R texts; adapters (R,), legal (R, A)."""

    def values(self, texts: list[str]) -> np.ndarray:
        """The critic's estimate of the return after each text, (R,)."""


class Outcome(NamedTuple):
    """How an episode went, for each agent."""

    episode_return: np.ndarray  # (W, N) undiscounted sum of rewards
    lifetime: np.ndarray  # (W, N) steps
    is_alive: np.ndarray  # (W, N) its last episode did not end in a terminal state
    figures: dict[str, np.ndarray]  # (W, N) each, what else the world measures


class Trajectory(NamedTuple):
    """What M agents read, did and got in T steps. Entries where `is_lived` is False mean nothing."""

    texts: list[str]  # the distinct texts, by number
    text: np.ndarray  # (T, M) number of the text read
    legal: np.ndarray  # (T, M, A) bool
    action: np.ndarray  # (T, M) int
    log_prob: np.ndarray  # (T, M) float32, of the action when it was taken
    value: np.ndarray  # (T, M) float32, the critic's estimate then
    reward: np.ndarray  # (T, M) float32
    is_alive: np.ndarray  # (T, M) bool, the agent acted that has the slot at the end
    is_terminal: np.ndarray  # (T, M) bool, the episode ended in the step (in the forage world: the agent died)
    is_truncated: np.ndarray  # (T, M) bool, the episode, or the rollout, was cut off after the step
    bootstrap_value: np.ndarray  # (T, M) float32, the critic's estimate of the state in which it was cut off
    is_lived: np.ndarray  # (T, M) bool, somebody acted in the step: this agent, or one that had the slot before


class Rollout(NamedTuple):
    """The experience of one rollout."""

    trajectory: Trajectory
    outcome: Outcome
    decide_s: np.ndarray  # (T,) seconds of each step's decisions, of all agents together
    log_probs: np.ndarray  # (T, M, A) float32, of all actions when one was chosen, -inf where illegal


class Observed(NamedTuple):
    """What an observer is shown after a step."""

    step: int  # how many steps are done
    is_last: bool
    texts: Sequence[str]  # the distinct texts so far, by number; it grows
    transition: Transition
    is_playing: np.ndarray  # (M,) bool, acts in the next step
    earned: np.ndarray  # (M,) float32, rewards so far of the agent that has the slot
    world: World


class Newcomers(NamedTuple):
    """New agents that an observer has put into a world and into the policy."""

    is_new: np.ndarray  # (M,) bool, the slots that they have now
    observation: np.ndarray  # (W, N, ...) what all agents see then


class Observer:
    """Watches a rollout. A method does nothing unless a subclass overrides it."""

    def start(self, world: World) -> None:
        """The worlds have been reset."""

    def step(self, seen: Observed) -> Newcomers | None:
        """A step is done. What is returned takes the place of agents that died; only one observer may do so."""

    def stop(self) -> None:
        """The rollout is over, or has failed."""


def collect_rollout(
    policy: Actor,
    codec: TextCodec,
    world: World,
    seeds: np.ndarray,
    rng: np.random.Generator,
    *,
    adapter_ids: np.ndarray | None = None,
    observers: Sequence[Observer] = (),
) -> Rollout:
    """Act in the worlds of `seeds` (W,), for `world.max_steps` steps or until nobody plays.

    rng: samples the actions. adapter_ids: (W, N), the adapter of each agent, -1 for the frozen base; None: agent n of
    every world has adapter n. observers: they are shown each step in their order, and may change the policy.
    UserError where the world misbehaves, as by a reward that is not finite, or where nobody acts.
    """
    with _naming_faults():
        observation = world.reset(seeds)
    worlds, agents = observation.shape[:2]
    everyone = worlds * agents
    adapters = np.tile(np.arange(agents), worlds) if adapter_ids is None else adapter_ids.reshape(-1)
    reader = Reader(codec, world, everyone)
    transitions: list[Transition] = []
    is_playing, action = np.ones(everyone, bool), np.full(everyone, -1)
    if isinstance(world, ForeignWorld):  # in which not everybody need be there from the beginning
        is_playing = world.is_playing.reshape(-1)
    arrived, earned = np.zeros(everyone, int), np.zeros(everyone, np.float32)
    try:
        for observer in observers:
            observer.start(world)
        while len(transitions) < world.max_steps and is_playing.any():
            transition = _decide(policy, reader, _rows(observation), action, adapters, is_playing, rng)
            with _naming_faults():
                step = world.step(transition["action"].reshape(worlds, agents))
            if isinstance(world, ForeignWorld) and world.is_void.any():
                is_playing = _cut_off(transitions[-1:], transition, world.is_void.reshape(-1))
            done = len(transitions) + 1
            is_last = done == world.max_steps
            _check_rewards(step.reward, is_playing.reshape(worlds, agents), seeds, done)
            did = np.where(is_playing, transition["action"], -1)
            transition |= _end(policy, reader, step, did, is_playing, is_last)
            transitions.append(transition)
            earned = earned + np.where(is_playing, transition["reward"], 0)
            observation, is_playing = step.observation, step.is_playing.reshape(-1)
            action = np.where(transition["is_terminal"] | transition["is_truncated"], -1, did)
            for observer in observers:
                seen = Observed(done, is_last, reader.texts, transition, is_playing, earned, world)
                if newcomers := observer.step(seen):
                    observation, is_playing = newcomers.observation, is_playing | newcomers.is_new
                    arrived = np.where(newcomers.is_new, done, arrived)
                    earned = np.where(newcomers.is_new, 0, earned)
    finally:
        for observer in observers:
            observer.stop()
    if not any(transition["is_lived"].any() for transition in transitions):
        raise UserError(f"nobody did a step in the worlds of seeds {seeds.tolist()}: somebody must be there and act")
    return _rollout(transitions, reader.texts, arrived, (worlds, agents), world.figures())


def mean_return(t: Trajectory) -> np.ndarray:
    """Mean return (M,) of the episodes that the agent of each slot finished; of its only one where it finished none.

    Where episodes follow one another, the last one of a rollout is cut off with it and does not count.
    """
    ends = (t.is_terminal | t.is_truncated) & t.is_alive
    ends[-1] &= t.is_terminal[-1] | ~ends[:-1].any(axis=0)
    is_counted = ends[::-1].cumsum(axis=0)[::-1] > 0
    earned: np.ndarray = (t.reward * (t.is_alive & is_counted)).sum(axis=0)
    return earned / ends.sum(axis=0, dtype=earned.dtype).clip(min=1)


def without_broken(t: Trajectory, adapters: int) -> tuple[Trajectory, int]:
    """The trajectory without the steps of adapters some of whose numbers are not finite; and how many adapters.

    Row m is of adapter m modulo `adapters`. What they did is marked as not lived, and zero.
    """
    numbers = t.log_prob + t.value + t.reward + t.bootstrap_value
    is_wrong = (t.is_lived & ~np.isfinite(numbers)).any(axis=0)  # (M,)
    if not is_wrong.any():
        return t, 0
    owner = np.arange(len(is_wrong)) % adapters
    broken = np.unique(owner[is_wrong])
    keep = ~np.isin(owner, broken)
    log_prob, value, reward, bootstrap_value = (
        np.where(keep, column, np.float32(0)) for column in (t.log_prob, t.value, t.reward, t.bootstrap_value)
    )
    sound = t._replace(log_prob=log_prob, value=value, reward=reward, bootstrap_value=bootstrap_value)
    return sound._replace(is_alive=t.is_alive & keep, is_lived=t.is_lived & keep), len(broken)


def gae(t: Trajectory, discount: float, gae_lambda: float) -> np.ndarray:
    """Advantages (T, M): generalised advantage estimation (Schulman et al. 2016, arXiv:1506.02438, equation 16).

    Nothing comes after a terminal state. Where an episode or the rollout is cut off, the critic's estimate is taken for
    what would have come. The last step must be one or the other for all who act in it. Entries of agents that did not
    act mean nothing, and change no others.
    """
    advantage = np.zeros_like(t.value)
    following, next_value = np.zeros_like(t.value[0]), np.zeros_like(t.value[0])
    for step in range(len(t.reward) - 1, -1, -1):
        goes_on = ~(t.is_terminal[step] | t.is_truncated[step])
        comes = np.where(t.is_truncated[step], t.bootstrap_value[step], next_value * goes_on)
        delta = t.reward[step] + discount * comes - t.value[step]
        following = delta + discount * gae_lambda * goes_on * following
        advantage[step], next_value = following, t.value[step]
    return advantage


def spread(advantage: np.ndarray) -> np.floating:
    """The standard deviation of advantages (S,): NumPy's own, but where float32 cannot hold the sum of their squares.

    An infinite one would make every normalised advantage 0, and nobody would learn.
    """
    with np.errstate(over="ignore"):
        found: np.floating = advantage.std()
    return found if np.isfinite(found) else np.float32(advantage.std(dtype=np.float64))


def latest_texts(t: Trajectory, count: int) -> list[str]:
    """The texts that were read last, at most so many, the last one at the end."""
    latest_first = dict.fromkeys(t.text[t.is_lived][::-1].tolist())
    return [t.texts[number] for number in list(latest_first)[:count]][::-1]


def _decide(
    policy: Actor,
    reader: Reader,
    observation: np.ndarray,
    action: np.ndarray,
    adapters: np.ndarray,
    is_playing: np.ndarray,
    rng: np.random.Generator,
) -> Transition:
    """What those who play read and chose after `action` led to `observation`; all (M, ...)."""
    start = perf_counter()
    reader.look(observation, action)
    rows = np.flatnonzero(is_playing)
    texts, legal = reader.read(rows), reader.legal()
    decision = policy.act(texts, adapters[rows], legal[rows], rng)
    transition: Transition = {"decide_s": perf_counter() - start, "legal": legal, "is_lived": is_playing}
    columns = decision._asdict() | {"text": reader.numbered(texts)}
    return transition | {name: _spread(values, rows, len(is_playing)) for name, values in columns.items()}


def _end(
    policy: Actor, reader: Reader, step: Step, action: np.ndarray, was_playing: np.ndarray, is_last: bool
) -> Transition:
    """What a step gave; for agents whose episode or rollout was cut off also the value of what they saw last.

    Time limits are bootstrapped (Pardo et al. 2018, "Time limits in reinforcement learning", arXiv:1712.00378).
    """
    is_terminal = step.is_terminal.reshape(-1)
    is_truncated = was_playing & ~is_terminal & (step.is_truncated.reshape(-1) | is_last)
    value = np.zeros(len(is_truncated), np.float32)
    rows = np.flatnonzero(is_truncated)
    if len(rows):
        value[rows] = policy.values(reader.peek(_rows(step.last_seen), action, rows))
    reward = step.reward.reshape(-1)
    return {"reward": reward, "is_terminal": is_terminal, "is_truncated": is_truncated, "bootstrap_value": value}


@contextmanager
def _naming_faults() -> Iterator[None]:
    """Within the block a world is asked, which anybody may have written: what it must not do becomes a UserError."""
    try:
        yield
    except WorldFault as fault:
        raise UserError(str(fault)) from fault


def _cut_off(before: list[Transition], transition: Transition, is_void: np.ndarray) -> np.ndarray:
    """Take a step back for those (M,) for whom it came to nothing, as their copy of the world failed in it.

    Their episodes were cut off after the step before, if there was one, in what they have read now. Returns who
    acted, (M,).
    """
    for earlier in before:
        is_over = earlier["is_terminal"] | earlier["is_truncated"] | ~earlier["is_lived"]
        earlier["is_truncated"] |= is_void & ~is_over
        earlier["bootstrap_value"][is_void & ~is_over] = transition["value"][is_void & ~is_over]
    for name in ("text", *Decision._fields):
        transition[name][is_void] = 0
    transition["is_lived"] = transition["is_lived"] & ~is_void
    return np.array(transition["is_lived"])


def _check_rewards(reward: np.ndarray, was_playing: np.ndarray, seeds: np.ndarray, step: int) -> None:
    """UserError, saying where, if somebody who acted got a reward (W, N) that is NaN, infinite or absurdly large."""
    wrong = was_playing & ~(np.abs(reward) <= MOST_REWARD)
    if wrong.any():
        w, n = np.argwhere(wrong)[0]
        raise UserError(
            f"the reward of agent {n} in world {w} (seed {seeds[w]}) is {reward[w, n]} in step {step}: must be "
            f"finite, and at most {MOST_REWARD:g} in absolute value"
        )


def _rollout(
    transitions: list[Transition],
    texts: list[str],
    arrived: np.ndarray,
    shape: tuple[int, int],
    figures: dict[str, np.ndarray],
) -> Rollout:
    """arrived: (M,), the first step of the agent that has the slot at the end."""
    columns = {name: np.stack([transition[name] for transition in transitions]) for name in transitions[0]}
    decide_s, log_probs = columns.pop("decide_s"), columns.pop("log_probs")
    is_alive = columns["is_lived"] & (np.arange(len(transitions))[:, None] >= arrived)
    trajectory = Trajectory(texts=texts, is_alive=is_alive, **columns)
    earned = trajectory.reward * is_alive
    total, lifetime = (x.sum(axis=0).reshape(shape) for x in (earned, is_alive))
    last = len(transitions) - 1 - is_alive[::-1].argmax(axis=0)  # (M,), of each agent's own steps
    has_died = np.take_along_axis(trajectory.is_terminal, last[None], axis=0)[0]
    survives = (is_alive.any(axis=0) & ~has_died).reshape(shape)  # who never came is not alive
    return Rollout(trajectory, Outcome(total, lifetime, survives, figures), decide_s, log_probs)


def _rows(observation: np.ndarray) -> np.ndarray:
    """(W, N, ...) -> (M, ...)."""
    return observation.reshape(-1, *observation.shape[2:])


def _spread(values: np.ndarray, rows: np.ndarray, length: int) -> np.ndarray:
    """Values (R, ...) of some rows as (length, ...) that is zero elsewhere (for actions: one that exists)."""
    spread = np.zeros((length, *values.shape[1:]), values.dtype)
    spread[rows] = values
    return spread
