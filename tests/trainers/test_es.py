"""The evolution strategy in a run: who the agents are, how far the mean moves, and what it goes with."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from evolution.strategy import rank_one_noise
from trainers.begin import begin
from trainers.cli.parser import parse
from trainers.population import found_population
from trainers.rollout import collect_rollout
from trainers.stages import Generation, collect, evaluate, evolve
from trainers.train import train
from trainers.variants import es
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
    population, variant = run.population, run.population.variants["es"]
    founder = found_population(run.config).genomes[0].adapter
    assert outcome.episode_return.shape == (3, 6)
    assert len(set(np.round(outcome.episode_return, 4).flatten())) > 1
    assert figures["es_step_kl"] > 0
    bank = population.policy.network.bank
    assert torch.equal(bank.values, variant.averaged.expand(6, -1)), "what the run keeps of its last generation"
    assert torch.equal(bank.flatten(population.genomes[3].adapter), variant.averaged)
    run.history = replace(run.history, generation=0)
    evolve(run, Generation(1))
    assert torch.equal(bank.values, variant.averaged.expand(6, -1))
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
    assert figures["es_sigma"] == 0.35
    assert run.population.variants["es"].sigma == pytest.approx(0.35 * (0.5 / figures["es_noise_kl"]) ** 0.5)


def test_kl_is_the_mean_over_texts():
    one = torch.log(torch.tensor([[[0.5, 0.5], [0.9, 0.1]]]))
    other = torch.log(torch.tensor([[[0.5, 0.5], [0.5, 0.5]], [[0.25, 0.75], [0.9, 0.1]]]))
    first = 0.9 * np.log(0.9 / 0.5) + 0.1 * np.log(0.1 / 0.5)
    second = 0.5 * np.log(2) + 0.5 * np.log(0.5 / 0.75)
    assert kl(one, other).tolist() == pytest.approx([first / 2, second / 2])


def test_texts_are_those_of_steps_evenly_over_all(run, monkeypatch):
    monkeypatch.setattr(es, "MOST_STEPS", 10)
    trajectory = collect(run[0], Generation(0)).trajectory
    read = trajectory.text[trajectory.is_lived]
    steps = [len(read) - 1 if k == 9 else int(k * (len(read) - 1) / 9) for k in range(10)]
    assert sampled_texts(trajectory) == [trajectory.texts[read[step]] for step in steps]


def test_the_mean_moves_to_where_fitness_rises(run, monkeypatch):
    run, _ = run
    variant = run.population.variants["es"]
    slope = rank_one_noise(run.population.policy.network.bank.shapes, 1, seed=7)[0]

    def judged(policy, *given, adapter_ids, **more):
        rollout = collect_rollout(policy, *given, adapter_ids=adapter_ids, **more)
        assert policy.backend.values.shape == (18, len(slope))
        height = (policy.backend.values @ slope)[torch.from_numpy(adapter_ids)].numpy()
        return rollout._replace(outcome=rollout.outcome._replace(episode_return=height))

    monkeypatch.setattr(es, "collect_rollout", judged)
    variant.velocity.zero_()
    heights = [variant.mean @ slope]
    for number in range(3):
        evaluate(run, Generation(number))
        heights.append(variant.mean @ slope)
    assert heights == sorted(set(heights))


def test_a_run_says_what_its_agents_are(tiny_arguments, tmp_path):
    run_dir = tmp_path / "run"
    train(parse([*tiny_arguments, *ES, "--run_dir", str(run_dir)])[0])
    metrics = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    drawn = {tag.key for tag in es.ES.tags.values()}
    assert drawn == {"es_sigma", "es_noise_kl", "es_step_kl"}
    assert all(drawn <= line.keys() for line in metrics)
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
        (["--evolution.enabled", "false"], "evolution.enabled = False: must be true with evolution.strategy = es"),
        (["--inheritance.kind", "baldwinian"], "inheritance.kind = 'baldwinian': must be lamarckian or darwinian with"),
        (["--env.populations", "2"], "env.populations = 2: must be 1 with evolution.strategy = es"),
        (["--steady_state.enabled", "true"], "steady_state.enabled = True: must be false with evolution.strategy"),
        (["--evolution.strategy", "cma"], "evolution.strategy = 'cma': must be one of genetic, es"),
        (["--es.momentum", "1"], "es.momentum = 1.0: must be 0 or more and below 1"),
        (["--es.last_kl", "0.18"], "es.last_kl = 0.18: must be at most 0.15, from which it falls to this"),
        (["--es.step_kl", "0"], "es.step_kl = 0.0: must be finite and above 0, at most 100"),
    ],
)
def test_what_does_not_go_with_it_is_refused(tiny_arguments, given, message):
    with pytest.raises(ValueError, match=message):
        parse([*tiny_arguments, *ES, *given])
