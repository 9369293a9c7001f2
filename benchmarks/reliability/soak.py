"""Hours of one run: what its process holds, and what its folder takes."""

import json
import threading
import time
from functools import partial
from pathlib import Path

import numpy as np
import psutil

from benchmarks.reliability.case import Case, Finding
from benchmarks.reliability.forked import forked
from benchmarks.reliability.subjects import Subject
from trainers import train
from trainers.records.checkpoint import checkpoints

MOST_MB_PER_HOUR = 1.0
BEGINNING = 0.2
"""The share of the time that does not count: texts are met for the first time, caches fill."""


def cases(subject: Subject, hours: float) -> list[Case]:
    """One, of so many hours."""
    return [Case("soak", f"{subject.name}, {hours} h", partial(_try, subject, hours))]


def _try(subject: Subject, hours: float, folder: Path) -> Finding:
    run_dir, samples = folder / "run", folder / "samples.jsonl"
    keep_little = ["--generations", "1000000", "--log.adapters_every", "1000000", "--log.recordings_mb", "1"]

    def work() -> None:
        threading.Thread(target=_sample, args=(run_dir, samples, hours * 36), daemon=True).start()
        train.main([*subject.keys, *keep_little, "--run_dir", str(run_dir)])

    ended = forked(work, 0, kill_after=hours * 3600)
    if not ended.is_killed:
        return Finding("lost", ended.err[-300:])
    return judged([json.loads(line) for line in samples.read_text(encoding="utf-8").splitlines()])


def _sample(run_dir: Path, file: Path, seconds: float) -> None:
    """Write a line each so many seconds, from within the process; this thread counts among its own."""
    process, started = psutil.Process(), time.monotonic()
    while True:
        time.sleep(seconds)
        line = {
            "hours": (time.monotonic() - started) / 3600,
            "mb": process.memory_info().rss / 2**20,
            "descriptors": process.num_fds(),
            "threads": process.num_threads(),
            "generation": max(checkpoints(run_dir), default=-1),
            "kb": sum(path.stat().st_size for path in run_dir.rglob("*") if path.is_file()) / 1024,
        }
        with file.open("a", encoding="utf-8") as out:
            out.write(json.dumps(line) + "\n")


def judged(samples: list[dict[str, float]]) -> Finding:
    """flat, or grows: by the slope of memory, and the least descriptors and threads, after the beginning.

    The least, as a sample can meet a file that is open for a moment; what leaks is open in every later sample.
    """
    late = samples[int(BEGINNING * len(samples)) :]
    column = {key: np.array([line[key] for line in late]) for key in late[0]}
    slope = float(np.polyfit(column["hours"], column["mb"], 1)[0])
    half = len(late) // 2
    growth = {key: column[key][half:].min() - column[key][:half].min() for key in ("descriptors", "threads")}
    per_generation = float(np.polyfit(column["generation"], column["kb"], 1)[0])
    is_flat = slope < MOST_MB_PER_HOUR and max(growth.values()) <= 0
    detail = (
        f"{column['generation'][-1]:.0f} generations; {slope:.2f} MB an hour; "
        f"{column['descriptors'].min():.0f} to {column['descriptors'].max():.0f} descriptors, "
        f"{column['threads'].min():.0f} to {column['threads'].max():.0f} threads; {per_generation:.1f} kB a generation"
    )
    return Finding("flat" if is_flat else "grows", detail)
