"""The examples for other libraries' learners run as their docstrings say, and what they show is true."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
EXAMPLES = ("sb3_ppo", "sb3_maskable_ppo", "supersuit_sb3", "cleanrl_ppo")


def run(module, folder, *arguments):
    """Return what a module prints. Fails where it ends with an error."""
    done = subprocess.run(
        [sys.executable, "-m", module, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def food(output):
    """Return the food in the lines of a score, by name."""
    return {name: float(value) for name, value in re.findall(r"^(\w+) +(\d+\.\d)\b", output, re.MULTILINE)}


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_runs_and_prints_a_score(example, tmp_path):
    if example.startswith("supersuit"):
        pytest.importorskip("supersuit")
    output = run(f"examples.{example}", tmp_path, "--steps", 1)
    assert list(food(output)) == ["learned", "random", "greedy", "planner"], output


@pytest.mark.long
def test_an_example_learns_to_forage_in_a_short_time(tmp_path):
    score = food(run("examples.sb3_maskable_ppo", tmp_path, "--steps", 200_000))
    assert score["learned"] > 5 * score["random"]
    assert score["planner"] > score["greedy"] > score["random"]


def test_the_curve_of_the_mlp_begins_with_chance_and_is_written(tmp_path):
    arguments = ["--steps", "20480", "--marks", "2", "--episodes", "2", "--json", "curve.json", "--plot", "curve.png"]
    pytest.importorskip("matplotlib")
    run("benchmarks.mlp", tmp_path, *arguments)
    result = json.loads((tmp_path / "curve.json").read_text())
    assert [row["steps"] for row in result["curve"]] == [0, 20480]
    assert result["curve"][0]["share_of_planner"] < 0.1
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
