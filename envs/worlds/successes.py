"""Which episodes succeeded, of worlds whose infos say so: by "success" or "is_success", and by "task" if they name one.

Gymnasium Robotics and Stable-Baselines3 have "is_success", Meta-World has "success".
"""

from collections import Counter
from typing import Any, NamedTuple

import numpy as np

_KEYS = ("success", "is_success")
_TRUTH_VALUES = (bool, np.bool_, int, float)  # Meta-World's are numbers
SUCCESS, BY_TASK = "success", "success_of_"
"""The figure of all episodes, and how the figure of one task begins."""


class _Latest(NamedTuple):
    task: str  # of the episode under way; "" where the world names none
    has_succeeded: bool | None  # None: it does not say


class Successes:
    """The episodes of W x N copies in one rollout."""

    def __init__(self, copies: int) -> None:
        self._copies = copies
        self._latest = [_Latest("", None)] * copies
        self._ended: Counter[tuple[int, str]] = Counter()  # by copy and task
        self._won: Counter[tuple[int, str]] = Counter()
        self._are_told = False

    def note(self, copy: int, info: Any, *, is_over: bool) -> None:
        """A reset or a step of a copy came with this info; is_over: its episode ended with the step."""
        said = next((info[key] for key in _KEYS if isinstance(info.get(key), _TRUTH_VALUES)), None)
        task = info.get("task", "")
        now = _Latest(task if isinstance(task, str) else "", None if said is None else bool(said))
        self._are_told |= said is not None
        self._latest[copy] = now
        if is_over and now.has_succeeded is not None:
            self._ended[copy, now.task] += 1
            self._won[copy, now.task] += now.has_succeeded
            self._latest[copy] = _Latest("", None)

    def figures(self, shape: tuple[int, int]) -> dict[str, np.ndarray]:
        """The share of each agent's episodes that succeeded, (W, N): of all, and of each task.

        An episode under way counts, as a failure, only where it is the agent's first. NaN where an agent had none of
        a task. {} where the world does not say.
        """
        if not self._are_told:
            return {}
        ended, won = self._ended.copy(), self._won
        for copy in {*range(self._copies)} - {copy for copy, _ in self._ended}:
            ended[copy, self._latest[copy].task] = 1
        tasks = sorted({task for _, task in ended if task})
        of_task = {BY_TASK + task: self._share(ended, won, {task}, shape) for task in tasks}
        return {SUCCESS: self._share(ended, won, {"", *tasks}, shape)} | of_task

    def _share(
        self, ended: Counter[tuple[int, str]], won: Counter[tuple[int, str]], tasks: set[str], shape: tuple[int, int]
    ) -> np.ndarray:
        of, good = (
            np.array([sum(counts[copy, task] for task in tasks) for copy in range(self._copies)], float)
            for counts in (ended, won)
        )
        share = np.full(self._copies, np.nan)
        np.divide(good, of, out=share, where=of > 0)
        return share.reshape(shape)
