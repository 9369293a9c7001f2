"""How agents that learned BabyAI-Text do in rooms, words and missions that training never had.

    python -m benchmarks.babyai_words RUN_DIR [--generation G] [--episodes N] [--only NAME [NAME ...]] [--json FILE]

RUN_DIR: a run of `python -m trainers.train` in envs:BabyAI-MixedTrainLocal-v0. Each task is played in N held-out rooms
(200), shared out among its agents, within 64 steps or the run's own `max_steps`; nobody learns. Beside the agents
stand the model without adapters and, in the rooms of training, random actions. The conditions are GLAM's (Carta et al.
2023, arXiv:2302.02662, section 4.3), and the rooms without distractors are BALROG's (Paglieri et al. 2024,
arXiv:2411.13543). Intervals are Wilson's (1927), of 95 %. Needs the extra `worlds`.
"""

import argparse
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import gymnasium
import numpy as np

from agents.backends import require_installed
from agents.codecs.babyai import BabyAITextCodec
from agents.policy import make_policy
from envs.babyai import TASKS
from envs.worlds.gym_world import GymWorld
from envs.worlds.successes import SUCCESS
from trainers.cli.command_line import run_command
from trainers.comparison import Chance, held_out_seeds
from trainers.config import TrainConfig
from trainers.population import Population
from trainers.records.opening import open_run
from trainers.records.run_folder import machine
from trainers.rollout import collect_rollout

TRAIN, TEST = "envs:BabyAI-MixedTrainLocal-v0", "envs:BabyAI-MixedTestLocal-v0"
MOST_STEPS = 64


class Reworded(BabyAITextCodec):
    """Says the same in other words: first missions by pattern, then each word."""

    missions: ClassVar[Mapping[str, str]] = {}
    words: ClassVar[Mapping[str, str]] = {}

    def phrases(self, observation: dict[str, Any]) -> list[str]:
        """As the codec has them, in other words."""
        *view, mission = super().phrases(observation)
        for pattern, other in self.missions.items():
            mission = re.sub(pattern, other, mission)
        return [" ".join(self.words.get(word, word) for word in phrase.split()) for phrase in (*view, mission)]


class Condition(NamedTuple):
    """What differs from training."""

    says: Mapping[str, Any] = {}  # attributes of the codec
    world: str = TRAIN
    options: Mapping[str, Any] = {}  # of the world


INVENTED = {"ball": "wug", "box": "dax", "key": "fep"}
SYNONYMS = {"forward": "ahead", "pick": "take", "drop": "release", "toggle": "switch"}
CONDITIONS: dict[str, Condition] = {
    "as trained": Condition(),
    "held-out words": Condition(world=TEST),
    "no distractors": Condition(options={"num_dists": 0}),
    "new nouns": Condition({"words": {"ball": "apple", "box": "chair", "key": "ring"}}),
    "invented nouns": Condition({"words": INVENTED}),
    "invented nouns and colours": Condition(
        {
            "words": INVENTED
            | {"red": "blick", "green": "tupa", "blue": "zorp", "purple": "mib", "yellow": "gazz", "grey": "koba"}
        }
    ),
    "actions renamed": Condition(
        {
            "action_words": [SYNONYMS.get(word, word) for word in BabyAITextCodec.action_words],
            "instructions": re.sub(
                r"\w+", lambda match: SYNONYMS.get(match[0], match[0]), BabyAITextCodec.instructions
            ),
        }
    ),
    "missions reworded": Condition(
        {
            "missions": {
                r"\bgo to\b": "bring yourself to",
                r"\bpick up\b": "fetch",
                r"^open\b": "unlock",
                r"^put (.*) next to\b": r"place \1 beside",
            }
        }
    ),
    "steps aside first": Condition({"ahead_first": False}),
}
"""By name."""


class Counted(NamedTuple):
    """How many of how many episodes succeeded."""

    won: int
    episodes: int

    def text(self) -> str:
        """As "83 [79, 86]", in per cent."""
        low, high = wilson(self.won, self.episodes)
        return f"{100 * self.won / self.episodes:.0f} [{100 * low:.0f}, {100 * high:.0f}]"


def wilson(won: int, episodes: int) -> tuple[float, float]:
    """The 95 % score interval of a share (Wilson 1927, "Probable inference", JASA 22, 209-212)."""
    z, share = 1.959964, won / episodes
    middle = share + z * z / (2 * episodes)
    half = z * np.sqrt(share * (1 - share) / episodes + z * z / (4 * episodes**2))
    below = 1 + z * z / episodes
    return float((middle - half) / below), float((middle + half) / below)


def saying(kind: type, condition: Condition) -> Any:
    """A codec of this class as a condition has it."""
    if not condition.says:
        return kind(gymnasium.make(condition.world).unwrapped)
    return type("Other", (Reworded, kind), dict(condition.says))(gymnasium.make(condition.world).unwrapped)


def success(
    population: Population, config: TrainConfig, condition: Condition, who: str, episodes: int
) -> dict[str, Counted]:
    """Of each task how many episodes succeed, at least so many, a room each.

    who: agents, each in as many rooms as the others; frozen, the model without adapters; random.
    """
    codec = saying(type(population.codec), condition)
    policy = make_policy(config.model, config.adapter, codec, config.env.agents, config.seed)
    policy.network.bank.values.copy_(population.policy.network.bank.values)
    agents, found = config.env.agents, {}
    worlds = -(-episodes // agents)
    nobody = np.full((worlds, agents), -1) if who == "frozen" else None
    options = dict(config.env.options) | {"fewest_dists": None} | dict(condition.options)
    for task in TASKS:
        world = GymWorld(
            condition.world,
            options | {"task": task},
            agents,
            min(config.env.max_steps, MOST_STEPS),
            renews=False,
            is_shared=False,
        )
        actor, rng = Chance() if who == "random" else policy, np.random.default_rng(0)
        rollout = collect_rollout(actor, codec, world, held_out_seeds(worlds, 0), rng, adapter_ids=nobody)
        won = rollout.outcome.figures[SUCCESS]
        found[task] = Counted(int(won.sum()), won.size)
        world.close()
    return found


def row(name: str, found: Mapping[str, Counted]) -> str:
    """A line of the table: all tasks together, then each."""
    together = Counted(sum(one.won for one in found.values()), sum(one.episodes for one in found.values()))
    return f"{name:28s}" + "".join(f"{one.text():>14s}" for one in (together, *found.values()))


def main(argv: Sequence[str] | None = None) -> None:
    """Print a table, one condition after the other."""
    options = _options(argv)
    require_installed("benchmarks.babyai_words", "worlds", "minigrid")
    population, config, generation = open_run(options.run_dir, options.generation)
    print(f"generation {generation}; success in per cent, with 95 % intervals")
    print(f"{'':28s}" + "".join(f"{name.replace('pickup_then_goto', 'pick, go'):>14s}" for name in ("all", *TASKS)))
    results: dict[str, Any] = {}
    for name in options.only:
        for who in ("agents", "frozen", *(["random"] if name == "as trained" else [])):
            found = success(population, config, CONDITIONS[name], who, options.episodes)
            results[f"{name}, {who}"] = {task: one._asdict() for task, one in found.items()}
            print(row(f"{name}, {who}", found), flush=True)
    if options.json:
        about = {"machine": machine(), "generation": generation, "episodes": options.episodes}
        options.json.write_text(json.dumps(about | {"found": results}, indent=1))


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.babyai_words")
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("--generation", type=int)
    parser.add_argument("--episodes", type=int, default=200)
    parser.add_argument("--only", nargs="+", choices=list(CONDITIONS), default=list(CONDITIONS))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(argv)
    if options.episodes < 1:
        parser.error(f"--episodes {options.episodes}: must be 1 or more")
    if options.json and not options.json.parent.is_dir():
        parser.error(f"--json {options.json}: must be in a folder that exists")
    return options


if __name__ == "__main__":
    run_command(main)
