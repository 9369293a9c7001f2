"""What passes from one generation to the next, and how different two behaviours are."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from evolution import EvolutionConfig, next_generation
from evolution.mutation import CLOSE, add_safe_noise
from trainers.population import Population, found_population
from trainers.rollout import Outcome

TEXTS = [" food", " no food", " food here"]


@pytest.fixture
def population(tiny_config) -> Population:
    """Six agents of fitness 0 to 5, who have learned something."""
    population = found_population(tiny_config)
    bank = population.policy.network.bank
    bank.values += 0.1 * torch.randn(bank.values.shape, generator=torch.Generator().manual_seed(0))
    population.genomes = [g.measured(float(i), bank.read(i)) for i, g in enumerate(population.genomes)]
    return population


def bred(population: Population, mutation_std: float = 0.0) -> list:
    settings = EvolutionConfig(
        elites=2, parents=2, crossover="clone", hyperparameter_factor=1.0, mutation_std=mutation_std
    )
    return next_generation(population.inherited(), settings, generation=1, rng=np.random.default_rng(0))


def test_children_have_what_their_parents_learned(population):
    learned = population.policy.network.bank.values.clone()
    population.replace_slots(bred(population))
    values = population.policy.network.bank.values
    assert torch.equal(values[4:], learned[4:])  # the elites, who live on
    for genome, row in zip(population.genomes[:4], values[:4], strict=True):
        assert torch.equal(row, learned[genome.parents[0]])


def test_newcomers_start_with_no_moments_and_elites_keep_theirs(population):
    population.learner.optimiser.steps += 3
    population.replace_slots(bred(population))
    assert population.learner.optimiser.steps.tolist() == [0, 0, 0, 0, 3, 3]


def test_a_genome_keeps_its_adapter_while_the_bank_learns(population):
    bank = population.policy.network.bank

    def are(genomes: list, rows: torch.Tensor) -> bool:
        return all(torch.equal(bank.flatten(g.adapter), row) for g, row in zip(genomes, rows, strict=True))

    measured = bank.values.clone()
    bank.values += 1
    assert are(population.genomes, measured)
    passed_on, learned = population.inherited(), bank.values.clone()
    population.replace_slots(bred(population))
    settled = bank.values.clone()
    bank.values += 1
    assert are(passed_on, learned)
    assert are(population.genomes, settled)


def test_divergence_is_zero_between_equals_and_grows_with_the_square_of_the_way(population):
    network = population.policy.network
    network.answer(TEXTS, np.array([0, 1, 2]))
    first = network.bank.read(3)
    before = network.bank.values.clone()
    generator = torch.Generator().manual_seed(0)
    noise = {name: torch.randn(tensor.shape, generator=generator) for name, tensor in first.items()}
    small, double = (
        population.divergence(first, {name: first[name] + scale * noise[name] for name in first})
        for scale in (0.03, 0.06)
    )
    assert population.divergence(first, first) == pytest.approx(0, abs=1e-6)
    assert small > 0
    assert double / small == pytest.approx(4, rel=0.3)
    assert torch.equal(network.bank.values, before)


def test_what_is_read_to_be_judged_or_shown_does_not_change_how_behaviours_are_compared(population):
    population.latest_texts = TEXTS[:2]
    one, other = (genome.adapter for genome in population.genomes[:2])
    found = population.divergence(one, other)
    log_probs = [torch.from_numpy(population.policy.logits(TEXTS[:2], np.full(2, n))) for n in (0, 1)]
    p, q = (logits.log_softmax(1) for logits in log_probs)
    assert found == pytest.approx(float((p.exp() * (p - q)).sum(1).mean()), rel=1e-4)
    population.policy.logits([" food here", " food north", " home"], np.zeros(3, int))  # as in a held-out world
    assert population.divergence(one, other) == pytest.approx(found, rel=1e-4)


def test_kl_to_the_parent_is_that_of_child_and_parent_and_zero_for_a_clone(population):
    population.policy.logits(TEXTS, np.zeros(3, int))
    parents, clones, noisy = population.inherited(), bred(population)[:4], bred(population, mutation_std=0.5)[:4]
    assert population.kl_to_parent(parents, clones) == pytest.approx(0, abs=1e-6)
    adapters = {genome.id: genome.adapter for genome in population.genomes}
    by_hand = [population.divergence(child.adapter, adapters[child.parents[0]]) for child in noisy]
    assert population.kl_to_parent(parents, noisy) == pytest.approx(np.mean(by_hand), rel=1e-3)
    assert np.mean(by_hand) > 1e-3


def test_a_safe_mutation_changes_actions_by_what_was_asked(population):
    population.policy.network.answer(TEXTS, np.array([0, 1, 2]))
    first = population.policy.network.bank.read(3)
    changed = add_safe_noise(first, 0.05, torch.Generator().manual_seed(0), population.divergence)
    assert 0.05 / CLOSE < population.divergence(first, changed) < 0.05 * CLOSE


def test_everyone_is_measured_anew_who_lived_on_as_well(population):
    population.genomes[4] = replace(population.genomes[4], id=6, fitness=float("nan"))
    returns = np.array([[9.0, 1, 2, 0, 4, -1], [3.0, 1, 4, 0, 8, -3]])
    population.measure(Outcome(returns, returns, returns > 0, {}))
    assert [genome.fitness for genome in population.genomes] == [6, 1, 3, 0, 6, -2]


def test_behaviours_are_compared_a_few_at_a_time(population, monkeypatch):
    network = population.policy.network
    population.latest_texts = TEXTS
    parents, children = population.inherited(), bred(population, mutation_std=0.3)[:4]
    at_once = population.kl_to_parent(parents, children)
    answer, sizes = network.answer, []
    monkeypatch.setattr(network, "answer", lambda texts, *rest: sizes.append(len(texts)) or answer(texts, *rest))
    network.rows_at_once = 2 * len(TEXTS)
    assert population.kl_to_parent(parents, children) == pytest.approx(at_once, rel=1e-4)
    assert max(sizes) == 2 * len(TEXTS)
