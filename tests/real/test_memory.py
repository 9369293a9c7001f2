"""What a real run with compact memory holds. The figures are those of `benchmarks.memory`; here is only a bound."""

import json
import subprocess
import sys

import pytest

from agents.types import ModelConfig
from agents.weights.base_model import load_base_model


@pytest.mark.long
@pytest.mark.real
def test_a_compact_run_stays_small(tmp_path):
    load_base_model(
        ModelConfig(weight_storage="compact")
    )  # writes the file of blocks if need be, which takes more memory
    file = tmp_path / "memory.json"
    command = [sys.executable, "-m", "benchmarks.memory", "--memory", "compact", "--generations", "1"]
    keys = ["--env.max_steps", "48", "--evolution.episodes", "1", "--held_out_episodes", "1"]
    subprocess.run([*command, *keys, "--json", str(file)], check=True, capture_output=True)
    mib = json.loads(file.read_text())["mib"]
    assert mib["of it: adapters"] > 10  # twenty of the real shape
    # 154 to 310 MiB: the processor, threads and the system's huge pages decide. Whole weights take 920 to 1,160.
    assert mib["end, over imports"] < 450
    assert mib["highest, over imports"] < 475
