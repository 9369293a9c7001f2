"""The losses, on numbers worked out by hand."""

import pytest
import torch

from trainers.learning.config import LearnConfig
from trainers.learning.critic import explained_variance
from trainers.learning.learner import Evaluated, approx_kl
from trainers.learning.ppo import PPO, ppo_loss
from trainers.learning.reinforce import Reinforce


def test_before_any_update_ppo_is_the_policy_gradient():
    log_prob = torch.tensor([-0.3, -1.2], requires_grad=True)
    advantage = torch.tensor([2.0, -1.0])
    ppo_loss(log_prob, log_prob.detach(), advantage, clip=0.2).sum().backward()
    torch.testing.assert_close(log_prob.grad, -advantage)


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "has_gradient"),
    [(1.5, 1.0, -1.2, False), (0.5, 1.0, -0.5, True), (1.5, -1.0, 1.5, True), (0.5, -1.0, 0.8, False)],
)
def test_ppo_stops_pushing_beyond_the_clip_but_always_pulls_back(ratio, advantage, loss, has_gradient):
    old = torch.zeros(1)
    log_prob = torch.tensor([ratio]).log().requires_grad_()
    result = ppo_loss(log_prob, old, torch.tensor([advantage]), clip=0.2)
    result.sum().backward()
    assert result.item() == pytest.approx(loss, abs=1e-6)
    assert (log_prob.grad.item() != 0) == has_gradient


@pytest.mark.parametrize(("learner", "loss"), [(Reinforce, [1.5, -2.0]), (PPO, [-3.6, 0.8])])
def test_reinforce_weighs_log_probabilities_by_advantage_and_ppo_clipped_ratios(tiny_policy, learner, loss):
    log_prob, advantage = torch.tensor([-0.5, -2.0]), torch.tensor([3.0, -1.0])
    old = torch.tensor([-1.5, -1.0])  # the ratios are e and 1 / e, beyond the clip
    rows = Evaluated(torch.zeros(2, 5), log_prob, old, advantage, torch.ones(2, 5, dtype=torch.bool), None)
    assert learner(tiny_policy, LearnConfig(clip=0.2)).loss(rows).tolist() == pytest.approx(loss)


def test_approx_kl_is_zero_for_equal_policies_and_unbiased_for_others():
    p, q = torch.tensor([0.7, 0.2, 0.1]), torch.tensor([0.5, 0.3, 0.2])
    assert approx_kl(p.log(), p.log()).abs().max() == 0
    estimate = (p * approx_kl(q.log(), p.log())).sum()
    assert estimate.item() == pytest.approx((p * (p / q).log()).sum().item(), abs=1e-6)
    assert (approx_kl(q.log(), p.log()) >= 0).all()


def test_explained_variance_tells_perfect_from_constant_from_wrong():
    target = torch.tensor([1.0, 2.0, 3.0])
    assert explained_variance(target, target) == 1.0
    assert explained_variance(torch.full((3,), 9.0), target) == pytest.approx(0.0)
    assert explained_variance(-target, target) < 0
    assert explained_variance(target, torch.ones(3)) == 0.0
