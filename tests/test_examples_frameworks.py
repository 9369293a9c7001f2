"""The examples for other frameworks run and are scored.

None of these frameworks is among what Terrarium's own tests install, and two of them cannot be, because they ask for an
older gymnasium than constraints.txt has. So a framework that is not here is skipped, and `make test-frameworks`
runs this file in an environment for each, without the other tests' conftest.py, which needs more than they have.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize(
    ("framework", "example"), [("torchrl", "torchrl_ppo"), ("ray.rllib", "rllib_ppo"), ("agilerl", "agilerl_ippo")]
)
def test_an_example_runs_and_is_scored(framework, example, tmp_path):
    pytest.importorskip(framework)
    done = subprocess.run(
        [sys.executable, "-m", f"examples.{example}", "--steps", "400"],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    food = dict(re.findall(r"^(learned|random) +([\d.]+)", done.stdout, re.MULTILINE))
    assert 0 <= float(food["learned"]) < 10
    assert 0.5 < float(food["random"]) < 2.5
