"""Several rollouts before breeding, presets that alternate, founders of another run, and Reptile over a whole run."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from agents.types import UserError
from envs.generator import generate
from trainers import stages
from trainers.begin import begin
from trainers.cli.parser import parse
from trainers.population import found_population
from trainers.records.checkpoint import load_checkpoint
from trainers.records.episode import read_recording
from trainers.records.manifest import checkpoints
from trainers.records.opening import init_from
from trainers.seeding import named_streams, world_seeds
from trainers.train import train

META = ["--env.also", "[maze]", "--env.alternate", "true", "--rollouts_per_generation", "2"]
META += ["--inheritance.kind", "reptile"]


def metrics(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def newest(folder):
    found = checkpoints(folder)
    return load_checkpoint(found[max(found)])


@pytest.fixture(scope="module")
def meta_run(tiny_arguments, tmp_path_factory):
    folder = tmp_path_factory.mktemp("meta") / "run"
    train(parse([*tiny_arguments, *META, "--generations", "4", "--run_dir", str(folder)])[0])
    return folder


def test_each_generation_lives_in_one_preset_and_presets_alternate(meta_run):
    for generation in range(4):
        episode = read_recording(meta_run / "recordings" / f"rollout_{generation:04d}.safetensors")
        assert episode.world.walls == (3 if generation % 2 else 0)
        assert np.array_equal(episode.rock, generate(episode.world, np.array([int(episode.seed)])).rock[0])


def test_rollouts_and_fitness_are_in_worlds_of_the_same_preset(tiny_arguments, tmp_path):
    run = begin(parse([*tiny_arguments, *META, "--run_dir", str(tmp_path / "run")])[0], None)
    seeds = np.array([3])
    for generation in range(3):
        for world in (run.world(generation), run.trial(generation)):
            world.reset(seeds)
            expected = generate(run.env(generation), seeds)
            assert np.array_equal(world.state().rock, expected.rock)
    kinds = [generate(run.env(generation), seeds).rock for generation in (0, 1)]
    assert not np.array_equal(*kinds)


def test_a_generation_has_as_many_rollouts_as_the_config_says(tiny_arguments, tmp_path):
    steps = {}
    for rollouts in ("1", "3"):
        folder = tmp_path / rollouts
        more = ["--rollouts_per_generation", rollouts, "--env.cost_step", "0", "--generations", "2"]
        train(parse([*tiny_arguments, *more, "--run_dir", str(folder)])[0])
        steps[rollouts] = [line["env_steps"] for line in metrics(folder)]
    assert steps == {"1": [120, 240], "3": [360, 720]}


def test_what_learning_brought_is_counted_from_the_first_rollout_on(tiny_arguments, tmp_path, monkeypatch):
    returns = []
    collect = stages.collect

    def noted(run, generation):
        rollout = collect(run, generation)
        returns.append(rollout.outcome.episode_return.mean(axis=0).tolist())
        return rollout

    monkeypatch.setattr(stages, "collect", noted)
    folder = tmp_path / "run"
    train(parse([*tiny_arguments, "--rollouts_per_generation", "2", "--generations", "1", "--run_dir", str(folder)])[0])
    events = [json.loads(line) for line in (folder / "lineage.jsonl").read_text().splitlines()]
    assert [event["return"] for event in events if event["event"] == "evaluation"] == returns[0]
    assert returns[0] != returns[1]


def test_with_reptile_nobody_breeds(meta_run):
    events = [json.loads(line) for line in (meta_run / "lineage.jsonl").read_text().splitlines()]
    assert {event["operator"] for event in events if event["event"] == "birth"} == {"founder"}
    tensors, _ = newest(meta_run)
    born_with = tensors["inheritance.born_with"]
    assert (born_with == born_with[0]).all(), "all begin as one"
    assert (tensors["bank"] != born_with).any(), "and learn apart"


def test_a_resumed_run_is_the_same(tiny_arguments, meta_run, tmp_path):
    folder = tmp_path / "run"
    train(parse([*tiny_arguments, *META, "--generations", "2", "--run_dir", str(folder)])[0])
    train(*parse(["--resume", str(folder), "--generations", "4"]))
    for name, tensor in newest(folder)[0].items():
        assert torch.equal(tensor, newest(meta_run)[0][name]), name
    fitness = [[line["fitness_mean"] for line in metrics(one)] for one in (folder, meta_run)]
    assert fitness[0] == fitness[1]


def test_founders_have_what_the_other_population_passes_on(tiny_arguments, tiny_config, meta_run, tmp_path, caplog):
    population = found_population(tiny_config)
    init_from(population, tiny_config, meta_run)
    tensors, _ = newest(meta_run)
    torch.testing.assert_close(
        population.policy.network.bank.values[3], tensors["bank"].mean(dim=0), msg="no last move"
    )
    bred = tmp_path / "bred"
    train(parse([*tiny_arguments, "--generations", "2", "--run_dir", str(bred)])[0])
    tensors, state = newest(bred)
    more = ["--init_from", str(bred), "--learn.algorithm", "none", "--evolution.enabled", "false", "--generations", "1"]
    config = parse([*tiny_arguments, *more, "--run_dir", str(tmp_path / "next")])[0]
    run = begin(config, None)
    assert torch.equal(run.population.policy.network.bank.values, tensors["bank"])
    rates = [person["hyperparameters"]["learning_rate"] for person in state["population"]["genomes"]]
    np.testing.assert_allclose(run.population.hyperparameter("learning_rate"), rates, rtol=1e-6)
    other = replace(config, learn=replace(config.learn, entropy_coef=0.25), run_dir=str(tmp_path / "other"))
    caplog.set_level("INFO")
    founders = begin(other, None).population
    assert "founders learn with entropy_coef = 0.25, not with what they inherit" in caplog.text
    np.testing.assert_allclose(founders.hyperparameter("learning_rate"), rates, rtol=1e-6)
    assert founders.hyperparameter("entropy_coef").tolist() == [0.25] * 6, "was not that of the run before"
    assert [genome.id for genome in run.population.genomes] == list(range(6))
    assert run.history.age == 2
    ours, theirs = (world_seeds(named_streams(config.seed, age)["world"], 8).tolist() for age in (2, 0))
    assert world_seeds(run.population.streams["world"], 8).tolist() == ours != theirs
    train(replace(config, run_dir=str(tmp_path / "after")))
    third = found_population(tiny_config)
    assert init_from(third, tiny_config, tmp_path / "after") == 3, "generations of all who came before"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--init_from", "{tmp}/nowhere"], "must be the folder of a run with a checkpoint"),
        (["--init_from", "{run}", "--env.agents", "5"], "must be a run with as many agents"),
        (["--init_from", "{run}", "--adapter.rank", "1"], "a run with the same adapters"),
        (["--init_from", "{run}", "--adapter.rank", "4", "--adapter.top_layers", "1"], "a run with the same adapters"),
        (["--init_from", "{run}", "--adapter.alpha", "8"], "a run with the same adapters"),
    ],
)
def test_founders_that_do_not_fit_are_refused(tiny_arguments, meta_run, tmp_path, more, said):
    words = [word.format(tmp=tmp_path, run=meta_run) for word in more]
    config = parse([*tiny_arguments, *words, "--run_dir", str(tmp_path / "run")])[0]
    with pytest.raises(UserError, match=said):
        train(config)
    assert not (tmp_path / "run").exists(), "nothing is left behind"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--inheritance.kind", "reptile", "--learn.algorithm", "none"], "learn.algorithm = 'none': must be another"),
        (["--inheritance.reptile_step", "0"], "inheritance.reptile_step = 0.0: must be above 0 and at most 1"),
        (["--inheritance.kind", "reptile", "--evolution.enabled", "false"], "enabled = False: must be true with"),
        (["--env.alternate", "true"], "env.alternate = True: must be false without env.also"),
        (["--env.also", "[meadow]", "--worlds", "2"], "each once, env.preset not"),
        (["--rollouts_per_generation", "0"], "rollouts_per_generation = 0: must be 1 or more"),
        (
            ["--rollouts_per_generation", "2", "--steady_state.enabled", "true"],
            "rollouts_per_generation = 2: must be 1 with steady_state.enabled",
        ),
    ],
)
def test_what_cannot_be_is_refused(arguments, said):
    with pytest.raises(UserError, match=said):
        parse(arguments)
