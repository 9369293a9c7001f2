"""How the critic learns what a text promises: apart from the adapters, on features below them."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from agents.policy import Policy
from trainers.config import LearnConfig
from trainers.learning.losses import explained_variance
from trainers.learning.minibatches import Samples
from trainers.learning.replay import Replay

MINIBATCH = 256


class OldLessons(NamedTuple):
    """S steps of former lives."""

    features: Tensor  # (texts, D) of each distinct text
    text: Tensor  # (S,) number of it
    target: Tensor  # (S,)


class CriticLearner:
    """Owns the critic's optimiser; the critic is the policy's."""

    def __init__(self, policy: Policy, config: LearnConfig):
        self.policy, self.config = policy, config
        self.optimiser = torch.optim.Adam(policy.critic.parameters(), config.critic_learning_rate)

    def learn(
        self, samples: Samples, is_lived: Tensor, replay: Replay | None, rng: np.random.Generator
    ) -> dict[str, float]:
        """Towards the returns of a life, where somebody lived it, (S,) bool; and as much again of former lives."""
        critic, features = self.policy.critic, self.policy.mind.features(samples.texts)  # one row a distinct text
        rows = is_lived.nonzero()[:, 0]
        text = torch.from_numpy(samples.text)[rows]
        returns, predicted = samples.returns[rows], samples.value[rows]
        losses, old = [], self.old_lessons(replay) if replay and len(replay) else None
        for _ in range(self.config.critic_epochs):
            for part in torch.from_numpy(rng.permutation(len(rows))).split(MINIBATCH):
                loss = (critic(features[text[part]]) - returns[part]).square().mean()
                losses.append(float(loss.detach()))
                if old:
                    place = torch.from_numpy(rng.integers(len(old.text), size=len(part)))
                    loss = loss + (critic(old.features[old.text[place]]) - old.target[place]).square().mean()
                self.optimiser.zero_grad()
                loss.backward()
                self.optimiser.step()
        return {"value_loss": float(np.mean(losses)), "explained_variance": explained_variance(predicted, returns)}

    def old_lessons(self, replay: Replay) -> OldLessons:
        """One-step targets, by the critic as it is now; the return where an episode ended or was cut off."""
        columns, filled = replay.columns, replay.filled()
        text, following, reward, returned = (
            torch.from_numpy(columns[name][filled]) for name in ("text", "next_text", "reward", "returned")
        )
        value = torch.from_numpy(self.policy.values(replay.texts))
        target = torch.where(following < 0, returned, reward + self.config.discount * value[following.long()])
        return OldLessons(self.policy.mind.features(replay.texts), text.long(), target)
