"""Noise has the size that was asked for, and none asked is none."""

from math import nan
from typing import get_args

import pytest
import torch

from evolution.config import EvolutionConfig, Mutation
from evolution.mutation import CLOSE, MUTATIONS, NOISE_FLOOR, add_noise, add_safe_noise, mutate_hyperparameters


def chance(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_config_names_every_mutation_there_is():
    assert set(get_args(Mutation)) == set(MUTATIONS)


def test_each_mutation_takes_its_own_setting(adapter):
    settings, before = EvolutionConfig(mutation_std=0.3, mutation_kl=0.04), adapter(0)

    def divergence(first, second) -> float:
        return sum(float((first[name] - second[name]).square().mean()) for name in first)

    noisy = MUTATIONS["noise"](before, settings, chance(0), None)
    assert all(torch.equal(noisy[name], tensor) for name, tensor in add_noise(before, 0.3, chance(0)).items())
    safe = MUTATIONS["safe"](before, settings, chance(0), divergence)
    expected = add_safe_noise(before, 0.04, chance(0), divergence)
    assert all(torch.equal(safe[name], tensor) for name, tensor in expected.items())


def test_safe_mutation_without_a_divergence_is_refused(adapter):
    with pytest.raises(ValueError, match=r"evolution\.mutation = 'safe': must come with a divergence"):
        MUTATIONS["safe"](adapter(0), EvolutionConfig(), chance(0), None)


@pytest.fixture
def big() -> dict[str, torch.Tensor]:
    """Tensors of very different sizes, one of zeros and one below the floor."""
    size = (200, 100)
    return {
        "large": 30 * torch.randn(size, generator=chance(0)),
        "small": 0.02 + 0.01 * torch.randn(size, generator=chance(1)),
        "tiny": 1e-4 * torch.randn(size, generator=chance(2)),
        "zero": torch.zeros(size),
    }


def test_noise_of_size_zero_changes_nothing(adapter):
    changed = add_noise(adapter(0), 0.0, chance(0))
    assert all(torch.equal(changed[name], tensor) for name, tensor in adapter(0).items())


@pytest.mark.parametrize("std", [0.05, 0.5])
def test_noise_is_relative_to_each_tensors_own_size_above_a_floor(big, std):
    changed = add_noise(big, std, chance(3))
    for name, tensor in big.items():
        noise = changed[name] - tensor
        size = max(float(tensor.square().mean().sqrt()), NOISE_FLOOR)
        assert float(noise.std()) == pytest.approx(std * size, rel=0.05)
        assert abs(float(noise.mean())) < 0.05 * std * size


def test_noise_differs_between_tensors_and_seeds_and_repeats_with_the_seed(big):
    changed = add_noise(big, 0.1, chance(3))
    again, other = add_noise(big, 0.1, chance(3)), add_noise(big, 0.1, chance(4))
    assert all(torch.equal(changed[name], again[name]) for name in big)
    assert not any(torch.equal(changed[name], other[name]) for name in big)
    correlation = torch.corrcoef(torch.stack([(changed[n] - big[n]).flatten() for n in ("large", "zero")]))[0, 1]
    assert abs(float(correlation)) < 0.05


def test_the_original_is_not_touched(big):
    kept = {name: tensor.clone() for name, tensor in big.items()}
    add_noise(big, 0.5, chance(0))
    assert all(torch.equal(big[name], kept[name]) for name in big)


@pytest.mark.parametrize("std", [-0.01, nan])
def test_noise_of_a_negative_size_is_refused(adapter, std):
    with pytest.raises(ValueError, match=r"mutation_std = .*: must be finite and 0 or more"):
        add_noise(adapter(0), std, chance(0))


def test_hyperparameters_go_up_down_or_stay_by_the_factor_at_equal_odds():
    values = {"learning_rate": 1e-3, "entropy_coef": 2.0}
    generator = chance(0)
    counts = {name: [0, 0, 0] for name in values}
    together = set()
    for _ in range(600):
        changed = mutate_hyperparameters(values, 1.25, generator)
        choices = []
        for name, value in values.items():
            choice = [pytest.approx(value / 1.25), pytest.approx(value), pytest.approx(value * 1.25)].index(
                changed[name]
            )
            counts[name][choice] += 1
            choices.append(choice)
        together.add(tuple(choices))
    assert all(150 < count < 250 for row in counts.values() for count in row)
    assert len(together) == 9


def test_a_factor_of_one_leaves_hyperparameters_as_they_were():
    values = {"learning_rate": 1e-3, "entropy_coef": 2.0}
    assert mutate_hyperparameters(values, 1.0, chance(0)) == values


@pytest.mark.parametrize("steepness", [1e-4, 1.0, 1e4])
def test_safe_noise_changes_behaviour_by_what_was_asked_whatever_the_weights_do(adapter, steepness):
    def divergence(first, second) -> float:
        return steepness * sum(float((first[name] - second[name]).square().mean()) for name in first)

    changed = add_safe_noise(adapter(0), 0.02, chance(0), divergence)
    assert 0.02 / CLOSE < divergence(adapter(0), changed) < 0.02 * CLOSE
    again, other = (add_safe_noise(adapter(0), 0.02, chance(seed), divergence) for seed in (0, 1))
    assert all(torch.equal(changed[name], again[name]) for name in changed)
    assert not any(torch.equal(changed[name], other[name]) for name in changed)


def test_safe_noise_ends_where_behaviour_does_not_change(adapter):
    changed = add_safe_noise(adapter(0), 0.02, chance(0), lambda first, second: 0.0)
    assert all(tensor.isfinite().all() for tensor in changed.values())
    unchanged = add_safe_noise(adapter(0), 0.0, chance(0), lambda first, second: 0.0)
    assert all(torch.equal(unchanged[name], tensor) for name, tensor in adapter(0).items())


def test_safe_noise_is_the_nearest_try_where_what_is_asked_cannot_be_had(adapter):
    """Behaviour that cannot change by more than 0.01, or is no number, is no reason to go ever farther."""

    def saturated(first, second) -> float:
        way = sum(float((second[name] - first[name]).square().sum()) for name in first)
        return 0.01 * way / (way + 1)

    before, changed = adapter(0), add_safe_noise(adapter(0), 0.02, chance(0), saturated)
    tries: list[float] = []
    add_safe_noise(before, 0.02, chance(0), lambda *pair: tries.append(saturated(*pair)) or tries[-1])
    assert saturated(before, changed) == max(tries)
    unchanged = add_safe_noise(before, 0.02, chance(0), lambda first, second: float("nan"))
    assert all(torch.equal(unchanged[name], tensor) for name, tensor in before.items())


def test_a_negative_divergence_is_refused(adapter):
    with pytest.raises(ValueError, match=r"mutation_kl = -1: must be finite and 0 or more"):
        add_safe_noise(adapter(0), -1, chance(0), lambda first, second: 0.0)
