"""Imitation learning of what turned out well, whoever did it.

The loss is that of self-imitation learning (Oh et al. 2018, arXiv:1806.05635), -log pi(a|s) * max(R - V(s), 0), with
the critic as it is now, so what is no surprise any more teaches nothing. Departures: examples are drawn evenly, not by
priority; R is the lambda-return and not the sum of all rewards; with `learn.pool` all follow the mean of their
gradients here too.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from agents.optimiser import StackedAdam, share_mean
from agents.policy import Policy
from trainers.learning.config import LearnConfig
from trainers.rollout import Trajectory, spread

STEPS = 2
"""Minibatches of examples from which an adapter learns after a rollout."""


class Examples(NamedTuple):
    """S steps that somebody took."""

    texts: Sequence[str]  # the distinct texts, by number
    text: np.ndarray  # (S,) number of the text read
    legal: np.ndarray  # (S, A) bool
    action: np.ndarray  # (S,) int
    advantage: np.ndarray  # (S,) float32, how much better than expected it turned out


Pools = Sequence[np.ndarray]
"""For each agent the examples that it may learn from, by number."""
Demonstrations = tuple[Examples, Pools]


def examples_of(policy: Policy, t: Trajectory, returned: np.ndarray) -> Examples:
    """All steps of a rollout, by their number in the flattened trajectory; returned: (T * M,)."""
    text = t.text.reshape(-1)
    worth = sil_advantage(policy, t.texts, text, returned, t.is_alive.reshape(-1))
    return Examples(t.texts, text, t.legal.reshape(len(text), -1), t.action.reshape(-1), worth)


def sil_advantage(
    policy: Policy, texts: Sequence[str], text: np.ndarray, returned: np.ndarray, rows: np.ndarray
) -> np.ndarray:
    """Returns (S,) less what the critic expects now, in standard deviations of the rows that mean something.

    text: (S,) numbers of the texts. returned: (S,). rows: (S,) bool.
    """
    advantage = returned - policy.values(texts)[text]
    return advantage / (spread(advantage[rows]) + 1e-8)


def imitate(
    policy: Policy,
    optimiser: StackedAdam,
    config: LearnConfig,
    examples: Examples,
    pools: Pools,
    chunk: slice,
    is_stopped: Tensor,
    learning_rate: Tensor,
    rng: np.random.Generator,
) -> None:
    """Teach the adapters of a chunk, each from a pool of examples of its own; with `learn.pool` by their mean gradient.

    Who has no examples learns nothing. is_stopped: (P,) bool, who does not learn now. learning_rate: (P,).
    """
    counts = np.array([len(pool) for pool in pools])
    agents = chunk.start + np.flatnonzero(~is_stopped[chunk].numpy() & (counts[chunk] > 0))
    if not len(agents):
        return
    is_learning = torch.zeros_like(is_stopped)
    is_learning[torch.from_numpy(agents)] = True
    at_once = max(1, policy.network.rows_at_once // config.minibatch)
    for _ in range(STEPS):
        draws = (rng.random((len(agents), config.minibatch)) * counts[agents, None]).astype(np.int64)
        drawn = np.stack([pools[agent][own] for agent, own in zip(agents, draws, strict=True)])
        with policy.network.bank.gathering(chunk) as gradients:
            for start in range(0, len(agents), at_once):
                part = slice(start, start + at_once)
                _backward(policy, examples, drawn[part], torch.from_numpy(agents[part]))
        if config.pool:
            share_mean(gradients, torch.from_numpy(agents - chunk.start))
        optimiser.step(chunk, gradients, learning_rate, config.max_grad_norm, is_learning)


def _backward(policy: Policy, examples: Examples, drawn: np.ndarray, groups: Tensor) -> None:
    """Backward of the loss. drawn: (G, R) numbers of examples, a row for each of the adapters `groups` (G,)."""
    rows = drawn.reshape(-1)
    texts = [examples.texts[i] for i in examples.text[rows]]
    action, legal = torch.from_numpy(examples.action[rows]).long(), torch.from_numpy(examples.legal[rows])
    log_prob, _ = policy.evaluate(texts, groups, action, legal)
    loss = -log_prob * torch.from_numpy(examples.advantage[rows]).clamp(min=0)
    loss.view(drawn.shape).mean(dim=1).sum().backward()
