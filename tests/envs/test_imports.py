"""`envs` is a leaf: light, and without torch or any other room of the project."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def modules_after(statement: str) -> set[str]:
    """Return the top-level modules loaded by a statement in a fresh interpreter."""
    code = f"{statement}; import sys, json; print(json.dumps(sorted({{m.split('.')[0] for m in sys.modules}})))"
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    run = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, check=True, text=True)
    return set(json.loads(run.stdout))


def test_the_core_loads_nothing_heavy():
    loaded = modules_after("import envs, envs.bots, envs.rendering.render")
    assert not loaded & {"torch", "transformers", "stable_baselines3", "pettingzoo", "pygame", "scipy"}


def test_no_face_loads_torch_or_another_room():
    loaded = modules_after("from envs import forage_v0")
    assert not loaded & {"torch", "transformers", "agents", "trainers", "evolution", "dashboard"}
