"""What a real run with compact memory holds. The figures are those of `benchmarks.memory`; here is only a bound."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from agents.types import ModelConfig
from agents.weights.base_model import load_base_model


@pytest.mark.long
@pytest.mark.real
def test_a_compact_run_stays_small(tmp_path):
    load_base_model(
        ModelConfig(weight_storage="compact")
    )  # writes the file of blocks if need be, which takes more memory
    compact, whole = (memory_of(storage, tmp_path / f"{storage}.json") for storage in ("compact", "full"))
    assert compact["of it: adapters"] > 10  # twenty of the real shape
    # 154 to 310 MiB: the processor, threads and the system's huge pages decide. Whole weights take 920 to 1,160.
    for figure in ("end, over imports", "highest, over imports"):
        assert compact[figure] < 0.4 * whole[figure]


def memory_of(storage: str, file: Path) -> dict[str, float]:
    """What `benchmarks.memory` measures of a short run, in MiB."""
    command = [sys.executable, "-m", "benchmarks.memory", "--memory", storage, "--generations", "1"]
    keys = ["--env.max_steps", "48", "--evolution.episodes", "1", "--held_out_episodes", "1"]
    subprocess.run([*command, *keys, "--json", str(file)], check=True, capture_output=True)
    return json.loads(file.read_text())["mib"]
