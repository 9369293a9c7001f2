"""What a run imports: a model that is known here needs neither transformers nor anything that comes with it."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SLOW = (
    "transformers",
    "peft",
    "accelerate",
    "gguf",
    "scipy",
    "sympy",
    "matplotlib",
    "networkx",
    "pandas",
    "torch._dynamo",
)
RUN = """
import sys
from trainers.begin import begin
from trainers.cli.parser import parse
from trainers.train import all_generations
model, folder, storage = sys.argv[1:]
keys = ["--run_dir", folder, "--generations", "2", "--model.name", model, "--model.dtype", "float32"]
keys += ["--model.weight_storage", storage, "--adapter.top_layers", "2", "--adapter.rank", "2", "--env.agents", "6"]
keys += ["--env.max_steps", "8", "--evolution.episodes", "1", "--held_out_episodes", "1"]
run = begin(parse(keys)[0], None)
all_generations(run)
run.close()
print(*(name for name in {slow!r} if name in sys.modules))
"""


@pytest.mark.parametrize("storage", ["full", "compact"])
def test_a_run_imports_nothing_that_is_slow(tiny_model, storage, tmp_path):
    command = [sys.executable, "-c", RUN.format(slow=SLOW), str(tiny_model), str(tmp_path / "run"), storage]
    if storage == "compact":  # whose file is written once, with what gguf has for it
        subprocess.run([*command[:-2], str(tmp_path / "first"), storage], check=True, cwd=ROOT, capture_output=True)
    done = subprocess.run(command, check=True, cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1].split() == []
