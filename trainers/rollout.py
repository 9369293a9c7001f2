"""Let agents live: one episode of a batch of worlds, with everything that learning and fitness need of it.

Symbols: T steps, W worlds, N agents in a world, M = W * N, A actions. Agent n of every world carries adapter n.
"""

from collections.abc import Callable
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np

from agents.codec import TextCodec
from agents.policy import Policy
from envs.batch import ForageBatch
from envs.types import Action, WorldState

Moment = dict[str, Any]  # a step of a trajectory, by the names of its columns
OnStep = Callable[[int, int, int], None]


class Outcome(NamedTuple):
    """How an episode ended, for each agent."""

    food_eaten: np.ndarray  # (W, N) items
    lifetime: np.ndarray  # (W, N) steps
    episode_return: np.ndarray  # (W, N) undiscounted sum of rewards
    is_alive: np.ndarray  # (W, N) at the end


class Trajectory(NamedTuple):
    """What M agents saw, did and got in T steps. Entries where `is_alive` is False mean nothing."""

    texts: list[str]  # the distinct texts, by number
    text: np.ndarray  # (T, M) number of the text read
    legal: np.ndarray  # (T, M, A) bool
    action: np.ndarray  # (T, M) int
    log_prob: np.ndarray  # (T, M) float32, of the action when it was taken
    value: np.ndarray  # (T, M) float32, the critic's estimate then
    reward: np.ndarray  # (T, M) float32
    is_alive: np.ndarray  # (T, M) bool, alive at the start of the step
    is_terminal: np.ndarray  # (T, M) bool, died in the step
    last_value: np.ndarray  # (M,) float32, of what is seen after the last step


class Life(NamedTuple):
    """An episode of agents."""

    trajectory: Trajectory
    outcome: Outcome
    energy: np.ndarray  # (T, M) float32, before each step
    decide_s: np.ndarray  # (T,) seconds of each step's decisions, of all agents together
    states: list[WorldState]  # one a step, the first before it; empty unless asked for


def rollout(
    policy: Policy,
    codec: TextCodec,
    world: ForageBatch,
    seeds: np.ndarray,
    rng: np.random.Generator,
    *,
    bare: bool = False,
    keep_states: bool = False,
    on_step: OnStep | None = None,
) -> Life:
    """Live one episode in the worlds of `seeds` (W,), to its end or until nobody is alive.

    bare: all agents act by the frozen base, without adapters. rng: samples the actions. on_step: is told of each step
    how many were done, how many agents are alive and how many there are.
    """
    observation = world.reset(seeds)  # (W, N, O)
    worlds, agents = observation.shape[:2]
    adapters = np.full(worlds * agents, -1) if bare else np.tile(np.arange(agents), worlds)
    is_alive, memory, action = np.ones(worlds * agents, bool), None, None
    numbers: dict[str, int] = {}
    moments: list[Moment] = []
    states = [world.state()] if keep_states else []
    while len(moments) < world.config.max_steps and is_alive.any():
        start = perf_counter()
        seen = observation.reshape(worlds * agents, -1)
        memory = codec.remember(memory, seen, action)
        rows = np.flatnonzero(is_alive)
        texts, legal = codec.encode(seen[rows], _rows(memory, rows)), codec.legal(seen)
        decision = policy.act(texts, adapters[rows], legal[rows], rng)
        action, log_prob, value = (_spread(x, rows, worlds * agents) for x in decision)
        moment = {"decide_s": perf_counter() - start, "is_alive": is_alive, "energy": world.state().energy.reshape(-1)}
        moment |= {"legal": legal, "action": action, "log_prob": log_prob, "value": value}
        read = np.array([numbers.setdefault(text, len(numbers)) for text in texts])
        observation, result = world.step(action.reshape(worlds, agents))
        died = result.is_terminal.reshape(-1)
        moment |= {
            "text": _spread(read, rows, worlds * agents),
            "reward": result.reward.reshape(-1),
            "is_terminal": died,
        }
        moments.append(moment)
        is_alive = is_alive & ~died
        if keep_states:
            states.append(world.state())
        if on_step:
            on_step(len(moments), int(is_alive.sum()), len(is_alive))
    last_value = np.zeros(worlds * agents, np.float32)
    rows = np.flatnonzero(is_alive)
    if len(rows):
        seen = observation.reshape(worlds * agents, -1)
        memory = codec.remember(memory, seen, action)
        last_value[rows] = policy.values(codec.encode(seen[rows], _rows(memory, rows)))
    return _life(moments, list(numbers), last_value, world.state(), states)


def _life(
    moments: list[Moment], texts: list[str], last_value: np.ndarray, end: WorldState, states: list[WorldState]
) -> Life:
    columns = {name: np.stack([moment[name] for moment in moments]) for name in moments[0]}
    energy, decide_s = columns.pop("energy"), columns.pop("decide_s")
    trajectory = Trajectory(texts=texts, last_value=last_value, **columns)
    total = trajectory.reward.sum(axis=0).reshape(end.is_alive.shape)
    outcome = Outcome(end.food_eaten, end.lifetime, total, end.is_alive)
    return Life(trajectory, outcome, energy, decide_s, states)


def _rows(memory: tuple, rows: np.ndarray) -> tuple:
    return type(memory)(*(array[rows] for array in memory))


def _spread(values: np.ndarray, rows: np.ndarray, length: int) -> np.ndarray:
    """Values (R,) of some rows as an array (length,) that is zero elsewhere (for actions: stay)."""
    assert Action.STAY == 0
    spread = np.zeros(length, values.dtype)
    spread[rows] = values
    return spread
