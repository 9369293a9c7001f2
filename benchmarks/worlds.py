"""Agent-steps per second of the world's interfaces and of its batched core, beside other worlds, in one run.

    python -m benchmarks.worlds [--seconds S] [--rounds R] [--memory WORLDS ...] [--json FILE]

In each round every one of `benchmarks.contestants` runs for S seconds, so that a busy machine slows all of them alike;
the medians count. All run in one process with one thread, except for the rows with two processes. Where others use the
machine, read the column of processor time. Worlds compute different things in a step: a ratio says how long one waits,
not which world is better. Missing packages are reported; `pip install mpe2 minigrid magent2` installs all of them.

Then the memory of each world is measured: the bytes of its arrays, and by how much a process grows that steps worlds.
`--json` writes {"machine", "seconds", "rounds", "rows": [...], "aims": [...], "memory": [...]}, None where a peer is
missing.
"""

import argparse
import json
import os
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks.contestants import CONTESTANTS, INTERFACE, TWO_CORES, TWO_INTERFACES, Contestant, Speed
from benchmarks.memory import in_new_process
from envs import ForageBatch
from trainers.cli.command_line import run_command
from trainers.cli.machine import processor

AIMS = {TWO_INTERFACES: 100_000, TWO_CORES: 2_000_000}
"""Agent-steps per second that these must reach on two cores."""

Row = dict[str, Any]


def measure(seconds: float, rounds: int) -> list[Row]:
    """Rows of all contestants; the figures of those that are not installed are None."""
    able: dict[str, Contestant] = {}
    for name, make in CONTESTANTS.items():
        try:
            able[name] = make()
        except ImportError as error:
            print(f"{name} is not installed: {error}", file=sys.stderr)
    speeds: dict[str, list[Speed]] = {name: [] for name in able}
    for _ in range(rounds + 1):
        for name, contestant in able.items():
            speeds[name].append(contestant.run(seconds))
    medians = {name: np.median(speed[1:], axis=0).tolist() for name, speed in speeds.items()}  # the first is warm-up
    rows = []
    for name in CONTESTANTS:
        wall, cpu = medians.get(name, (None, None))
        ratio = wall / medians[INTERFACE][0] if wall else None
        agents = able[name].agents if name in able else None
        rows.append({"name": name, "agents": agents, "per_s": wall, "per_cpu_s": cpu, "ratio": ratio})
    return rows


def aims(rows: list[Row]) -> list[Row]:
    """The speeds that were aimed at, and whether they were reached."""
    speeds = {row["name"]: row["per_s"] for row in rows}
    return [
        {"name": name, "aim": aim, "per_s": speeds[name], "reached": speeds[name] >= aim} for name, aim in AIMS.items()
    ]


def memory(worlds: int) -> Row:
    """Bytes per world of state and observations, and the growth of this process, which should do nothing else."""

    def step_worlds(worlds: int) -> tuple[ForageBatch, np.ndarray]:
        batch = ForageBatch()
        batch.reset(np.arange(worlds))
        for _ in range(4):
            observations, _ = batch.step(np.ones((worlds, batch.config.agents), np.int64))
        return batch, observations

    step_worlds(1)  # whatever is loaded on first use
    before = psutil.Process().memory_info().rss
    batch, observations = step_worlds(worlds)
    sizes = {
        "state": sum(array.nbytes for array in batch.state()),
        "observations": observations.nbytes,
        "process": psutil.Process().memory_info().rss - before,
    }
    return {"worlds": worlds} | {f"{name}_bytes": size / worlds for name, size in sizes.items()}


def machine() -> Row:
    """The processor, its cores, and its load."""
    load = os.getloadavg() if hasattr(os, "getloadavg") else None
    return {"cpu": processor(), "cores": os.cpu_count(), "load_average": load}


def show(result: Row) -> None:
    """Print all tables."""
    here = result["machine"]
    print(f"{here['cpu']}, {here['cores']} cores, load {here['load_average']}; medians of {result['rounds']} rounds")
    print(f"{'agent-steps':56s} {'agents':>6s} {'per second':>12s} {'per cpu s':>12s} {'ratio':>7s}")
    for name, agents, wall, cpu, ratio in (row.values() for row in result["rows"]):
        figures = f"{agents:6d} {wall:12,.0f} {cpu:12,.0f} {ratio:7.2f}" if wall else "not installed"
        print(f"{name:56s} {figures}")
    for name, aim, wall, is_reached in (row.values() for row in result["aims"]):
        print(f"{name}: {wall:,.0f} of {aim:,}, {'reached' if is_reached else 'MISSED'}")
    for row in result["memory"]:
        worlds, *sizes = (f"{value:,.0f}" for value in row.values())
        print("{} worlds, bytes per world: state {}, observations {}, process {}".format(worlds, *sizes))


def main(argv: list[str] | None = None) -> None:
    """Measure, print, and write the rows to a file if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=0.5)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--memory", type=int, nargs="*", default=[256, 4096], metavar="WORLDS")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args(argv)

    warnings.filterwarnings("ignore", category=DeprecationWarning)  # PettingZoo's, at all that are made as they were
    result: Row = {"machine": machine(), "seconds": options.seconds, "rounds": options.rounds}
    result["rows"] = measure(options.seconds, options.rounds)
    result["aims"] = aims(result["rows"])
    result["memory"] = [in_new_process(memory, worlds) for worlds in options.memory]
    show(result)
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # MAgent2 would take every core
    run_command(main)
