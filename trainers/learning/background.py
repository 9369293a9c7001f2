"""Learning online in the background: agents act on by a copy of their adapters while a thread learns.

After every update the thread publishes a new copy. Staleness is how many steps the agents are ahead of learning; it is
bounded, logged, and corrected by the probability ratios of `trainers.learning.online`. What comes of a life depends on
the threads' timing, so such a run cannot be repeated to the last digit.
"""

from queue import Queue
from threading import Thread

import numpy as np
import torch

from trainers.learning.online import OnlineLesson
from trainers.rollout import Moment

MOST_STEPS_AHEAD = 8
"""Steps that wait to be learned from; then agents wait too. One more may be in work."""

Work = tuple[list[str], Moment]


class BackgroundLesson:
    """An `OnlineLesson` that witnesses a life in a thread of its own; it is told of all the same things."""

    def __init__(self, lesson: OnlineLesson):
        self.lesson, self._bank = lesson, lesson.policy.mind.bank
        self._queue: Queue[Work | None] = Queue(MOST_STEPS_AHEAD)
        self._failure: BaseException | None = None
        self._ahead: list[int] = []
        self._learned = 0
        self._threads = torch.get_num_threads()
        torch.set_num_threads(max(1, self._threads // 2))  # two that share all processors only wait for each other
        self._bank.publish()
        self._thread = Thread(target=self._work, daemon=True)
        self._thread.start()

    def witness(self, texts: list[str], moment: Moment) -> None:
        """A step of all, to be learned from soon; what went wrong in the thread is raised here."""
        self._raise()
        self._ahead.append(len(self._ahead) - self._learned)
        self._queue.put((texts, moment))

    def finish(self, texts: list[str]) -> dict[str, float]:
        """Wait for what is left, and then as `OnlineLesson.finish`."""
        self.stop()
        self._raise()
        staleness = {"staleness_mean": float(np.mean(self._ahead)), "staleness_max": float(np.max(self._ahead))}
        return self.lesson.finish(texts) | staleness

    def stop(self) -> None:
        """End the thread, and let agents act by the bank again."""
        if self._thread.is_alive():
            self._queue.put(None)
        self._thread.join()
        self._bank.withdraw()
        torch.set_num_threads(self._threads)

    def _raise(self) -> None:
        if self._failure:
            raise RuntimeError("learning in the background failed") from self._failure

    def _work(self) -> None:
        torch.set_num_threads(max(1, self._threads // 2))
        while (work := self._queue.get()) is not None:
            if self._failure:
                continue  # whoever waits for a place in the queue must not wait for ever
            try:
                self.lesson.witness(*work)
                self._bank.publish()
                self._learned += 1
            except BaseException as error:
                self._failure = error
