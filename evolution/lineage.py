"""Births and deaths, as plain records for `lineage.jsonl`."""

from collections.abc import Sequence
from typing import Any

from evolution.genome import Genome

Event = dict[str, Any]


def births(before: Sequence[Genome], after: Sequence[Genome]) -> list[Event]:
    """An event for each individual of `after` that was not in `before`."""
    known = {g.id for g in before}
    return [
        {
            "event": "birth",
            "generation": g.generation,
            "id": g.id,
            "slot": slot,
            "parents": list(g.parents),
            "operator": g.operator,
            "seed": g.seed,
            "hyperparameters": dict(g.hyperparameters),
        }
        for slot, g in enumerate(after)
        if g.id not in known
    ]


def deaths(before: Sequence[Genome], after: Sequence[Genome], generation: int) -> list[Event]:
    """An event for each individual of `before` that is not in `after`: it was not selected to live on."""
    alive = {g.id for g in after}
    return [
        {"event": "death", "generation": generation, "id": g.id, "cause": "not selected", "fitness": g.fitness}
        for g in before
        if g.id not in alive
    ]


def starvations(
    population: Sequence[Genome], lifetime: Sequence[int], starved: Sequence[bool], generation: int
) -> list[Event]:
    """An event for each individual whose body ran out of energy in its life; its genome can still be chosen."""
    return [
        {"event": "starved", "generation": generation, "id": g.id, "step": int(steps)}
        for g, steps, is_starved in zip(population, lifetime, starved, strict=True)
        if is_starved
    ]
