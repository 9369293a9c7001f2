"""A limit on how long a world may take for one call, in this process.

1. In the main thread a signal (SIGALRM) raises `TookTooLong` in the world's code, as Ctrl-C would: that ends Python
   code, sleeps and waits, and the program goes on.
2. What does not end then (C code, or code that catches everything), or runs in another thread or without SIGALRM, a
   watchdog thread ends with the whole process: a sentence, and exit code 2. A thread cannot be killed, and nothing
   sound could go on beside it.

Neither ends C code that keeps Python's lock (the GIL) for itself.
"""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic, sleep

GRACE = 5.0
"""Seconds after the signal until the watchdog ends the process."""
_LOOKS_EVERY = 0.2
"""Seconds."""


class TookTooLong(BaseException):
    """A world took longer than it may. Not an Exception, so that a world's own `except Exception` lets it through."""


@contextmanager
def time_limit(seconds: float, sentence: str) -> Iterator[None]:
    """Raise TookTooLong where the block takes longer than `seconds`, or end the process with `sentence`; 0: no limit.

    Blocks must not be within one another.
    """
    if not seconds:
        yield
        return
    has_signal = hasattr(signal, "SIGALRM") and threading.current_thread() is threading.main_thread()
    _WATCHDOG.watch(monotonic() + seconds + (GRACE if has_signal else 0.0), sentence)
    try:
        if has_signal:
            with _alarm(seconds):
                yield
        else:
            yield
    finally:
        _WATCHDOG.rest()


@contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    is_open = True

    def interrupt(*_: object) -> None:
        if is_open:
            raise TookTooLong

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds, seconds)  # again and again: the first may be swallowed
        try:
            yield
        finally:
            is_open = False
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL if before is None else before)


class _Watchdog:
    """One thread that looks at the clock; it is there from the first limit on."""

    def __init__(self) -> None:
        self._watched: tuple[float, str] | None = None  # when to end the process, and what to say
        self._thread: threading.Thread | None = None

    def watch(self, until: float, sentence: str) -> None:
        """End the process at the time `until` (of `monotonic`), unless `rest` is called before."""
        self._watched = until, sentence
        if self._thread is None or not self._thread.is_alive():  # in a forked process there is none
            self._thread = threading.Thread(target=self._look, daemon=True, name="watchdog of worlds")
            self._thread.start()

    def rest(self) -> None:
        """There is nothing to watch."""
        self._watched = None

    def _look(self) -> None:
        while True:
            sleep(_LOOKS_EVERY)
            watched = self._watched
            if watched and monotonic() > watched[0]:
                print(f"error: {watched[1]}", file=sys.stderr, flush=True)
                os._exit(2)


_WATCHDOG = _Watchdog()
