"""What `benchmarks.worlds` measures, by name: the interfaces of the world, its batched core, and worlds of others.

Each world is stepped as its documentation shows, with random actions, and reset when its episode ends. The time of
steps and resets counts, that of drawing actions does not. Only living agents are counted, and in our Gymnasium
interfaces only learners.
"""

import importlib
import multiprocessing
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection
from time import perf_counter, process_time
from typing import Any, NamedTuple

import gymnasium
import numpy as np

from envs import ForageBatch


class Speed(NamedTuple):
    """Agent-steps per second, and per second of processor time, which others on the machine do not lengthen."""

    wall: float
    cpu: float


class Contestant(NamedTuple):
    """How many agents start an episode, and a function that steps them for some seconds."""

    agents: int
    run: Callable[[float], Speed]


def contestant(agents: int, draw: Callable[[], Any], advance: Callable[[Any], int]) -> Contestant:
    """Time `advance` alone: it takes the actions that `draw` gave, and returns how many agents acted."""

    def run(seconds: float) -> Speed:
        count, wall, cpu = 0, 0.0, 0.0
        while wall < seconds:
            actions = draw()
            wall_0, cpu_0 = perf_counter(), process_time()
            count += advance(actions)
            wall, cpu = wall + perf_counter() - wall_0, cpu + process_time() - cpu_0
        return Speed(count / wall, count / cpu)

    return Contestant(agents, run)


def pettingzoo(module: str, **settings: float) -> Contestant:
    """Make a parallel environment of PettingZoo's; it is reset when no agent is left."""
    env = importlib.import_module(module).parallel_env(**settings)
    env.reset(seed=0)

    def advance(actions: dict[str, Any]) -> int:
        env.step(actions)
        if not env.agents:
            env.reset()
        return len(actions)

    return contestant(len(env.agents), lambda: {a: env.action_space(a).sample() for a in env.agents}, advance)


def minigrid(name: str) -> Contestant:
    """Make an environment of MiniGrid's, with one agent."""
    env = gymnasium.make(f"minigrid:{name}")
    env.reset(seed=0)

    def advance(action: Any) -> int:
        _, _, is_terminal, is_truncated, _ = env.step(action)
        if is_terminal or is_truncated:
            env.reset()
        return 1

    return contestant(1, env.action_space.sample, advance)


def gymnasium_vector(worlds: int, others: str) -> Contestant:
    """Make our vector environment of one learner in each world, which resets itself."""
    env = gymnasium.make_vec("envs:Forage-v0", num_envs=worlds, others=others, autoreset_mode="SameStep")
    env.reset(seed=0)
    return contestant(worlds, env.action_space.sample, lambda a: len(env.step(a)[1]))


def sb3(worlds: int) -> Contestant:
    """Make our VecEnv for Stable-Baselines3, where newborn agents replace the dead."""
    from envs.sb3 import ForageVecEnv

    env, rng = ForageVecEnv(worlds=worlds), np.random.default_rng(0)
    env.reset()
    return contestant(env.num_envs, lambda: rng.integers(5, size=env.num_envs), lambda a: len(env.step(a)[1]))


def core(worlds: int) -> Contestant:
    """Make the batched core with its observations; worlds are reset after `max_steps`, or when all agents are dead."""
    batch, rng, seeds = ForageBatch(), np.random.default_rng(0), np.arange(worlds)
    living = everyone = worlds * batch.config.agents
    batch.reset(seeds)

    def advance(actions: np.ndarray) -> int:
        nonlocal living
        acted = living
        _, result = batch.step(actions)
        living -= int(result.is_terminal.sum())
        if living == 0 or result.is_truncated.any():
            batch.reset(seeds)
            living = everyone
        return acted

    return contestant(everyone, lambda: rng.integers(5, size=(worlds, batch.config.agents)), advance)


def two_processes(make: Callable[[], Contestant]) -> Contestant:
    """Run what `make` makes in two processes at the same time; spawned processes must be able to import `make`."""
    context = multiprocessing.get_context("spawn")
    pipes, theirs = zip(*(context.Pipe() for _ in range(2)), strict=True)
    for pipe in theirs:
        context.Process(target=_serve, args=(pipe, make), daemon=True).start()

    def run(seconds: float) -> Speed:
        for pipe in pipes:
            pipe.send(seconds)
        one, other = (pipe.recv() for pipe in pipes)
        return Speed(one.wall + other.wall, one.cpu + other.cpu)

    return Contestant(sum(pipe.recv() for pipe in pipes), run)


def _serve(pipe: Connection, make: Callable[[], Contestant]) -> None:
    agents, run = make()
    pipe.send(agents)
    with suppress(EOFError, KeyboardInterrupt):  # the parent has gone
        while True:
            pipe.send(run(pipe.recv()))


INTERFACE = "PettingZoo interface, 1 world"
TWO_INTERFACES = "PettingZoo interface, 2 processes where nobody starves"
TWO_CORES = "core, 2 processes of 256 worlds"

CONTESTANTS: dict[str, Callable[[], Contestant]] = {
    INTERFACE: lambda: pettingzoo("envs.forage_v0"),
    "PettingZoo interface, 1 world where nobody starves": lambda: pettingzoo("envs.forage_v0", cost_step=0.0),
    TWO_INTERFACES: lambda: two_processes(partial(pettingzoo, "envs.forage_v0", cost_step=0.0)),
    "core, 1 world": lambda: core(1),
    "core, 16 worlds": lambda: core(16),
    "core, 256 worlds": lambda: core(256),
    TWO_CORES: lambda: two_processes(partial(core, 256)),
    "SB3 VecEnv, 64 worlds": lambda: sb3(64),
    "Gymnasium vector, 64 worlds, a learner among greedy bots": lambda: gymnasium_vector(64, "greedy"),
    "Gymnasium vector, 64 worlds, a learner alone": lambda: gymnasium_vector(64, "empty"),
    "PettingZoo knights_archers_zombies_v11": lambda: pettingzoo("pettingzoo.butterfly.knights_archers_zombies_v11"),
    "PettingZoo pursuit_v5": lambda: pettingzoo("pettingzoo.sisl.pursuit_v5"),
    "MPE2 simple_spread_v3": lambda: pettingzoo("mpe2.simple_spread_v3"),
    "MAgent2 battle_v4": lambda: pettingzoo("magent2.environments.battle_v4"),
    "MiniGrid-Empty-8x8-v0": lambda: minigrid("MiniGrid-Empty-8x8-v0"),
}
"""All of them by name; making one raises ImportError where its package is not installed."""
