"""What learning after every action costs, and how much of that a thread of its own saves.

    python -m benchmarks.online [--rollouts N] [--trace K] [--json FILE]

Twenty agents, whose adapters differ, act in new meadows with plenty of energy: without learning, learning online, and
learning online in the background. Measured are the agent-steps in a second of a whole rollout, the end of learning
included, and the median time of an update of all twenty; medians over the rollouts, after one that does not count.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from time import perf_counter

import numpy as np
import torch

from agents.codecs.forage import ForageCodec
from agents.policy import Policy
from benchmarks.subject import mature_policy
from envs.presets import preset
from envs.worlds.world import ForageWorld
from trainers.cli.command_line import run_command
from trainers.learning.config import LearnConfig
from trainers.learning.learner import make_learner
from trainers.records.run_folder import machine
from trainers.rollout import collect_rollout

LEARNING_RATE, ENTROPY_COEF = 5e-4, 0.01
WAYS = {
    "no learning": LearnConfig(algorithm="none"),
    "online": LearnConfig(algorithm="online"),
    "online, in the background": LearnConfig(algorithm="online", background=True),
}


def measure(policy: Policy, config: LearnConfig, seed: int) -> dict[str, float]:
    """One rollout: its agent-steps in a second, and the figures of learning."""
    agents = len(policy.network.bank)
    settings = torch.full((agents,), LEARNING_RATE), torch.full((agents,), ENTROPY_COEF)
    world = replace(preset("meadow"), agents=agents, energy_start=100.0, cost_step=0.0)
    learner = make_learner(policy, config)
    policy.answers.forget()
    start = perf_counter()
    codec, rng = ForageCodec(world.view_radius), np.random.default_rng(seed)
    watching, seeds = learner.start(*settings), np.array([seed])
    collected = collect_rollout(policy, codec, ForageWorld(world), seeds, rng, observers=watching)
    figures = learner.learn(learner.experience(collected.trajectory, *settings), rng) if watching else {}
    return figures | {"steps_per_second": float(collected.trajectory.is_lived.sum()) / (perf_counter() - start)}


def main(argv: list[str] | None = None) -> None:
    """Measure, print, and write if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rollouts", type=int, default=5, help="of each way of learning (5)")
    parser.add_argument("--trace", type=int, default=LearnConfig().trace, help="decisions that a reward is credited to")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args(argv)
    policy = mature_policy(20)
    print(f"{'':26s} agent-steps/s   ms an update   steps ahead, mean and most")
    table = {}
    for name, config in WAYS.items():
        settings = replace(config, trace=options.trace)
        rollouts = [measure(policy, settings, seed) for seed in range(options.rollouts + 1)][1:]
        row = table[name] = {key: float(np.median([figures[key] for figures in rollouts])) for key in rollouts[0]}
        update = f"{row['update_ms']:12.0f}" if "update_ms" in row else f"{'':12s}"
        ahead = f"{row['staleness_mean']:.1f}, {row['staleness_max']:.0f}" if "staleness_mean" in row else ""
        print(f"{name:26s} {row['steps_per_second']:13.0f}   {update}   {ahead}", flush=True)
    if options.json:
        found = {"machine": machine(), "trace": options.trace, "rollouts": options.rollouts, "ways": table}
        options.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    run_command(main)
