"""What a child has of its parents."""

import pytest
import torch

from evolution.crossover import CROSSOVERS, layer_of, mean, swap_layers
from evolution.genome import product_norms


def same(first, second) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def chance(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("crossover", CROSSOVERS.values(), ids=CROSSOVERS)
def test_a_child_of_twins_is_like_them(adapter, crossover):
    assert same(crossover(adapter(0), adapter(0), chance(0)), adapter(0))


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
        child = swap_layers(first, second, chance(seed))
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
    heads = sum(torch.equal(swap_layers(first, second, generator)[name], first[name]) for _ in range(400))
    assert 160 < heads < 240


def test_the_layer_is_the_number_in_the_name():
    assert layer_of("model.layers.22.self_attn.q_proj.lora_A.weight") == 22
    with pytest.raises(ValueError, match=r"tensor 'lm_head\.lora_A\.weight' names no layer"):
        layer_of("lm_head.lora_A.weight")
