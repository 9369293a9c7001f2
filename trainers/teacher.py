"""Who shows how it is done: the planner, or the best agent of another run. It judges what the student read itself.

A student that only watches its teacher never sees where its own mistakes lead; so it acts, and the teacher says of each
text that it met what should have been done (DAgger, Ross et al. 2011, arXiv:1011.0686).

Symbols: T steps, M agents, K distinct texts, A actions.
"""

from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike

from agents.policy import Policy
from agents.types import UserError
from envs.bots.planner import Planner
from envs.types import WorldConfig
from trainers.config import PLANNER
from trainers.rollout import Life
from trainers.run_folder import open_fittest


class Teacher(Protocol):
    """What a student asks."""

    def targets(self, life: Life) -> np.ndarray:
        """What should be done after each text of a life: probabilities (K, A)."""


class PlannerTeacher:
    """The planner knows the whole world, a text does not: its target is how often the planner did what after a text."""

    def __init__(self, world: WorldConfig, actions: int):
        self.planner, self.actions = Planner(world), actions

    def targets(self, life: Life) -> np.ndarray:
        """Needs a life with states."""
        t = life.trajectory
        did = np.stack([self.planner(state) for state in life.states[: len(t.text)]]).reshape(t.text.shape)
        counts = np.zeros((len(t.texts), self.actions))
        np.add.at(counts, (t.text[t.is_alive], did[t.is_alive]), 1)
        return counts / counts.sum(axis=1, keepdims=True)


class RunTeacher:
    """The fittest agent of a run, softened by a temperature (Hinton et al. 2015, arXiv:1503.02531)."""

    def __init__(self, policy: Policy, agent: int, temperature: float):
        self.policy, self.agent, self.temperature = policy, agent, temperature

    def targets(self, life: Life) -> np.ndarray:
        """Whatever the world allows: that is masked where actions are chosen."""
        texts = life.trajectory.texts
        return softmax(self.policy.logits(texts, np.full(len(texts), self.agent)) / self.temperature)


def softmax(logits: ArrayLike) -> np.ndarray:
    """Probabilities along the last axis."""
    odds = np.exp(logits - np.max(logits, axis=-1, keepdims=True))
    return np.asarray(odds / odds.sum(axis=-1, keepdims=True))


def open_teacher(name: str, world: WorldConfig, student: Policy, temperature: float) -> Teacher:
    """The planner, or the fittest agent of the run in a folder; UserError where its actions are not the student's."""
    actions = len(student.mind.action_ids)
    if name == PLANNER:
        return PlannerTeacher(world, actions)
    policy, agent = open_fittest(Path(name))
    if len(policy.mind.action_ids) != actions:
        raise UserError(f"learn.teacher = {name!r}: must be a run in the same world, with {actions} actions")
    return RunTeacher(policy, agent, temperature)
