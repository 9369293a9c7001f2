"""A small world and a tiny model, for whole runs in seconds."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from trainers.begin import begin
from trainers.cli.parser import parse
from trainers.config import TrainConfig
from trainers.stages import Run
from trainers.train import train


@pytest.fixture(scope="session")
def tiny_arguments(tiny_model: Path) -> list[str]:
    """Command line of a run of six agents that takes a second a generation."""
    return [
        *("--model.name", str(tiny_model), "--model.dtype", "float32", "--model.device", "cpu"),
        *("--adapter.top_layers", "2", "--adapter.rank", "2"),
        *("--env.agents", "6", "--env.width", "9", "--env.height", "9", "--env.food", "12", "--env.max_steps", "20"),
        *("--env.energy_start", "15", "--evolution.parents", "3", "--evolution.elites", "2"),
        *("--evolution.episodes", "3", "--held_out_episodes", "2", "--generations", "3", "--log.episode_every", "2"),
    ]


@pytest.fixture(scope="session")
def arguments(tiny_model: Path) -> list[str]:
    """Command line of a run of five agents on a tiny model in any world."""
    return [
        *("--model.name", str(tiny_model), "--model.dtype", "float32", "--model.device", "cpu"),
        *("--env.agents", "5", "--adapter.top_layers", "2", "--adapter.rank", "2"),
        *("--env.max_steps", "12", "--evolution.parents", "2", "--evolution.elites", "2", "--evolution.episodes", "2"),
        *("--held_out_episodes", "2", "--log.episode_every", "1"),
    ]


@pytest.fixture
def tiny_config(tiny_arguments: list[str], tmp_path: Path) -> TrainConfig:
    """The same as a config, with a run folder of its own."""
    return parse([*tiny_arguments, "--run_dir", str(tmp_path / "run")])[0]


@pytest.fixture(scope="session")
def finished(tiny_arguments, tmp_path_factory):
    """A finished run of three generations: its folder and its result."""
    run_dir = tmp_path_factory.mktemp("finished") / "run"
    return run_dir, train(parse([*tiny_arguments, "--run_dir", str(run_dir)])[0])


@pytest.fixture
def begun(tiny_arguments: list[str], tmp_path: Path) -> Callable[..., Run]:
    """Begin a run of six agents, of fitness 0 to 5, who have read something."""

    def start(*more: str) -> Run:
        run = begin(parse([*tiny_arguments, *more, "--run_dir", str(tmp_path / "run")])[0], None)
        population = run.population
        population.genomes = [replace(g, fitness=float(i)) for i, g in enumerate(population.genomes)]
        population.latest_texts = [" food", " no food", " food here"]
        return run

    return start
