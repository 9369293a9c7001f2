"""Learning while living: after every action one update of all adapters, in one batch.

Actor-critic with eligibility traces (Sutton & Barto 2018, section 13.5, one-step TD error times trace). Departures:
1. The trace is cut after `learn.trace` decisions and recomputed with the adapter as it is now, as a trace of gradients
   would be as large as the adapters, and stale. 2. Adam takes the step. 3. Credit is weighted by the probability ratio
of the adapter as it is now to the one that acted, at most 1 (as in V-trace, Espeholt et al. 2018, arXiv:1802.01561).
4. The critic learns from the whole rollout afterwards, as in the other algorithms. 5. The TD error of an action is
known when the next text is read, so its update comes one step later.

With `learn.background` a thread learns, while agents act by a copy of their adapters that it publishes after every
update. It learns from all steps that wait in one update: the further it falls behind, the larger and the fewer updates
are, and the less is learned from the same steps. Staleness is how many steps the agents are ahead of learning; it is
bounded, logged, and corrected by the probability ratios. What comes of a rollout then depends on the threads' timing,
so no such run can be repeated exactly.

Symbols: W worlds, N agents in a world, M = W * N, K decisions in a trace, S steps in an update, G agents that learn.
"""

from collections import deque
from collections.abc import Sequence
from queue import Queue
from threading import Thread
from time import perf_counter

import numpy as np
import torch
from torch import Tensor

from agents.optimiser import StackedAdam
from agents.policy import Policy
from envs.worlds.world import World
from trainers.learning.config import LearnConfig
from trainers.learning.health import decisions
from trainers.learning.learner import Experience, Learner, mean_of_numbers, project_to_trust_region
from trainers.rollout import Observed, Observer, Transition

MOST_STEPS_AHEAD = 8
"""Steps that wait to be learned from in the background; then agents wait too. As many may be in work."""


class Online(Learner):
    """Learns while agents act; what is left to do after a rollout is the trust region, and to imitate."""

    _watching: "OnlineObserver | BackgroundObserver"

    def start(self, learning_rate: Tensor, entropy_coef: Tensor) -> list[Observer]:
        """What updates the adapters after every step."""
        observer = OnlineObserver(self.policy, self.optimiser, self.config, learning_rate, entropy_coef)
        self._watching = BackgroundObserver(observer) if self.config.background else observer
        return [self._watching]

    def learn(self, experience: Experience, rng: np.random.Generator) -> dict[str, float]:
        """Imitate, then finish; KL and entropy are those of all decisions of the rollout."""
        nobody = torch.zeros(len(self.policy.network.bank), dtype=torch.bool)
        for chunk in self.chunks():  # before `finish`, whose trust region is for the whole rollout
            self.imitate(experience, chunk, nobody, rng)
        return self._watching.finish(experience.texts)


class OnlineObserver(Observer):
    """One rollout of learning online: an update after every step, and the trust region in the end."""

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
        self._trace: deque[Transition] = deque(maxlen=config.trace - 1)  # decisions whose own error is learned from
        self._waiting: list[Transition] = []  # none, or the newest, of which the next value is not known yet
        self._length = np.zeros(1, int)  # (M,) decisions of the trace that belong to the present episode
        self._before = policy.network.bank.values.clone()
        self._read: list[tuple[np.ndarray, ...]] = []  # of each step: numbers of texts, who read them, legal actions
        self.update_s: list[float] = []
        self._norms: list[Tensor] = []
        self._losses: list[Tensor] = []
        self._is_broken = torch.zeros(len(policy.network.bank), dtype=torch.bool)
        self._ratio_error = 0.0

    def step(self, seen: Observed) -> None:
        """Update by the step before, whose next value is known now."""
        self.update(seen.texts, [seen.transition])

    def update(self, texts: Sequence[str], steps: Sequence[Transition]) -> None:
        """Learn from S steps of all, in one update: texts by number, and the columns (M, ...) of a trajectory.

        The last step waits until the next one is known; so the first of all comes to no update.
        """
        known = [*self._waiting, *steps]
        self._waiting = known[-1:]
        self._read += [(m["text"], m["is_lived"], m["legal"]) for m in steps]
        if known[1:]:
            self._update(texts, known[:-1], [m["value"] for m in known[1:]])

    def finish(self, texts: Sequence[str]) -> dict[str, float]:
        """The last update, then the trust region over the whole rollout; return what is worth logging."""
        if self._waiting:  # every episode ends or is cut off here
            self._update(texts, self._waiting, [np.zeros_like(self._waiting[0]["value"])])
            self._waiting = []
        bank = self.policy.network.bank
        kl, entropy = self._change(texts)
        exceeded = project_to_trust_region(bank, torch.arange(len(bank)), kl, self._before, self.config.max_kl)
        self.optimiser.let_go()
        return {
            "approx_kl": mean_of_numbers(kl),
            "entropy": mean_of_numbers(entropy),
            "policy_loss": mean_of_numbers(torch.cat([*self._losses, torch.zeros(0)])),
            "grad_norm": mean_of_numbers(torch.cat([*self._norms, torch.zeros(0)])),
            "kl_exceeded": float(exceeded.sum()),
            "not_finite": float(self._is_broken.sum()),
            "ratio_error": self._ratio_error,
            "clip_fraction": 0.0,
            "update_ms": 1000 * float(np.median(self.update_s)) if self.update_s else 0.0,
        }

    def _update(self, texts: Sequence[str], steps: list[Transition], next_values: list[np.ndarray]) -> None:
        """Credit the TD errors of S steps to their decisions and to those of the trace.

        next_values: (M,) each, of what was seen after the step.
        """
        start, decided = perf_counter(), [*self._trace, *steps]
        agents = len(self.policy.network.bank)
        credit = np.stack([self._credit(*known) for known in zip(steps, next_values, strict=True)])  # (S, K, M)
        alive = np.any([m["is_lived"] for m in steps], axis=0).reshape(-1, agents).any(axis=0)
        size = max(1, self.policy.network.rows_at_once * agents // (len(decided) * credit.shape[-1]))
        for first in range(0, agents, size):
            learners = first + np.flatnonzero(alive[first : first + size])
            if len(learners):
                self._learn(texts, slice(first, min(first + size, agents)), learners, decided, credit)
        self._trace.extend(steps)
        self.update_s.append(perf_counter() - start)

    def _credit(self, step: Transition, next_value: np.ndarray) -> np.ndarray:
        """What the TD error of a step is worth to its decision and the K - 1 before, (K, M), the newest first."""
        comes = np.where(step["is_terminal"], 0.0, next_value)
        comes = np.where(step["is_truncated"], step["bootstrap_value"], comes)
        error = step["reward"] + self.config.discount * comes - step["value"]  # (M,)
        self._length = np.minimum(self._length + 1, self.config.trace) * step["is_lived"]
        back = np.arange(self.config.trace)[:, None]
        credit = error * (self.config.discount * self.config.gae_lambda) ** back
        is_credited = back < self._length
        self._length[step["is_terminal"] | step["is_truncated"]] = 0
        return np.where(is_credited, credit, 0.0)

    def _learn(
        self,
        texts: Sequence[str],
        chunk: slice,
        learners: np.ndarray,
        decided: list[Transition],
        credit: np.ndarray,
    ) -> None:
        """One step of the adapters `learners` (G,), a part of the chunk, by L decisions; credit: (S, K, M)."""
        bank, first = self.policy.network.bank, len(decided) - len(credit)
        shape = len(learners), len(decided), -1  # of a row of numbers: (G, L, W)

        def rows(columns: Sequence[np.ndarray]) -> np.ndarray:  # L of (M, ...) -> (G * L * W, ...)
            by_agent = np.stack(columns).reshape(len(columns), -1, len(bank), *columns[0].shape[1:])
            return np.moveaxis(by_agent[:, :, learners], 2, 0).reshape(-1, *columns[0].shape[1:])

        is_lived = rows([m["is_lived"] for m in decided])
        legal = rows([m["legal"] for m in decided]) | ~is_lived[:, None]  # filler must not be without any action
        read = [texts[i] for i in rows([m["text"] for m in decided])]
        groups, action = torch.from_numpy(learners), torch.from_numpy(rows([m["action"] for m in decided]))
        log_prob, entropy = self.policy.evaluate(read, groups, action, torch.from_numpy(legal))
        acted = torch.from_numpy(rows([m["log_prob"] for m in decided]))
        ratio = (log_prob.detach() - acted).exp().clamp(max=1.0).view(shape)
        by_agent = credit.reshape(*credit.shape[:2], -1, len(bank))[..., learners]
        weight = credited(torch.from_numpy(np.moveaxis(by_agent, -1, 0).astype(np.float32)), ratio).flatten()
        is_new = torch.from_numpy(
            is_lived & rows([np.full(len(m["action"]), i >= first) for i, m in enumerate(decided)])
        )
        counts = is_new.view(len(learners), -1).sum(dim=1)
        gain = (weight * log_prob).view(len(learners), -1).sum(dim=1) / counts
        bonus = (entropy * is_new).view(len(learners), -1).sum(dim=1) / counts
        if not self.update_s:  # the first update, of which chunk ever
            error = float(((log_prob.detach() - acted).abs() * is_new).max())
            self._ratio_error = max(self._ratio_error, error)
        is_learning = torch.zeros(len(bank), dtype=torch.bool)
        is_learning[groups] = True
        loss = (-gain - self.entropy_coef[groups] * bonus).sum()
        norms = self.optimiser.minimise(chunk, loss, self.learning_rate, self.config.max_grad_norm, is_learning)
        self._losses.append(-gain.detach())
        self._norms.append(norms[groups - chunk.start])
        self._is_broken[groups] |= ~self._norms[-1].isfinite()

    def _change(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """KL(before || now) of each agent's actions and its entropy now, (N,): means over all its decisions."""
        bank, network = self.policy.network.bank, self.policy.network
        text, is_alive, legal = (np.stack(column) for column in zip(*self._read, strict=True))
        owner, number, allowed, share = decisions(text, is_alive, legal, len(bank))
        read, forbidden = [texts[i] for i in number], torch.from_numpy(~allowed)
        after, before = (
            torch.from_numpy(network.answer(read, owner, values)).masked_fill(forbidden, -torch.inf).log_softmax(1)
            for values in (None, self._before)
        )

        def mean(figure: Tensor) -> Tensor:  # (R, A), where an illegal action adds nothing
            of_row = figure.masked_fill(forbidden, 0.0).sum(1)
            return torch.zeros(len(bank)).index_add_(0, torch.from_numpy(owner), share * of_row)

        return mean(before.exp() * (before - after)), mean(-after.exp() * after)


def credited(credit: Tensor, ratio: Tensor) -> Tensor:
    """The weight of each of D decisions, (G, D, W): all credit that it gets, each times the ratios in between.

    credit: (G, S, K, W), of the errors of the last S of these decisions to themselves and to the K - 1 before each.
    ratio: (G, D, W). An error rests on all that was done from the decision on, as in V-trace.
    """
    decisions, steps = ratio.shape[1], credit.shape[1]
    first = decisions - steps
    weight, product = torch.zeros_like(ratio), torch.ones_like(credit[:, :, 0])
    for back in range(min(credit.shape[2], decisions)):
        skipped = max(0, back - first)  # steps before which there are not so many decisions
        at = slice(first + skipped - back, decisions - back)
        product[:, skipped:] *= ratio[:, at]
        weight[:, at] += credit[:, skipped:, back] * product[:, skipped:]
    return weight


class BackgroundObserver(Observer):
    """An `OnlineObserver` that learns in a thread of its own."""

    def __init__(self, learning: OnlineObserver):
        self.learning, self._bank = learning, learning.policy.network.bank
        self._queue: Queue[tuple[Sequence[str], Transition] | None] = Queue(MOST_STEPS_AHEAD)
        self._failure: BaseException | None = None
        self._ahead: list[int] = []
        self._learned = 0
        self._threads = torch.get_num_threads()
        self._thread = Thread(target=self._work, daemon=True)

    def start(self, world: World) -> None:
        """Begin the thread."""
        torch.set_num_threads(max(1, self._threads // 2))  # two that share all processors only wait for each other
        self._bank.publish()
        self._thread.start()

    def step(self, seen: Observed) -> None:
        """A step to be learned from soon; what went wrong in the thread is raised here."""
        self._raise()
        self._ahead.append(len(self._ahead) - self._learned)
        self._queue.put((seen.texts, seen.transition))

    def stop(self) -> None:
        """Wait for what is left, end the thread, and let agents act by the bank again."""
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join()
        self._bank.withdraw()
        torch.set_num_threads(self._threads)

    def finish(self, texts: Sequence[str]) -> dict[str, float]:
        """As `OnlineObserver.finish`."""
        self._raise()
        staleness = {"staleness_mean": float(np.mean(self._ahead)), "staleness_max": float(np.max(self._ahead))}
        return self.learning.finish(texts) | staleness

    def _raise(self) -> None:
        if self._failure:
            raise RuntimeError("learning in the background failed") from self._failure

    def _work(self) -> None:
        torch.set_num_threads(max(1, self._threads // 2))
        while work := self._all_that_waits():
            if self._failure:
                continue  # whoever waits for a place in the queue must not wait for ever
            try:
                self.learning.update(work[-1][0], [transition for _, transition in work])
                self._bank.publish()
                self._learned += len(work)
            except BaseException as error:
                self._failure = error

    def _all_that_waits(self) -> list[tuple[Sequence[str], Transition]]:
        """One step or more, as soon as there are some; none when there will be no more."""
        work = [self._queue.get()]
        while work[-1] is not None and not self._queue.empty() and len(work) < MOST_STEPS_AHEAD:
            work.append(self._queue.get())
        if len(work) > 1 and work[-1] is None:
            self._queue.put(work.pop())
        return [one for one in work if one is not None]
