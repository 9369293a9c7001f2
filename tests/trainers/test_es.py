"""The evolution strategy in a run: who the agents are, how far the mean moves, and what it goes with."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from trainers.begin import begin
from trainers.cli.parser import parse
from trainers.stages import Generation, collect, evaluate, evolve
from trainers.train import train
from trainers.variants.es import kl, sampled_texts

ES = ["--evolution.strategy", "es", "--learn.algorithm", "none"]


@pytest.fixture
def run(tiny_arguments, tmp_path):
    """A run whose first generation has been judged; six agents in three worlds are nine pairs."""
    run = begin(parse([*tiny_arguments, *ES, "--run_dir", str(tmp_path / "run")])[0], None)
    collect(run, Generation(0))
    return run, evaluate(run, Generation(0))


def test_samples_sit_in_the_worlds_and_the_agents_become_their_mean(run):
    run, (outcome, figures) = run
    population, es = run.population, run.population.variants["es"]
    founder = population.genomes[0].adapter
    assert outcome.episode_return.shape == (3, 6)
    assert len(set(np.round(outcome.episode_return, 4).flatten())) > 1
    assert figures["es_step_kl"] > 0
    run.history = replace(run.history, generation=0)
    evolve(run, Generation(1))
    bank = population.policy.network.bank
    assert torch.equal(bank.values, es.averaged.expand(6, -1))
    changed = {name: not torch.equal(tensor, founder[name]) for name, tensor in bank.read(0).items()}
    assert changed == {name: "lora_B" in name for name in founder}
    assert [genome.id for genome in population.genomes] == list(range(6, 12))
    assert [genome.parents for genome in population.genomes] == [(i,) for i in range(6)]
    assert {(genome.operator, genome.generation) for genome in population.genomes} == {("es", 1)}


def test_the_mean_moves_no_further_than_it_may(run, tiny_arguments, tmp_path):
    _, (_, figures) = run
    assert figures["es_step_kl"] <= 0.15
    shy = [*tiny_arguments, *ES, "--es.step_kl", "0.001", "--es.last_kl", "0.001"]
    other = begin(parse([*shy, "--run_dir", str(tmp_path / "shy")])[0], None)
    collect(other, Generation(0))
    assert 0 < evaluate(other, Generation(0))[1]["es_step_kl"] <= 0.001 < figures["es_step_kl"]


def test_noise_follows_how_far_samples_are_from_the_mean(run):
    run, (_, figures) = run
    es = run.population.variants["es"]
    assert figures["es_sigma"] == 0.35
    assert es.sigma == pytest.approx(0.35 * (0.5 / figures["es_noise_kl"]) ** 0.5)


def test_kl_is_the_mean_over_texts():
    one = torch.log(torch.tensor([[[0.5, 0.5], [0.9, 0.1]]]))
    other = torch.log(torch.tensor([[[0.5, 0.5], [0.5, 0.5]], [[0.25, 0.75], [0.9, 0.1]]]))
    first = 0.9 * np.log(0.9 / 0.5) + 0.1 * np.log(0.1 / 0.5)
    second = 0.5 * np.log(2) + 0.5 * np.log(0.5 / 0.75)
    assert kl(one, other).tolist() == pytest.approx([first / 2, second / 2])


def test_texts_that_are_read_often_come_often(run):
    run, _ = run
    trajectory = collect(run, Generation(0)).trajectory
    texts, read = sampled_texts(trajectory), trajectory.text[trajectory.is_lived]
    assert len(texts) == min(512, len(read))
    assert sorted(texts) == sorted(trajectory.texts[i] for i in read)


def test_a_run_says_what_its_agents_are(tiny_arguments, tmp_path):
    run_dir = tmp_path / "run"
    train(parse([*tiny_arguments, *ES, "--run_dir", str(run_dir)])[0])
    metrics = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    assert all({"es_sigma", "es_noise_kl", "es_step_kl"} <= line.keys() for line in metrics)
    assert [line["diversity"] for line in metrics] == pytest.approx([0, 0, 0], abs=1e-2)
    events = [json.loads(line) for line in (run_dir / "lineage.jsonl").read_text().splitlines()]
    born = [event for event in events if event["event"] == "birth" and event["generation"] == 2]
    assert {event["operator"] for event in born} == {"es"}
    assert len({event["seed"] for event in born}) == 1
    assert {event["cause"] for event in events if event["event"] == "death"} == {"mean moved"}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--learn.algorithm", "ppo"], "learn.algorithm = 'ppo': must be none with evolution.strategy = es"),
        (["--env.agents", "5"], "env.agents = 5: must be even with evolution.strategy = es"),
        (["--steady_state.enabled", "true"], "steady_state.enabled = True: must be false with evolution.strategy"),
        (["--evolution.strategy", "cma"], "evolution.strategy = 'cma': must be one of genetic, es"),
        (["--es.momentum", "1"], "es.momentum = 1.0: must be 0 or more and below 1"),
        (["--es.step_kl", "0"], "es.step_kl = 0.0: must be finite and above 0, at most 100"),
    ],
)
def test_what_does_not_go_with_it_is_refused(tiny_arguments, given, message):
    with pytest.raises(ValueError, match=message):
        parse([*tiny_arguments, *ES, *given])
