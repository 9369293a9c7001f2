"""What learning after every action costs, and what a thread of its own gives back.

    python -m benchmarks.online [--lives N] [--trace K] [--json FILE]

Twenty agents, whose adapters differ, live in new meadows with plenty of energy: without learning, learning online, and
learning online in the background. Counted are single agents' steps in a second of the whole life, the end of learning
included, and the median time of an update of all twenty; medians over the lives, one of which comes first and does not
count.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from time import perf_counter

import numpy as np
import torch

from agents.forage_codec import ForageCodec
from agents.policy import Policy
from benchmarks.subject import mature_policy
from envs.presets import preset
from envs.worlds.world import ForageWorld
from trainers.command_line import run_command
from trainers.config import LearnConfig
from trainers.learning.learner import Learner
from trainers.rollout import rollout
from trainers.run_folder import machine

LEARNING_RATE, ENTROPY_COEF = 5e-4, 0.01
WAYS = {
    "no learning": LearnConfig(algorithm="none"),
    "online": LearnConfig(algorithm="online"),
    "online, in the background": LearnConfig(algorithm="online", background=True),
}


def live(policy: Policy, config: LearnConfig, seed: int) -> dict[str, float]:
    """One life; its steps in a second, and what learning says of itself."""
    agents = len(policy.mind.bank)
    settings = torch.full((agents,), LEARNING_RATE), torch.full((agents,), ENTROPY_COEF)
    world = replace(preset("meadow"), agents=agents, energy_start=100.0, cost_step=0.0)
    lesson = Learner(policy, config).attend(*settings)
    policy.forget_answers()
    start = perf_counter()
    witness = lesson.witness if lesson else None
    codec, rng = ForageCodec(world.view_radius), np.random.default_rng(seed)
    life = rollout(policy, codec, ForageWorld(world), np.array([seed]), rng, on_moment=witness)
    figures = {}
    if lesson:
        lesson.stop()
        figures = lesson.finish(life.trajectory.texts)
    return figures | {"steps_per_second": float(life.trajectory.is_lived.sum()) / (perf_counter() - start)}


def main(argv: list[str] | None = None) -> None:
    """Measure, print, and write if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lives", type=int, default=5)
    parser.add_argument("--trace", type=int, default=LearnConfig().trace, help="decisions that a reward is credited to")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args(argv)
    policy = mature_policy(20)
    print(f"{'':26s} agent-steps/s   ms an update   steps ahead, mean and most")
    table = {}
    for name, config in WAYS.items():
        lives = [live(policy, replace(config, trace=options.trace), seed) for seed in range(options.lives + 1)][1:]
        row = table[name] = {key: float(np.median([figures[key] for figures in lives])) for key in lives[0]}
        update = f"{row['update_ms']:12.0f}" if "update_ms" in row else f"{'':12s}"
        ahead = f"{row['staleness_mean']:.1f}, {row['staleness_max']:.0f}" if "staleness_mean" in row else ""
        print(f"{name:26s} {row['steps_per_second']:13.0f}   {update}   {ahead}", flush=True)
    if options.json:
        found = {"machine": machine(), "trace": options.trace, "lives": options.lives, "ways": table}
        options.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    run_command(main)
