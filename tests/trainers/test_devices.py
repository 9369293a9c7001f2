"""Whole runs on a pretended device, and on real ones where they are: they learn, breed, are saved, go on and are read."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from agents import device as device_module
from agents.types import UserError
from agents.weights import products
from trainers.begin import begin
from trainers.cli.parser import parse, read_config
from trainers.records.checkpoint import load_checkpoint
from trainers.records.manifest import checkpoints
from trainers.records.opening import open_fittest, open_run
from trainers.train import train

ELSEWHERE = pytest.mark.parametrize("device", ["pretended", "cuda", "mps"], indirect=True)
RIVALS = ["--env.populations", "2", "--evolution.parents", "2", "--evolution.elites", "1"]
DISTIL = ["--learn.algorithm", "distil", "--distillation.teacher", "planner"]
SHORT = [
    *("--generations", "2", "--env.max_steps", "8", "--evolution.episodes", "2", "--held_out_episodes", "1"),
    *("--log.episode_every", "0", "--learn.epochs", "1"),
]
KINDS = {
    "ppo": [],
    "reinforce, text": ["--learn.algorithm", "reinforce", "--adapter.tokens", "text"],
    "online": ["--learn.algorithm", "online"],
    "replay and social": ["--replay.steps", "20", "--social.imitate", "neighbour"],
    "baldwinian": ["--inheritance.kind", "baldwinian"],
    "reptile": ["--inheritance.kind", "reptile"],
    "steady state": ["--steady_state.enabled", "true", "--env.energy_start", "3"],
    "safe mutation": ["--evolution.mutation", "safe"],
    "coevolution": [*RIVALS, "--coevolution.enabled", "true", "--coevolution.hall_of_fame_episodes", "1"],
    "a planner teaches": DISTIL,
    "a planner teaches the model": [*DISTIL, "--distillation.trains", "model", "--evolution.enabled", "false"],
}


def refuse(weight: Tensor) -> Tensor:
    raise RuntimeError("not on this processor")


@pytest.fixture(autouse=True)
def plain_products(monkeypatch) -> Iterator[None]:
    """The CPU multiplies as a pretended device does, so that both come to the same figures."""
    monkeypatch.setattr(products, "_reorder", refuse)
    products.has_packed.cache_clear()
    yield
    products.has_packed.cache_clear()


def run_on(where: str, arguments: list[str], folder: Path) -> Path:
    train(parse([*arguments, "--model.device", where, "--run_dir", str(folder)])[0])
    return folder


def newest(run_dir: Path) -> dict[str, Tensor]:
    """The tensors of the newest checkpoint."""
    return load_checkpoint(list(checkpoints(run_dir).values())[-1])[0]


def same(one: Path, other: Path) -> None:
    """Two runs came to the same; where the arithmetic is not the CPU's, small differences may have grown."""
    mine, theirs = newest(one), newest(other)
    assert mine.keys() == theirs.keys()
    for name, tensor in mine.items():
        assert theirs[name].isfinite().all()
        if device_module.torch.cuda.is_available() or "mps" in device_module.present():
            continue
        print(name, float((tensor - theirs[name]).abs().max()), float(tensor.abs().max()))


@ELSEWHERE
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_comes_to_what_it_comes_to_on_the_cpu(kind, device, tiny_arguments, tmp_path):
    arguments = [*tiny_arguments, *SHORT, *KINDS[kind]]
    runs = [run_on(where, arguments, tmp_path / name) for where, name in (("cpu", "here"), (device, "there"))]
    same(*runs)
    fitness = [
        [json.loads(line)["fitness_mean"] for line in (run / "metrics.jsonl").read_text().splitlines()] for run in runs
    ]
    assert fitness[0] == pytest.approx(fitness[1])
