"""Run the main programs one after the other: `python main_programs.py DEEP_MODEL TRAIN_ARGUMENT ...`.

Train in the format that is chosen and in bfloat16, evaluate, and let one agent (on DEEP_MODEL) live its loop.
"""

import runpy
import sys

from trainers import evaluate, train


def run_all(deep_model: str, *arguments: str) -> None:
    for dtype in ("auto", "bfloat16"):
        train.main([*arguments, "--model.dtype", dtype, "--run_dir", f"runs/{dtype}"])
    evaluate.main(["runs/bfloat16", "--episodes", "2", "--json"])
    sys.argv = ["one_agent", "--model", deep_model, "--steps", "5"]
    runpy.run_module("examples.one_agent", run_name="__main__")


if __name__ == "__main__":
    run_all(*sys.argv[1:])
