"""Advantages of a group: what the same action after the same text came to for all."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from trainers.cli.parser import parse
from trainers.learning.groups import group_advantages
from trainers.rollout import gae
from trainers.stages import Generation, collect


def trajectory(text, action, is_alive):
    text, action, is_alive = np.array(text), np.array(action), np.array(is_alive)
    return SimpleNamespace(text=text, action=action, is_alive=is_alive, legal=np.ones((*text.shape, 3), bool))


def test_samples_of_one_text_and_action_share_their_mean_less_that_of_the_text():
    t = trajectory([[0, 0, 0], [0, 1, 1]], [[2, 2, 0], [0, 1, 1]], [[True, True, True], [True, True, True]])
    advantage = np.array([[4.0, 2.0, 1.0], [-3.0, 5.0, 7.0]], np.float32)
    found = group_advantages(t, advantage)
    # Text 0: mean 1, action 2 has 3, action 0 has -1. Text 1: met with one action alone.
    assert found.tolist() == [[2, 2, -2], [-2, 0, 0]]
    assert found.dtype == np.float32


def test_who_did_not_act_counts_for_nothing():
    t = trajectory([[0, 0, 0]], [[1, 2, 2]], [[True, True, False]])
    assert group_advantages(t, np.array([[1.0, 3.0, np.nan]])).tolist() == [[-1, 1, 0]]


def test_two_texts_with_actions_of_the_same_sum_are_kept_apart():
    t = trajectory([[0, 1, 0, 1]], [[2, 1, 0, 0]], [[True] * 4])
    assert group_advantages(t, np.array([[1.0, 10.0, 3.0, 20.0]])).tolist() == [[-1, -5, 1, 5]]


def test_a_learner_takes_them_and_leaves_returns_as_they_are(begun):
    run = begun("--learn.advantage", "group")
    trajectory = collect(run, Generation(0)).trajectory
    learner, rates = run.population.learner, (torch.ones(6), torch.zeros(6))
    group = learner.experience(trajectory, *rates)
    learner.config = replace(learner.config, advantage="gae")
    own = learner.experience(trajectory, *rates)
    assert torch.equal(group.returns, own.returns)
    expected = group_advantages(trajectory, gae(trajectory, learner.config.discount, learner.gae_lambda))
    known = expected[trajectory.is_alive]
    wanted = torch.from_numpy((expected - known.mean()) / (known.std() + 1e-8)).flatten()
    torch.testing.assert_close(group.advantage, wanted)
    assert not torch.allclose(group.advantage, own.advantage)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--learn.advantage", "own"], "learn.advantage = 'own': must be one of gae, group"),
        (
            ["--learn.advantage", "group", "--learn.algorithm", "online"],
            "learn.advantage = 'group': must be gae with learn.algorithm = online",
        ),
    ],
)
def test_what_it_does_not_go_with_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        parse([*given, "--run_dir", "runs/none"])
