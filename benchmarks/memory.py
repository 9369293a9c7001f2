"""Resident memory of a run after some generations on the real model, and what it is made of.

python -m benchmarks.memory [--generations N] [--json FILE]
"""

import argparse
import json
import tempfile
from pathlib import Path

import psutil


def resident_mb() -> float:
    """Memory of this process that is in RAM, in MiB."""
    return psutil.Process().memory_info().rss / 2**20


def main() -> None:
    """Run, measure, print, and write the rows to a file if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--generations", type=int, default=3)
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    bare = resident_mb()

    from trainers import stages
    from trainers.parser import parse
    from trainers.run_folder import machine
    from trainers.train import live_through

    rows = {"Python": bare, "imports": resident_mb() - bare}
    with tempfile.TemporaryDirectory() as folder:
        config, _ = parse(["--run_dir", f"{folder}/run", "--generations", str(options.generations)])
        run = stages.begin(config, None)
        live_through(run)
        here = machine()
    mind, learner = run.colony.policy.mind, run.colony.learner
    rows |= {
        "model": sum(p.nbytes for p in mind.base.causal_lm.parameters()) / 2**20,
        "adapters": mind.bank.values.nbytes / 2**20,
        "gradients": mind.bank.gradients.nbytes / 2**20,
        "optimiser": (learner.optimiser.mean.nbytes + learner.optimiser.square.nbytes) / 2**20,
        "genomes": sum(t.nbytes for g in run.colony.population for t in g.adapter.values()) / 2**20,
        "text memory": mind.memory.bytes_used / 2**20,
    }
    total = resident_mb()
    rows["working memory and the rest"] = total - sum(rows.values())
    for name, mb in rows.items():
        print(f"{name:28s} {mb:7.0f} MiB")
    print(f"{'whole process':28s} {total:7.0f} MiB after {options.generations} generations")
    if options.json:
        options.json.write_text(json.dumps({"machine": here, "mib": rows | {"whole process": total}}, indent=2) + "\n")


if __name__ == "__main__":
    main()
