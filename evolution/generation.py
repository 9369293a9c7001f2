"""From one generation to the next: select parents, cross their adapters, mutate the children."""

import secrets
from collections.abc import Iterable, Sequence

import numpy as np
import torch

from evolution.config import Crossover, EvolutionConfig
from evolution.crossover import CROSSOVERS
from evolution.genome import Genome, Parent
from evolution.mutation import MUTATIONS, Divergence, mutate_hyperparameters
from evolution.selection import SELECTIONS, select_top_k


def breed(
    parent1: Parent,
    parent2: Parent,
    mutation_std: float = 0.05,
    *,
    crossover: Crossover = "mean",
    hyperparameter_factor: float = 1.0,
    seed: int | None = None,
    id: int = 0,
    generation: int = 0,
) -> Genome:
    """A child of two parents, made by hand: `crossover` of their adapters plus noise of `mutation_std`.

    Without a seed it gets a new one, which its genome names. `make_child` takes all settings of evolution.
    Raises ValueError for an unknown crossover, a negative size of noise, or parents with adapters of different models.
    """
    settings = EvolutionConfig(
        crossover=crossover, mutation_std=mutation_std, hyperparameter_factor=hyperparameter_factor
    )
    seed = secrets.randbits(31) if seed is None else seed
    return make_child(parent1, parent2, settings, seed=seed, id=id, generation=generation)


def make_child(
    parent1: Parent,
    parent2: Parent,
    settings: EvolutionConfig,
    *,
    seed: int,
    id: int,
    generation: int,
    divergence: Divergence | None = None,
) -> Genome:
    """A child of two parents, born in `generation`; everything random in it follows from `seed`.

    Its adapter is the crossover of theirs, mutated. Its hyperparameters come from one parent or the other, and mutate
    by a factor. divergence: of the behaviours of two adapters, which safe mutation needs.
    Raises ValueError for parents with adapters of different models, or for safe mutation without a divergence.
    """
    if parent1.adapter.keys() != parent2.adapter.keys():
        raise ValueError(f"parents {parent1.id} and {parent2.id} have adapters of different models")
    is_clone = settings.crossover == "clone"
    generator = torch.Generator().manual_seed(seed)
    adapter = CROSSOVERS[settings.crossover](parent1.adapter, parent2.adapter, generator)
    from_first = bool(torch.rand((), generator=generator) < 0.5) or is_clone
    hyperparameters = (parent1 if from_first else parent2).hyperparameters
    return Genome(
        id=id,
        adapter=MUTATIONS[settings.mutation](adapter, settings, generator, divergence),
        hyperparameters=mutate_hyperparameters(hyperparameters, settings.hyperparameter_factor, generator),
        generation=generation,
        parents=(parent1.id,) if is_clone else (parent1.id, parent2.id),
        operator=settings.crossover,
        seed=seed,
    )


def next_generation(
    population: Sequence[Genome],
    settings: EvolutionConfig,
    *,
    generation: int,
    rng: np.random.Generator,
    divergence: Divergence | None = None,
    first_id: int | None = None,
) -> list[Genome]:
    """The population of `generation`, slot by slot: the elites live on in their own slots, each other slot gets a child
    of two different parents.

    Under random selection fitness counts for nothing, for elites neither (the control). One individual alone lives on,
    as there is nobody to breed with. divergence, first_id: as in `breed_into`.
    Raises ValueError if `settings` asks for more parents or elites than there are individuals.
    """
    if len(population) == 1:
        return list(population)
    for name, count, least in (("parents", settings.parents, 2), ("elites", settings.elites, 0)):
        if count > len(population):
            raise ValueError(f"evolution.{name} = {count}: must be between {least} and {len(population)}")
    ranked = select_top_k(population, len(population))
    if settings.selection == "random":
        ranked = [ranked[i] for i in rng.permutation(len(ranked))]
    elites = {genome.id for genome in ranked[: settings.elites]}
    slots = [slot for slot, genome in enumerate(population) if genome.id not in elites]
    return breed_into(
        population, slots, ranked, settings, generation=generation, rng=rng, divergence=divergence, first_id=first_id
    )


def breed_into(
    population: Sequence[Genome],
    slots: Iterable[int],
    ranked: Sequence[Genome],
    settings: EvolutionConfig,
    *,
    generation: int,
    rng: np.random.Generator,
    divergence: Divergence | None = None,
    first_id: int | None = None,
) -> list[Genome]:
    """The population with a new child in each of `slots`, of parents selected from `ranked` (best first).

    divergence: as in `make_child`. first_id: of the children, by default one above the population's highest.
    """
    select = SELECTIONS[settings.selection]
    after = list(population)
    new_id = max(genome.id for genome in population) + 1 if first_id is None else first_id
    for slot in slots:
        parent1, parent2 = select(ranked, settings.parents, rng)
        seed = int(rng.integers(2**31))
        after[slot] = make_child(
            parent1, parent2, settings, seed=seed, id=new_id, generation=generation, divergence=divergence
        )
        new_id += 1
    return after
