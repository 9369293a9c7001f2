"""Learning while living: after every action one update of all adapters, in one batch.

Actor-critic with eligibility traces (Sutton & Barto 2018, section 13.5, one-step TD error times trace). Departures:
1. The trace is cut after `learn.trace` decisions and recomputed with the adapter as it is now, as a trace of gradients
   would be as large as the adapters, and stale. 2. Adam takes the step. 3. Credit is weighted by the probability ratio
of the adapter as it is now to the one that acted, at most 1 (as in V-trace, Espeholt et al. 2018, arXiv:1802.01561).
4. The critic learns from the whole life afterwards, as in the other algorithms. 5. The TD error of an action is known
when the next text is read, so its update comes one step later.

Symbols: W worlds, N agents in a world, M = W * N, K decisions in a trace.
"""

from collections import deque
from time import perf_counter

import numpy as np
import torch
from torch import Tensor

from agents.optimiser import StackedAdam
from agents.policy import Policy
from trainers.config import LearnConfig
from trainers.learning.health import decisions
from trainers.learning.losses import mean_of_numbers
from trainers.learning.trust_region import rein_in
from trainers.rollout import Moment


class OnlineLesson:
    """One life of learning online; `witness` is told of every step, `finish` of the end."""

    def __init__(
        self,
        policy: Policy,
        optimiser: StackedAdam,
        config: LearnConfig,
        learning_rate: Tensor,
        entropy_coef: Tensor,
    ):
        """learning_rate, entropy_coef: (N,)."""
        self.policy, self.optimiser, self.config = policy, optimiser, config
        self.learning_rate, self.entropy_coef = learning_rate, entropy_coef
        self._trace: deque[Moment] = deque(maxlen=config.trace)
        self._length = np.zeros(0, int)  # (M,) decisions of the trace that belong to the present episode
        self._before = policy.mind.bank.values.clone()
        self._read: list[tuple[np.ndarray, ...]] = []  # of each step: numbers of texts, who read them, legal actions
        self.update_s: list[float] = []
        self._norms: list[Tensor] = []
        self._losses: list[Tensor] = []
        self._is_broken = torch.zeros(len(policy.mind.bank), dtype=torch.bool)
        self._ratio_error = 0.0

    def witness(self, texts: list[str], moment: Moment) -> None:
        """A step of all: texts by number, and the columns (M, ...) of `trainers.rollout.Trajectory` for it."""
        if self._trace:
            self._update(texts, moment["value"])
        else:
            self._length = np.zeros(len(moment["action"]), int)
        self._trace.append(moment)
        self._read.append((moment["text"], moment["is_alive"], moment["legal"]))
        self._length = np.minimum(self._length + 1, self.config.trace) * moment["is_alive"]

    def stop(self) -> None:
        """Nothing goes on by itself here."""

    def finish(self, texts: list[str]) -> dict[str, float]:
        """The last update, then the trust region over the whole life; returns what is worth logging."""
        if self._trace:
            self._update(texts, np.zeros_like(self._trace[-1]["value"]))  # every episode ends or is cut off here
        bank = self.policy.mind.bank
        kl, entropy = self._change(texts)
        strayed = rein_in(bank, torch.arange(len(bank)), kl, self._before, self.config.max_kl)
        self.optimiser.let_go()
        return {
            "approx_kl": mean_of_numbers(kl),
            "entropy": mean_of_numbers(entropy),
            "policy_loss": mean_of_numbers(torch.cat([*self._losses, torch.zeros(0)])),
            "grad_norm": mean_of_numbers(torch.cat([*self._norms, torch.zeros(0)])),
            "strayed": float(strayed.sum()),
            "not_finite": float(self._is_broken.sum()),
            "ratio_error": self._ratio_error,
            "clip_fraction": 0.0,
            "update_ms": 1000 * float(np.median(self.update_s)) if self.update_s else 0.0,
        }

    def _update(self, texts: list[str], next_value: np.ndarray) -> None:
        """Credit the newest TD error to the decisions of the trace. next_value: (M,), of what was seen after it."""
        start, newest = perf_counter(), self._trace[-1]
        comes = np.where(newest["is_cut"], newest["cut_value"], np.where(newest["is_terminal"], 0.0, next_value))
        error = newest["reward"] + self.config.discount * comes - newest["value"]  # (M,)
        back = np.arange(len(self._trace))[:, None]  # (K, 1), 0 for the newest decision
        is_credited = (back < self._length) & newest["is_alive"]  # (K, M)
        credit = error * (self.config.discount * self.config.gae_lambda) ** back * is_credited
        agents = len(self.policy.mind.bank)
        alive = newest["is_alive"].reshape(-1, agents).any(axis=0)
        size = max(1, self.policy.mind.rows_at_once * agents // credit.size)
        for first in range(0, agents, size):
            learners = first + np.flatnonzero(alive[first : first + size])
            if len(learners):
                self._learn(texts, slice(first, min(first + size, agents)), learners, is_credited, credit)
        self._length[newest["is_terminal"] | newest["is_cut"]] = 0
        self.update_s.append(perf_counter() - start)

    def _learn(
        self, texts: list[str], cohort: slice, learners: np.ndarray, is_credited: np.ndarray, credit: np.ndarray
    ) -> None:
        """One step of the adapters `learners` (G,), a part of the cohort; credit: (K, M)."""
        bank, trace = self.policy.mind.bank, list(self._trace)[::-1]

        def rows(columns: list[np.ndarray]) -> np.ndarray:  # K of (M, ...) -> (G * R, ...), R = W * K
            by_agent = np.stack(columns).reshape(len(trace), -1, len(bank), *columns[0].shape[1:])
            return np.moveaxis(by_agent[:, :, learners], 2, 0).reshape(-1, *columns[0].shape[1:])

        keep = rows(list(is_credited))
        legal = rows([m["legal"] for m in trace]) | ~keep[:, None]  # filler must not be without any action
        told = [texts[i] for i in rows([m["text"] for m in trace])]
        groups, action = torch.from_numpy(learners), torch.from_numpy(rows([m["action"] for m in trace]))
        log_prob, entropy = self.policy.evaluate(told, groups, action, torch.from_numpy(legal))
        is_newest = keep & rows([np.full(credit.shape[1], k == 0) for k in range(len(trace))])
        acted = torch.from_numpy(rows([m["log_prob"] for m in trace]))
        ratio = (log_prob.detach() - acted).exp().clamp(max=1.0).view(len(learners), len(trace), -1)
        # From the newest decision back, of which each rests on those after it
        weight = torch.from_numpy(rows(list(credit)).astype(np.float32)) * ratio.cumprod(dim=1).flatten()
        counts = torch.from_numpy(is_newest.reshape(len(learners), -1).sum(axis=1))
        gain = (weight * log_prob).view(len(learners), -1).sum(dim=1) / counts
        bonus = (entropy * torch.from_numpy(is_newest)).view(len(learners), -1).sum(dim=1) / counts
        with bank.gathering(cohort) as gradients:
            (-gain - self.entropy_coef[groups] * bonus).sum().backward()
        if not self.update_s:  # the first update, of which cohort ever
            error = float(((log_prob.detach() - acted).abs() * torch.from_numpy(is_newest)).max())
            self._ratio_error = max(self._ratio_error, error)
        is_learning = torch.zeros(len(bank), dtype=torch.bool)
        is_learning[groups] = True
        rates, bound = self.learning_rate, self.config.max_grad_norm
        norms = self.optimiser.step(cohort, gradients, rates, bound, is_learning)
        self._losses.append(-gain.detach())
        self._norms.append(norms[groups - cohort.start])
        self._is_broken[groups] |= ~self._norms[-1].isfinite()

    def _change(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        """KL(before || now) of each agent's actions and its entropy now, (N,): means over its decisions of the life."""
        bank, mind = self.policy.mind.bank, self.policy.mind
        text, is_alive, legal = (np.stack(column) for column in zip(*self._read, strict=True))
        owner, number, allowed, share = decisions(text, is_alive, legal, len(bank))
        told, forbidden = [texts[i] for i in number], torch.from_numpy(~allowed)
        after, before = (
            torch.from_numpy(mind.answer(told, owner, values)).masked_fill(forbidden, -torch.inf).log_softmax(1)
            for values in (None, self._before)
        )

        def mean(figure: Tensor) -> Tensor:  # (R, A), where an illegal action adds nothing
            of_row = figure.masked_fill(forbidden, 0.0).sum(1)
            return torch.zeros(len(bank)).index_add_(0, torch.from_numpy(owner), share * of_row)

        return mean(before.exp() * (before - after)), mean(-after.exp() * after)
