"""How agents that learned BabyAI-Text do in rooms, words and missions that training never had.

    python -m benchmarks.babyai_words RUN_DIR [--generation G] [--episodes N] [--only NAME [NAME ...]]
        [--max-steps N] [--json FILE]

RUN_DIR: a run of `python -m trainers.train` in envs:BabyAI-MixedTrainLocal-v0. Each of the five tasks is played in at
least N held-out rooms (200), as many for each agent, within 64 steps or the run's own `max_steps`, whichever is less,
or within --max-steps (with 128 BabyAI's own limits hold: 64 for "go to" and "pick up", else 128); nobody learns. Beside
the agents stand the model without adapters and, "as trained", random actions. "As trained" has as many distractors as
the run's most, and all five tasks, even where the run had but one.

Held-out words, new and invented nouns and renamed actions are GLAM's tests (Carta et al. 2023, arXiv:2302.02662);
invented colours, reworded missions and the other order of steps are ours. Rooms without distractors are BALROG's
(Paglieri et al. 2024, arXiv:2411.13543). Where actions are renamed, the view still says "forward". Intervals are
Wilson's (1927), of 95 %. Needs the extra `worlds`.
"""

import argparse
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from agents.backends import require_installed
from agents.codecs.babyai import BabyAITextCodec
from agents.policy import make_policy
from agents.types import UserError, require
from envs.babyai import TASKS
from envs.worlds.gym_world import GymWorld
from envs.worlds.successes import SUCCESS
from trainers.cli.command_line import refuse_no_folder, run_command
from trainers.comparison import Chance, held_out_seeds
from trainers.config import MAX_HELD_OUT, TrainConfig
from trainers.env_config import EnvConfig
from trainers.population import Population
from trainers.records.opening import open_run
from trainers.records.run_folder import machine
from trainers.rollout import Actor, collect_rollout

TRAIN, TEST = "envs:BabyAI-MixedTrainLocal-v0", "envs:BabyAI-MixedTestLocal-v0"
MOST_STEPS, MOST_ALLOWED = 64, 128
"""Of an episode, unless asked for otherwise; and BabyAI's own limit."""


class Reworded(BabyAITextCodec):
    """Says the same in other words: first missions by pattern, then each word."""

    missions: ClassVar[Mapping[str, str]] = {}
    words: ClassVar[Mapping[str, str]] = {}

    def phrases(self, observation: dict[str, Any], past: Iterable[str] = ()) -> list[str]:
        """As the codec has them, in other words."""
        *view, mission = super().phrases(observation, past)
        for pattern, other in self.missions.items():
            mission = re.sub(pattern, other, mission)
        return [" ".join(self.words.get(word, word) for word in phrase.split()) for phrase in (*view, mission)]


class Condition(NamedTuple):
    """What differs from training."""

    says: Mapping[str, Any] = {}  # attributes of the codec
    actions: Mapping[str, str] = {}  # other words for actions, also in the instructions
    world: str = TRAIN
    options: Mapping[str, Any] = {}  # of the world


INVENTED = {"ball": "wug", "box": "dax", "key": "fep"}
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
    "actions renamed": Condition(actions={"forward": "ahead", "pick": "take", "drop": "release", "toggle": "switch"}),
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
WIDTH = max(map(len, CONDITIONS)) + len(", agents")
"""Of the table's first column."""
HEADER = " " * WIDTH + "".join(f" {task.replace('pickup_then_goto', 'pick, go'):>14s}" for task in ("all", *TASKS))


class Counted(NamedTuple):
    """How many of how many episodes succeeded."""

    won: int
    episodes: int

    def interval(self) -> tuple[float, float]:
        """Of the share that succeeds."""
        return wilson(self.won, self.episodes)

    def text(self) -> str:
        """As "83 [79, 86]", in per cent."""
        low, high = self.interval()
        return f"{100 * self.won / self.episodes:.0f} [{100 * low:.0f}, {100 * high:.0f}]"


def wilson(won: int, episodes: int) -> tuple[float, float]:
    """The 95 % score interval of a share (Wilson 1927, "Probable inference", JASA 22, 209-212)."""
    z, share = 1.959964, won / episodes
    middle = share + z * z / (2 * episodes)
    half = z * np.sqrt(share * (1 - share) / episodes + z * z / (4 * episodes**2))
    below = 1 + z * z / episodes
    return float((middle - half) / below), float((middle + half) / below)


def saying(codec: BabyAITextCodec, condition: Condition) -> BabyAITextCodec:
    """The codec of a run as a condition has it."""
    if not (condition.says or condition.actions):
        return codec
    said = dict(condition.says)
    if condition.actions:
        said["action_words"] = [condition.actions.get(word, word) for word in codec.action_words]
        said["instructions"] = re.sub(r"\w+", lambda word: condition.actions.get(word[0], word[0]), codec.instructions)
    return type("Other", (Reworded, type(codec)), said)(codec.world)


def success(
    policy: Actor, codec: BabyAITextCodec, env: EnvConfig, condition: Condition, episodes: int, *, bare: bool = False
) -> dict[str, Counted]:
    """Of each task how many episodes succeed, at least so many, a room each; bare: of the model without adapters."""
    worlds, found = -(-episodes // env.agents), {}
    nobody = np.full((worlds, env.agents), -1) if bare else None
    options = dict(env.options) | {"fewest_dists": None, "expert": False} | dict(condition.options)
    for task in TASKS:
        place = condition.world, options | {"task": task}, env.agents, env.max_steps
        with closing(GymWorld(*place, renews=False, is_shared=False)) as world:
            seeds, rng = held_out_seeds(worlds, 0), np.random.default_rng(0)
            won = collect_rollout(policy, codec, world, seeds, rng, adapter_ids=nobody).outcome.figures[SUCCESS]
        found[task] = Counted(int(won.sum()), won.size)
    return found


def row(name: str, found: Mapping[str, Counted]) -> str:
    """A line of the table: all tasks together, then each."""
    return name.ljust(WIDTH) + "".join(f" {one.text():>14s}" for one in (together(found), *found.values()))


def together(found: Mapping[str, Counted]) -> Counted:
    """All tasks as one."""
    return Counted(sum(one.won for one in found.values()), sum(one.episodes for one in found.values()))


def main(argv: Sequence[str] | None = None) -> None:
    """Print a table, one condition after the other."""
    options = _options(argv)
    require_installed("benchmarks.babyai_words", "worlds", "minigrid")
    population, config, generation = open_run(options.run_dir, options.generation)
    env = held_out_env(config, options.max_steps)
    trained = trained_codec(options.run_dir, population, config, options.episodes)
    print(f"generation {generation}, which learned with {config.env.options}; success in per cent, with 95 % intervals")
    print(HEADER)
    results: dict[str, Any] = {}
    for name in options.only:
        condition = CONDITIONS[name]
        codec = saying(trained, condition)
        policy = make_policy(config.model, config.adapter, codec, config.env.agents, config.seed)
        policy.network.bank.values.copy_(population.policy.network.bank.values)
        for who in ("agents", "frozen", *(["random"] if name == "as trained" else [])):
            actor = Chance() if who == "random" else policy
            found = success(actor, codec, env, condition, options.episodes, bare=who == "frozen")
            results[f"{name}, {who}"] = {task: one._asdict() for task, one in found.items()}
            print(row(f"{name}, {who}", found), flush=True)
    if options.json:
        about = {"machine": machine(), "generation": generation, "options": config.env.options}
        about |= {"max_steps": env.max_steps}
        options.json.write_text(json.dumps(about | {"found": results}, indent=1))


def held_out_env(config: TrainConfig, max_steps: int | None = None) -> EnvConfig:
    """The worlds of a run with so many steps; None: with its own, but at most `MOST_STEPS`."""
    return replace(config.env, max_steps=max_steps or min(config.env.max_steps, MOST_STEPS))


def trained_codec(run_dir: Path, population: Population, config: TrainConfig, episodes: int) -> BabyAITextCodec:
    """The codec of an open run; UserError for one that learned elsewhere, or more episodes than held-out rooms."""
    run = f"run_dir = {str(run_dir)!r}"
    if config.env.id != TRAIN or config.env.options.get("held_out"):
        raise UserError(f"{run}: must be a run in {TRAIN} without the option held_out, not in {config.env.id}")
    if not isinstance(population.codec, BabyAITextCodec):
        raise UserError(f"{run}: must be a run with BabyAITextCodec or a subclass, not {config.env.codec}")
    most = MAX_HELD_OUT * config.env.agents
    require(episodes <= most, "--episodes", episodes, f"at most {most} with {config.env.agents} agents")
    return population.codec


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.babyai_words")
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("--generation", type=int)
    parser.add_argument("--episodes", type=int, default=200)
    parser.add_argument("--max-steps", type=int)
    parser.add_argument("--only", nargs="+", choices=list(CONDITIONS), default=list(CONDITIONS))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(argv)
    if options.max_steps is not None and not 1 <= options.max_steps <= MOST_ALLOWED:
        parser.error(f"--max-steps {options.max_steps}: must be between 1 and {MOST_ALLOWED}")
    if options.episodes < 1:
        parser.error(f"--episodes {options.episodes}: must be 1 or more")
    refuse_no_folder(parser, options.json)
    return options


if __name__ == "__main__":
    run_command(main)
