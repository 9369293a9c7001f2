"""The evolution strategy's arithmetic: noise, what a pair's difference weighs, and where the mean goes."""

import pytest
import torch

from evolution.strategy import b_mask, direction, mirrored, moved, rank_one_noise, standardised

SHAPES = {"x.lora_A.weight": (4, 30), "x.lora_B.weight": (50, 4), "y.lora_A.weight": (4, 20), "y.lora_B.weight": (9, 4)}
"""An adapter of two modules: 120 numbers of A, 200 of B, 80 of A, 36 of B."""


def test_noise_is_of_rank_one_in_each_b_and_nothing_in_a():
    noise = rank_one_noise(SHAPES, 500, seed=3)
    assert noise.shape == (500, 436)
    assert not noise[:, :120].any()
    assert not noise[:, 320:400].any()
    for start, rows in ((120, 50), (400, 9)):
        part = noise[:, start : start + rows * 4].view(500, rows, 4)
        assert torch.linalg.matrix_rank(part[:20], rtol=1e-4).tolist() == [1] * 20
        assert part.mean().abs() < 0.05
        assert part.square().mean() == pytest.approx(1, abs=0.15)
    assert torch.equal(noise, rank_one_noise(SHAPES, 500, seed=3))
    assert not torch.equal(noise, rank_one_noise(SHAPES, 500, seed=4))


def test_the_two_of_a_pair_stand_side_by_side_at_the_same_distance_from_the_mean():
    mean, noise = torch.randn(436, generator=torch.Generator().manual_seed(0)), rank_one_noise(SHAPES, 3, seed=0)
    members = mirrored(mean, noise, 0.5)
    assert members.shape == (6, 436)
    assert torch.allclose(members[0::2] - mean, 0.5 * noise, atol=1e-6)
    assert torch.allclose(members[0::2] + members[1::2], 2 * mean.expand(3, -1), atol=1e-5)


def test_differences_count_by_their_spread_and_none_for_more_than_two_of_it():
    difference = torch.tensor([1.0, -1.0, 1.0, -1.0, 30.0])
    z = standardised(difference)
    assert torch.allclose(z, standardised(100 * difference))
    assert z[4] == 2
    assert z[0] == -z[1] == pytest.approx(1 / (904 / 5) ** 0.5)
    assert not standardised(torch.zeros(4)).any()


def test_the_mean_climbs_a_hill_by_what_its_samples_come_to():
    target = torch.randn(436, generator=torch.Generator().manual_seed(1)) * b_mask(SHAPES)
    mean, fitness = torch.zeros(436), lambda rows: -(rows - target).square().sum(dim=1)
    before = fitness(mean[None]).item()
    for seed in range(60):
        noise = rank_one_noise(SHAPES, 100, seed)
        found = direction(noise, fitness(mirrored(mean, noise, 0.1)))
        mean = moved(mean, found, 0.3, torch.zeros(436))
    assert fitness(mean[None]).item() > 0.1 * before  # negative: nine tenths of the way, squared
    assert not mean[:120].any()


def test_a_direction_is_that_of_the_gradient_the_nearer_the_more_pairs_there_are():
    slope = torch.randn(436, generator=torch.Generator().manual_seed(2)) * b_mask(SHAPES)
    near = []
    for pairs in (20, 2000):
        noise = rank_one_noise(SHAPES, pairs, seed=5)
        near.append(torch.cosine_similarity(direction(noise, mirrored(torch.zeros(436), noise, 1) @ slope), slope, 0))
    assert near[0] < near[1]
    assert near[1] > 0.9


def test_decay_takes_from_b_alone():
    mean, shares = torch.ones(436), 0.1 * b_mask(SHAPES)
    after = moved(mean, torch.zeros(436), 5.0, shares)
    assert torch.equal(after[:120], torch.ones(120))
    assert torch.allclose(after[120:320], torch.full((200,), 0.9))
