"""From a rollout to better adapters: minibatches of all agents, one batched backward, one step of each adapter.

`Learner` is the loop that PPO, REINFORCE and distillation share; each gives it a loss (`ppo`, `reinforce`, `distil`).
Learning online (`online`) has a loop of its own. PPO is Schulman et al. 2017 (arXiv:1707.06347). Departures:
1. Each adapter is a learner of its own: loss, gradient norm, learning rate, entropy bonus and KL are per agent;
   only the computation is shared.
2. An adapter whose KL passes `max_kl` is projected to that trust region, and stops until the next rollout. KL is
   looked at before each step, and after the last.
3. Advantages are normalised over the whole population, so that an agent that found nothing does not learn from noise.
4. With `learn.pool` all follow the mean of their gradients: one learner with P actors (A3C's idea, Mnih et al. 2016,
   arXiv:1602.01783, in step), each of whom has an adapter that was born with differences of its own. A newcomer
   among others goes on with the moments of its slot, which are nearly those of all: from zero its first steps would be
   noise.
5. The critic is trained apart, on features below the adapters (`trainers.learning.critic`).

Symbols: T steps, W worlds, P adapters, M = W * P, S = T * M samples, G adapters in a minibatch, R samples of each,
B = G * R rows, A actions, F numbers in an adapter.
"""

from collections.abc import Iterator, Sequence
from importlib import import_module
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from agents.lora import AdapterBank
from agents.optimiser import StackedAdam, share_mean
from agents.policy import Policy, chosen
from trainers.learning.config import ALGORITHMS, LearnConfig
from trainers.learning.critic import CriticLearner
from trainers.learning.groups import group_advantages
from trainers.learning.imitation import Demonstrations, imitate
from trainers.rollout import Observer, Trajectory, gae, spread


class Targets(NamedTuple):
    """What a teacher would have done after each sample."""

    probabilities: Tensor  # (S, A)
    temperature: float


class Experience(NamedTuple):
    """The S steps of a rollout, what else there is to learn from, and how each of P agents learns."""

    texts: list[str]  # the distinct texts, by number
    text: np.ndarray  # (S,) number of the text
    legal: Tensor  # (S, A) bool
    action: Tensor  # (S,)
    log_prob: Tensor  # (S,) of the action when it was taken
    advantage: Tensor  # (S,) normalised
    returns: Tensor  # (S,)
    is_alive: np.ndarray  # (T, W, P) bool, the samples from which adapters learn
    learning_rate: Tensor  # (P,)
    entropy_coef: Tensor  # (P,)
    demonstrations: Sequence[Demonstrations] = ()
    targets: Targets | None = None


class Minibatch(NamedTuple):
    """R samples of each of G agents; where an agent has fewer, the rest is filler."""

    groups: Tensor  # (G,) adapters
    samples: Tensor  # (G, R) numbers of samples
    keep: Tensor  # (G, R) bool, False for filler

    def split(self, rows: int) -> Iterator["Minibatch"]:
        """Some of the agents after the others, so many that they have at most so many rows."""
        agents = max(1, rows // self.keep.shape[1])
        columns = (x.split(agents) for x in self)
        return (Minibatch(*part) for part in zip(*columns, strict=True))


class Evaluated(NamedTuple):
    """A minibatch as the adapters see it now, and as it was when the agents acted; of B rows."""

    logits: Tensor  # (B, A)
    log_prob: Tensor  # (B,)
    old_log_prob: Tensor  # (B,)
    advantage: Tensor  # (B,)
    legal: Tensor  # (B, A) bool
    targets: Targets | None  # of these rows


class Change(NamedTuple):
    """How the policies of G agents differ from those that acted; each (G,), a mean over the agent's samples."""

    kl: Tensor
    clipped: Tensor  # share of samples whose probability ratio lies outside the clip
    entropy: Tensor
    ratio_error: Tensor  # largest distance of a log-ratio from 0


class Figures(NamedTuple):
    """What is logged of the learning of G adapters, one number for each of them or for each of its steps."""

    approx_kl: Tensor  # KL, clip fraction and entropy at the end
    clip_fraction: Tensor
    entropy: Tensor
    policy_loss: Tensor
    grad_norm: Tensor
    kl_exceeded: Tensor  # 1 where the adapter was projected to the trust region
    not_finite: Tensor  # 1 where a gradient, or what a step led to, was not finite; that step was left out
    ratio_error: Tensor  # before the first step


class Learner:
    """Owns the optimisers; the adapters and the critic are the policy's. By itself it has no loss and learns nothing.

    Where the weights are stored compactly, fewer samples go forward and backward together, and Adam's moments lie in
    a file.
    """

    def __init__(self, policy: Policy, config: LearnConfig):
        self.policy, self.config = policy, config
        self.optimiser = StackedAdam(policy.network.bank, in_file=policy.network.is_compact)
        self.critic = CriticLearner(policy, config)

    @property
    def epochs(self) -> int:
        """Passes over a rollout. None here: a subclass that has a loss must say how many."""
        return 0

    @property
    def gae_lambda(self) -> float:
        """Lambda of the advantages."""
        return self.config.gae_lambda

    def loss(self, rows: Evaluated) -> Tensor:
        """To be minimised, (B,)."""
        return torch.zeros_like(rows.log_prob)

    def start(self, learning_rate: Tensor, entropy_coef: Tensor) -> list[Observer]:
        """A rollout begins: what watches it, where adapters learn meanwhile; both (P,)."""
        return []

    def forget(self, slots: Sequence[int]) -> None:
        """Somebody new has these slots: Adam's moments begin at zero; with `learn.pool` only where all are new."""
        if not self.config.pool or len(slots) == len(self.policy.network.bank):
            for slot in slots:
                self.optimiser.forget(slot)

    def experience(self, t: Trajectory, learning_rate: Tensor, entropy_coef: Tensor) -> Experience:
        """What there is to learn from in a rollout; learning_rate, entropy_coef: (P,)."""
        advantage = gae(t, self.config.discount, self.gae_lambda)
        returns = advantage + t.value
        if self.config.advantage == "group":
            advantage = group_advantages(t, advantage)
        known = advantage[t.is_alive] if t.is_alive.any() else np.zeros(1)
        advantage = (advantage - known.mean()) / (spread(known) + 1e-8)
        return Experience(
            texts=t.texts,
            text=t.text.reshape(-1),
            legal=torch.from_numpy(t.legal).flatten(0, 1),
            action=torch.from_numpy(t.action).flatten(),
            log_prob=torch.from_numpy(t.log_prob).flatten(),
            advantage=torch.from_numpy(advantage).flatten(),
            returns=torch.from_numpy(returns).flatten(),
            is_alive=t.is_alive.reshape(len(t.is_alive), -1, len(self.policy.network.bank)),
            learning_rate=learning_rate,
            entropy_coef=entropy_coef,
        )

    def learn(self, experience: Experience, rng: np.random.Generator) -> dict[str, float]:
        """Improve all adapters; return what is worth logging. rng: orders the samples.

        KL, clip fraction and entropy are those at the end, on a minibatch of each agent.
        """
        agents = len(self.policy.network.bank)
        together = [slice(0, agents)] if self.config.pool else self.chunks()
        parts = [self._learn_chunk(experience, chunk, rng) for chunk in together]
        columns = zip(*parts, strict=True)
        figures = dict(zip(Figures._fields, (mean_of_numbers(torch.cat(column)) for column in columns), strict=True))
        error = torch.cat([part.ratio_error for part in parts])
        figures |= {"ratio_error": max(error[error.isfinite()].tolist(), default=0.0)}
        return figures | {name: float(round(figures[name] * agents)) for name in ("kl_exceeded", "not_finite")}

    def chunks(self) -> list[slice]:
        """Runs of adapters that learn together: as many as bounded memory allows."""
        agents, size = len(self.policy.network.bank), max(1, self.policy.network.rows_at_once // self.config.minibatch)
        return [slice(first, min(first + size, agents)) for first in range(0, agents, size)]

    def imitate(self, experience: Experience, chunk: slice, is_stopped: Tensor, rng: np.random.Generator) -> None:
        """Learn from demonstrations."""
        for examples, pools in experience.demonstrations:
            rates = experience.learning_rate
            imitate(self.policy, self.optimiser, self.config, examples, pools, chunk, is_stopped, rates, rng)

    def _learn_chunk(self, experience: Experience, chunk: slice, rng: np.random.Generator) -> Figures:
        """All epochs of a run of adapters. Each is a learner of its own: chunks bound memory and change nothing."""
        bank = self.policy.network.bank
        is_broken, is_stopped = torch.zeros(len(bank)), torch.zeros(len(bank), dtype=torch.bool)
        acted = bank.values[chunk].clone()
        end, ratio_errors, losses, norms = Change(*[torch.zeros(0)] * 4), [], [torch.zeros(0)], [torch.zeros(0)]
        for _ in range(self.epochs):
            for batch in minibatches(experience.is_alive, chunk, self.config.minibatch, rng, is_stopped):
                with bank.gathering(chunk) as gradients:
                    loss, change = self._backward(experience, batch)
                self._bound_kl(batch.groups, change.kl, chunk, acted, is_stopped)
                is_learning = torch.zeros_like(is_stopped)
                is_learning[batch.groups] = ~is_stopped[batch.groups]
                if self.config.pool:
                    is_broken[batch.groups[share_mean(gradients, batch.groups - chunk.start)]] = 1.0
                rates, bound = experience.learning_rate, self.config.max_grad_norm
                norm = self.optimiser.step(chunk, gradients, rates, bound, is_learning)
                ratio_errors.append(change.ratio_error)
                losses.append(loss)
                norms.append(norm[batch.groups - chunk.start])
                is_broken[batch.groups[~norms[-1].isfinite()]] = 1.0
        self.imitate(experience, chunk, is_stopped, rng)
        nobody = torch.zeros_like(is_stopped)
        sample = next(minibatches(experience.is_alive, chunk, self.config.minibatch, rng, nobody), None)
        if sample:
            with torch.no_grad():
                _, end = self._evaluate_in_parts(experience, sample)
            self._bound_kl(sample.groups, end.kl, chunk, acted, is_stopped)
            ratio_errors.append(end.ratio_error)
        self.optimiser.let_go()
        first_error = torch.cat([*ratio_errors[:1], torch.zeros(0)])
        steps = torch.cat(losses), torch.cat(norms)
        exceeded = is_stopped[chunk].float()
        return Figures(end.kl, end.clipped, end.entropy, *steps, exceeded, is_broken[chunk], first_error)

    def _backward(self, experience: Experience, batch: Minibatch) -> tuple[Tensor, Change]:
        """Go back from what `_evaluate` finds; in parts, as memory is bounded."""
        found = []
        for part in batch.split(self.policy.network.rows_at_once):
            loss, change = self._evaluate(experience, part)
            # The sum over agents keeps their gradients apart: each adapter sees the mean over its own samples.
            (loss - experience.entropy_coef[part.groups] * change.entropy).sum().backward()
            found.append((loss.detach(), change._replace(entropy=change.entropy.detach())))
        return _joined(found)

    def _evaluate_in_parts(self, experience: Experience, batch: Minibatch) -> tuple[Tensor, Change]:
        return _joined([self._evaluate(experience, p) for p in batch.split(self.policy.network.rows_at_once)])

    def _evaluate(self, experience: Experience, batch: Minibatch) -> tuple[Tensor, Change]:
        """Each agent's loss (G,), and how its policy differs from the one that acted; means over its own samples."""
        index, keep = batch.samples.flatten(), batch.keep
        logits = self.policy.weigh([experience.texts[i] for i in experience.text[index.numpy()]], batch.groups)
        legal, old = experience.legal[index], experience.log_prob[index]
        log_prob, entropy = chosen(logits, experience.action[index], legal)
        targets = experience.targets and experience.targets._replace(probabilities=experience.targets[0][index])
        loss = self.loss(Evaluated(logits, log_prob, old, experience.advantage[index], legal, targets))

        def mean(x: Tensor) -> Tensor:  # (B,) -> (G,)
            return (x.view(keep.shape) * keep).sum(1) / keep.sum(1)

        with torch.no_grad():
            kl = mean(approx_kl(log_prob, old))
            clipped = mean(((log_prob - old).exp() - 1).abs() > self.config.clip)
            ratio_error = ((log_prob - old).abs().view(keep.shape) * keep).amax(1)
        return mean(loss), Change(kl, clipped, mean(entropy), ratio_error)

    def _bound_kl(self, groups: Tensor, kl: Tensor, chunk: slice, acted: Tensor, is_stopped: Tensor) -> None:
        """Project adapters with too much KL to the trust region around those that acted, and stop them."""
        bank, most = self.policy.network.bank, self.config.max_kl
        is_stopped[groups] |= project_to_trust_region(bank, groups, kl, acted, most, chunk.start)


def _joined(found: Sequence[tuple[Tensor, Change]]) -> tuple[Tensor, Change]:
    """What was found of some agents after what was found of others."""
    losses, changes = zip(*found, strict=True)
    return torch.cat(losses), Change(*map(torch.cat, zip(*changes, strict=True)))


def minibatches(
    is_alive: np.ndarray, chunk: slice, size: int, rng: np.random.Generator, is_stopped: Tensor
) -> Iterator[Minibatch]:
    """The samples of each agent of a chunk once, in random order, in even parts of at most `size`.

    Who has fewer drops out earlier. is_alive: (T, W, P) bool, the samples that exist. chunk: a run of the P agents.
    is_stopped: (P,) bool, read anew for each minibatch.
    """
    agents = is_alive.shape[2]
    own = {n: np.flatnonzero(is_alive[:, :, n].reshape(-1)) for n in range(agents)[chunk]}
    shuffled = {n: rng.permutation(samples) * agents + n for n, samples in own.items() if len(samples)}
    parts = [np.array_split(samples, -(-len(samples) // size)) for samples in shuffled.values()]
    for number in range(max(map(len, parts), default=0)):
        there = {n: p[number] for n, p in zip(shuffled, parts, strict=True) if number < len(p) and not is_stopped[n]}
        if there:
            width = max(map(len, there.values()))
            samples = np.stack([np.resize(part, width) for part in there.values()])
            counts = np.array([len(part) for part in there.values()])
            keep = torch.from_numpy(np.arange(width) < counts[:, None])
            yield Minibatch(torch.tensor(list(there)), torch.from_numpy(samples), keep)


def project_to_trust_region(
    bank: AdapterBank, groups: Tensor, kl: Tensor, before: Tensor, max_kl: float, first: int = 0
) -> Tensor:
    """Bring adapters with too much KL back towards `before`; return which those are, (G,) bool.

    Each goes back on the straight line to where it was, as far as would leave it at `max_kl` if KL grew with the square
    of the distance (as it does near the start, Schulman et al. 2015, arXiv:1502.05477). One whose KL or weights are
    not finite goes back all the way. groups: (G,) rows of the bank. kl: (G,). before: rows of the bank as they
    were, from row `first` on, (P, F), where the bank is.
    """
    exceeded = ~(kl <= max_kl)  # true for NaN
    if exceeded.any():
        rows = groups[exceeded]
        start = before[rows - first]
        share = (max_kl / kl[exceeded]).sqrt()[:, None].to(start.device)
        shortened = start + share * (bank.values[rows] - start)
        bank.values[rows] = torch.where(shortened.isfinite(), shortened, start)
    return exceeded


def approx_kl(log_prob: Tensor, old_log_prob: Tensor) -> Tensor:
    """Estimate of KL(old || new) per sample, never negative: (ratio - 1) - log ratio (Schulman 2020, "k3"); (B,)."""
    log_ratio = log_prob - old_log_prob
    return log_ratio.expm1() - log_ratio


def mean_of_numbers(x: Tensor) -> float:
    """Mean of the finite values: one agent that is no longer a number must not hide the others. 0 if there are none."""
    return float(x[x.isfinite()].mean()) if x.isfinite().any() else 0.0


def make_learner(policy: Policy, config: LearnConfig) -> Learner:
    """The learner that `learn.algorithm` names."""
    module, _, name = ALGORITHMS[config.algorithm].partition(".")
    learner: Learner = getattr(import_module(f"trainers.learning.{module}"), name)(policy, config)
    return learner
