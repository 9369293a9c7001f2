"""From one generation to the next."""

import secrets
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch

from evolution.crossover import CROSSOVERS
from evolution.genome import Adapter, Genome, Parent
from evolution.mutation import add_noise, mutate_hyperparameters
from evolution.selection import SELECTIONS, select_top_k

Mutate = Callable[[Adapter, torch.Generator], Adapter]
"""From a child's adapter to the one it is born with."""


def breed(
    parent1: Parent,
    parent2: Parent,
    mutation_rate: float = 0.05,
    *,
    crossover: str = "mean",
    hyperparameter_factor: float = 1.0,
    mutate: Mutate | None = None,
    seed: int | None = None,
    id: int = 0,
    generation: int = 0,
) -> Genome:
    """A child of two parents: `crossover` of their adapters (a name of `CROSSOVERS`), plus noise of `mutation_rate`.

    mutate: what to do instead of adding noise. Everything random in a child follows from `seed`; without one, it gets a
    new one, and says which. Hyperparameters come from one parent or the other, and mutate by `hyperparameter_factor`.
    Raises ValueError for an unknown crossover, a negative rate, or parents with adapters of different models.
    """
    if crossover not in CROSSOVERS:
        raise ValueError(f"crossover = {crossover!r}: must be one of {', '.join(CROSSOVERS)}")
    if parent1.adapter.keys() != parent2.adapter.keys():
        raise ValueError(f"parents {parent1.id} and {parent2.id} have adapters of different models")
    seed = secrets.randbits(31) if seed is None else seed
    generator = torch.Generator().manual_seed(seed)
    adapter = CROSSOVERS[crossover](parent1.adapter, parent2.adapter, generator)
    heads = bool(torch.rand((), generator=generator) < 0.5) or crossover == "clone"
    hyperparameters = (parent1 if heads else parent2).hyperparameters
    return Genome(
        id=id,
        adapter=mutate(adapter, generator) if mutate else add_noise(adapter, mutation_rate, generator),
        hyperparameters=mutate_hyperparameters(hyperparameters, hyperparameter_factor, generator),
        generation=generation,
        parents=(parent1.id,) if crossover == "clone" else (parent1.id, parent2.id),
        operator=crossover,
        seed=seed,
    )


def next_generation(
    population: Sequence[Genome],
    *,
    generation: int,
    elites: int,
    parents: int,
    crossover: str,
    mutation_rate: float,
    hyperparameter_factor: float,
    rng: np.random.Generator,
    selection: str = "top",
    mutate: Mutate | None = None,
    first_id: int | None = None,
) -> list[Genome]:
    """The population of `generation`, slot by slot: the fittest `elites` live on in their own slots, each other slot
    gets a child of two different parents.

    selection: a name of `SELECTIONS`, of which `parents` is the k; or "random", where fitness counts for nothing,
    the elites included (the control). first_id: of the children; by default after all of the population. One alone
    lives on, with nobody to breed with. Raises ValueError for another name, or if fewer than two may breed.
    """
    if len(population) == 1:
        return list(population)
    for name, count, least in (("parents", parents, 2), ("elites", elites, 0)):
        if not least <= count <= len(population):
            raise ValueError(f"evolution.{name} = {count}: must be between {least} and {len(population)}")
    if selection not in (*SELECTIONS, "random"):
        raise ValueError(f"selection = {selection!r}: must be one of {', '.join((*SELECTIONS, 'random'))}")
    ranked = select_top_k(population, len(population))
    if selection == "random":
        ranked = [ranked[i] for i in rng.permutation(len(ranked))]
    survivors = {genome.id for genome in ranked[:elites]}
    return with_children(
        population,
        [slot for slot, genome in enumerate(population) if genome.id not in survivors],
        ranked,
        generation=generation,
        parents=parents,
        selection=selection,
        crossover=crossover,
        mutation_rate=mutation_rate,
        hyperparameter_factor=hyperparameter_factor,
        mutate=mutate,
        rng=rng,
        first_id=first_id,
    )


def with_children(
    population: Sequence[Genome],
    slots: Iterable[int],
    ranked: Sequence[Genome],
    *,
    generation: int,
    parents: int,
    rng: np.random.Generator,
    selection: str = "top",
    first_id: int | None = None,
    **breeding: Any,
) -> list[Genome]:
    """The population with children of those who are `ranked`, best first, in some slots.

    selection, parents, first_id: as in `next_generation`. breeding: as in `breed`.
    """
    choose = SELECTIONS.get(selection, SELECTIONS["top"])
    after = list(population)
    new_id = max(genome.id for genome in population) + 1 if first_id is None else first_id
    for slot in slots:
        one, other = choose(ranked, parents, rng)
        seed = int(rng.integers(2**31))
        after[slot] = breed(one, other, seed=seed, id=new_id, generation=generation, **breeding)
        new_id += 1
    return after
