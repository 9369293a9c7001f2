"""Figures of health are those of the definition, worked out by hand."""

import numpy as np
import pytest
import torch

from trainers.learning.health import MOST_STEPS, decisions, health, sampled
from trainers.rollout import Trajectory

TEXTS = [" food north", " food south", " no food"]


def read(text: np.ndarray) -> Trajectory:
    """A trajectory in which text (T, M) was read."""
    zero, never = np.zeros(text.shape, np.float32), np.zeros(text.shape, bool)
    legal, alive = np.ones((*text.shape, 5), bool), ~never
    return Trajectory(TEXTS, text, legal, zero.astype(int), zero, zero, zero, alive, never, never, zero, alive)


def test_shares_are_of_an_agents_own_steps_in_all_worlds():
    text = np.array([[0, 1, 0, 1], [2, 1, 0, 1], [2, 1, 0, 0]])  # two worlds of two agents
    alive = np.ones(text.shape, bool)
    alive[2, 3] = False
    owner, number, _, share = decisions(text, alive, np.ones((3, 4, 0), bool), agents=2)
    assert list(zip(owner.tolist(), number.tolist(), share.tolist(), strict=True)) == [
        (0, 0, pytest.approx(4 / 6)),
        (0, 2, pytest.approx(2 / 6)),
        (1, 1, 1),
    ]


def test_the_same_text_is_another_decision_where_other_actions_are_allowed():
    text, alive = np.zeros((4, 1), int), np.ones((4, 1), bool)
    legal = np.array([[[True, True]], [[True, False]], [[True, True]], [[True, True]]])
    owner, number, allowed, share = decisions(text, alive, legal, agents=1)
    assert owner.tolist() == number.tolist() == [0, 0]
    assert allowed.tolist() == [[True, False], [True, True]]
    assert share.tolist() == [0.25, 0.75]


def test_a_sample_is_of_each_agents_own_steps_from_first_to_last():
    alive = np.ones((300, 4), bool)  # two worlds of two agents
    alive[5:, 1::2] = False  # the second agent lives shortly
    kept = sampled(alive, agents=2)
    assert kept[:, 0::2].sum() == MOST_STEPS
    assert kept[[0, -1], [0, 2]].all()
    np.testing.assert_array_equal(kept[:, 1::2], alive[:, 1::2])
    early = kept[:150, 0::2].sum()
    assert abs(early - MOST_STEPS / 2) <= 1, "evenly"
    alive[:, 1::2] = False
    assert not sampled(alive, agents=2)[:, 1::2].any()


def test_health_is_what_one_finds_by_hand(tiny_policy):
    text = np.random.default_rng(0).integers(3, size=(MOST_STEPS, 6))
    figures = health(tiny_policy, read(text))
    information, divergence = [], []
    for agent in range(6):
        p = torch.tensor(tiny_policy.logits(TEXTS, np.full(3, agent))).softmax(1).double().numpy()
        base = torch.tensor(tiny_policy.logits(TEXTS, np.full(3, -1))).softmax(1).double().numpy()
        weight = np.bincount(text[:, agent], minlength=3) / MOST_STEPS
        marginal = weight @ p
        information.append(-(marginal * np.log(marginal)).sum() + (weight[:, None] * p * np.log(p)).sum())
        divergence.append((weight[:, None] * p * np.log(p / base)).sum())
    assert figures["mutual_information"] == pytest.approx(np.mean(information), abs=1e-5)
    assert figures["kl_to_base"] == pytest.approx(np.mean(divergence), abs=1e-5)


def test_who_does_not_look_shares_no_information_and_a_newborn_is_the_base(tiny_policy):
    tiny_policy.network.bank.reset(seed=0)
    text = np.random.default_rng(0).integers(3, size=(20, 6))
    assert health(tiny_policy, read(text))["kl_to_base"] == pytest.approx(0, abs=1e-6)
    assert health(tiny_policy, read(text * 0))["mutual_information"] == pytest.approx(0, abs=1e-6)
