"""How near everything is to what this machine can do, in one run: generations, decisions, updates, memory and starting.

    python -m benchmarks.limits [--out FOLDER] [--repeats R] [--no-peers]

Starts `trainers.train`, runs `benchmarks.generation`, `network`, `online` and `memory` one after the other, each in a
process of its own, and prints one table. Their own figures are in FOLDER as JSON.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any

from trainers.cli.command_line import run_command

BEGINS = "results go to"
"""What `trainers.train` says when generation 0 begins."""


def measured(program: str, out: Path, *options: str) -> dict[str, Any]:
    """What a benchmark has found."""
    file = out / f"{program}.json"
    print(f"\n# benchmarks.{program}", flush=True)
    subprocess.run([sys.executable, "-m", f"benchmarks.{program}", "--json", file, *options], check=True)
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found


def seconds_to_begin() -> float:
    """From the command to the beginning of generation 0; RuntimeError where it does not begin."""
    with tempfile.TemporaryDirectory() as folder:
        words = [sys.executable, "-u", "-m", "trainers.train", "--run_dir", f"{folder}/run", "--generations", "1"]
        start = perf_counter()
        with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as run:
            assert run.stdout
            lines = []
            for line in run.stdout:
                lines.append(line)
                if BEGINS in line:
                    seconds = perf_counter() - start
                    run.kill()
                    return seconds
    raise RuntimeError(f"{' '.join(words)}\n{''.join(lines)}")


def table(generation: dict[str, Any], network: dict[str, Any], online: dict[str, Any]) -> dict[str, str]:
    """The rows of speed."""
    mean, ms, ways = generation["mean"], network["milliseconds"], online["ways"]
    step, best = ms["running world, mean"], dict[str, str]()
    for kind in ("PEFT loop", "PEFT mixed batch", "PEFT tuned by hand", "llama_cpp", "onnx"):
        own = [value for name, value in ms.items() if name.startswith(kind)]
        best |= {kind: f"{min(own) / step:.0f} x"} if own else {}
    training = [value for name, value in ms.items() if name.startswith("PEFT, one step")]
    minibatches = network["minibatches"] * network["agents"]
    slower = ways["no learning"]["steps_per_second"] / ways["online, in the background"]["steps_per_second"]
    rows = {
        "a generation, over its floor": f"{mean['generation'] / mean['floor']:.1f} x ({mean['generation']:.1f} s)",
        "step in a running world, mean, against": ", ".join(f"{kind} {ratio}" for kind, ratio in best.items()),
        "online update of all agents": f"{ms['online update']:.0f} ms",
        "acting while others learn in the background": f"{slower:.1f} x slower",
        "the trunk, share of GEMM peak": f"{network['trunk']['share']:.0%} of {network['peak_gflops']:.0f} GFLOP/s",
    }
    if training:
        rows["PPO of a rollout, against PEFT's loop"] = f"{min(training) * minibatches / ms['PPO on a rollout']:.0f} x"
    return rows


def main(argv: list[str] | None = None) -> None:
    """Measure all, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="where the figures are kept")
    parser.add_argument("--repeats", type=int, default=9, help="of benchmarks.network")
    parser.add_argument("--no-peers", action="store_true", help="our own rows alone")
    options = parser.parse_args(argv)
    others = ["--repeats", str(options.repeats), *(["--no-peers"] if options.no_peers else [])]
    with tempfile.TemporaryDirectory() as box:
        out = options.out or Path(box)
        out.mkdir(parents=True, exist_ok=True)
        start = min(seconds_to_begin() for _ in range(3))
        speed = [measured("generation", out), measured("network", out, *others), measured("online", out)]
        memory = [measured("memory", out) for _ in range(2)][-1]["mib"]  # the first may write the file of blocks
    rows = table(*speed)
    rows["compact memory over imports, highest"] = f"{memory['highest, over imports']:.0f} MiB"
    rows["whole process, compact, highest"] = f"{memory['highest, whole process']:.0f} MiB"
    rows["until generation 0 begins"] = f"{start:.1f} s"
    print()
    for name, value in rows.items():
        print(f"{name:46s} {value}")


if __name__ == "__main__":
    run_command(main)
