"""Distances between what adapters do, and not between how they are written."""

from itertools import combinations
from math import isnan

import pytest
import torch

from evolution import Genome
from evolution.genome import diversity, product_norms


def products(adapter) -> dict[str, torch.Tensor]:
    paths = [name.removesuffix(".lora_A.weight") for name in adapter if name.endswith("lora_A.weight")]
    return {p: (adapter[f"{p}.lora_B.weight"] @ adapter[f"{p}.lora_A.weight"]).double() for p in paths}


def rotated(adapter, seed: int):
    """The same products, written in another basis: B R and the inverse of R times A."""
    generator = torch.Generator().manual_seed(seed)
    changed = {}
    for path in products(adapter):
        a, b = adapter[f"{path}.lora_A.weight"], adapter[f"{path}.lora_B.weight"]
        basis = torch.eye(len(a)) + 0.3 * torch.randn(len(a), len(a), generator=generator)
        changed[f"{path}.lora_A.weight"] = torch.linalg.inv(basis) @ a
        changed[f"{path}.lora_B.weight"] = b @ basis
    return changed


def distance(first, second) -> float:
    one, other = products(first), products(second)
    return float(sum((one[path] - other[path]).square().sum() for path in one).sqrt())


def test_diversity_is_the_mean_distance_of_all_pairs(adapter):
    adapters = [adapter(i) for i in range(5)]
    expected = sum(distance(one, other) for one, other in combinations(adapters, 2)) / 10
    assert diversity(adapters) == pytest.approx(expected, rel=1e-4)
    assert diversity(adapters[:2]) == pytest.approx(distance(*adapters[:2]), rel=1e-4)


def test_equal_adapters_have_no_diversity_nor_has_one_alone(adapter):
    assert diversity([adapter(0)] * 4) < 1e-2
    assert diversity([adapter(0)]) == 0
    assert diversity([]) == 0


def test_diversity_does_not_depend_on_the_basis_of_the_factors(adapter):
    assert diversity([adapter(0), rotated(adapter(0), 1)]) < 1e-2
    adapters = [adapter(i) for i in range(4)]
    turned = [rotated(one, seed) for seed, one in enumerate(adapters)]
    assert diversity(turned) == pytest.approx(diversity(adapters), rel=1e-3)


def test_diversity_does_not_depend_on_the_order_and_grows_with_distance(adapter):
    adapters = [adapter(i) for i in range(4)]
    assert diversity(adapters[::-1]) == pytest.approx(diversity(adapters), rel=1e-4)
    doubled = [{n: 2 * t if "lora_B" in n else t for n, t in one.items()} for one in adapters]
    assert diversity(doubled) == pytest.approx(2 * diversity(adapters), rel=1e-4)


def test_product_norms_are_the_norms_of_the_products(adapter):
    norms = product_norms(adapter(3))
    expected = {path: float(product.norm()) for path, product in products(adapter(3)).items()}
    assert norms == {path: pytest.approx(norm, rel=1e-4) for path, norm in expected.items()}
    newborn = {n: torch.zeros_like(t) if "lora_B" in n else t for n, t in adapter(3).items()}
    assert set(product_norms(newborn).values()) == {0.0}


def test_a_life_changes_adapter_and_fitness_and_nothing_else(adapter):
    genome = Genome(id=4, adapter=adapter(0), hyperparameters={"x": 1.0}, generation=2, parents=(1, 3), operator="mean")
    assert isnan(genome.fitness)
    learned = adapter(1)
    after = genome.measured(2.5, learned)
    assert after.fitness == 2.5
    assert all(torch.equal(tensor, after.adapter[name]) for name, tensor in learned.items())
    assert (after.id, after.hyperparameters, after.generation, after.parents) == (4, {"x": 1.0}, 2, (1, 3))
    assert after.operator == "mean"
    assert isnan(genome.fitness)
