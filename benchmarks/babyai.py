"""What SmolLM2 makes of BabyAI-Text before any reward, and how much of MiniGrid's bot one adapter can learn.

    python -m benchmarks.babyai frozen [--episodes N] [--dtype bfloat16|float32] [--json FILE]
    python -m benchmarks.babyai clone [--examples N] [--passes P] [--top-layers K [K ...]] [--once] [--dtype ...]

frozen: success without training in "go to" with two distractors and 24 steps, by how texts are told and read, beside
random actions. Of N episodes nineteen times of twenty the share is within 1 / sqrt(N) of the truth.

clone: one adapter learns the actions of MiniGrid's BabyAIBot in the five tasks with 8 distractors, by
cross-entropy, and guesses them in situations that it has not seen: of all; and of those of "go to" and "pick up" in
which the named thing is in view beside the agent, where the bot nearly always turns. The bot sees what the agent sees
and remembers more; here the texts tell the present only. --once tells things once. Needs the extra `worlds`.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import gymnasium
import numpy as np
import torch
import torch.nn.functional as F

from agents.backends import require_installed
from agents.codecs.babyai import COLOURS, KINDS, BabyAITextCodec
from agents.optimiser import StackedAdam
from agents.policy import Policy, make_policy
from agents.types import AdapterConfig, Dtype, ModelConfig
from envs.worlds.gym_world import GymWorld
from envs.worlds.successes import SUCCESS
from trainers.cli.command_line import refuse_no_folder, run_command
from trainers.comparison import held_out_seeds
from trainers.records.run_folder import machine
from trainers.rollout import collect_rollout

WORLD = "envs:BabyAI-MixedTrainLocal-v0"
MINIBATCH = 64
TEST_EXAMPLES = 1500
LAYERS = 30
"""Of SmolLM2-135M."""


class Example(NamedTuple):
    """What the bot did when it saw something."""

    observation: dict[str, Any]
    action: int


def said(**attributes: Any) -> BabyAITextCodec:
    """The codec, with other attributes."""
    return type("Other", (BabyAITextCodec,), attributes)(gymnasium.make(WORLD).unwrapped)


def rooms() -> GymWorld:
    """In which success without training is measured."""
    return GymWorld(WORLD, {"task": "goto", "num_dists": 2}, 1, 24, renews=False)


def policy_for(codec: BabyAITextCodec, dtype: Dtype, top_layers: int = 8) -> Policy:
    """The real model with one newborn adapter."""
    model = ModelConfig(prefix_cache_mb=1024, dtype=dtype)
    return make_policy(model, AdapterConfig(rank=8, top_layers=top_layers), codec, 1, 0)


def frozen_success(codec: BabyAITextCodec, episodes: int, dtype: Dtype) -> float:
    """Share of episodes in which the model without an adapter succeeds."""
    seeds, rng, bare = held_out_seeds(episodes, 0), np.random.default_rng(0), np.full((episodes, 1), -1)
    outcome = collect_rollout(policy_for(codec, dtype), codec, rooms(), seeds, rng, adapter_ids=bare).outcome
    return float(outcome.figures[SUCCESS].mean())


def random_success(episodes: int) -> float:
    """The same of random actions."""
    world, rng = rooms(), np.random.default_rng(0)
    world.reset(held_out_seeds(episodes, 0))
    for _ in range(world.max_steps):
        world.step(rng.integers(6, size=(episodes, 1)))
    return float(world.figures()[SUCCESS].mean())


def bot_examples(count: int, seed: int) -> list[Example]:
    """What MiniGrid's bot does in new rooms, one after the other."""
    from minigrid.utils.baby_ai_bot import BabyAIBot

    env, rng, examples = gymnasium.make(WORLD).unwrapped, np.random.default_rng(seed), list[Example]()
    while len(examples) < count:
        observation, _ = env.reset(seed=int(rng.integers(2**31)))
        bot, action, is_over = BabyAIBot(env), None, False
        while not is_over:
            action = int(bot.replan(action))
            examples.append(Example(observation | {"image": observation["image"].copy()}, action))
            observation, _, is_done, is_late, _ = env.step(action)
            is_over = is_done or is_late
    return examples[:count]


def is_beside(observation: dict[str, Any]) -> bool:
    """Whether the one thing that "go to" or "pick up" names is in view and beside the agent, not further ahead."""
    *words, colour, kind = observation["mission"].split()
    if words[:1] not in (["go"], ["pick"]) or "you" in words or "then" in words:
        return False
    image = observation["image"][..., :2].tolist()
    places = [
        (i, j)
        for i, cells in enumerate(image)
        for j, (one, hue) in enumerate(cells)
        if (i, j) != (3, 6) and KINDS.get(one) == kind and COLOURS[hue] == colour
    ]
    return bool(places) and min((6 - j + abs(i - 3), j) for i, j in places)[1] == 6


def clone(policy: Policy, codec: BabyAITextCodec, examples: Sequence[Example], passes: int) -> None:
    """Teach the adapter the bot's actions by cross-entropy; Adam's rate rises for 50 steps and falls to 0."""
    bank, rng, adapter = policy.network.bank, np.random.default_rng(0), torch.tensor([0])
    optimiser, is_learning = StackedAdam(bank), torch.tensor([True])
    texts = [codec.describe(example.observation) for example in examples]
    actions = torch.tensor([example.action for example in examples])
    batches = len(texts) // MINIBATCH
    for number in range(passes * batches):
        if number % batches == 0:
            order = rng.permutation(len(texts))
        rows = order[number % batches * MINIBATCH :][:MINIBATCH]
        with bank.gathering(slice(0, 1)) as gradients:
            logits = policy.weigh([texts[i] for i in rows], adapter)
            F.cross_entropy(logits, actions[rows]).backward()
        rate = 3e-3 * min(1, number / 50) * (1 - number / (passes * batches))
        optimiser.step(slice(0, 1), gradients, torch.tensor([rate]), 1.0, is_learning)


def guessed(policy: Policy, codec: BabyAITextCodec, examples: Sequence[Example]) -> dict[str, float]:
    """Which share of the bot's actions is the likeliest of the policy's: of all, and where the thing is beside it."""
    texts = [codec.describe(example.observation) for example in examples]
    likeliest = policy.logits(texts, np.zeros(len(texts), int)).argmax(axis=1)
    is_right = likeliest == np.array([example.action for example in examples])
    beside = np.array([is_beside(example.observation) for example in examples])
    forward = float(np.mean([example.action == 2 for example in examples]))
    return {"all": float(is_right.mean()), "beside": float(is_right[beside].mean()), "always forward": forward}


WAYS: dict[str, dict[str, Any]] = {
    "read whole, told once": {"part_end": "", "echo": False},
    "read whole, told twice": {"part_end": "", "echo": True},
    "read in parts, told once": {"echo": False},
    "read in parts, told twice (as built)": {},
}


def main(argv: list[str] | None = None) -> None:
    """Print a table, one way after the other."""
    options = _options(argv)
    require_installed("benchmarks.babyai", "worlds", "minigrid")
    found = _frozen(options) if options.what == "frozen" else _clones(options)
    if options.json:
        settings = {name: value for name, value in vars(options).items() if name != "json"}
        options.json.write_text(json.dumps({"machine": machine(), "options": settings, "found": found}, indent=1))


def _options(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.babyai")
    both = argparse.ArgumentParser(add_help=False)
    both.add_argument("--dtype", choices=["bfloat16", "float32"], default="bfloat16")
    both.add_argument("--json", type=Path)
    ways = parser.add_subparsers(dest="what", required=True)
    frozen = ways.add_parser("frozen", parents=[both])
    frozen.add_argument("--episodes", type=int, default=256)
    clones = ways.add_parser("clone", parents=[both])
    clones.add_argument("--examples", type=int, default=12_000)
    clones.add_argument("--passes", type=int, default=6)
    clones.add_argument("--top-layers", type=int, nargs="+", default=[8, 16])
    clones.add_argument("--once", action="store_true")
    options = parser.parse_args(argv)
    for name, least in (("episodes", 1), ("examples", MINIBATCH), ("passes", 1)):
        if getattr(options, name, least) < least:
            parser.error(f"--{name} {getattr(options, name)}: must be {least} or more")
    for layers in getattr(options, "top_layers", []):
        if not 1 <= layers <= LAYERS:
            parser.error(f"--top-layers {layers}: must be between 1 and {LAYERS}")
    refuse_no_folder(parser, options.json)
    return options


def _frozen(options: argparse.Namespace) -> dict[str, float]:
    found = {"random actions": random_success(options.episodes)}
    print(f"{'random actions':40s} {found['random actions']:.2f}", flush=True)
    for name, attributes in WAYS.items():
        found[name] = frozen_success(said(**attributes), options.episodes, options.dtype)
        print(f"{name:40s} {found[name]:.2f}", flush=True)
    return found


def _clones(options: argparse.Namespace) -> dict[str, dict[str, float]]:
    test, examples = bot_examples(TEST_EXAMPLES, seed=999), bot_examples(options.examples, seed=1)
    codec, found = said(echo=not options.once), {}
    for layers in options.top_layers:
        start, policy = perf_counter(), policy_for(codec, options.dtype, layers)
        before = guessed(policy, codec, test)
        clone(policy, codec, examples, options.passes)
        found[f"{layers} layers"] = guessed(policy, codec, test) | {
            "before": before["all"],
            "beside, before": before["beside"],
            "seconds": round(perf_counter() - start),
        }
        shown = "   ".join(f"{name} {value:.3g}" for name, value in found[f"{layers} layers"].items())
        print(f"{layers:2d} layers   {shown}", flush=True)
    return found


if __name__ == "__main__":
    run_command(main)
