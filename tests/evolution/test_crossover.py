"""What a child has of its parents."""

from typing import get_args

import pytest
import torch

from evolution.config import Crossover
from evolution.crossover import (
    CROSSOVERS,
    clone,
    layer_of,
    mean,
    merge_products,
    uniform_components,
    uniform_layers,
)
from evolution.genome import factors, product_norms


def same(first, second) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def products(adapter) -> dict[str, torch.Tensor]:
    return {b.removesuffix(".lora_B.weight"): adapter[b] @ adapter[a] for a, b in factors(adapter)}


def chance(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_config_names_every_crossover_there_is():
    assert set(get_args(Crossover)) == set(CROSSOVERS)


@pytest.mark.parametrize("crossover", CROSSOVERS.values(), ids=CROSSOVERS)
def test_a_child_of_twins_is_like_them(adapter, crossover):
    child = crossover(adapter(0), adapter(0), chance(0))
    for path, product in products(adapter(0)).items():
        torch.testing.assert_close(products(child)[path], product, atol=1e-5, rtol=1e-5)
    assert crossover is merge_products or same(child, adapter(0))  # which has another basis


@pytest.mark.parametrize("crossover", CROSSOVERS.values(), ids=CROSSOVERS)
def test_parents_stay_as_they_were_even_when_the_child_changes(adapter, crossover):
    first, second = adapter(1), adapter(2)
    for tensor in crossover(first, second, chance(0)).values():
        tensor.zero_()
    assert same(first, adapter(1))
    assert same(second, adapter(2))


@pytest.mark.parametrize("crossover", CROSSOVERS.values(), ids=CROSSOVERS)
def test_the_same_seed_gives_the_same_child(adapter, crossover):
    assert same(crossover(adapter(1), adapter(2), chance(4)), crossover(adapter(1), adapter(2), chance(4)))


def test_the_mean_lies_halfway_and_knows_no_first_parent(adapter):
    first, second = adapter(1), adapter(2)
    child = mean(first, second, chance(0))
    assert same(child, mean(second, first, chance(1)))
    for name in first:
        torch.testing.assert_close(child[name] - first[name], second[name] - child[name])


def test_each_layer_is_whole_from_one_parent_and_every_product_one_that_a_parent_had(adapter):
    first, second = adapter(1), adapter(2)
    norms = product_norms(first), product_norms(second)
    seen = set()
    for seed in range(30):
        child = uniform_layers(first, second, chance(seed))
        origin = {}
        for name, tensor in child.items():
            parent = 0 if torch.equal(tensor, first[name]) else 1
            assert torch.equal(tensor, (first, second)[parent][name])
            origin.setdefault(layer_of(name), set()).add(parent)
        assert all(len(parents) == 1 for parents in origin.values())
        for path, norm in product_norms(child).items():
            assert norm in (norms[0][path], norms[1][path])
        seen.add(tuple(sorted((layer, *parents) for layer, parents in origin.items())))
    assert len(seen) == 4


def test_the_coin_is_fair(adapter):
    first, second = adapter(1), adapter(2)
    generator = chance(0)
    name = "layers.3.self_attn.q_proj.lora_A.weight"
    heads = sum(torch.equal(uniform_layers(first, second, generator)[name], first[name]) for _ in range(400))
    assert 160 < heads < 240


def test_the_layer_is_the_number_in_the_name():
    assert layer_of("model.layers.22.self_attn.q_proj.lora_A.weight") == 22
    with pytest.raises(ValueError, match=r"tensor 'lm_head\.lora_A\.weight' names no layer"):
        layer_of("lm_head.lora_A.weight")


def test_each_component_is_whole_from_one_parent(adapter):
    first, second = adapter(1), adapter(2)
    seen = set()
    for seed in range(20):
        child = uniform_components(first, second, chance(seed))
        for a, b in factors(first):
            for i in range(len(first[a])):
                parent = first if torch.equal(child[a][i], first[a][i]) else second
                assert torch.equal(child[a][i], parent[a][i])
                assert torch.equal(child[b][:, i], parent[b][:, i])
                seen.add((a, i, parent is first))
    assert len(seen) == 2 * sum(len(first[a]) for a, _ in factors(first))


def test_a_merge_is_the_best_of_its_rank_with_the_norm_of_its_parents(adapter):
    first, second = adapter(1), adapter(2)
    child = merge_products(first, second, chance(0))
    one, other, merged = products(first), products(second), products(child)
    for path, product in merged.items():
        u, values, v = torch.linalg.svd((one[path] + other[path]) / 2, full_matrices=False)
        best = u[:, :3] @ values[:3].diag() @ v[:3]
        norm = (one[path].norm() + other[path].norm()) / 2
        torch.testing.assert_close(product, best * norm / best.norm(), atol=1e-4, rtol=1e-4)
    for a, _ in factors(first):
        rows = torch.cat([first[a], second[a]]).square().sum(1).mean()
        torch.testing.assert_close(child[a] @ child[a].T, rows * torch.eye(3), atol=1e-3, rtol=1e-3)


def test_a_merge_of_opposites_is_not_noise_at_full_strength(adapter):
    first = adapter(1)
    opposite = {name: tensor * (1 if "lora_A" in name else -1 - 1e-6) for name, tensor in first.items()}
    parents, child = product_norms(first), product_norms(merge_products(first, opposite, chance(0)))
    assert all(norm < 1e-3 * parents[path] for path, norm in child.items())


def test_newborns_merge_into_one_that_does_nothing(adapter):
    newborn = {name: tensor * ("lora_A" in name) for name, tensor in adapter(1).items()}
    child = merge_products(newborn, newborn, chance(0))
    assert all(tensor.isfinite().all() for tensor in child.values())
    assert all(norm == 0 for norm in product_norms(child).values())


def test_twenty_generations_of_the_mean_lose_what_a_merge_keeps(adapter):
    norms = {}
    for crossover in (mean, merge_products, uniform_components):
        family = [adapter(seed) for seed in range(6)]
        before = sum(sum(product_norms(member).values()) for member in family)
        for generation in range(20):
            family = [
                crossover(family[i], family[(i + 1 + generation % 5) % 6], chance(generation * 6 + i)) for i in range(6)
            ]
        norms[crossover] = sum(sum(product_norms(member).values()) for member in family) / before
    assert norms[mean] < 0.6
    assert norms[merge_products] == pytest.approx(1, rel=0.1)
    assert norms[uniform_components] == pytest.approx(1, rel=0.5)


def test_a_clone_is_its_first_parent(adapter):
    assert same(clone(adapter(1), adapter(2), chance(0)), adapter(1))
