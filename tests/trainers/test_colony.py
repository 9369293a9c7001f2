"""What passes from one generation to the next, and how different two behaviours are."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from evolution import next_generation
from evolution.config import EvolutionConfig
from evolution.mutation import CLOSE, add_safe_noise
from trainers.population import Population, found_population
from trainers.rollout import Outcome


@pytest.fixture
def colony_of(tiny_config):
    def build(inheritance: str) -> Population:
        population = found_population(
            replace(tiny_config, evolution=replace(tiny_config.evolution, inheritance=inheritance))
        )
        bank = population.policy.mind.bank
        bank.values += 0.1 * torch.randn(bank.values.shape, generator=torch.Generator().manual_seed(0))  # they learned
        population.genomes = [g.measured(float(i), population.adapter(i)) for i, g in enumerate(population.genomes)]
        return population

    return build


def bred(population: Population, mutation_std: float = 0.0) -> list:
    settings = EvolutionConfig(
        elites=2, parents=2, crossover="clone", hyperparameter_factor=1.0, mutation_std=mutation_std
    )
    return next_generation(population.heritage(), settings, generation=1, rng=np.random.default_rng(0))


def test_lamarckian_children_have_what_their_parents_learned(colony_of):
    population = colony_of("lamarckian")
    learned = population.policy.mind.bank.values.clone()
    population.settle(bred(population))
    values = population.policy.mind.bank.values
    assert torch.equal(values[4:], learned[4:])  # the elites, who live on
    for genome, row in zip(population.genomes[:4], values[:4], strict=True):
        assert torch.equal(row, learned[genome.parents[0]])


def test_baldwinian_children_have_what_their_parents_were_born_with_and_all_begin_anew(colony_of):
    population = colony_of("baldwinian")
    population.birth += torch.arange(6.0)[:, None]  # so that births differ
    born = population.birth.clone()
    population.learner.optimiser.steps += 3
    population.settle(bred(population))
    values = population.policy.mind.bank.values
    assert torch.equal(values[4:], born[4:])
    for genome, row in zip(population.genomes[:4], values[:4], strict=True):
        assert torch.equal(row, born[genome.parents[0]])
    assert torch.equal(population.birth, values)
    assert not population.learner.optimiser.steps.any()


def test_divergence_is_zero_between_equals_and_grows_with_the_square_of_the_way(colony_of):
    population = colony_of("lamarckian")
    mind = population.policy.mind
    mind.answer([" food", " no food", " food here"], np.array([0, 1, 2]))
    first = mind.bank.read(3)
    before = mind.bank.values.clone()
    generator = torch.Generator().manual_seed(0)
    noise = {name: torch.randn(tensor.shape, generator=generator) for name, tensor in first.items()}
    small, double = (
        population.divergence(first, {name: first[name] + scale * noise[name] for name in first})
        for scale in (0.03, 0.06)
    )
    assert population.divergence(first, first) == pytest.approx(0, abs=1e-6)
    assert small > 0
    assert double / small == pytest.approx(4, rel=0.3)
    assert torch.equal(mind.bank.values, before)


def test_what_is_read_to_be_judged_or_shown_does_not_change_how_behaviours_are_compared(colony_of):
    population = colony_of("lamarckian")
    population.read_last = [" food", " no food"]
    one, other = population.adapter(0), population.adapter(1)
    found = population.divergence(one, other)
    log_probs = [torch.from_numpy(population.policy.logits([" food", " no food"], np.full(2, n))) for n in (0, 1)]
    p, q = (logits.log_softmax(1) for logits in log_probs)
    assert found == pytest.approx(float((p.exp() * (p - q)).sum(1).mean()), rel=1e-4)
    population.policy.logits([" food here", " food north", " home"], np.zeros(3, int))  # as in a held-out world
    assert population.divergence(one, other) == pytest.approx(found, rel=1e-4)


def test_kl_to_the_parent_is_that_of_child_and_parent_and_zero_for_a_clone(colony_of):
    population = colony_of("lamarckian")
    population.policy.logits([" food", " no food", " food here"], np.zeros(3, int))
    clones, noisy = bred(population)[:4], bred(population, mutation_std=0.5)[:4]
    assert population.kl_to_parent(clones) == pytest.approx(0, abs=1e-6)
    parents = {genome.id: genome.adapter for genome in population.genomes}
    by_hand = [population.divergence(child.adapter, parents[child.parents[0]]) for child in noisy]
    assert population.kl_to_parent(noisy) == pytest.approx(np.mean(by_hand), rel=1e-3)
    assert np.mean(by_hand) > 1e-3


def test_a_safe_mutation_changes_actions_by_what_was_asked(colony_of):
    population = colony_of("lamarckian")
    population.policy.mind.answer([" food", " no food", " food here"], np.array([0, 1, 2]))
    first = population.policy.mind.bank.read(3)
    changed = add_safe_noise(first, 0.05, torch.Generator().manual_seed(0), population.divergence)
    assert 0.05 / CLOSE < population.divergence(first, changed) < 0.05 * CLOSE


def test_an_unknown_inheritance_is_refused():
    with pytest.raises(ValueError, match=r"evolution.inheritance = 'other': must be one of lamarckian, baldwinian"):
        EvolutionConfig(inheritance="other")


@pytest.mark.parametrize(
    ("section", "name", "value"),
    [("learn", "algorithm", "online"), ("evolution", "enabled", False), ("evolution", "selection", "random")],
)
def test_births_in_a_life_go_with_what_they_can_go_with(tiny_config, section, name, value):
    config = replace(tiny_config, evolution=replace(tiny_config.evolution, births_in_life=True))
    with pytest.raises(ValueError, match=rf"{section}.{name} = {value!r}: must be .* with evolution.births_in_life"):
        replace(config, **{section: replace(getattr(config, section), **{name: value})})


def test_darwinian_evolution_is_without_learning(tiny_config):
    evolution = replace(tiny_config.evolution, inheritance="darwinian")
    with pytest.raises(ValueError, match=r"learn.algorithm = 'ppo': must be none with evolution.inheritance"):
        replace(tiny_config, evolution=evolution)
    replace(tiny_config, evolution=evolution, learn=replace(tiny_config.learn, algorithm="none"))


def test_everyone_is_measured_anew_who_lived_on_as_well(colony_of):
    population = colony_of("lamarckian")  # of fitness 0 to 5
    population.genomes[4] = replace(population.genomes[4], id=6, fitness=float("nan"))
    returns = np.array([[9.0, 1, 2, 0, 4, -1], [3.0, 1, 4, 0, 8, -3]])
    population.measure(Outcome(returns, returns, returns > 0, {}))
    assert [genome.fitness for genome in population.genomes] == [6, 1, 3, 0, 6, -2]


def test_a_birth_in_mid_life_leaves_what_the_others_learned(colony_of):
    population = colony_of("baldwinian")
    learned, born = population.policy.mind.bank.values.clone(), population.birth.clone()
    child = {name: tensor + 1 for name, tensor in population.adapter(2).items()}
    newcomer = replace(population.genomes[2], id=6, adapter=child)
    population.settle([newcomer if slot == 2 else g for slot, g in enumerate(population.genomes)], in_life=True)
    values, others = population.policy.mind.bank.values, [0, 1, 3, 4, 5]
    assert torch.equal(values[others], learned[others])
    assert torch.equal(population.birth[others], born[others])
    assert torch.equal(values[2], learned[2] + 1)
    assert torch.equal(population.birth[2], values[2])
