"""How the critic learns what return follows a text: apart from the adapters, on features below them."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from agents.policy import Policy
from trainers.learning.config import LearnConfig
from trainers.rollout import Trajectory

MINIBATCH = 256


class CriticExamples(NamedTuple):
    """S more steps from which the critic learns, such as those of a replay buffer."""

    features: Tensor  # (texts, D) of each distinct text
    text: Tensor  # (S,) number of it
    target: Tensor  # (S,)


class CriticLearner:
    """Owns the critic's optimiser; the critic is the policy's."""

    def __init__(self, policy: Policy, config: LearnConfig):
        self.policy, self.config = policy, config
        self.optimiser = torch.optim.Adam(policy.critic.parameters(), config.critic_learning_rate)

    def learn(
        self, t: Trajectory, returns: Tensor, rng: np.random.Generator, more: Sequence[CriticExamples] = ()
    ) -> dict[str, float]:
        """Regress on the returns (S,) of a rollout, where somebody acted; and on as many others of each of `more`."""
        critic, features = self.policy.critic, self.policy.network.features(t.texts)  # one row a distinct text
        rows = np.flatnonzero(t.is_lived)
        text, predicted = (torch.from_numpy(column.reshape(-1)[rows]) for column in (t.text, t.value))
        returns, losses = returns[rows], []
        for _ in range(self.config.critic_epochs):
            for part in torch.from_numpy(rng.permutation(len(rows))).split(MINIBATCH):
                loss = (critic(features[text[part]]) - returns[part]).square().mean()
                losses.append(float(loss.detach()))
                for examples in more:
                    drawn = torch.from_numpy(rng.integers(len(examples.text), size=len(part)))
                    predictions = critic(examples.features[examples.text[drawn]])
                    loss = loss + (predictions - examples.target[drawn]).square().mean()
                self.optimiser.zero_grad()
                loss.backward()
                self.optimiser.step()
        return {"value_loss": float(np.mean(losses)), "explained_variance": explained_variance(predicted, returns)}


def explained_variance(predicted: Tensor, target: Tensor) -> float:
    """1 - Var[target - predicted] / Var[target]: 1 is perfect, 0 no better than a constant (or no variance)."""
    spread = target.var(correction=0)
    return float(1 - (target - predicted).var(correction=0) / spread) if spread > 0 else 0.0
