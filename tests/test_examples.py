"""Examples run as the README has them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.real
def test_one_agent_lives_its_loop(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "examples.one_agent", "--steps", "20"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "after eating" in done.stdout
    assert (tmp_path / "runs" / "agent_0_gen_0" / "adapter_model.safetensors").is_file()
