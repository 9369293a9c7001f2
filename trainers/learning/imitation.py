"""Self-imitation learning (Oh et al. 2018, arXiv:1806.05635): do again what turned out better than expected.

The loss is -log pi(a|s) * max(R - V(s), 0), with the critic as it is now, so what is no surprise any more teaches
nothing. Departures: places are drawn evenly, not by priority; R is the lambda-return and not the sum of all rewards.
"""

import numpy as np
import torch
from torch import Tensor

from agents.optimiser import StackedAdam
from agents.policy import Policy
from trainers.config import LearnConfig
from trainers.learning.losses import reinforce_loss
from trainers.learning.replay import Replay

STEPS = 2
"""Minibatches of its own memories from which an adapter learns after a life."""


def imitate(
    policy: Policy,
    optimiser: StackedAdam,
    config: LearnConfig,
    replay: Replay,
    cohort: slice,
    is_resting: Tensor,
    learning_rate: Tensor,
    rng: np.random.Generator,
) -> None:
    """Teach the adapters of a cohort, which the bank gathers gradients for, each from its own memories.

    is_resting: (P,) bool, who does not learn now. learning_rate: (P,).
    """
    agents = cohort.start + np.flatnonzero(~is_resting[cohort].numpy() & (replay.written[cohort] > 0))
    if not len(agents):
        return
    columns = {name: column.reshape(-1, *column.shape[2:]) for name, column in replay.columns.items()}
    surprise = columns["returned"] - policy.values(replay.texts)[columns["text"]]  # (P * C,); means nothing where empty
    surprise /= surprise[replay.filled().reshape(-1)].std() + 1e-8
    groups = torch.from_numpy(agents)
    is_learning = torch.zeros_like(is_resting)
    is_learning[groups] = True
    for _ in range(STEPS):
        place = replay.sample(agents, config.minibatch, rng).reshape(-1)
        told = [replay.texts[i] for i in columns["text"][place]]
        action, legal = torch.from_numpy(columns["action"][place]).long(), torch.from_numpy(columns["legal"][place])
        log_prob, _ = policy.evaluate(told, groups, action, legal)
        loss = reinforce_loss(log_prob, torch.from_numpy(surprise[place]).clamp(min=0))
        loss.view(len(agents), -1).mean(dim=1).sum().backward()
        optimiser.step(learning_rate, config.max_grad_norm, is_learning)
