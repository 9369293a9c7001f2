"""Stop cleanly: after the first Ctrl-C or SIGTERM the step in progress ends, a second one ends the process at once."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from agents.types import log

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(KeyboardInterrupt):
    """The user, or who manages this process, wants it to end."""

    def __init__(self, number: int):
        super().__init__()
        self.number = number


@contextmanager
def stopping_cleanly() -> Iterator[Callable[[], None]]:
    """Within the block, signals do not interrupt what goes on; give what raises `Stopped` once one has come.

    Call that where nothing is half done. Outside the main thread signals are left as they are.
    """
    came: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        if came:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        came.append(number)
        log.info("stopping after this step; Ctrl-C again ends at once")

    def check() -> None:
        if came:
            raise Stopped(came[0])

    if threading.current_thread() is not threading.main_thread():
        yield check
        return
    before = {number: signal.signal(number, note) for number in SIGNALS}
    try:
        yield check
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
