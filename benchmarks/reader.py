"""How much food one line of code finds with the texts that the agents read: it takes any of the moves in a text.

    python -m benchmarks.reader [--presets meadow,maze] [--episodes 32]

The texts name the moves that lead to food, so agents should reach this by learning what the words mean.
"""

import argparse

import numpy as np

from agents.codecs.forage import ForageCodec
from envs import WorldConfig
from envs.worlds.world import ForageWorld
from trainers.cli.command_line import run_command
from trainers.comparison import held_out_seeds, play_baseline
from trainers.env_config import EnvConfig


def food_of_reader(config: WorldConfig, seeds: np.ndarray, rng: np.random.Generator) -> float:
    """Mean food of agents that take one of the moves that their text names, and stay where it names none."""
    codec, world = ForageCodec(config.view_radius), ForageWorld(config)
    moves = {word: number for number, word in enumerate(codec.action_words) if number}
    observation, memory = world.reset(seeds), None
    action = np.full(len(seeds) * config.agents, -1)
    for _ in range(config.max_steps):
        seen = observation.reshape(len(action), -1)
        memory = codec.remember(memory, seen, action)
        named = [
            [moves[w] for w in text.replace(",", " ").split() if w in moves] for text in codec.encode(seen, memory)
        ]
        action = np.array([rng.choice(ways) if ways else 0 for ways in named])
        observation = world.step(action.reshape(len(seeds), -1)).observation
    return float(world.figures()["food_eaten"].mean())


def main(argv: list[str] | None = None) -> None:
    """Print food and the share of the planner's, by preset."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reader")
    parser.add_argument("--presets", default="meadow,maze")
    parser.add_argument("--episodes", type=int, default=32)
    options = parser.parse_args(argv)
    for name in options.presets.split(","):
        env, seeds = EnvConfig().of_preset(name), held_out_seeds(options.episodes, 0)
        food = food_of_reader(env, seeds, np.random.default_rng(0))
        planner = play_baseline("planner", env, seeds, 0).figures["food_eaten"].mean()
        print(f"{name:8s} food {food:5.1f}, {food / planner:.0%} of the planner's")


if __name__ == "__main__":
    run_command(main)
