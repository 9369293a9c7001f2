"""Each stage does what the config says, at its place in a generation."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from evolution import next_generation
from evolution.mutation import CLOSE
from trainers import stages, train
from trainers.records.report import _rollout_successes
from trainers.stages import Generation

SETTINGS = {
    "elites": 1,
    "parents": 4,
    "selection": "tournament",
    "crossover": "merge",
    "mutation_std": 0.3,
    "hyperparameter_factor": 1.5,
}


def test_a_generation_is_bred_as_the_config_says(begun, monkeypatch):
    used = []

    def noted(population, settings, **more):
        used.append(settings)
        return next_generation(population, settings, **more)

    monkeypatch.setattr(stages, "next_generation", noted)
    run = begun(*(f"--evolution.{key}={value}" for key, value in SETTINGS.items()))
    stages.evolve(run, Generation(1))
    assert [{key: getattr(settings, key) for key in SETTINGS} for settings in used] == [SETTINGS]
    assert sum(genome.operator == "merge" for genome in run.population.genomes) == 5


def test_a_mutation_is_safe_if_that_is_asked_for(begun):
    run = begun("--evolution.mutation", "safe", "--evolution.mutation_kl", "0.2", "--evolution.crossover", "clone")
    run.population.policy.network.bank.values += 0.1  # so that B is not 0, and A matters
    assert 0.2 / CLOSE < stages.evolve(run, Generation(1))["kl_to_parent"] < 0.2 * CLOSE


@pytest.mark.parametrize("inheritance", ["lamarckian", "baldwinian"])
def test_children_get_what_is_to_be_inherited(begun, inheritance):
    run = begun("--inheritance.kind", inheritance, "--evolution.crossover=clone", "--evolution.mutation_std=0")
    population, bank = run.population, run.population.policy.network.bank
    bank.values += torch.arange(6.0)[:, None]  # they learned
    passed_on = bank.values.clone()
    if inheritance == "baldwinian":
        born_with = population.variants["inheritance"].born_with
        born_with += 10 * torch.arange(6.0)[:, None]  # and were not born equal
        passed_on = born_with.clone()
    stages.evolve(run, Generation(1))
    children = [(slot, genome.parents[0]) for slot, genome in enumerate(population.genomes) if genome.parents]
    assert len(children) == 4
    assert all(torch.equal(bank.values[slot], passed_on[parent]) for slot, parent in children)


def test_each_learns_at_the_rate_that_it_inherited(begun):
    run = begun("--learn.algorithm", "reinforce")
    genomes, bank = run.population.genomes, run.population.policy.network.bank
    genomes[2] = replace(genomes[2], hyperparameters={"learning_rate": 0.0, "entropy_coef": 0.0})
    rollout, before = stages.collect(run, Generation(0)), bank.values.clone()
    stages.learn(run, rollout)
    assert (bank.values != before).any(dim=1).tolist() == [True, True, False, True, True, True]


@pytest.mark.parametrize("algorithm", ["ppo", "online"])
def test_the_learning_rate_falls_evenly_to_its_share_in_the_last_generation(begun, monkeypatch, algorithm):
    run = begun("--learn.anneal_to", "0.2", "--generations", "5", "--learn.algorithm", algorithm)
    learner, rates = run.population.learner, []
    experience = learner.experience
    monkeypatch.setattr(learner, "start", lambda rate, _: rates.append(rate) or [])
    monkeypatch.setattr(learner, "experience", lambda t, rate, e: rates.append(rate) or experience(t, rate, e))
    for generation in range(5):
        run.history = replace(run.history, generation=generation - 1)
        rollout = stages.collect(run, Generation(generation))
        if algorithm == "ppo":
            stages.learn(run, rollout)
    own, each = run.population.hyperparameter("learning_rate"), 2 if algorithm == "ppo" else 1
    expected = [share for share in (1.0, 0.8, 0.6, 0.4, 0.2) for _ in range(each)]
    torch.testing.assert_close(torch.stack(rates), torch.tensor(expected)[:, None] * own)


def test_in_an_only_generation_the_learning_rate_is_whole():
    assert stages.annealed(0, 1, 0.1) == 1


def test_agents_live_and_are_judged_in_as_many_worlds_as_asked_for(begun):
    run = begun("--worlds", "2", "--evolution.episodes", "4")
    assert stages.collect(run, Generation(0)).outcome.lifetime.shape == (2, 6)
    outcome, _ = stages.evaluate(run, Generation(0))
    assert outcome.lifetime.shape == (4, 6)


@pytest.mark.parametrize("rule", ["neighbour", "anyone"])
def test_agents_imitate_whom_the_config_says(begun, monkeypatch, rule):
    from trainers.variants import social

    models, rules = social.models, []
    monkeypatch.setattr(social, "models", lambda *arguments: rules.append(arguments[2]) or models(*arguments))
    run = begun("--social.imitate", rule)
    stages.learn(run, stages.collect(run, Generation(0)))
    assert rules == [rule]


def test_a_generation_collects_then_learns_then_is_evaluated(begun, monkeypatch):
    run, order = begun("--generations", "2", "--rollouts_per_generation", "2"), []
    for name in ("evolve", "collect", "learn", "evaluate"):
        stage = getattr(stages, name)
        monkeypatch.setattr(stages, name, lambda *a, name=name, stage=stage: order.append(name) or stage(*a))
    train.all_generations(run)
    of_each = ["collect", "learn", "collect", "learn", "evaluate"]
    assert order == [*of_each, "evolve", *of_each]


def test_without_evolution_nobody_breeds(begun):
    run = begun("--generations", "2", "--evolution.enabled", "false")
    train.all_generations(run)
    assert [genome.operator for genome in run.population.genomes] == ["founder"] * 6


def test_a_run_stops_if_what_learns_is_not_what_acted(begun):
    run = begun()
    rollout = stages.collect(run, Generation(0))
    t = rollout.trajectory
    with pytest.raises(RuntimeError, match=r"a log-ratio is 1\.000: must be 0; what learns is not what acted"):
        stages.learn(run, rollout._replace(trajectory=t._replace(log_prob=t.log_prob - 1)))


def test_the_checkpoint_of_the_best_generation_is_kept(begun, monkeypatch):
    fitness = iter([1.0, 5.0, 3.0])
    evaluate = stages.evaluate

    def scripted(run, generation):
        evaluated, now = evaluate(run, generation), next(fitness)
        run.population.genomes = [replace(genome, fitness=now) for genome in run.population.genomes]
        return evaluated

    monkeypatch.setattr(stages, "evaluate", scripted)
    run = begun("--generations", "3", "--log.checkpoints", "1", "--log.recordings_mb", "0")
    train.all_generations(run)
    assert sorted(f.name for f in (run.run_dir / "checkpoints").iterdir()) == ["gen_0001", "gen_0002"]


def test_success_of_rollouts_is_the_mean_over_all_of_a_generation():
    nan = np.nan
    successes = [
        {"success": np.array([[1.0, 0.0]]), "success_of_goto": np.array([[1.0, nan]])},
        {"success": np.array([[0.5, 0.5]]), "success_of_open": np.array([[nan, 0.25]])},
    ]
    found = _rollout_successes(Generation(0, successes=successes))
    assert found == {
        "rollout_success_mean": 0.5,
        "rollout_success_of_goto_mean": 1.0,
        "rollout_success_of_open_mean": 0.25,
    }
    assert _rollout_successes(Generation(0, successes=[{}])) == {}
