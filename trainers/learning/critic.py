"""How the critic learns what return follows a text: apart from the adapters, on features below them."""

from collections.abc import Sequence
from copy import deepcopy
from math import isfinite
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from agents.policy import Policy
from agents.types import UserError, log
from trainers.learning.adam import Adam
from trainers.learning.config import LearnConfig
from trainers.rollout import Trajectory

MINIBATCH = 256


class CriticExamples(NamedTuple):
    """S more steps from which the critic learns, such as those of a replay buffer."""

    features: Tensor  # (texts, D) of each distinct text
    text: Tensor  # (S,) number of it
    target: Tensor  # (S,)


class CriticLearner:
    """Owns the critic's optimiser; the critic is the policy's.

    A critic that is not finite any more goes back, with its moments, to what it was when it was last known to be.
    """

    def __init__(self, policy: Policy, config: LearnConfig):
        self.policy, self.config = policy, config
        self.optimiser = Adam(policy.critic.parameters(), config.critic_learning_rate)
        self._sound: tuple[dict[Any, Any], ...] = ()  # states of the critic and its optimiser
        self._went_back = 0  # since it learned last

    def keep_or_go_back(self) -> None:
        """Remember the critic as it is, if it is finite; else make it what was remembered.

        UserError where nothing was.
        """
        states = self.policy.critic.state_dict(), self.optimiser.moments
        tensors = [*states[0].values(), *(x for moments in states[1].values() for x in moments.values())]
        if all(bool(tensor.isfinite().all()) for tensor in tensors):
            self._sound = deepcopy(states)
            return
        if not self._sound:
            raise UserError("the critic's weights are not finite: must be, when a run begins or goes on")
        self.policy.critic.load_state_dict(self._sound[0])
        self.optimiser.moments = deepcopy(self._sound[1])
        self._went_back += 1
        log.warning("note: the critic was not finite; it is what it was before, and critic_not_finite counts that")

    def learn(
        self, t: Trajectory, returns: Tensor, rng: np.random.Generator, more: Sequence[CriticExamples] = ()
    ) -> dict[str, float]:
        """Regress on the returns (S,) of a rollout, where somebody acted; and on as many others of each of `more`.

        Returns that are not finite teach nothing. critic_not_finite: how often it went back since it learned last.
        """
        self.keep_or_go_back()
        critic, features = self.policy.critic, self.policy.network.features(t.texts)  # one row a distinct text
        rows = np.flatnonzero(t.is_lived.reshape(-1) & np.isfinite(returns.numpy()))
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
        self.keep_or_go_back()
        went_back, self._went_back = float(self._went_back), 0
        return {
            "value_loss": float(np.mean([loss for loss in losses if isfinite(loss)] or [0.0])),
            "explained_variance": explained_variance(predicted, returns),
            "critic_not_finite": went_back,
        }


def explained_variance(predicted: Tensor, target: Tensor) -> float:
    """1 - Var[target - predicted] / Var[target]: 1 is perfect, 0 no better than a constant (or no variance)."""
    spread = target.var(correction=0) if len(target) else torch.zeros(())
    share = float(1 - (target - predicted).var(correction=0) / spread) if spread > 0 else 0.0
    return share if isfinite(share) else 0.0
