"""The forage world in other words, which a language model can still understand.

    python -m benchmarks.words RUN_DIR [--episodes N] [--json FILE]

lets the agents of a run, and the model without adapters, play held-out worlds that are described in other words, and
prints the food that they eat. Each wording is a codec for `--env.codec`, too, as benchmarks.words:Renamed.
"""

import argparse
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from agents.codecs.forage import ForageCodec
from envs import WorldConfig
from trainers.cli.command_line import run_command

SYNONYMS = {
    "food": "bread",
    "no": "without",
    "grown": "harvested",
    "new": "unexplored",
    "far": "distant",
    "here": "below",
    "home": "house",
    "dusk": "evening",
    "night": "midnight",
}
OPPOSITES = {"north": "south", "south": "north", "west": "east", "east": "west"}


class _Reworded(ForageCodec):
    """The texts of the ordinary codec in other words; `config` is that of the world, as for any codec."""

    def __init__(self, config: WorldConfig):
        super().__init__(config.view_radius)

    def encode(self, observation: Any, memory: Any) -> list[str]:
        """Texts of the ordinary codec, reworded."""
        return [self.reword(text) for text in super().encode(observation, memory)]

    def reword(self, text: str) -> str:
        """One text in other words; as it is, unless a subclass knows some."""
        return text


class Renamed(_Reworded):
    """Every thing has another name, as in " bread north two" for " food north two"; directions keep theirs."""

    def reword(self, text: str) -> str:
        """Each word that has a synonym replaced by it."""
        return re.sub(r"\w+", lambda word: SYNONYMS.get(word[0], word[0]), text)


class Reordered(_Reworded):
    """The same clauses back to front, as in " new south, grown west, no food"."""

    def reword(self, text: str) -> str:
        """Clauses in reverse."""
        return " " + ", ".join(reversed(text.strip().split(", ")))


class Mirrored(_Reworded):
    """North is called south, east is called west, and the other way round, while actions keep their names.

    What a model has learned of these words, in pretraining or in other worlds, is wrong here.
    """

    def reword(self, text: str) -> str:
        """Each direction replaced by its opposite."""
        return re.sub(r"\w+", lambda word: OPPOSITES.get(word[0], word[0]), text)


class Examples(_Reworded):
    """Five examples in front of every text, for a model that is not trained."""

    instructions = (
        "You are hungry. Walk to food.\n"
        " food north two go north\n food west far go west\n food here go stay\n"
        " no food, grown west, new east go east\n food south one, east two go south\n"
    )


def measure(run_dir: Path, episodes: int) -> dict[str, float]:
    """Mean food of the agents of a run's last generation, and of the frozen model, for each wording."""
    from trainers.comparison import held_out_seeds, play
    from trainers.population import found_population
    from trainers.records.opening import open_run

    population, config, _ = open_run(run_dir)
    seeds = held_out_seeds(episodes, config.seed)
    wordings = {"renamed": Renamed, "reordered": Reordered}
    food = {}
    for wording, codec in wordings.items():
        reworded = replace(population, codec=codec(config.env))
        for who, bare in (("agents", False), ("frozen", True)):
            outcome = play(reworded, config.env, seeds, config.seed, bare=bare)
            food[f"{who}, {wording}"] = float(outcome.figures["food_eaten"].mean())
    prompted = found_population(replace(config, env=replace(config.env, codec="benchmarks.words:Examples")))
    outcome = play(prompted, config.env, seeds, config.seed, bare=True)
    return food | {"frozen, with examples": float(outcome.figures["food_eaten"].mean())}


def main() -> None:
    """Measure, print, and write if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run_dir", type=Path, metavar="RUN_DIR")
    parser.add_argument("--episodes", type=int, default=32)
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    food = measure(options.run_dir, options.episodes)
    for name, eaten in food.items():
        print(f"{name:24s} {eaten:6.1f}")
    if options.json:
        options.json.write_text(json.dumps(food, indent=2) + "\n")


if __name__ == "__main__":
    run_command(main)
