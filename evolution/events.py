"""Births, evaluations, deaths and starvations, as plain records for `lineage.jsonl`."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from evolution.genome import Genome

Event = dict[str, Any]


def births(
    before: Sequence[Genome], after: Sequence[Genome], roles: Sequence[str] = (), *, in_rollout: bool = False
) -> list[Event]:
    """An event for each individual of `after` that was not in `before`.

    roles: (N,) by slot, where there are several. in_rollout: born in the middle of a generation.
    """
    known = {g.id for g in before}
    return [
        {
            "event": "birth",
            "generation": g.generation,
            "id": g.id,
            "slot": slot,
            "parents": list(g.parents),
            "operator": g.operator,
            "in_rollout": in_rollout,
            "seed": g.seed,
            "hyperparameters": dict(g.hyperparameters),
            **({"role": roles[slot]} if roles else {}),
        }
        for slot, g in enumerate(after)
        if g.id not in known
    ]


def deaths(
    before: Sequence[Genome], after: Sequence[Genome], generation: int, cause: str = "not selected"
) -> list[Event]:
    """An event for each individual of `before` that is not in `after`, by default because it was not selected."""
    alive = {g.id for g in after}
    return [
        {"event": "death", "generation": generation, "id": g.id, "cause": cause, "fitness": g.fitness}
        for g in before
        if g.id not in alive
    ]


def evaluations(population: Sequence[Genome], returns: np.ndarray, generation: int) -> list[Event]:
    """An event for each individual: its mean return before it learned in this generation, and its fitness after.

    returns: (W, N), of the first rollout of the generation.
    """
    return [
        {"event": "evaluation", "generation": generation, "id": g.id, "return": before, "fitness": g.fitness}
        for g, before in zip(population, returns.mean(axis=0).tolist(), strict=True)
    ]


def starvations(
    population: Sequence[Genome], lifetime: np.ndarray, is_alive: np.ndarray, generation: int
) -> list[Event]:
    """An event for each agent that ran out of energy in a world; its genome can still be selected.

    lifetime: (W, N) steps lived in each world. is_alive: (W, N) at the end of the episode.
    """
    return [
        {"event": "starved", "generation": generation, "id": population[slot].id, "world": int(world), "step": steps}
        for world, slot in np.argwhere(~is_alive)
        for steps in [int(lifetime[world, slot])]
    ]
