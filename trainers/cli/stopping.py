"""Stop cleanly: after the first Ctrl-C or SIGTERM the step in progress ends, another one ends the process at once."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from types import FrameType

from agents.types import log

SIGNALS = (signal.SIGINT, signal.SIGTERM)
ONE_WISH = 1.0
"""Seconds in which signals count as one: a launcher may send one that the terminal sends too."""
SHOW_CURSOR = "\033[?25h"


class Stopped(KeyboardInterrupt):
    """The user, or who manages this process, wants it to end."""

    def __init__(self, number: int):
        super().__init__()
        self.number = number


@contextmanager
def stopping_cleanly() -> Iterator[Callable[[], None]]:
    """Within the block, signals do not interrupt what goes on; give what raises `Stopped` once one has come.

    Call that where nothing is half done. Signals that are ignored stay so, as those of a job in a shell's background.
    Outside the main thread signals are left as they are.
    """
    came: list[int] = []
    first = 0.0

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal first
        if not came:
            came.append(number)
            first = monotonic()
            log.info("stopping after this step; Ctrl-C again ends at once")
        elif monotonic() - first > ONE_WISH:
            _end_at_once(number)

    def check() -> None:
        if came:
            raise Stopped(came[0])

    if threading.current_thread() is not threading.main_thread():
        yield check
        return
    heeded = [number for number in SIGNALS if signal.getsignal(number) not in (signal.SIG_IGN, None)]
    before = {number: signal.signal(number, note) for number in heeded}
    try:
        yield check
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end_at_once(number: int) -> None:
    if sys.stdout.isatty():  # the bar has hidden the cursor
        os.write(sys.stdout.fileno(), SHOW_CURSOR.encode())
    if os.name == "nt":  # where os.kill would end it with the signal's number as exit code
        os._exit(128 + number)
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
