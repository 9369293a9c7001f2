"""Resident memory of a run on the real model beyond that of its imports, at the end and at its highest.

    python -m benchmarks.memory [--memory full|compact] [--generations N] [--json FILE] [any key of trainers.train]

The imports are all modules that a run loads. Code of libraries that the system reads later counts for the run. The
first compact run of a model also writes its file of blocks, and holds the whole model meanwhile: run it twice.
"""

import argparse
import json
import multiprocessing
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TypeVar

import psutil

from trainers.cli.command_line import run_command

Value = TypeVar("Value")


def in_new_process(work: Callable[..., Value], *arguments: object) -> Value:
    """Call a function in a process of its own, which must be able to import it, to measure its memory alone."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, *arguments).result()


def resident_mb() -> float:
    """Memory of this process that is in RAM now, in MiB."""
    return psutil.Process().memory_info().rss / 2**20


def highest_mb() -> float:
    """The most memory of this process that ever was in RAM, in MiB (on Linux)."""
    line = next(
        line for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines() if line.startswith("VmHWM")
    )
    return int(line.split()[1]) / 1024


def main() -> None:
    """Run, measure, print, and write the rows to a file if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--memory", default="compact", choices=("full", "compact"))
    parser.add_argument("--generations", type=int, default=2)
    parser.add_argument("--json", type=Path, metavar="FILE")
    options, keys = parser.parse_known_args()
    python = resident_mb()

    from trainers.begin import begin
    from trainers.cli.parser import parse
    from trainers.records.run_folder import machine
    from trainers.train import all_generations

    imports = resident_mb()
    with tempfile.TemporaryDirectory() as folder:
        arguments = ["--run_dir", f"{folder}/run", "--generations", str(options.generations)]
        run = begin(parse([*arguments, "--model.weight_storage", options.memory, *keys])[0], None)
        all_generations(run)
    network, learner = run.population.policy.network, run.population.learner
    rows = {
        "Python": python,
        "bare imports": imports,
        "end, over imports": resident_mb() - imports,
        "highest, over imports": highest_mb() - imports,
        "highest, whole process": highest_mb(),
        "of it: adapters": network.bank.values.nbytes / 2**20,
        "of it: Adam's moments (compact: in a file)": 2 * learner.optimiser.mean.nbytes / 2**20,
        "of it: texts": network.cache.bytes_used / 2**20,
    }
    for name, mb in rows.items():
        print(f"{name:44s} {mb:7.0f} MiB")
    if options.json:
        options.json.write_text(json.dumps({"machine": machine(), **vars(options), "mib": rows}, indent=2, default=str))


if __name__ == "__main__":
    run_command(main)
