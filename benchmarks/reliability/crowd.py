"""The page under 300 sockets that are half-sent, silent or never read, and the run's speed meanwhile.

The sockets are there for some generations and gone for some, by turns within one run, so that the two can be compared.
"""

import http.client
import json
import socket
import subprocess
import sys
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from statistics import median

from benchmarks.reliability.case import Case, Finding
from benchmarks.reliability.subjects import Subject

SOCKETS = 300
GREETINGS = (b"", b"GET / HTTP/1.1\r\nHost: ", b"GET /plotly.js HTTP/1.1\r\nHost: %s\r\n\r\n")
"""What the sockets send at first, by turns: nothing, half a request, and a request of which no answer is read."""
PHASE = 60
"""Generations with the sockets, and then without."""
ENDLESS = 100_000
"""Generations of a run that is ended when all is measured."""
PATIENCE = 5.0
"""Seconds in which everybody else must be answered."""
MOST_SLOWDOWN = 1.05


def cases(subject: Subject, phases: int) -> list[Case]:
    """One, with so many phases of each kind."""
    return [Case("crowd", f"{subject.name}, {SOCKETS} sockets", partial(_try, subject, phases))]


def _try(subject: Subject, phases: int, folder: Path) -> Finding:
    run_dir = folder / "run"
    keys = [*subject.keys, "--generations", str(ENDLESS), "--run_dir", str(run_dir), "--dashboard"]
    command = [sys.executable, "-m", "trainers.train", *keys]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as run:
        assert run.stdout
        try:
            place = next(line for line in run.stdout if "http://" in line).split("http://")[1].split()[0].rstrip("/")
            return judged(*_measure(place, run_dir, phases))
        finally:
            run.kill()


def _measure(place: str, run_dir: Path, phases: int) -> tuple[float, list[float]]:
    """How many times as long a generation takes with the sockets as without, and how long good clients waited."""
    seconds: dict[bool, list[float]] = {True: [], False: []}
    waits: list[float] = []
    _wait(run_dir, PHASE)  # a beginning that does not count
    for phase in range(2 * phases):
        is_crowded, before = phase % 2 == 0, len(_times(run_dir))
        if is_crowded:
            waits += _crowd(place, run_dir, before + PHASE)
        _wait(run_dir, before + PHASE)
        seconds[is_crowded] += _times(run_dir)[before:]
    return median(seconds[True]) / median(seconds[False]), waits


def _times(run_dir: Path) -> list[float]:
    """Seconds of each generation so far."""
    file = run_dir / "metrics.jsonl"
    lines = file.read_text(encoding="utf-8").split("\n")[:-1] if file.is_file() else []
    return [json.loads(line)["wall_s"] for line in lines]


def _wait(run_dir: Path, generations: int) -> None:
    """Until so many generations are done; RuntimeError where none is for minutes."""
    deadline = time.monotonic() + 600
    while len(_times(run_dir)) < generations:
        if time.monotonic() > deadline:
            raise RuntimeError(f"{run_dir}: the run does not go on")
        time.sleep(0.05)


def _crowd(place: str, run_dir: Path, until: int) -> list[float]:
    """Hold all sockets until so many generations are done, and send a byte on each twice a second; whoever is dropped
    comes again. Returns how long a good client waited each time, inf where it got no answer."""
    sockets: list[socket.socket | None] = [None] * SOCKETS
    waits = []
    while len(_times(run_dir)) < until:
        for i, one in enumerate(sockets):
            try:
                if one is None:
                    sockets[i] = _socket(place, GREETINGS[i % 3])
                elif i % 3 == 1:
                    one.send(b"a")
            except OSError:
                sockets[i] = None
        waits.append(_ask(place))
        time.sleep(0.5)
    for one in sockets:
        if one is not None:
            one.close()
    return waits


def _socket(place: str, greeting: bytes) -> socket.socket:
    host, _, port = place.rpartition(":")
    one = socket.create_connection((host, int(port)), timeout=1)
    one.setblocking(False)
    one.send(greeting.replace(b"%s", place.encode()))
    return one


def _ask(place: str) -> float:
    started, connection = time.monotonic(), http.client.HTTPConnection(place, timeout=PATIENCE)
    with suppress(OSError, http.client.HTTPException):
        connection.request("GET", "/runs")
        answer = connection.getresponse()
        answer.read()
        if answer.status == 200:
            return time.monotonic() - started
    return float("inf")


def judged(slowdown: float, waits: list[float]) -> Finding:
    """served, slowed (the run) or starved (who asks): by the ratio of a generation's times, and by waits in seconds."""
    answered = [wait for wait in waits if wait < PATIENCE]
    detail = f"a generation takes {slowdown:.3f} of its time without; {len(answered)} of {len(waits)} answered"
    if answered:
        detail += f", the slowest in {max(answered):.2f} s"
    if len(answered) < len(waits):
        return Finding("starved", detail)
    return Finding("slowed" if slowdown > MOST_SLOWDOWN else "served", detail)
