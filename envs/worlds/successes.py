"""Which episodes succeeded, of worlds whose infos say so: by "success" or "is_success", and by "task" if they name one.

Gymnasium Robotics and Stable-Baselines3 have "is_success", Meta-World has "success".
"""

from collections import Counter
from typing import Any, NamedTuple

import numpy as np

_KEYS = ("success", "is_success")
MOST_TASKS = 20
"""Of so many tasks each has a figure; of more none, as names that are drawn anew would become thousands of curves."""
SUCCESS, BY_TASK = "success", "success_of_"
"""The figure of all episodes, and how the figure of one task begins."""


def successes_in(figures: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Those of a rollout's figures that say which share of episodes succeeded."""
    return {name: share for name, share in figures.items() if name == SUCCESS or name.startswith(BY_TASK)}


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
        """A reset or a step of a copy came with this info; is_over: its episode ended with the step.

        What is said last of an episode counts. A task holds until the episode ends, or another is named.
        """
        before, task = self._latest[copy], info.get("task")
        said = next((truth for key in _KEYS if (truth := _truth(info.get(key))) is not None), before.has_succeeded)
        now = _Latest(task if isinstance(task, str) else before.task, said)
        self._are_told |= said is not None
        if is_over and said is not None:
            self._ended[copy, now.task] += 1
            self._won[copy, now.task] += said
        self._latest[copy] = _Latest("", None) if is_over else now

    def figures(self, shape: tuple[int, int]) -> dict[str, np.ndarray]:
        """The share of each agent's episodes that succeeded, (W, N): of all, and of each task.

        An episode under way counts only where it is the agent's first, by what was said last. NaN where an agent had
        none of a task. {} where the world does not say.
        """
        if not self._are_told:
            return {}
        ended, won = self._ended.copy(), self._won.copy()
        for copy in {*range(self._copies)} - {copy for copy, _ in self._ended}:
            task, has_succeeded = self._latest[copy]
            ended[copy, task], won[copy, task] = 1, int(has_succeeded or 0)
        tasks = sorted({task for _, task in ended if task})
        named = tasks if len(tasks) <= MOST_TASKS else []
        of_task = {BY_TASK + task: self._share(ended, won, {task}, shape) for task in named}
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


def _truth(value: Any) -> bool | None:
    """Whether a value says yes or no: one truth value, or the number 0 or 1; None for anything else."""
    try:
        array = np.asarray(value)
    except Exception:  # whatever a world has put there
        return None
    is_one = array.size == 1 and array.dtype.kind in "biuf" and array.item() in (0, 1)
    return bool(array.item()) if is_one else None
