"""Commands in children of this process, which has imported torch already: a fork takes milliseconds, an import seconds.

Nothing here computes with torch or starts a thread before it forks, since neither survives a fork.
"""

import os
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

MEMORY = 4 << 30
"""Bytes that a child may map beyond what this process has; the rest of the machine is not its to take."""


class Ended(NamedTuple):
    """How a child ended."""

    code: int  # negative: by that signal
    hung: bool  # it did not end in time
    out: str
    err: str
    seconds: float

    @property
    def refusal(self) -> str:
        """The one sentence with which a command says no, empty if there is none."""
        said = [line for line in self.err.splitlines() if line.startswith("error: ")]
        return said[-1] if said and self.code > 0 and not self.is_traceback else ""

    @property
    def is_traceback(self) -> bool:
        """Whether it ended, or went on, with a traceback."""
        return "Traceback (most recent call last)" in self.err

    @property
    def is_killed(self) -> bool:
        """Whether SIGKILL ended it."""
        return self.code == -signal.SIGKILL and not self.hung


def forked(work: Callable[[], object], limit: float, kill_after: float | None = None) -> Ended:
    """Do work in a child and say how it ended. kill_after: seconds until it is killed, unless it ends before."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / name for name in ("out", "err")]
        for file in files:  # here, as a child may be killed before it has begun
            file.touch(0o600)
        sys.stdout.flush()
        sys.stderr.flush()
        child = os.fork()
        if child == 0:
            _be_child(work, files)
        with suppress(OSError):  # both do it, so that neither need wait for the other
            os.setpgid(child, child)
        end = started + (limit if kill_after is None else kill_after)
        while not (status := os.waitpid(child, os.WNOHANG))[0] and time.monotonic() < end:
            time.sleep(0.002)
        hung = not status[0] and kill_after is None
        if not status[0]:
            os.killpg(child, signal.SIGKILL)
            status = os.waitpid(child, 0)
        out, err = (file.read_text(encoding="utf-8", errors="replace") for file in files)
    return Ended(os.waitstatus_to_exitcode(status[1]), hung, out, err, time.monotonic() - started)


def _be_child(work: Callable[[], object], files: list[Path]) -> None:
    """Work with standard output and error in files, then leave, without what Python does at its end."""
    os.setpgid(0, 0)
    for stream, file in enumerate(files, start=1):
        os.dup2(os.open(file, os.O_WRONLY), stream)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    mapped = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + MEMORY, mapped + MEMORY))
    code = 0
    try:
        work()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
