"""What agents remember of their own lives to learn from again: compact, bounded, saved with the checkpoint.

Old experience is never taken for fresh. The critic learns from it by one-step targets, which do not ask who chose the
action; adapters imitate what turned out better than the critic expected, and only that (self-imitation learning, Oh et
al. 2018, arXiv:1806.05635).

Symbols: P agents, C places of each, A actions.
"""

import numpy as np
import torch
from torch import Tensor

from trainers.rollout import Trajectory

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


class Replay:
    """A ring of places for each agent. A newcomer's is empty: it inherits an adapter, not memories."""

    def __init__(self, agents: int, places: int, actions: int):
        self.columns = {name: np.zeros((agents, places), kind) for name, kind in COLUMNS.items()}
        self.columns["legal"] = np.zeros((agents, places, actions), bool)
        for name in TEXTS:
            self.columns[name][:] = -1
        self.written = np.zeros(agents, np.int64)  # ever, of each agent: the next place is this modulo C
        self.texts: list[str] = []

    def __bool__(self) -> bool:
        return True  # an empty one is one

    def __len__(self) -> int:
        return int(np.minimum(self.written, self._places).sum())

    @property
    def _places(self) -> int:
        return self.columns["text"].shape[1]

    def filled(self) -> np.ndarray:
        """(P, C) bool, the places that hold something."""
        return np.arange(self._places) < self.written[:, None]

    def add(self, trajectory: Trajectory, returned: np.ndarray) -> None:
        """Remember a life; returned: (T, M). An agent's oldest steps make room."""
        number = {text: i for i, text in enumerate(self.texts)}
        renumber = np.array([number.setdefault(text, len(number)) for text in trajectory.texts], np.int32)
        self.texts = list(number)
        agents, ends = len(self.written), trajectory.is_terminal | trajectory.is_cut
        text = renumber[trajectory.text]
        following = np.where(ends, -1, np.concatenate([text[1:], text[-1:]]))
        life = {"text": text, "next_text": following, "returned": returned}
        life |= {name: getattr(trajectory, name) for name in ("action", "log_prob", "reward", "legal")}
        for agent in range(agents):
            own = trajectory.is_alive[:, agent::agents]  # (T, W)
            steps = int(own.sum())
            places = (self.written[agent] + np.arange(steps)) % self._places
            for name, values in life.items():
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
