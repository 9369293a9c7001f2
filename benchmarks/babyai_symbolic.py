"""What a learner without language comes to in BabyAI-Text: PPO on the symbolic view, as GLAM's symbolic agent.

    python -m benchmarks.babyai_symbolic [--steps N] [--every N] [--seed S] [--num-dists N] [--episodes N]
        [--demonstrations N] [--passes P] [--json FILE]

It sees each cell of the view as one-hot kind, colour and state, and the mission as one-hot words by place, so it must
find out from reward alone what each word means. Of the past it is told what the agents are: in which directions things
are that it has seen, and what it did last. A perceptron with two layers of 256 learns by Stable-Baselines3's PPO
from 32 copies of 40 steps (GLAM's), discount .99 and entropy .01. After every N agent-steps each task is played in the
held-out rooms of `benchmarks.babyai_words`, "as trained", within 64 steps.
With --demonstrations it first learns N actions of MiniGrid's bot (`envs.babyai_expert`) by cross-entropy, in P passes.
Needs the extras `worlds` and `sb3`.
"""

import argparse
import json
from collections.abc import Sequence
from contextlib import closing
from math import prod
from pathlib import Path
from time import perf_counter
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.spaces import Box

from agents.backends import require_installed
from agents.codecs.babyai import MISSION_WORDS, mission_words
from agents.codecs.babyai_map import NOTHING, Map, looked
from benchmarks.babyai_words import HEADER, MOST_STEPS, TRAIN, Counted, row
from envs.babyai import ACTIONS, TASKS
from envs.worlds.gym_world import GymWorld
from envs.worlds.successes import SUCCESS
from trainers.cli.command_line import refuse_no_folder, refuse_out_of_range, run_command
from trainers.comparison import held_out_seeds
from trainers.config import MAX_HELD_OUT
from trainers.records.run_folder import machine

NUMBERS = (11, 6, 3)
"""How many kinds, colours and states there are in a view."""
VIEW, LONGEST = 7, 16
"""Cells along a side of the view, and the most words of a mission of the five tasks."""
NUMBER_OF = {word: number for number, word in enumerate(sorted(MISSION_WORDS))}
WAYS = 9
"""Directions of what is remembered: ahead, behind or neither, and left, right or neither."""
HIDDEN = (WAYS, *NUMBERS)
SIZE = VIEW * VIEW * sum(NUMBERS) + LONGEST * len(NUMBER_OF) + prod(HIDDEN) + ACTIONS
COPIES, AT_ONCE = 32, 20  # rooms side by side in which it learns, and of a held-out world
PPO_SETTINGS: dict[str, Any] = {
    "n_steps": 40,
    "batch_size": 320,
    "n_epochs": 4,
    "gamma": 0.99,
    "gae_lambda": 0.99,
    "ent_coef": 0.01,
    "learning_rate": 7e-4,
    "policy_kwargs": {"net_arch": [256, 256]},
    "device": "cpu",
}
ALLOWED = {
    "steps": (1, 100_000_000),
    "every": (1, 100_000_000),
    "seed": (0, 2**32 - COPIES),
    "num_dists": (0, 12),
    "episodes": (1, AT_ONCE * MAX_HELD_OUT),
    "demonstrations": (0, 1_000_000),
    "passes": (1, 10_000),
}
"""The least and the most of each option."""


def encoded(observation: dict[str, Any], known: Map = NOTHING, action: int = -1) -> np.ndarray:
    """An observation, what is remembered and not in view, and what was done last, as (SIZE,) zeros and ones."""
    image = observation["image"]
    cells = [np.eye(count, dtype=np.float32)[image[..., i]].ravel() for i, count in enumerate(NUMBERS)]
    words = np.zeros((LONGEST, len(NUMBER_OF)), np.float32)
    for place, word in enumerate(mission_words(observation["mission"]).split()):
        words[place, NUMBER_OF[word]] = 1
    hidden = np.zeros(HIDDEN, np.float32)
    for (ahead, right), cell in known.hidden.items():
        hidden[3 * (np.sign(ahead) + 1) + np.sign(right) + 1, *cell] = 1
    done = np.arange(ACTIONS) == action
    return np.concatenate([*cells, words.ravel(), hidden.ravel(), done.astype(np.float32)])


class Symbolic(gymnasium.Wrapper):
    """A level whose observations are `encoded`."""

    def __init__(self, env: gymnasium.Env):
        super().__init__(env)
        self.observation_space = Box(0, 1, (SIZE,), np.float32)
        self._eyes = Eyes(1)

    def reset(self, **options: Any) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin an episode; return the observation, (SIZE,), and the info."""
        observation, info = self.env.reset(**options)
        return self._eyes.look([observation], [-1])[0], info

    def step(self, action: Any) -> tuple[np.ndarray, Any, bool, bool, dict[str, Any]]:
        """Act; return the observation, (SIZE,), the reward, whether it is done or late, and the info."""
        observation, reward, is_done, is_late, info = self.env.step(action)
        return self._eyes.look([observation], [int(action)])[0], reward, is_done, is_late, info


class Eyes:
    """See for M agents, who remember what the language models do."""

    def __init__(self, agents: int):
        self._known = [NOTHING] * agents

    def look(self, observations: Sequence[Any], actions: Sequence[int]) -> list[np.ndarray]:
        """What each sees, (SIZE,), after its action; -1 where an episode begins. None sees nothing."""
        told = list(zip(self._known, observations, actions, strict=True))
        self._known = [NOTHING if seen is None else looked(known, seen, action) for known, seen, action in told]
        return [
            np.zeros(SIZE, np.float32) if seen is None else encoded(seen, known, action)
            for known, (_, seen, action) in zip(self._known, told, strict=True)
        ]


def demonstrations(count: int, num_dists: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """What the expert sees, (count, SIZE), and does, (count,), in new rooms, one after the other."""
    env = Symbolic(gymnasium.make(TRAIN, num_dists=num_dists, max_steps=MOST_STEPS, expert=True))
    rng = np.random.default_rng(seed)
    shown, did = list[torch.Tensor](), list[int]()
    info, seen = dict[str, Any](), np.zeros(0)
    while len(did) < count:
        if "expert_action" not in info:
            seen, info = env.reset(seed=int(rng.integers(2**31)))
        shown.append(torch.from_numpy(seen))
        did.append(info["expert_action"])
        seen, _, is_done, is_late, info = env.step(did[-1])
        info = {} if is_done or is_late else info
    env.close()
    return torch.stack(shown), torch.tensor(did)


def clone(model: Any, seen: torch.Tensor, did: torch.Tensor, passes: int) -> None:
    """Teach the policy these actions by cross-entropy."""
    optimiser = torch.optim.Adam(model.policy.parameters(), 1e-3)
    for _ in range(passes):
        for rows in torch.randperm(len(did)).split(256):
            loss = -model.policy.get_distribution(seen[rows]).log_prob(did[rows]).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()


def success(model: Any, episodes: int, num_dists: int) -> dict[str, Counted]:
    """Of each task how many episodes succeed, at least so many, a held-out room each; actions are sampled."""
    seeds, found = held_out_seeds(-(-episodes // AT_ONCE), 0), {}
    for task in TASKS:
        options = {"task": task, "num_dists": num_dists}
        with closing(GymWorld(TRAIN, options, AT_ONCE, MOST_STEPS, renews=False, is_shared=False)) as world:
            seen, eyes = world.reset(seeds), Eyes(world.is_playing.size)
            actions = np.full(seen.shape, -1)
            while world.is_playing.any():
                views = np.stack(eyes.look(seen.ravel().tolist(), actions.ravel().tolist())).reshape(*seen.shape, SIZE)
                actions[world.is_playing] = model.predict(views[world.is_playing])[0]
                seen = world.step(actions).observation
            won = world.figures()[SUCCESS]
        found[task] = Counted(int(won.sum()), won.size)
    return found


def main(argv: Sequence[str] | None = None) -> None:
    """Print a line of the table after every so many steps."""
    options = _options(argv)
    require_installed("benchmarks.babyai_symbolic", "worlds", "minigrid")
    require_installed("benchmarks.babyai_symbolic", "sb3", "stable_baselines3")
    from stable_baselines3 import PPO
    from stable_baselines3.common.env_util import make_vec_env

    make = lambda: Symbolic(gymnasium.make(TRAIN, num_dists=options.num_dists, max_steps=MOST_STEPS))  # noqa: E731
    copies = make_vec_env(make, COPIES, seed=options.seed)
    model = PPO("MlpPolicy", copies, seed=options.seed, **PPO_SETTINGS)
    print(HEADER)
    results, start = {}, perf_counter()
    if options.demonstrations:
        clone(model, *demonstrations(options.demonstrations, options.num_dists, options.seed), options.passes)
    while True:
        if options.demonstrations or model.num_timesteps:
            found = success(model, options.episodes, options.num_dists)
            results[model.num_timesteps] = {task: one._asdict() for task, one in found.items()}
            name = f"{model.num_timesteps:,} steps, {perf_counter() - start:.0f} s"
            print(row(name, found), flush=True)
        if model.num_timesteps >= options.steps:
            break
        model.learn(options.every, reset_num_timesteps=False)
    if options.json:
        about = {"machine": machine(), "options": {k: v for k, v in vars(options).items() if k != "json"}}
        options.json.write_text(json.dumps(about | {"found": results}, indent=1))


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.babyai_symbolic")
    parser.add_argument("--steps", type=int, default=256_000)
    parser.add_argument("--every", type=int, default=64_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--num-dists", type=int, default=8)
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--demonstrations", type=int, default=0)
    parser.add_argument("--passes", type=int, default=20)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(argv)
    refuse_out_of_range(parser, options, ALLOWED)
    refuse_no_folder(parser, options.json)
    return options


if __name__ == "__main__":
    run_command(main)
