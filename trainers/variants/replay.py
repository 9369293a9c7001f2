"""A replay buffer for each agent: compact, bounded, saved with the checkpoint.

Old experience is never taken for fresh. The critic learns from it by one-step targets, which do not ask who chose the
action; adapters imitate what turned out better than the critic expected, and only that (self-imitation learning, Oh et
al. 2018, arXiv:1806.05635).

Symbols: P agents, C places of each, A actions.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from agents.policy import Policy
from trainers.config import TrainConfig
from trainers.learning.critic import CriticExamples
from trainers.learning.imitation import Demonstrations, Examples, sil_advantage
from trainers.population import Population
from trainers.rollout import Rollout, Trajectory
from trainers.stages import Run
from trainers.variants.replay_config import ReplayConfig
from trainers.variants.variant import Variant

COLUMNS = {
    "text": np.int32,  # number of what was read
    "next_text": np.int32,  # of what was read after it; -1 where the episode ended or was cut off
    "action": np.int8,
    "log_prob": np.float32,  # when it was done
    "reward": np.float32,
    "returned": np.float32,  # what came of it: the lambda-return, with the critic of that time
}
TEXTS = ("text", "next_text")
"""Columns that number texts; -1 for none."""


class Replay(Variant):
    """Fills the buffers after each rollout; critic and adapters learn from what was in them before."""

    def __init__(self, settings: ReplayConfig, config: TrainConfig, population: Population, run_dir: Path):
        super().__init__(settings, config, population, run_dir)
        self.buffer = ReplayBuffer(len(population.genomes), settings.steps, len(population.codec.action_words))

    def demonstrations(self, run: Run, rollout: Rollout, returns: Tensor) -> list[Demonstrations]:
        """What each agent remembers of its own former rollouts."""
        return [own_demonstrations(self.population.policy, self.buffer)] if len(self.buffer) else []

    def critic_examples(self) -> list[CriticExamples]:
        """The same for the critic, which asks not who chose the action."""
        return (
            [one_step_targets(self.population.policy, self.buffer, self.config.learn.discount)]
            if len(self.buffer)
            else []
        )

    def after_learning(self, rollout: Rollout, returns: Tensor) -> dict[str, float]:
        """Remember the rollout."""
        self.buffer.add(rollout.trajectory, returns.numpy().reshape(rollout.trajectory.reward.shape))
        return {"replay_steps": float(len(self.buffer))}

    def forget(self, slot: int) -> None:
        """A newcomer inherits an adapter, not memories."""
        self.buffer.forget(slot)

    def tensors(self) -> dict[str, Tensor]:
        """The buffers."""
        return self.buffer.tensors()

    def state(self) -> dict[str, Any]:
        """The texts that the buffers number."""
        return {"texts": self.buffer.texts}

    def restore(self, tensors: dict[str, Tensor], state: dict[str, Any], generation: int) -> None:
        """Fill the buffers again."""
        self.buffer.restore(tensors, state["texts"])


def own_demonstrations(policy: Policy, buffer: "ReplayBuffer") -> Demonstrations:
    """What each agent remembers, weighted by how much better than expected it turned out."""
    columns = {name: column.reshape(-1, *column.shape[2:]) for name, column in buffer.columns.items()}
    filled, text = buffer.filled(), columns["text"]
    worth = sil_advantage(policy, buffer.texts, text, columns["returned"], filled.reshape(-1))
    pools = [agent * filled.shape[1] + np.flatnonzero(own) for agent, own in enumerate(filled)]
    return Examples(buffer.texts, text, columns["legal"], columns["action"], worth), pools


def one_step_targets(policy: Policy, buffer: "ReplayBuffer", discount: float) -> CriticExamples:
    """Targets by the critic as it is now; the return where an episode ended or was cut off."""
    columns, filled = buffer.columns, buffer.filled()
    text, following, reward, returned = (
        torch.from_numpy(columns[name][filled]) for name in ("text", "next_text", "reward", "returned")
    )
    value = torch.from_numpy(policy.values(buffer.texts))
    target = torch.where(following < 0, returned, reward + discount * value[following.long()])
    return CriticExamples(policy.network.features(buffer.texts), text.long(), target)


class ReplayBuffer:
    """A ring of places for each of P agents."""

    def __init__(self, agents: int, places: int, actions: int):
        self.columns = {name: np.zeros((agents, places), kind) for name, kind in COLUMNS.items()}
        self.columns["legal"] = np.zeros((agents, places, actions), bool)
        for name in TEXTS:
            self.columns[name][:] = -1
        self.written = np.zeros(agents, np.int64)  # ever, of each agent: the next place is this modulo C
        self.texts: list[str] = []

    def __len__(self) -> int:
        return int(np.minimum(self.written, self._places).sum())

    @property
    def _places(self) -> int:
        return self.columns["text"].shape[1]

    def filled(self) -> np.ndarray:
        """(P, C) bool, the places that hold something."""
        return np.arange(self._places) < self.written[:, None]

    def add(self, trajectory: Trajectory, returned: np.ndarray) -> None:
        """Remember a rollout; returned: (T, M). An agent's oldest steps make room."""
        number = {text: i for i, text in enumerate(self.texts)}
        renumber = np.array([number.setdefault(text, len(number)) for text in trajectory.texts], np.int32)
        self.texts = list(number)
        agents, ends = len(self.written), trajectory.is_terminal | trajectory.is_truncated
        text = renumber[trajectory.text]
        following = np.where(ends, -1, np.concatenate([text[1:], text[-1:]]))
        steps_of = {"text": text, "next_text": following, "returned": returned}
        steps_of |= {name: getattr(trajectory, name) for name in ("action", "log_prob", "reward", "legal")}
        for agent in range(agents):
            own = trajectory.is_alive[:, agent::agents]  # (T, W)
            steps = int(own.sum())
            places = (self.written[agent] + np.arange(steps)) % self._places
            for name, values in steps_of.items():
                self.columns[name][agent, places[-self._places :]] = values[:, agent::agents][own][-self._places :]
            self.written[agent] += steps
        self._drop_unused_texts()

    def forget(self, agent: int) -> None:
        """Somebody new has this slot."""
        self.written[agent] = 0
        for name in TEXTS:
            self.columns[name][agent] = -1

    def tensors(self) -> dict[str, Tensor]:
        """All of it but the texts, by name; the same memory as the columns."""
        return {name: torch.from_numpy(column) for name, column in (*self.columns.items(), ("written", self.written))}

    def restore(self, tensors: dict[str, Tensor], texts: list[str]) -> None:
        """Become what was saved; KeyError or ValueError where it does not fit."""
        for name, mine in self.tensors().items():
            if tensors[name].shape != mine.shape:
                raise ValueError(f"replay.{name} has shape {tuple(tensors[name].shape)}: must be {tuple(mine.shape)}")
            mine.copy_(tensors[name])
        self.texts = list(texts)

    def _drop_unused_texts(self) -> None:
        """Texts that no place names any more would pile up over generations."""
        used = np.unique(np.concatenate([self.columns[name].reshape(-1) for name in TEXTS]))
        used = used[used >= 0]
        renumber = np.full(len(self.texts) + 1, -1, np.int32)  # its last place is that of -1
        renumber[used] = np.arange(len(used))
        for name in TEXTS:
            self.columns[name][:] = renumber[self.columns[name]]
        self.texts = [self.texts[i] for i in used]
