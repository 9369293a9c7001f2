"""A campaign against runs: kills, harmed files, disk faults, power cuts, hours, and a crowd at the page.

    python -m benchmarks.reliability [--tests NAME ...] [--short] [--seed N] [--jobs N] [--hours H] [--work DIR]
                                     [--json FILE] [--page FILE]

Each case has a name, and what it came to is a line in DIR/cases.jsonl, so that an interrupted campaign goes on where
it was; the same seed makes the same cases. The process starts itself anew with the library that watches and disturbs
files (faults.c), for which a C compiler is needed; without one only kills at random moments and a part of the harms
are left. --short takes half a minute: a few cases of each, of the tiny model alone. Exit code 1 where there are faults.
"""

import argparse
import os
import sys
from pathlib import Path

from benchmarks.reliability import faults
from trainers.cli.command_line import run_command

TESTS = ("kills", "real", "harm", "disk", "power", "soak", "crowd")
STARTED = "TERRARIUM_RELIABILITY"


def parse() -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tests", nargs="+", choices=TESTS, default=TESTS, metavar="NAME", help=", ".join(TESTS))
    parser.add_argument("--short", action="store_true", help="a few cases of each, as `make test` tries")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, metavar="N", help="cases of each test, in place of the usual number")
    parser.add_argument("--jobs", type=int, default=1, help="cases at a time (1)")
    parser.add_argument("--hours", type=float, default=2.0, help="of the soak (2)")
    parser.add_argument("--work", type=Path, default=Path("runs/reliability"), metavar="DIR")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--page", type=Path, metavar="FILE", help="write the table into its section `table`")
    return parser.parse_args()


def start_anew(work: Path) -> None:
    """Become a process with one thread and the library that watches files, where it can be made, unless this is it."""
    if os.environ.get(STARTED):
        return
    library = faults.library(work)
    preload = {"LD_PRELOAD": str(library)} if library else {}
    words = [sys.executable, "-m", "benchmarks.reliability", *sys.argv[1:]]
    os.execve(sys.executable, words, {**os.environ, **preload, "OMP_NUM_THREADS": "1", STARTED: "1"})


def main() -> None:
    """Run the campaign, print its table and its faults, and write both down if asked."""
    options = parse()
    options.work = options.work.resolve()
    options.work.mkdir(parents=True, exist_ok=True)
    start_anew(options.work)
    from benchmarks.reliability.campaign import run  # here, since torch takes seconds to import

    run(options)


if __name__ == "__main__":
    run_command(main)
