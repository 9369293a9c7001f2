"""From a life's experience to better adapters: one batched backward for all agents, and a shared critic.

PPO follows Schulman et al. 2017 (arXiv:1707.06347). Departures:
1. Each adapter is a learner of its own: loss, gradient norm, learning rate, entropy bonus and KL are per agent;
   only the computation is shared.
2. An adapter whose KL passes `max_kl` is reined in (`trainers.learning.trust_region`), and rests until its next life.
   KL is looked at before each step, and after the last.
3. Advantages are normalised over the whole population, so that an agent that found nothing does not learn from noise.
4. The critic is trained apart, on features below the adapters (see `agents.value_head`).
5. With `learn.replay`, adapters also imitate what went better than expected in their lives before, and the critic
   learns from those too (see `trainers.learning.replay`); with `learn.social`, what went well with others.
6. With the algorithm distil there is a teacher in the place of the advantage (see `trainers.teacher`).
"""

from time import perf_counter
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from agents.optimiser import StackedAdam
from agents.policy import Policy, chosen
from trainers.config import LearnConfig
from trainers.learning.advantage import gae
from trainers.learning.background import BackgroundLesson
from trainers.learning.critic import CriticLearner
from trainers.learning.imitation import Demonstrations, Pools, imitate, lived, own_demonstrations
from trainers.learning.losses import approx_kl, distil_loss, mean_of_numbers, ppo_loss, reinforce_loss
from trainers.learning.minibatches import Minibatch, Samples, minibatches
from trainers.learning.online import OnlineLesson
from trainers.learning.replay import Replay
from trainers.learning.social import shuffled
from trainers.learning.trust_region import rein_in
from trainers.rollout import Trajectory


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
    strayed: Tensor  # 1 for who was reined in
    not_finite: Tensor  # 1 for whose gradient was not finite in some step, which was left out
    ratio_error: Tensor  # before the first step


class Experience(NamedTuple):
    """What there is to learn from after a life, and how each of P agents learns."""

    samples: Samples
    alive: np.ndarray  # (T, W, P) bool, the samples that exist
    demonstrations: list[Demonstrations]
    learning_rate: Tensor  # (P,)
    entropy_coef: Tensor  # (P,)
    targets: Tensor | None  # (S, A), what a teacher says of each sample


Witness = OnlineLesson | BackgroundLesson


class Learner:
    """Owns the optimisers; the adapters and the critic are the policy's.

    Where the mind's memory is compact, fewer samples go forward and backward together, and Adam's moments lie in a
    file.
    """

    def __init__(self, policy: Policy, config: LearnConfig):
        self.policy, self.config = policy, config
        self.rows_at_once = policy.mind.rows_at_once
        self.optimiser = StackedAdam(policy.mind.bank, in_file=policy.mind.is_compact)
        agents, actions = len(policy.mind.bank), len(policy.mind.action_ids)
        self.replay = Replay(agents, config.replay, actions) if config.replay else None
        self.critic = CriticLearner(policy, config)

    def forget(self, agent: int) -> None:
        """Somebody new has this slot: moments and memories begin empty."""
        self.optimiser.forget(agent)
        if self.replay:
            self.replay.forget(agent)

    def attend(self, learning_rate: Tensor, entropy_coef: Tensor) -> Witness | None:
        """What is to witness a life, if adapters learn while it goes on. learning_rate, entropy_coef: (P,)."""
        if self.config.algorithm != "online":
            return None
        lesson = OnlineLesson(self.policy, self.optimiser, self.config, learning_rate, entropy_coef)
        return BackgroundLesson(lesson) if self.config.background else lesson

    def learn(
        self,
        trajectory: Trajectory,
        learning_rate: Tensor,
        entropy_coef: Tensor,
        rng: np.random.Generator,
        lesson: Witness | None = None,
        seen: Pools | None = None,
        targets: np.ndarray | None = None,
    ) -> dict[str, float]:
        """Improve all adapters and the critic from one life; return what is worth logging.

        learning_rate, entropy_coef: (P,). rng: orders the samples. lesson: what witnessed the life, where adapters
        have learned already. seen: for each agent, which steps of others it has seen, by number in the flattened
        trajectory. targets: (T, M, A), what a teacher says of each step. KL, clip fraction and entropy are those at
        the end of the life, on a minibatch of each agent (online: on all that it read).
        """
        start = perf_counter()
        agents = len(self.policy.mind.bank)
        samples = self._samples(trajectory)
        if lesson:
            lesson.stop()
        alive = trajectory.is_alive.reshape(len(trajectory.is_alive), -1, agents)  # (T, W, N)
        demonstrations = self._demonstrations(trajectory, samples.returns, seen, rng)
        told = None if targets is None else torch.from_numpy(targets).float().flatten(0, 1)
        experience = Experience(samples, alive, demonstrations, learning_rate, entropy_coef, told)
        if lesson:
            for cohort in self._cohorts():  # before `finish`, whose trust region is for the whole life
                self._imitate(experience, cohort, torch.zeros(agents, dtype=torch.bool), rng)
            figures = lesson.finish(trajectory.texts)
        else:
            figures = self._learn_adapters(experience, rng)
        figures |= self.critic.learn(samples, torch.from_numpy(trajectory.is_lived.reshape(-1)), self.replay, rng)
        if self.replay:
            self.replay.add(trajectory, samples.returns.numpy().reshape(trajectory.reward.shape))
            figures |= {"replay_steps": float(len(self.replay))}
        if seen is not None:
            figures |= {"examples_mean": float(np.mean(list(map(len, seen))))}
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

    def _demonstrations(
        self, t: Trajectory, returned: Tensor, seen: Pools | None, rng: np.random.Generator
    ) -> list[Demonstrations]:
        """What there is to imitate: of each agent's own former lives, and of what it saw others do in this one."""
        demonstrations = []
        if self.replay and len(self.replay) and self.config.algorithm != "none":
            demonstrations.append(own_demonstrations(self.policy, self.replay))
        if seen is not None:
            examples = lived(self.policy, t, returned.numpy())
            if self.config.social == "shuffled":
                examples = shuffled(examples, t.is_alive.reshape(-1), rng)
            demonstrations.append((examples, seen))
        return demonstrations

    def _learn_adapters(self, experience: Experience, rng: np.random.Generator) -> dict[str, float]:
        agents = len(self.policy.mind.bank)
        lessons = [self._learn_cohort(experience, cohort, rng) for cohort in self._cohorts()]
        columns = zip(*lessons, strict=True)
        figures = dict(zip(Figures._fields, (mean_of_numbers(torch.cat(column)) for column in columns), strict=True))
        error = torch.cat([lesson.ratio_error for lesson in lessons])
        figures |= {"ratio_error": max(error[error.isfinite()].tolist(), default=0.0)}
        return figures | {name: float(round(figures[name] * agents)) for name in ("strayed", "not_finite")}

    def _cohorts(self) -> list[slice]:
        """Runs of adapters that learn together: as many as bounded memory allows."""
        agents, size = len(self.policy.mind.bank), max(1, self.rows_at_once // self.config.minibatch)
        return [slice(first, min(first + size, agents)) for first in range(0, agents, size)]

    def _imitate(self, experience: Experience, cohort: slice, is_resting: Tensor, rng: np.random.Generator) -> None:
        for examples, pools in experience.demonstrations:
            rates = experience.learning_rate
            imitate(self.policy, self.optimiser, self.config, examples, pools, cohort, is_resting, rates, rng)

    def _learn_cohort(self, experience: Experience, cohort: slice, rng: np.random.Generator) -> Figures:
        """All epochs of a run of adapters. Each is a learner of its own: cohorts bound memory and change nothing."""
        bank = self.policy.mind.bank
        is_broken = torch.zeros(len(bank))
        before_life, is_resting = bank.values[cohort].clone(), torch.zeros(len(bank), dtype=torch.bool)
        end, ratio_errors, losses, norms = Change(*[torch.zeros(0)] * 4), [], [torch.zeros(0)], [torch.zeros(0)]
        epochs = {"reinforce": 1, "none": 0}.get(self.config.algorithm, self.config.epochs)
        for _ in range(epochs):
            for batch in minibatches(experience.alive, cohort, self.config.minibatch, rng, is_resting):
                loss, change = self._look(experience, batch)
                # The sum over agents keeps their gradients apart: each adapter sees the mean over its own samples.
                with bank.gathering(cohort) as gradients:
                    (loss - experience.entropy_coef[batch.groups] * change.entropy).sum().backward()
                self._rein_in(batch.groups, change.kl, before_life[batch.groups - cohort.start], is_resting)
                is_learning = torch.zeros_like(is_resting)
                is_learning[batch.groups] = ~is_resting[batch.groups]
                rates, bound = experience.learning_rate, self.config.max_grad_norm
                norm = self.optimiser.step(cohort, gradients, rates, bound, is_learning)
                ratio_errors.append(change.ratio_error)
                losses.append(loss.detach())
                norms.append(norm[batch.groups - cohort.start])
                is_broken[batch.groups[~norms[-1].isfinite()]] = 1.0
        self._imitate(experience, cohort, is_resting, rng)
        nobody_rests = torch.zeros_like(is_resting)
        sample = next(minibatches(experience.alive, cohort, self.config.minibatch, rng, nobody_rests), None)
        if sample:
            with torch.no_grad():
                _, end = self._look(experience, sample)
            self._rein_in(sample.groups, end.kl, before_life[sample.groups - cohort.start], is_resting)
            ratio_errors.append(end.ratio_error)
        self.optimiser.let_go()
        strayed, first_error = is_resting[cohort].float(), torch.cat([*ratio_errors[:1], torch.zeros(0)])
        steps = torch.cat(losses), torch.cat(norms)
        return Figures(end.kl, end.clipped, end.entropy, *steps, strayed, is_broken[cohort], first_error)

    def _look(self, experience: Experience, batch: Minibatch) -> tuple[Tensor, Change]:
        """Each agent's loss (G,), and how its policy differs from the one that acted; a mean over its own samples."""
        index, keep, samples = batch.samples.flatten(), batch.keep, experience.samples
        text = samples.text[index.numpy()]
        logits = self.policy.weigh([samples.texts[i] for i in text], batch.groups)
        log_prob, entropy = chosen(logits, samples.action[index], samples.legal[index])
        old, advantage = samples.log_prob[index], samples.advantage[index]
        if experience.targets is not None:
            loss = distil_loss(logits, experience.targets[index], self.config.temperature, samples.legal[index])
        elif self.config.algorithm == "reinforce":
            loss = reinforce_loss(log_prob, advantage)
        else:
            loss = ppo_loss(log_prob, old, advantage, self.config.clip)

        def mean(x: Tensor) -> Tensor:  # (B,) -> (G,)
            return (x.view(keep.shape) * keep).sum(1) / keep.sum(1)

        with torch.no_grad():
            kl = mean(approx_kl(log_prob, old))
            clipped = mean(((log_prob - old).exp() - 1).abs() > self.config.clip)
            ratio_error = ((log_prob - old).abs().view(keep.shape) * keep).amax(1)
        return mean(loss), Change(kl, clipped, mean(entropy), ratio_error)

    def _rein_in(self, groups: Tensor, kl: Tensor, before: Tensor, is_resting: Tensor) -> None:
        """Rein in adapters with too much KL since `before` (G, F), and let them rest."""
        is_resting[groups] |= rein_in(self.policy.mind.bank, groups, kl, before, self.config.max_kl)
