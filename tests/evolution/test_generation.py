"""The fittest live on in their slots, and children follow from their parents and the seed."""

from dataclasses import replace
from math import nan

import numpy as np
import pytest
import torch

from evolution import EvolutionConfig, Genome, breed, next_generation
from evolution.crossover import mean, uniform_layers
from evolution.generation import breed_into, make_child
from evolution.mutation import MUTATIONS, add_safe_noise


def same(first, second) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture
def parents(adapter) -> tuple[Genome, Genome]:
    return (
        Genome(id=3, adapter=adapter(0), hyperparameters={"learning_rate": 1.0, "entropy_coef": 10.0}),
        Genome(id=8, adapter=adapter(1), hyperparameters={"learning_rate": 2.0, "entropy_coef": 20.0}),
    )


SETTINGS = EvolutionConfig(elites=2, parents=3, crossover="uniform_layers", mutation_std=0.1, hyperparameter_factor=1.0)


def succeed(population, seed=0, generation=4, divergence=None, **changes) -> list[Genome]:
    rng = np.random.default_rng(seed)
    settings = replace(SETTINGS, **changes)
    return next_generation(population, settings, generation=generation, rng=rng, divergence=divergence)


@pytest.mark.parametrize("crossover", ["mean", "uniform_layers"])
def test_a_child_follows_from_its_seed(parents, crossover):
    child, twin, other = (breed(*parents, 0.1, crossover=crossover, seed=seed) for seed in (5, 5, 6))
    assert same(child.adapter, twin.adapter)
    assert child.hyperparameters == twin.hyperparameters
    assert not any(torch.equal(child.adapter[name], other.adapter[name]) for name in child.adapter)


def test_a_child_without_mutation_is_the_crossover_of_its_parents(parents):
    first, second = (p.adapter for p in parents)
    assert same(breed(*parents, 0.0).adapter, mean(first, second, torch.Generator()))
    child = breed(*parents, 0.0, crossover="uniform_layers", seed=9).adapter
    assert same(child, uniform_layers(first, second, torch.Generator().manual_seed(9)))


def test_mutation_is_noise_on_top_of_crossover(parents):
    plain, noisy = (breed(*parents, std, crossover="uniform_layers", seed=1).adapter for std in (0.0, 0.05))
    for name, tensor in plain.items():
        assert 0 < (noisy[name] - tensor).norm() < 0.15 * tensor.norm()


def test_hyperparameters_come_together_from_either_parent(parents):
    children = [breed(*parents, seed=seed).hyperparameters for seed in range(40)]
    first = sum(child == parents[0].hyperparameters for child in children)
    assert first + sum(child == parents[1].hyperparameters for child in children) == 40
    assert 8 < first < 32
    mutated = {breed(*parents, seed=s, hyperparameter_factor=2.0).hyperparameters["learning_rate"] for s in range(40)}
    assert mutated == {0.5, 1.0, 2.0, 4.0}


def test_a_child_knows_where_it_comes_from(parents):
    child = breed(*parents, crossover="uniform_layers", seed=5, id=42, generation=7)
    assert (child.id, child.generation, child.parents, child.operator, child.seed) == (
        42,
        7,
        (3, 8),
        "uniform_layers",
        5,
    )
    assert child.fitness != child.fitness


def test_parents_are_not_changed(parents, adapter):
    for crossover in ("mean", "uniform_layers"):
        for tensor in breed(*parents, 0.3, crossover=crossover).adapter.values():
            tensor.zero_()
    assert same(parents[0].adapter, adapter(0))
    assert same(parents[1].adapter, adapter(1))


def test_an_unknown_crossover_and_noise_of_a_negative_size_are_refused(parents):
    with pytest.raises(ValueError, match=r"evolution\.crossover = 'sum': must be one of mean, uniform_layers"):
        breed(*parents, crossover="sum")
    with pytest.raises(ValueError, match=r"evolution\.mutation_std = -0\.1"):
        breed(*parents, -0.1)


def test_parents_of_different_models_are_refused(parents):
    stranger = replace(parents[1], adapter={"layers.0.lora_A.weight": torch.zeros(3, 5)})
    with pytest.raises(ValueError, match="parents 3 and 8 have adapters of different models"):
        breed(parents[0], stranger)


def test_the_fittest_live_on_in_their_own_slots(population):
    after = succeed(population)
    assert len(after) == len(population)
    assert [slot for slot in range(6) if after[slot].id == population[slot].id] == [2, 4]
    assert after[2] is population[2]
    assert after[4] is population[4]


def test_children_have_two_different_parents_among_the_best(population):
    pairs = set()
    for seed in range(20):
        children = [g for g in succeed(population, seed) if g.parents]
        assert len(children) == 4
        pairs |= {child.parents for child in children}
    assert pairs == {(a, b) for a in (12, 14, 10) for b in (12, 14, 10) if a != b}


def test_children_get_new_ids_in_order_of_slots_over_generations(population):
    ever = {g.id for g in population}
    for generation in range(5):
        after = succeed(population, generation, generation=generation)
        new = [g.id for g in after if g.id not in {p.id for p in population}]
        assert new == sorted(new)
        assert len(set(new)) == 4
        assert min(new) > max(ever)
        assert all(g.generation == generation for g in after if g.id in new)
        ever |= set(new)
        population = [g.measured(float(g.id % 7), g.adapter) for g in after]


def test_the_same_generator_gives_the_same_generation(population):
    one, other, third = succeed(population, 3), succeed(population, 3), succeed(population, 4)
    for first, second in zip(one, other, strict=True):
        assert same(first.adapter, second.adapter)
        assert (first.id, first.parents, first.seed) == (second.id, second.parents, second.seed)
    assert [g.seed for g in one] != [g.seed for g in third]


def test_a_child_can_be_made_again_from_its_record(population):
    known = {g.id: g for g in population}
    for child in succeed(population, 1):
        if child.parents:
            one, other = (known[i] for i in child.parents)
            again = breed(one, other, 0.1, crossover=child.operator, seed=child.seed)
            assert same(again.adapter, child.adapter)


def test_siblings_differ(population):
    children = [g for g in succeed(population, crossover="mean", parents=2) if g.parents]
    name = next(iter(children[0].adapter))
    assert len({tuple(child.adapter[name].flatten().tolist()) for child in children}) == 4


def test_without_elites_everyone_is_new_and_with_all_nobody_is(population):
    assert not {g.id for g in succeed(population, elites=0)} & {g.id for g in population}
    assert [g.id for g in succeed(population, elites=6)] == [g.id for g in population]


def test_those_of_unknown_fitness_do_not_breed_before_others(population):
    unlucky = [g if g.id in (11, 13) else g.measured(nan, g.adapter) for g in population]
    after = succeed(unlucky, parents=2)
    assert {parent for g in after for parent in g.parents} == {11, 13}
    assert [after[1].id, after[3].id] == [11, 13]


def test_selection_decides_who_breeds(population):
    def breeders(selection: str, parents: int) -> set[int]:
        after = [succeed(population, seed, selection=selection, parents=parents, elites=0) for seed in range(20)]
        return {parent for slots in after for child in slots for parent in child.parents}

    assert breeders("truncation", 2) == breeders("rank", 2) == {12, 14}
    assert breeders("tournament", 2) == {10, 11, 12, 14, 15}  # 13 is the worst, and wins against nobody
    assert breeders("random", 2) == {10, 11, 12, 13, 14, 15}


def test_at_random_the_fittest_do_not_live_on_more_than_others(population):
    survivors = [g.id for seed in range(200) for g in succeed(population, seed, selection="random") if g.id < 16]
    assert np.bincount(survivors)[10:] / 400 == pytest.approx([1 / 6] * 6, abs=0.05)


def test_a_clone_has_one_parent_and_learns_as_it_does(population):
    rates = {g.id: g.hyperparameters for g in population}
    for child in succeed(population, crossover="clone", elites=0):
        assert child.hyperparameters == rates[child.parents[0]]
    assert all(len(g.parents) == 1 for g in succeed(population, crossover="clone", elites=0))


def test_what_mutates_is_what_was_inherited(population, monkeypatch):
    def double(adapter, settings, generator, divergence):
        return {name: 2 * tensor for name, tensor in adapter.items()}

    monkeypatch.setitem(MUTATIONS, "noise", double)
    known = {g.id: g.adapter for g in population}
    for child in succeed(population, crossover="clone", elites=0):
        assert same(child.adapter, double(known[child.parents[0]], None, None, None))


def test_a_safe_mutation_measures_behaviour_by_the_divergence_that_is_given(population):
    pairs = []

    def divergence(first, second) -> float:
        pairs.append(first)
        return sum(float((first[name] - second[name]).square().mean()) for name in first)

    known = {g.id: g.adapter for g in population}
    for child in succeed(population, crossover="clone", mutation="safe", mutation_kl=0.01, divergence=divergence):
        if child.parents:
            parent, generator = known[child.parents[0]], torch.Generator().manual_seed(child.seed)
            torch.rand((), generator=generator)  # whose hyperparameters are inherited is drawn first
            assert same(child.adapter, add_safe_noise(parent, 0.01, generator, divergence))
            assert any(same(first, parent) for first in pairs)


def test_children_are_born_in_the_slots_that_are_asked_for_and_to_those_who_are_ranked(population):
    ranked = [population[5], population[1], population[3]]
    rng = np.random.default_rng(0)
    after = breed_into(population, [0, 4], ranked, replace(SETTINGS, parents=2), generation=3, rng=rng)
    assert [(slot, g.id) for slot, g in enumerate(after) if g is not population[slot]] == [(0, 16), (4, 17)]
    assert {parent for slot in (0, 4) for parent in after[slot].parents} == {15, 11}
    rng = np.random.default_rng(0)
    later = breed_into(population, [0, 4], ranked, SETTINGS, generation=3, rng=rng, first_id=40)
    assert [later[slot].id for slot in (0, 4)] == [40, 41]


def test_breeding_by_hand_makes_the_child_that_all_settings_make(parents):
    settings = EvolutionConfig(crossover="merge", mutation_std=0.2, hyperparameter_factor=1.5)
    child = make_child(*parents, settings, seed=5, id=9, generation=2)
    by_hand = breed(*parents, 0.2, crossover="merge", hyperparameter_factor=1.5, seed=5, id=9, generation=2)
    assert same(child.adapter, by_hand.adapter)
    assert replace(child, adapter={}, fitness=0.0) == replace(by_hand, adapter={}, fitness=0.0)


def test_one_alone_lives_on(population):
    assert succeed(population[:1], parents=5, elites=5) == population[:1]
    assert succeed(population[:1], parents=5, elites=0) == population[:1]


def test_more_parents_or_elites_than_there_are_agents_are_refused(population):
    with pytest.raises(ValueError, match=r"evolution\.parents = 7: must be between 2 and 6"):
        succeed(population, parents=7)
    with pytest.raises(ValueError, match=r"evolution\.elites = 9: must be between 0 and 6"):
        succeed(population, elites=9)
