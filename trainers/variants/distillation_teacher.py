"""Who shows how it is done: the planner, a world's own expert, or the best agent of another run.

A teacher says of each text that was met what should have been done (DAgger, Ross et al. 2011, arXiv:1011.0686).

Symbols: T steps, M agents, K distinct texts, A actions.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from agents.codecs.codec import TextCodec
from agents.policy import Policy
from agents.types import UserError
from envs.bots.planner import Planner
from envs.types import WorldConfig
from trainers.env_config import EnvConfig
from trainers.records.opening import open_fittest
from trainers.records.run_folder import weights_sha256
from trainers.rollout import Observer, Rollout
from trainers.stages import States
from trainers.variants.distillation_config import EXPERT, PLANNER
from trainers.variants.distillation_expert import ExpertTeacher


class Teacher(Protocol):
    """What a student asks."""

    observers: Sequence[Observer]
    """What must watch a rollout before it is asked about it."""
    name: str
    """Which teacher this is, to the last bit of its adapter and model: a resumed run must have the same."""

    def targets(self, rollout: Rollout) -> np.ndarray:
        """What should have been done in each step of a rollout: probabilities (T, M, A), nothing that was not allowed.

        A pure function of the rollout, so that a resumed run is taught the same. Where nobody acted they mean nothing;
        where all are 0, nothing is taught.
        """


class PlannerTeacher:
    """The planner knows the whole world, a text does not: its target is how often the planner did what after a text."""

    name = PLANNER

    def __init__(self, world: WorldConfig, actions: int):
        self.planner, self.actions, self._states = Planner(world), actions, States()
        self.observers: Sequence[Observer] = [self._states]

    def targets(self, rollout: Rollout) -> np.ndarray:
        """Of the rollout that was watched last."""
        t = rollout.trajectory
        did = np.stack([self.planner(state) for state in self._states.states[: len(t.text)]]).reshape(t.text.shape)
        counts = np.zeros((len(t.texts), self.actions))
        np.add.at(counts, (t.text[t.is_alive], did[t.is_alive]), 1)
        return among_legal(counts[t.text], t.legal)


class RunTeacher:
    """An agent of another run, softened by a temperature (Hinton et al. 2015, arXiv:1503.02531)."""

    observers: Sequence[Observer] = ()

    def __init__(self, policy: Policy, agent: int, temperature: float):
        self.policy, self.agent, self.temperature = policy, agent, temperature
        adapter = policy.network.bank.values[agent].cpu().numpy().tobytes()
        self.name = hashlib.sha256(adapter + json.dumps(weights_sha256(policy)).encode()).hexdigest()

    def targets(self, rollout: Rollout) -> np.ndarray:
        """Answers anew: answers that are kept depend on which texts were asked together."""
        t = rollout.trajectory
        self.policy.answers.forget()
        logits = self.policy.logits(t.texts, np.full(len(t.texts), self.agent)) / self.temperature
        odds = np.exp(logits - logits.max(axis=1, keepdims=True))
        return among_legal(odds[t.text], t.legal)


def among_legal(weight: np.ndarray, legal: np.ndarray) -> np.ndarray:
    """Weights (..., A) as probabilities of what is allowed; even ones where no weight is on it."""
    allowed = np.where(legal, weight, 0.0)
    total = allowed.sum(axis=-1, keepdims=True)
    even = legal / legal.sum(axis=-1, keepdims=True)
    return np.where(total > 0, allowed / np.where(total > 0, total, 1.0), even)


def open_teacher(name: str, world: EnvConfig, codec: TextCodec, temperature: float) -> Teacher:
    """The planner, the world's expert, or the fittest agent of the run in a folder.

    UserError where that does not speak the student's words, or the world has no expert.

    codec: the student's.
    """
    if name == PLANNER:
        return PlannerTeacher(world, len(codec.action_words))
    if name == EXPERT:
        return ExpertTeacher(world)
    population, agent = open_fittest(Path(name))
    for part in ("instructions", "action_words", "answer"):
        ours, theirs = (getattr(one, part) for one in (codec, population.codec))
        if ours != theirs:
            raise UserError(f"distillation.teacher = {name!r}: must be a run with the same {part}, not {theirs!r}")
    return RunTeacher(population.policy, agent, temperature)
