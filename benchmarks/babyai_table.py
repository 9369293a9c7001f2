"""What a table of texts comes to in BabyAI-Text: it knows by heart what MiniGrid's bot did after each text.

    python -m benchmarks.babyai_table [--demonstrations N] [--num-dists N] [--episodes N] [--seed S] [--json FILE]

It reads the texts of the agents. After one that it has met it does what the bot did there most often, after any other
anything. So it shows how much is met again word for word. It is judged in the held-out rooms of
`benchmarks.babyai_words`, "as trained", within 64 steps. Needs the extra `worlds`.
"""

import argparse
import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from agents.backends import require_installed
from agents.codecs.babyai import BabyAITextCodec
from agents.policy import Decision
from benchmarks.babyai_words import CONDITIONS, HEADER, MOST_STEPS, TRAIN, row, success
from envs.babyai import ACTIONS
from trainers.cli.command_line import refuse_no_folder, refuse_out_of_range, run_command
from trainers.comparison import Chance
from trainers.config import MAX_HELD_OUT, SEEDS
from trainers.env_config import EnvConfig
from trainers.records.run_folder import machine

AGENTS = 20
"""In a held-out world, each in a room of its own."""
ALLOWED = {
    "demonstrations": (1, 10_000_000),
    "num_dists": (0, 12),
    "episodes": (1, AGENTS * MAX_HELD_OUT),
    "seed": (0, SEEDS - 1),
}
"""The least and the most of each option."""


class Table(Chance):
    """Acts as was shown most often after the same text, else by chance."""

    def __init__(self) -> None:
        self.counts: dict[str, np.ndarray] = defaultdict(lambda: np.zeros(ACTIONS))
        self.asked = self.known = 0

    def act(self, texts: list[str], adapters: np.ndarray, legal: np.ndarray, rng: np.random.Generator) -> Decision:
        """An action for each of R texts; adapters (R,), legal (R, A)."""
        shown = np.stack([self.counts[text] if text in self.counts else np.zeros(ACTIONS) for text in texts])
        is_known: np.ndarray = shown.sum(axis=1) > 0
        self.asked, self.known = self.asked + len(texts), self.known + int(is_known.sum())
        return super().act(
            texts, adapters, np.where(is_known[:, None], shown == shown.max(axis=1, keepdims=True), legal), rng
        )


def demonstrations(count: int, num_dists: int, seed: int) -> Iterator[tuple[str, int]]:
    """Texts, and what the expert does after each, in new rooms, one after the other."""
    env = gymnasium.make(TRAIN, num_dists=num_dists, max_steps=MOST_STEPS, expert=True)
    codec, rng = BabyAITextCodec(env.unwrapped), np.random.default_rng(seed)
    info, memory, action = dict[str, Any](), None, -1
    for _ in range(count):
        if "expert_action" not in info:
            observation, info = env.reset(seed=int(rng.integers(2**31)))
            action = -1
        seen = np.fromiter([observation], object, 1)
        memory = codec.remember(memory, seen, np.array([action]))
        action = info["expert_action"]
        yield codec.encode(seen, memory)[0], action
        observation, _, is_done, is_late, info = env.step(action)
        info = {} if is_done or is_late else info
    env.close()


def main(argv: Sequence[str] | None = None) -> None:
    """Print a line of the table, and how much was met again."""
    options = _options(argv)
    require_installed("benchmarks.babyai_table", "worlds", "minigrid")
    table = Table()
    for text, action in demonstrations(options.demonstrations, options.num_dists, options.seed):
        table.counts[text][action] += 1
    env = EnvConfig(id=TRAIN, agents=AGENTS, max_steps=MOST_STEPS, options={"num_dists": options.num_dists})
    codec = BabyAITextCodec(gymnasium.make(TRAIN).unwrapped)
    found = success(table, codec, env, CONDITIONS["as trained"], options.episodes)
    print(HEADER)
    print(row(f"{options.demonstrations:,} steps of the bot", found))
    print(f"{len(table.counts):,} texts; of {table.asked:,} in held-out rooms {table.known:,} were known")
    if options.json:
        counted = {"texts": len(table.counts), "asked": table.asked, "known": table.known}
        about = {"machine": machine(), "options": {k: v for k, v in vars(options).items() if k != "json"}}
        won = {"found": {task: one._asdict() for task, one in found.items()}}
        options.json.write_text(json.dumps(about | counted | won, indent=1))


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.babyai_table")
    parser.add_argument("--demonstrations", type=int, default=40_960)
    parser.add_argument("--num-dists", type=int, default=8)
    parser.add_argument("--episodes", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(argv)
    refuse_out_of_range(parser, options, ALLOWED)
    refuse_no_folder(parser, options.json)
    return options


if __name__ == "__main__":
    run_command(main)
