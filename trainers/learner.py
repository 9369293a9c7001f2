"""From a life's experience to better adapters: one batched backward for all agents, and a shared critic.

PPO follows Schulman et al. 2017 (arXiv:1707.06347). Departures:
1. Each adapter is a learner of its own: loss, gradient norm, learning rate, entropy bonus and KL are per agent;
   only the computation is shared.
2. An adapter whose KL passes `max_kl` is brought back on the straight way to where it was before this life, as far as
   would leave it at `max_kl` if KL grew with the square of the way (as it does near the start, Schulman et al. 2015,
   arXiv:1502.05477), and rests until its next life. KL is looked at before each step, and after the last.
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

FEW_AGENTS = 2
"""So many agents go back at once where adapters act on whole texts: for 32 texts of 11 tokens each, 0.3 GB are held."""


class Minibatch(NamedTuple):
    """R samples of each of G agents; where an agent has fewer, the rest is filler."""

    groups: Tensor  # (G,) adapters
    samples: Tensor  # (G, R) into the flattened trajectory
    keep: Tensor  # (G, R) bool, False for filler

    def split(self, size: int) -> list["Minibatch"]:
        """The same in parts of at most `size` agents."""
        return [Minibatch(*parts) for parts in zip(*(x.split(size) for x in self), strict=True)]


class Change(NamedTuple):
    """How the policies of G agents differ from those that acted; each (G,), a mean over the agent's samples."""

    kl: Tensor
    clipped: Tensor  # share of samples whose probability ratio lies outside the clip
    entropy: Tensor


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

        learning_rate, entropy_coef: (P,). rng: orders the samples. KL, clip fraction and entropy are those at the end
        of the life, on a minibatch of each agent.
        """
        start = perf_counter()
        agents = len(self.policy.mind.bank)
        alive = trajectory.is_alive.reshape(len(trajectory.is_alive), -1, agents)  # (T, W, N)
        samples = self._samples(trajectory)
        figures = self._learn_adapters(samples, alive, learning_rate, entropy_coef, rng)
        figures |= self._learn_critic(samples, torch.from_numpy(trajectory.is_alive.reshape(-1)), rng)
        return figures | {"learn_s": perf_counter() - start}

    def _samples(self, t: Trajectory) -> Samples:
        gae_lambda = 1.0 if self.config.algorithm == "reinforce" else self.config.gae_lambda
        advantage = gae(t.reward, t.value, t.cut_value, t.is_terminal, t.is_cut, self.config.discount, gae_lambda)
        returns = advantage + t.value
        known = advantage[t.is_alive]
        advantage = (advantage - known.mean()) / (known.std() + 1e-8)
        flat = (torch.from_numpy(x.reshape(-1)) for x in (t.action, t.log_prob, advantage, returns, t.value))
        legal = torch.from_numpy(t.legal.reshape(-1, t.legal.shape[-1]))
        return Samples(t.texts, t.text.reshape(-1), legal, *flat)

    def _learn_adapters(
        self,
        samples: Samples,
        alive: np.ndarray,
        learning_rate: Tensor,
        entropy_coef: Tensor,
        rng: np.random.Generator,
    ) -> dict[str, float]:
        bank = self.policy.mind.bank
        before_life, is_resting = bank.values.clone(), torch.zeros(len(bank), dtype=torch.bool)
        losses, norms = [], []
        epochs = {"ppo": self.config.epochs, "reinforce": 1, "none": 0}[self.config.algorithm]
        for _ in range(epochs):
            for batch in minibatches(alive, self.config.minibatch, rng, is_resting):
                loss, change = self._look_back(samples, batch, entropy_coef)
                self._rein_in(batch.groups, change.kl, before_life, is_resting)
                is_learning = torch.zeros_like(is_resting)
                is_learning[batch.groups] = ~is_resting[batch.groups]
                norm = self.optimiser.step(learning_rate, self.config.max_grad_norm, is_learning)
                losses.append(_mean_of_numbers(loss))
                norms.append(_mean_of_numbers(norm[batch.groups]))
        everyone = next(minibatches(alive, self.config.minibatch, rng, torch.zeros_like(is_resting)))
        with torch.no_grad():
            _, change = self._look(samples, everyone)
        self._rein_in(everyone.groups, change.kl, before_life, is_resting)
        return {
            "approx_kl": _mean_of_numbers(change.kl),
            "clip_fraction": _mean_of_numbers(change.clipped),
            "entropy": _mean_of_numbers(change.entropy),
            "policy_loss": float(np.mean(losses)) if losses else 0.0,
            "grad_norm": float(np.mean(norms)) if norms else 0.0,
            "strayed": float(is_resting.sum()),
        }

    def _look_back(self, samples: Samples, batch: Minibatch, entropy_coef: Tensor) -> tuple[Tensor, Change]:
        """What `_look` says of each agent; the gradients are then in the bank.

        Where many rows cost no less together than apart, autograd need not hold those of all agents at once.
        """
        losses, changes = [], []
        for part in batch.split(len(batch.groups) if self.policy.mind.is_batched else FEW_AGENTS):
            loss, change = self._look(samples, part)
            # The sum over agents keeps their gradients apart: each adapter sees the mean over its own samples.
            (loss - entropy_coef[part.groups] * change.entropy).sum().backward()
            losses.append(loss.detach())
            changes.append(change._replace(entropy=change.entropy.detach()))
        return torch.cat(losses), Change(*(torch.cat(column) for column in zip(*changes, strict=True)))

    def _look(self, samples: Samples, batch: Minibatch) -> tuple[Tensor, Change]:
        """Each agent's loss (G,), and how its policy differs from the one that acted; a mean over its own samples."""
        index, keep = batch.samples.flatten(), batch.keep
        texts = [samples.texts[i] for i in samples.text[index.numpy()]]
        log_prob, entropy = self.policy.evaluate(texts, batch.groups, samples.action[index], samples.legal[index])
        old, advantage = samples.log_prob[index], samples.advantage[index]
        if self.config.algorithm == "reinforce":
            loss = reinforce_loss(log_prob, advantage)
        else:
            loss = ppo_loss(log_prob, old, advantage, self.config.clip)

        def mean(x: Tensor) -> Tensor:  # (B,) -> (G,)
            return (x.view(keep.shape) * keep).sum(1) / keep.sum(1)

        with torch.no_grad():
            kl = mean(approx_kl(log_prob, old))
            clipped = mean(((log_prob - old).exp() - 1).abs() > self.config.clip)
        return mean(loss), Change(kl, clipped, mean(entropy))

    def _rein_in(self, groups: Tensor, kl: Tensor, before_life: Tensor, is_resting: Tensor) -> None:
        """Shorten the way that adapters with too much KL have come in this life, and let them rest."""
        bank = self.policy.mind.bank
        strayed = ~(kl <= self.config.max_kl)  # true for NaN
        if not strayed.any():
            return
        rows = groups[strayed]
        share = (self.config.max_kl / kl[strayed]).sqrt()[:, None]
        shortened = before_life[rows] + share * (bank.values[rows] - before_life[rows])
        bank.values[rows] = torch.where(shortened.isfinite(), shortened, before_life[rows])
        is_resting[rows] = True
        bank.version += 1

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


def _mean_of_numbers(x: Tensor) -> float:
    """Mean of the finite values: one agent that is no longer a number must not hide the others. 0 if there are none."""
    return float(x[x.isfinite()].mean()) if x.isfinite().any() else 0.0


def minibatches(alive: np.ndarray, size: int, rng: np.random.Generator, is_resting: Tensor) -> Iterator[Minibatch]:
    """Each agent's own samples once, in random order, in even parts of at most `size`; who has fewer drops out earlier.

    alive: (T, W, N) bool, the samples that exist. is_resting: (N,) bool, read anew for each minibatch.
    """
    agents = alive.shape[2]
    per_agent = [rng.permutation(np.flatnonzero(alive[:, :, n].reshape(-1))) * agents + n for n in range(agents)]
    parts = [np.array_split(samples, -(-len(samples) // size)) for samples in per_agent if len(samples)]
    owners = [n for n, samples in enumerate(per_agent) if len(samples)]
    for number in range(max(map(len, parts))):
        there = {n: p[number] for n, p in zip(owners, parts, strict=True) if number < len(p) and not is_resting[n]}
        if there:
            width = max(map(len, there.values()))
            samples = np.stack([np.resize(part, width) for part in there.values()])
            counts = np.array([len(part) for part in there.values()])
            keep = torch.from_numpy(np.arange(width) < counts[:, None])
            yield Minibatch(torch.tensor(list(there)), torch.from_numpy(samples), keep)
