"""From a life's experience to better adapters: one batched backward for all agents, and a shared critic.

PPO follows Schulman et al. 2017 (arXiv:1707.06347). Departures:
1. Each adapter is a learner of its own: loss, gradient norm, learning rate, entropy bonus and KL are per agent;
   only the computation is shared.
2. An adapter whose KL passes `max_kl` takes back as much of its last step as would leave it at `max_kl`, if KL grew
   with the square of the step (as it does for small ones, Schulman et al. 2015, arXiv:1502.05477), and rests until
   its next life. One whose policy is no longer a number takes back the whole step.
3. Advantages are normalised over the whole population, so that an agent that found nothing does not learn from noise.
4. The critic is trained apart, on features below the adapters (see `agents.value_head`).
"""

from collections.abc import Iterator
from time import perf_counter
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from agents.optimiser import StackedAdam
from agents.policy import Policy
from trainers.advantage import gae
from trainers.config import LearnConfig
from trainers.losses import approx_kl, explained_variance, ppo_loss, reinforce_loss
from trainers.rollout import Trajectory


class Minibatch(NamedTuple):
    """R samples of each of G agents; where an agent has fewer, the rest is filler."""

    groups: Tensor  # (G,) adapters
    samples: Tensor  # (G, R) into the flattened trajectory
    keep: Tensor  # (G, R) bool, False for filler


class Samples(NamedTuple):
    """A trajectory flattened to T * M samples, as tensors."""

    texts: list[str]
    text: np.ndarray  # (T * M,)
    legal: Tensor  # (T * M, A) bool
    action: Tensor
    log_prob: Tensor
    advantage: Tensor
    returns: Tensor
    value: Tensor


class Learner:
    """Owns the optimisers; the adapters and the critic are the policy's."""

    def __init__(self, policy: Policy, config: LearnConfig):
        self.policy, self.config = policy, config
        self.optimiser = StackedAdam(policy.mind.bank)
        self.critic_optimiser = torch.optim.Adam(policy.critic.parameters(), config.critic_learning_rate)

    def learn(
        self, trajectory: Trajectory, learning_rate: Tensor, entropy_coef: Tensor, rng: np.random.Generator
    ) -> dict[str, float]:
        """Improve all adapters and the critic from one life; return what is worth logging.

        learning_rate, entropy_coef: (P,). rng: orders the samples.
        """
        start = perf_counter()
        agents = len(self.policy.mind.bank)
        alive = trajectory.is_alive.reshape(len(trajectory.is_alive), -1, agents)  # (T, W, N)
        samples = self._samples(trajectory)
        if self.config.algorithm == "none":
            history = {"approx_kl": 0.0, "clip_fraction": 0.0, "policy_loss": 0.0, "grad_norm": 0.0, "strayed": 0.0}
            history["entropy"] = self._entropy(samples, alive, rng)
        else:
            history = self._learn_adapters(samples, alive, learning_rate, entropy_coef, rng)
        history |= self._learn_critic(samples, torch.from_numpy(trajectory.is_alive.reshape(-1)), rng)
        return history | {"learn_s": perf_counter() - start}

    def _samples(self, t: Trajectory) -> Samples:
        gae_lambda = 1.0 if self.config.algorithm == "reinforce" else self.config.gae_lambda
        advantage = gae(t.reward, t.value, t.last_value, t.is_terminal, self.config.discount, gae_lambda)
        returns = advantage + t.value
        known = advantage[t.is_alive]
        advantage = (advantage - known.mean()) / (known.std() + 1e-8)
        flat = (torch.from_numpy(x.reshape(-1)) for x in (t.action, t.log_prob, advantage, returns, t.value))
        legal = torch.from_numpy(t.legal.reshape(-1, t.legal.shape[-1]))
        return Samples(t.texts, t.text.reshape(-1), legal, *flat)

    def _learn_adapters(
        self, samples: Samples, alive: np.ndarray, learning_rate: Tensor, entropy_coef: Tensor, rng: np.random.Generator
    ) -> dict[str, float]:
        bank = self.policy.mind.bank
        is_resting = torch.zeros(len(bank), dtype=torch.bool)
        before_step = bank.values.clone()
        history: list[dict[str, float]] = []
        epochs = self.config.epochs if self.config.algorithm == "ppo" else 1
        for _ in range(epochs):
            for batch in minibatches(alive, self.config.minibatch, rng, is_resting):
                kl, stats = self._backward(samples, batch, entropy_coef)
                strayed = ~(kl <= self.config.max_kl)
                _take_back(bank.values, before_step, batch.groups[strayed], self.config.max_kl / kl[strayed])
                is_resting[batch.groups[strayed]] = True
                is_learning = torch.zeros_like(is_resting)
                is_learning[batch.groups] = ~is_resting[batch.groups]
                before_step.copy_(bank.values)
                norms = self.optimiser.step(learning_rate, self.config.max_grad_norm, is_learning)
                history.append(stats | {"grad_norm": float(norms[batch.groups].mean())})
        means = {key: float(np.mean([h[key] for h in history])) for key in history[0]}
        return means | {"strayed": float(is_resting.sum())}

    def _backward(self, samples: Samples, batch: Minibatch, entropy_coef: Tensor) -> tuple[Tensor, dict[str, float]]:
        """Leave the gradients of a minibatch in the bank; return each agent's KL (G,) and figures to log."""
        index, keep = batch.samples.flatten(), batch.keep
        texts = [samples.texts[i] for i in samples.text[index.numpy()]]
        log_prob, entropy = self.policy.evaluate(texts, batch.groups, samples.action[index], samples.legal[index])
        old, advantage = samples.log_prob[index], samples.advantage[index]
        if self.config.algorithm == "ppo":
            loss = ppo_loss(log_prob, old, advantage, self.config.clip)
        else:
            loss = reinforce_loss(log_prob, advantage)

        def mean(x: Tensor) -> Tensor:  # (B,) -> (G,), over each agent's own samples
            return (x.view(keep.shape) * keep).sum(1) / keep.sum(1)

        policy_loss, entropy = mean(loss), mean(entropy)
        # The sum over agents keeps their gradients apart: each adapter sees the mean over its own samples.
        (policy_loss - entropy_coef[batch.groups] * entropy).sum().backward()
        with torch.no_grad():
            kl = mean(approx_kl(log_prob, old))
            clipped = mean(((log_prob - old).exp() - 1).abs() > self.config.clip)
        figures = {"approx_kl": kl, "clip_fraction": clipped, "policy_loss": policy_loss, "entropy": entropy}
        return kl, {name: float(x.detach().mean()) for name, x in figures.items()}

    @torch.no_grad()
    def _entropy(self, samples: Samples, alive: np.ndarray, rng: np.random.Generator) -> float:
        batch = next(minibatches(alive, self.config.minibatch, rng, torch.zeros(alive.shape[2], dtype=torch.bool)))
        index = batch.samples.flatten()
        texts = [samples.texts[i] for i in samples.text[index.numpy()]]
        _, entropy = self.policy.evaluate(texts, batch.groups, samples.action[index], samples.legal[index])
        return float(entropy.mean())

    def _learn_critic(self, samples: Samples, is_alive: Tensor, rng: np.random.Generator) -> dict[str, float]:
        features = self.policy.mind.features(samples.texts)  # one row a distinct text
        rows = is_alive.nonzero()[:, 0]
        text = torch.from_numpy(samples.text)[rows]
        returns, predicted = samples.returns[rows], samples.value[rows]
        losses = []
        for _ in range(self.config.critic_epochs):
            for part in torch.from_numpy(rng.permutation(len(rows))).split(256):
                loss = (self.policy.critic(features[text[part]]) - returns[part]).square().mean()
                self.critic_optimiser.zero_grad()
                loss.backward()
                self.critic_optimiser.step()
                losses.append(float(loss.detach()))
        return {"value_loss": float(np.mean(losses)), "explained_variance": explained_variance(predicted, returns)}


def _take_back(values: Tensor, before: Tensor, rows: Tensor, share_of_kl: Tensor) -> None:
    """Shorten the last step of `rows` so that about `share_of_kl` of their KL is left; all of it where that is NaN."""
    keep = share_of_kl.sqrt().nan_to_num(0.0)[:, None]
    values[rows] = before[rows] + keep * (values[rows] - before[rows])


def minibatches(alive: np.ndarray, size: int, rng: np.random.Generator, is_resting: Tensor) -> Iterator[Minibatch]:
    """Each agent's own samples once, in random order, `size` at a time; agents with fewer drop out earlier.

    alive: (T, W, N) bool, the samples that exist. is_resting: (N,) bool, read anew for each minibatch.
    """
    agents = alive.shape[2]
    per_agent = [rng.permutation(np.flatnonzero(alive[:, :, n].reshape(-1))) * agents + n for n in range(agents)]
    for start in range(0, max(map(len, per_agent)), size):
        parts = {n: p[start : start + size] for n, p in enumerate(per_agent) if len(p) > start and not is_resting[n]}
        if parts:
            width = max(map(len, parts.values()))
            samples = np.stack([np.resize(part, width) for part in parts.values()])
            counts = np.array([len(part) for part in parts.values()])
            keep = torch.from_numpy(np.arange(width) < counts[:, None])
            yield Minibatch(torch.tensor(list(parts)), torch.from_numpy(samples), keep)
