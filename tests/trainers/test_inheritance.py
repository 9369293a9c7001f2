"""Who begins anew each generation, and with what: the Baldwinian way, and Reptile."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from evolution import EvolutionConfig, next_generation
from trainers import stages
from trainers.begin import begin
from trainers.population import Population, found_population
from trainers.stages import Generation
from trainers.variants import open_variants
from trainers.variants.inheritance import Inheritance
from trainers.variants.inheritance_config import InheritanceConfig


@pytest.fixture
def baldwinian(tiny_config) -> Population:
    """Six agents of fitness 0 to 5, who have learned something, and were not born equal."""
    config = replace(tiny_config, inheritance=InheritanceConfig(kind="baldwinian"))
    population = found_population(config)
    population.variants = open_variants(config, population, Path(config.run_dir))
    population.variants["inheritance"].born_with += torch.arange(6.0)[:, None]
    bank = population.policy.network.bank
    bank.values += 0.1 * torch.randn(bank.values.shape, generator=torch.Generator().manual_seed(0))
    population.genomes = [g.measured(float(i), bank.read(i)) for i, g in enumerate(population.genomes)]
    return population


def test_baldwinian_children_have_what_their_parents_were_born_with_and_all_begin_anew(baldwinian):
    inheritance = baldwinian.variants["inheritance"]
    born = inheritance.born_with.clone()
    baldwinian.learner.optimiser.steps += 3
    settings = EvolutionConfig(elites=2, parents=2, crossover="clone", hyperparameter_factor=1.0, mutation_std=0.0)
    bred = next_generation(baldwinian.inherited(), settings, generation=1, rng=np.random.default_rng(0))
    baldwinian.replace_slots(bred)
    values = baldwinian.policy.network.bank.values
    assert torch.equal(values[4:], born[4:])
    for genome, row in zip(baldwinian.genomes[:4], values[:4], strict=True):
        assert torch.equal(row, born[genome.parents[0]])
    assert torch.equal(inheritance.born_with, values)
    assert not baldwinian.learner.optimiser.steps.any()


def test_a_birth_in_the_middle_of_a_rollout_leaves_what_the_others_learned(baldwinian):
    inheritance = baldwinian.variants["inheritance"]
    learned, born = baldwinian.policy.network.bank.values.clone(), inheritance.born_with.clone()
    child = {name: tensor + 1 for name, tensor in baldwinian.genomes[2].adapter.items()}
    newcomer = replace(baldwinian.genomes[2], id=6, adapter=child)
    after = [newcomer if slot == 2 else genome for slot, genome in enumerate(baldwinian.genomes)]
    baldwinian.replace_slots(after, in_rollout=True)
    values, others = baldwinian.policy.network.bank.values, [0, 1, 3, 4, 5]
    assert torch.equal(values[others], learned[others])
    assert torch.equal(inheritance.born_with[others], born[others])
    assert torch.equal(values[2], learned[2] + 1)
    assert torch.equal(inheritance.born_with[2], values[2])


def test_with_reptile_the_initial_adapter_moves_to_the_mean_of_all_ends(tiny_config):
    run = begin(replace(tiny_config, inheritance=InheritanceConfig(kind="reptile", reptile_step=0.25)), None)
    bank, learner = run.population.policy.network.bank, run.population.learner
    start = bank.values[0].clone()
    moved = torch.randn(bank.values.shape, generator=torch.Generator().manual_seed(0))
    bank.values += moved
    learner.optimiser.steps += 3
    stages.evolve(run, Generation(1))
    expected = start + 0.25 * moved.mean(dim=0)
    for values in (run.population.variants["inheritance"].born_with, bank.values):
        torch.testing.assert_close(values, expected.expand_as(values))
    assert (learner.optimiser.steps == 0).all()


def test_with_weights_by_fitness_the_fitter_half_leads(tiny_config):
    settings = InheritanceConfig(kind="reptile", reptile_weights="fitness")
    run = begin(replace(tiny_config, inheritance=settings), None)
    population = run.population
    bank, inheritance = population.policy.network.bank, population.variants["inheritance"]
    start = bank.values[0].clone()
    moved = torch.randn(bank.values.shape, generator=torch.Generator().manual_seed(0))
    bank.values += moved
    fitness = [3.0, 9.0, 1.0, 5.0, 7.0, 2.0]
    population.genomes = [replace(g, fitness=f) for g, f in zip(population.genomes, fitness, strict=True)]
    inheritance.after_evaluation(run, Generation(0))
    raw = np.log(3.5) - np.log([1, 2, 3])  # of agents 1, 4 and 3
    expected = start + torch.tensor(raw / raw.sum(), dtype=torch.float32) @ moved[[1, 4, 3]]
    tensors = {f"inheritance.{name}": tensor for name, tensor in inheritance.tensors().items()}
    passed_on = Inheritance.passed_on(settings, tensors | {"bank": bank.values.clone()})
    stages.evolve(run, Generation(1))
    for values in (passed_on, inheritance.born_with, bank.values):
        torch.testing.assert_close(values, expected.expand_as(values))


def test_an_unknown_kind_is_refused():
    kinds = "lamarckian, baldwinian, darwinian, reptile"
    with pytest.raises(ValueError, match=rf"^inheritance\.kind = 'other': must be one of {kinds}$"):
        InheritanceConfig(kind="other")


def test_darwinian_evolution_is_without_learning(tiny_config):
    darwinian = InheritanceConfig(kind="darwinian")
    with pytest.raises(ValueError, match=r"learn\.algorithm = 'ppo': must be none with inheritance\.kind = darwinian"):
        replace(tiny_config, inheritance=darwinian)
    replace(tiny_config, inheritance=darwinian, learn=replace(tiny_config.learn, algorithm="none"))
