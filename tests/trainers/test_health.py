"""Figures of health are those of the definition, worked out by hand."""

import numpy as np
import pytest
import torch

from trainers.learning.health import health, texts_read
from trainers.rollout import Trajectory

TEXTS = [" food north", " food south", " no food"]


def read(text: np.ndarray) -> Trajectory:
    """A life in which text (T, M) was read."""
    zero, never = np.zeros(text.shape, np.float32), np.zeros(text.shape, bool)
    legal, alive = np.ones((*text.shape, 5), bool), ~never
    return Trajectory(TEXTS, text, legal, zero.astype(int), zero, zero, zero, alive, never, never, zero)


def test_shares_are_of_an_agents_own_steps_in_all_worlds():
    text = np.array([[0, 1, 0, 1], [2, 1, 0, 1], [2, 1, 0, 0]])  # two worlds of two agents
    alive = np.ones(text.shape, bool)
    alive[2, 3] = False
    owner, number, share = texts_read(text, alive, texts=3, agents=2)
    assert list(zip(owner.tolist(), number.tolist(), share.tolist(), strict=True)) == [
        (0, 0, pytest.approx(4 / 6)),
        (0, 2, pytest.approx(2 / 6)),
        (1, 1, 1),
    ]


def test_health_is_what_one_finds_by_hand(tiny_policy):
    text = np.random.default_rng(0).integers(3, size=(20, 6))
    figures = health(tiny_policy, read(text))
    information, divergence = [], []
    for agent in range(6):
        p = torch.tensor(tiny_policy.logits(TEXTS, np.full(3, agent))).softmax(1).double().numpy()
        base = torch.tensor(tiny_policy.logits(TEXTS, np.full(3, -1))).softmax(1).double().numpy()
        weight = np.bincount(text[:, agent], minlength=3) / 20
        marginal = weight @ p
        information.append(-(marginal * np.log(marginal)).sum() + (weight[:, None] * p * np.log(p)).sum())
        divergence.append((weight[:, None] * p * np.log(p / base)).sum())
    assert figures["mutual_information"] == pytest.approx(np.mean(information), abs=1e-5)
    assert figures["kl_to_base"] == pytest.approx(np.mean(divergence), abs=1e-5)


def test_who_does_not_look_shares_no_information_and_a_newborn_is_the_base(tiny_policy):
    tiny_policy.mind.bank.reset(seed=0)
    text = np.random.default_rng(0).integers(3, size=(20, 6))
    assert health(tiny_policy, read(text))["kl_to_base"] == pytest.approx(0, abs=1e-6)
    assert health(tiny_policy, read(text * 0))["mutual_information"] == pytest.approx(0, abs=1e-6)
