"""Minibatches give each agent its own samples, and each of them once."""

import numpy as np
import pytest
import torch

from trainers.learning.learner import minibatches


@pytest.mark.parametrize("cohort", [slice(0, 4), slice(1, 3), slice(3, 4)])
def test_each_agent_of_the_cohort_gets_each_of_its_samples_once(cohort):
    rng = np.random.default_rng(0)
    alive = rng.random((20, 3, 4)) < 0.6
    seen = [[] for _ in range(4)]
    for batch in minibatches(alive, cohort, 8, rng, torch.zeros(4, dtype=torch.bool)):
        assert batch.samples.shape[1] <= 8
        for agent, samples, keep in zip(batch.groups, batch.samples, batch.keep, strict=True):
            seen[agent].extend(samples[keep].tolist())
    for agent in range(4):
        own = [i for i in np.flatnonzero(alive.reshape(-1)) if i % 4 == agent]
        assert sorted(seen[agent]) == (own if agent in range(4)[cohort] else [])


def test_who_rests_is_left_out_from_the_next_minibatch_on():
    is_resting = torch.zeros(3, dtype=torch.bool)
    groups = []
    for batch in minibatches(np.ones((12, 1, 3), bool), slice(0, 3), 4, np.random.default_rng(0), is_resting):
        groups.append(batch.groups.tolist())
        is_resting[1] = True
    assert groups == [[0, 1, 2], [0, 2], [0, 2]]


def test_a_cohort_without_samples_has_no_minibatch():
    alive = np.zeros((5, 1, 2), bool)
    assert not list(minibatches(alive, slice(0, 2), 4, np.random.default_rng(0), torch.zeros(2, dtype=torch.bool)))
