"""Champions of rival populations: the hall of fame, their matches, and how strong they are.

The hall of fame (Rosin & Belew 1997, "New methods for competitive coevolution") keeps the fittest of each population of
each generation; matches between champions of all generations tell whether an arms race makes progress or goes in
circles.

Symbols: Q populations, N agents in a world, F numbers in an adapter, W worlds.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from agents.codecs.codec import TextCodec
from agents.files import whole_file
from agents.guests import with_guests
from agents.policy import Policy
from envs.types import WorldConfig, members
from envs.worlds.world import ForageWorld
from evolution.rating import bradley_terry
from trainers.comparison import held_out_seeds
from trainers.records.sealed import DamagedRun
from trainers.rollout import collect_rollout

MATCH_WORLDS = 4
"""Worlds of a match while a run goes on; the same for all its matches."""
MATCH_SEED = 1
"""Of the held-out worlds in which matches are played."""
MATCHES = 3
"""Champions of the past that each new one meets, besides its contemporary."""


class Player(NamedTuple):
    """The champion of a population in a generation."""

    population: int
    generation: int


class HallOfFame:
    """The hall of fame of a run: one file for each generation, of the champions' adapters (Q, F)."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.champions: list[Tensor] = []

    def read(self, last_generation: int) -> None:
        """Read the champions until `last_generation`; later ones will be chosen again. DamagedRun if one is missing."""
        self.champions = [_read(self._file(generation)) for generation in range(last_generation + 1)]

    def _file(self, generation: int) -> Path:
        return self.folder / f"gen_{generation:04d}.safetensors"

    def add(self, champions: Tensor) -> None:
        """The champions (Q, F) of the next generation come in."""
        with whole_file(self._file(len(self.champions))) as partial:
            save_file({"champions": champions.contiguous()}, partial)
        self.champions.append(champions.clone())

    def draw(self, population: int, count: int, rng: np.random.Generator) -> Tensor:
        """Champions (count, F) of populations other than this one, of any generation, by chance."""
        others = [q for q in range(len(self.champions[0])) if q != population]
        drawn = zip(rng.integers(len(self.champions), size=count), rng.choice(others, size=count), strict=True)
        return torch.stack([self.champions[generation][other] for generation, other in drawn])

    def of(self, player: Player) -> Tensor:
        """The adapter (F,) of a champion."""
        return self.champions[player.generation][player.population]


def _read(file: Path) -> Tensor:
    try:
        return load_file(file)["champions"]
    except (OSError, SafetensorError, KeyError) as error:
        raise DamagedRun(f"{file}: damaged or missing ({error})") from error


def pairings(generation: int, populations: int) -> list[tuple[Player, Player]]:
    """Whom the new champions of a generation meet: each other, and some of the past, evenly back to the first."""
    past = sorted(set(np.linspace(0, generation - 1, MATCHES).astype(int).tolist())) if generation else []
    pairs = []
    for one in range(populations):
        for other in range(populations):
            if one < other:
                pairs.append((Player(one, generation), Player(other, generation)))
            if one != other:
                pairs += [(Player(one, generation), Player(other, before)) for before in past]
    return pairs


def play_matches(
    policy: Policy, codec: TextCodec, env: WorldConfig, pairs: Sequence[Sequence[Tensor]], worlds: int = MATCH_WORLDS
) -> list[list[list[float]]]:
    """Let the copies of one adapter (F,) play those of another, in the same held-out worlds for each pair.

    Returns for each pair and each of so many worlds the food of an agent of each side. In half of the worlds they
    change homes; where there are more than two, the second of a pair has all others.
    """
    values, rows = _distinct([value for pair in pairs for value in pair])
    seats = np.stack([seat for one, other in np.reshape(rows, (-1, 2)) for seat in _seats(env, one, other, worlds)])
    seeds = np.tile(held_out_seeds(worlds, MATCH_SEED), len(pairs))
    rng, world = np.random.default_rng(MATCH_SEED), ForageWorld(env)
    played = collect_rollout(with_guests(policy, values), codec, world, seeds, rng, adapter_ids=seats)
    food = played.outcome.figures["food_eaten"].reshape(len(pairs), worlds, -1)
    is_first = np.tile(np.stack(_seats(env, 1, 0, worlds)).astype(bool), (len(pairs), 1, 1))
    of_sides = [np.where(side, food, 0).sum(-1) / side.sum(-1) for side in (is_first, ~is_first)]
    return np.stack(of_sides, axis=-1).tolist()


def _seats(env: WorldConfig, one: int, other: int, worlds: int) -> list[np.ndarray]:
    """Which of two adapters each agent (N,) carries, in each world of a match."""
    first, last = members(env)[0], members(env)[-1]
    seats = []
    for number in range(worlds):
        seats.append(np.full(env.agents, other))
        seats[-1][first if number % 2 == 0 else last] = one
    return seats


def _distinct(values: Sequence[Tensor]) -> tuple[Tensor, list[int]]:
    """Different adapters among some (F,) as (G, F), and which of them each is: answers are computed once for each."""
    known: dict[bytes, int] = {}
    rows = [known.setdefault(value.numpy().tobytes(), len(known)) for value in values]
    return torch.stack([values[rows.index(row)] for row in range(len(known))]), rows


def ratings(matches: Sequence[dict[str, Any]]) -> dict[Player, float]:
    """Rating of each champion that played, from all matches as they stand in matches.jsonl; who eats more wins."""
    players = sorted({Player(*side) for match in matches for side in match["sides"]})
    wins = np.zeros((len(players), len(players)))
    for match in matches:
        one, other = (players.index(Player(*side)) for side in match["sides"])
        for mine, theirs in match["food"]:
            wins[one, other] += 0.5 * (np.sign(mine - theirs) + 1)
            wins[other, one] += 0.5 * (np.sign(theirs - mine) + 1)
    return dict(zip(players, bradley_terry(wins).tolist(), strict=True))


def share_won(matches: Sequence[dict[str, Any]]) -> float:
    """Share of worlds in which the first side ate more; a draw counts half."""
    food = np.array([world for match in matches for world in match["food"]])
    return float((np.sign(food[:, 0] - food[:, 1]) + 1).mean() / 2) if len(food) else 0.5
