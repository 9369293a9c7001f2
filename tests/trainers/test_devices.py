"""Runs on a pretended device, and on real ones that are here: they learn, breed, are saved, go on and are read."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from agents import device as device_module
from agents.types import ModelConfig, UserError
from agents.weights import products
from trainers import evaluate, stages
from trainers.begin import begin
from trainers.cli.parser import parse, read_config
from trainers.learning.learner import project_to_trust_region
from trainers.population import found_population
from trainers.records.checkpoint import load_checkpoint
from trainers.records.manifest import checkpoints
from trainers.records.opening import open_fittest, open_run
from trainers.records.population_state import population_tensors
from trainers.train import train

ELSEWHERE = pytest.mark.parametrize("device", ["pretended", "cuda", "mps"], indirect=True)
SHORT = [
    *("--env.max_steps", "6", "--evolution.episodes", "2", "--held_out_episodes", "1", "--env.agents", "4"),
    *("--log.episode_every", "0", "--learn.epochs", "1"),
]
RIVALS = ["--env.populations", "2", "--evolution.parents", "2", "--evolution.elites", "1"]
DISTIL = ["--learn.algorithm", "distil", "--distillation.teacher", "planner"]
KINDS = {
    "ppo": [],
    "reinforce, text": ["--learn.algorithm", "reinforce", "--adapter.tokens", "text"],
    "online": ["--learn.algorithm", "online"],
    "replay and social": ["--replay.steps", "20", "--social.imitate", "neighbour"],
    "baldwinian": ["--inheritance.kind", "baldwinian"],
    "reptile": ["--inheritance.kind", "reptile"],
    "steady state": ["--steady_state.enabled", "true", "--env.energy_start", "3"],
    "safe mutation": ["--evolution.mutation", "safe"],
    "evolution strategy": ["--evolution.strategy", "es", "--learn.algorithm", "none"],
    "coevolution": [*RIVALS, "--coevolution.enabled", "true", "--coevolution.hall_of_fame_episodes", "1"],
    "a planner teaches": DISTIL,
    "a planner teaches the model": [*DISTIL, "--distillation.trains", "model", "--evolution.enabled", "false"],
}

SOON = ("ppo", "online", "coevolution")
"""Those that are run with every change."""


def refuse(weight: Tensor) -> Tensor:
    raise RuntimeError("not on this processor")


@pytest.fixture(autouse=True)
def plain_products(monkeypatch) -> Iterator[None]:
    """The CPU multiplies as a pretended device does, so that both come to the same figures."""
    monkeypatch.setattr(products, "_reorder", refuse)
    products.has_packed.cache_clear()
    yield
    products.has_packed.cache_clear()


@pytest.fixture
def is_exact(request: pytest.FixtureRequest) -> bool:
    """Whether the device's arithmetic is the CPU's."""
    return request.node.callspec.params["device"] == "pretended"


def same(mine: dict[str, Tensor], theirs: dict[str, Tensor], is_exact: bool) -> None:
    """Two populations are the same; where the arithmetic is not the CPU's, small differences may have grown."""
    assert mine.keys() == theirs.keys()
    for name, tensor in mine.items():
        assert theirs[name].device.type == "cpu"
        is_there = theirs[name].isfinite()
        assert is_there.all() or name == "answers"
        if is_exact:
            assert torch.equal(is_there, tensor.isfinite())
            found, expected = theirs[name][is_there], tensor[is_there]
            torch.testing.assert_close(found, expected, rtol=1e-3, atol=2e-4, msg=lambda m, n=name: f"{n}: {m}")


PRESENT = device_module.present()  # before any is pretended


def lived(arguments: list[str], where: str, folder: Path) -> tuple[dict[str, Tensor], list[float]]:
    """Two generations, of which nothing is recorded: what a checkpoint would hold, and each generation's fitness."""
    run = begin(parse([*arguments, "--model.device", where, "--run_dir", str(folder)])[0], None)
    fitness = []
    for number in range(2):
        generation = stages.Generation(number)
        if number and run.config.evolution.enabled:
            stages.evolve(run, generation)
        stages.learn(run, stages.collect(run, generation))
        fitness.append(float(stages.evaluate(run, generation)[0].episode_return.mean()))
        run.population.policy.answers.keep(run.population.likely_texts())
    run.close()
    assert {tensor.device.type for genome in run.population.genomes for tensor in genome.adapter.values()} == {"cpu"}
    return population_tensors(run.population), fitness


@ELSEWHERE
@pytest.mark.parametrize("kind", [k if k in SOON else pytest.param(k, marks=pytest.mark.long) for k in KINDS])
def test_a_run_comes_to_what_it_comes_to_on_the_cpu(kind, device, is_exact, tiny_arguments, tmp_path):
    arguments = [*tiny_arguments, *SHORT, *KINDS[kind]]
    (mine, earned), (theirs, theirs_earned) = (lived(arguments, where, tmp_path / where) for where in ("cpu", device))
    same(mine, theirs, is_exact)
    assert theirs_earned == pytest.approx(earned, abs=0.0 if is_exact else 10.0)


@ELSEWHERE
def test_the_trust_region_is_the_same_there(device, tiny_arguments):
    ends = []
    for where in ("cpu", device):
        bank = found_population(parse([*tiny_arguments, "--model.device", where])[0]).policy.network.bank
        before = bank.values[:3].clone()
        bank.values[:3] += 1.0
        kl = torch.tensor([0.4, 0.0, torch.nan])
        exceeded = project_to_trust_region(bank, torch.arange(3), kl, before, max_kl=0.1)
        assert exceeded.tolist() == [True, False, True]
        ends.append((bank.values[:3] - before).cpu())
    torch.testing.assert_close(*ends)
    torch.testing.assert_close(ends[1][:, 0], torch.tensor([0.5, 1.0, 0.0]))


@ELSEWHERE
def test_a_run_goes_on_upon_another_device_and_comes_back(device, is_exact, tiny_arguments, tmp_path, caplog):
    arguments, whole, moved = [*tiny_arguments, *SHORT], tmp_path / "whole", tmp_path / "moved"
    train(parse([*arguments, "--model.device", "cpu", "--generations", "3", "--run_dir", str(whole)])[0])
    train(parse([*arguments, "--model.device", "cpu", "--generations", "1", "--run_dir", str(moved)])[0])
    for count, where in ((2, device), (3, "cpu")):
        caplog.clear()
        words = ["--resume", str(moved), "--generations", str(count), "--model.device", where]
        config, run_dir = parse(words)
        assert config.model.device == where
        train(config, run_dir)
        assert read_config(moved).model.device == where
        assert ("note: another machine, device or other versions than before" in caplog.text) == (where != "cpu")
    tensors = [load_checkpoint(checkpoints(folder)[2])[0] for folder in (whole, moved)]
    same(*tensors, is_exact)
    assert not torch.equal(tensors[0]["bank"], load_checkpoint(checkpoints(moved)[1])[0]["bank"])


@ELSEWHERE
def test_where_its_device_is_gone_a_run_is_opened_on_the_cpu_and_goes_on_only_if_told_so(
    device, tiny_arguments, tmp_path, monkeypatch, caplog
):
    run_dir = tmp_path / "run"
    config = parse([*tiny_arguments, *SHORT, "--model.device", device, "--generations", "1"])[0]
    train(replace(config, run_dir=str(run_dir)))
    assert json.loads((run_dir / "run.json").read_text())["device"] != "cpu"
    population, generation = open_run(run_dir)[::2]
    assert population.policy.network.device.type != "cpu"
    on_cpu, config, _ = open_run(run_dir, generation, on_cpu=True)
    assert (on_cpu.policy.network.device.type, config.model.device) == ("cpu", "cpu")
    monkeypatch.setattr(device_module, "present", lambda: ["cpu"])
    for opened in (open_run(run_dir)[0], open_fittest(run_dir)[0]):
        assert torch.equal(opened.policy.network.bank.values, population.policy.network.bank.values.cpu())
        assert opened.policy.network.device.type == "cpu"
    assert f"note: model.device = {device!r} of {run_dir} is not here; it is opened on the CPU" in caplog.text
    wanted = f"model.device = '{device}': must be auto or one that this torch can use here: cpu"
    with pytest.raises(UserError, match=wanted):
        train(*parse(["--resume", str(run_dir), "--generations", "2"]))
    train(*parse(["--resume", str(run_dir), "--generations", "2", "--model.device", "auto"]))
    assert read_config(run_dir).model.device == "cpu"


def test_on_resume_only_a_device_that_torch_knows_is_taken(finished):
    with pytest.raises(UserError, match=r"model.device = 'tpu': must be one of auto, cpu, cuda, mps"):
        parse(["--resume", str(finished[0]), "--model.device", "tpu"])


def test_a_config_says_which_device_auto_came_to(finished):
    assert read_config(finished[0]).model.device == ("cuda" if "cuda" in PRESENT else "cpu")
    assert ModelConfig().device == "auto"


@ELSEWHERE
def test_another_runtime_answers_for_a_run_that_learned_elsewhere(device, tiny_arguments, tmp_path, monkeypatch):
    run_dir, opened = tmp_path / "run", []
    config = parse([*tiny_arguments, *SHORT, "--model.device", device, "--generations", "1"])[0]
    train(replace(config, run_dir=str(run_dir)))
    monkeypatch.setattr("agents.backends.open_backend", lambda name, network: opened.append(network) or network)
    evaluate.main([str(run_dir), "--episodes", "1", "--backend", "onnx"])
    evaluate.main([str(run_dir), "--episodes", "1"])
    assert [network.device.type == "cpu" for network in opened] == [True, False]
