"""A NaN in one of six places: its adapter, or the critic, goes back to what it was and is counted; the others go on."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from agents.types import UserError
from trainers import stages
from trainers.stages import Generation

BROKEN, OTHERS = 3, [0, 1, 2, 4, 5]


@pytest.fixture(params=["ppo", "online"])
def run(request, begun):
    return begun("--learn.algorithm", request.param, "--env.energy_start", "70", "--env.max_steps", "8")


@pytest.fixture
def ppo(begun):
    return begun("--env.energy_start", "70", "--env.max_steps", "8")


def learn(run, spoil=lambda rollout: rollout):
    """A rollout and learning from it; what adapters were before, and the figures."""
    before = run.population.policy.network.bank.values.clone()
    rollout = stages.collect(run, Generation(0))
    return before, stages.learn(run, spoil(rollout))


def is_finite(run):
    learner, bank = run.population.learner, run.population.policy.network.bank
    critic = [*run.population.policy.critic.state_dict().values()]
    return all(
        bool(x.isfinite().all()) for x in (bank.values, learner.optimiser.mean, learner.optimiser.square, *critic)
    )


def moved(run, before):
    return (run.population.policy.network.bank.values != before).any(dim=1).tolist()


def test_weights_go_back_to_what_they_were_when_last_measured(ppo, caplog):
    learn(ppo)
    population = ppo.population
    population.genomes = population.snapshots(population.genomes)
    sound = population.policy.network.bank.values.clone()
    population.policy.network.bank.values[BROKEN, 5] = torch.nan
    population.learner.optimiser.mean[BROKEN, 5] = torch.nan
    stages.collect(ppo, Generation(1))
    assert torch.equal(population.policy.network.bank.values, sound)
    assert population.learner.optimiser.steps.tolist() == [0 if slot == BROKEN else 2 for slot in range(6)]
    assert f"the adapter of agent {BROKEN} (individual {BROKEN}) was not finite" in caplog.text
    assert is_finite(ppo)


def test_weights_that_break_before_they_learn_are_restored_and_counted(ppo):
    def spoil(rollout):
        ppo.population.policy.network.bank.values[BROKEN, 5] = torch.inf
        return rollout

    before, figures = learn(ppo, spoil)
    assert figures["not_finite"] >= 1
    assert is_finite(ppo)
    assert moved(ppo, before) == [slot != BROKEN for slot in range(6)]


def test_an_adapter_that_was_never_finite_is_refused(ppo):
    ppo.population.policy.network.bank.values[BROKEN] = torch.nan
    ppo.population.genomes = ppo.population.snapshots(ppo.population.genomes)
    with pytest.raises(UserError, match=rf"the adapter of agent {BROKEN} \(individual {BROKEN}\) is not finite, and"):
        stages.collect(ppo, Generation(0))


@pytest.mark.parametrize("broken", [BROKEN, -1])
def test_nobody_acts_by_logits_that_are_not_finite(tiny_policy, monkeypatch, broken):
    answer = tiny_policy.network.answer

    def spoiled(texts, adapters, values=None):
        return np.where(np.asarray(adapters)[:, None] == broken, np.float32(np.nan), answer(texts, adapters, values))

    monkeypatch.setattr(tiny_policy.network, "answer", spoiled)
    legal, rng = np.ones((2, 5), bool), np.random.default_rng(0)
    tiny_policy.act([" food", " home"], np.array([0, 1]), legal, rng)
    who = f"adapter {broken}" if broken >= 0 else "the model without an adapter"
    with pytest.raises(UserError, match=rf"the logits of {who} after text ' home' are \[nan, .*\]: must be finite"):
        tiny_policy.act([" food", " home"], np.array([0, broken]), legal, rng)


@pytest.mark.parametrize("column", ["log_prob", "value", "bootstrap_value", "reward"])
def test_a_value_or_logit_that_was_not_finite_teaches_nobody(ppo, column):
    def spoil(rollout):
        values = getattr(rollout.trajectory, column).copy()
        values[4, BROKEN] = np.nan
        return rollout._replace(trajectory=rollout.trajectory._replace(**{column: values}))

    before, figures = learn(ppo, spoil)
    assert figures["not_finite"] == 1
    assert figures["critic_not_finite"] == 0
    assert all(np.isfinite(value) for value in figures.values())
    assert moved(ppo, before) == [slot != BROKEN for slot in range(6)]
    assert is_finite(ppo)


def test_where_all_are_broken_nobody_learns_and_the_run_goes_on(ppo):
    def spoil(rollout):
        return rollout._replace(trajectory=rollout.trajectory._replace(value=rollout.trajectory.value * np.nan))

    before, figures = learn(ppo, spoil)
    assert figures["not_finite"] == 6
    assert all(np.isfinite(value) for value in figures.values())
    assert not any(moved(ppo, before))


def test_an_advantage_that_is_not_finite_stays_with_its_agent(ppo):
    population = ppo.population
    before = population.policy.network.bank.values.clone()
    t = stages.collect(ppo, Generation(0)).trajectory
    experience = population.learner.experience(t, *stages._hyperparameters(ppo))
    advantage = experience.advantage.clone()
    advantage.view(len(t.reward), 6)[:, BROKEN] = torch.inf
    figures = population.learner.learn(experience._replace(advantage=advantage), population.streams["learner"])
    assert figures["not_finite"] == 1
    assert moved(ppo, before) == [slot != BROKEN for slot in range(6)]
    assert is_finite(ppo)


@pytest.mark.parametrize("poison", [torch.nan, torch.inf])
@pytest.mark.parametrize("moment", ["mean", "square"])
def test_moments_that_are_not_finite_take_nobody_along(run, moment, poison):
    learn(run)
    getattr(run.population.learner.optimiser, moment)[BROKEN, 5] = poison
    _, figures = learn(run)
    assert figures["not_finite"] == 1
    assert is_finite(run)
    before, figures = learn(run)
    assert figures["not_finite"] == 0, "its moments began at zero"
    assert moved(run, before) == [True] * 6


def test_a_learning_rate_without_bounds_takes_nobody_along(ppo):
    genome = ppo.population.genomes[BROKEN]
    settings = {**genome.hyperparameters, "learning_rate": 3e38}
    ppo.population.genomes[BROKEN] = replace(genome, hyperparameters=settings)
    before, figures = learn(ppo)
    assert figures["not_finite"] + figures["kl_exceeded"] >= 1
    assert is_finite(ppo)
    assert all(moved(ppo, before)[slot] for slot in OTHERS)


@pytest.mark.parametrize("when", ["acts", "learns"])
def test_a_critic_that_is_not_finite_goes_back_and_is_counted(ppo, when, monkeypatch):
    _, figures = learn(ppo)
    assert figures["critic_not_finite"] == 0
    critic, optimiser = ppo.population.policy.critic, ppo.population.learner.critic.optimiser
    sound = {name: tensor.clone() for name, tensor in critic.state_dict().items()}
    ppo.population.learner.critic.keep_or_go_back()
    if when == "acts":
        with torch.no_grad():
            critic.layers[0].weight[1, 2] = torch.nan
        stages.collect(ppo, Generation(1))
    else:
        optimiser.rate = 1e38
        learn(ppo)
        optimiser.rate = 1e-3
    assert all(torch.equal(tensor, sound[name]) for name, tensor in critic.state_dict().items())
    before, figures = learn(ppo)
    assert figures["critic_not_finite"] == (when == "acts")
    assert all(moved(ppo, before)), "adapters learned meanwhile"
    assert any(not torch.equal(tensor, sound[name]) for name, tensor in critic.state_dict().items())


def test_moments_of_the_critic_that_are_not_finite_go_back(ppo):
    learn(ppo)
    optimiser = ppo.population.learner.critic.optimiser
    ppo.population.learner.critic.keep_or_go_back()
    next(iter(optimiser.moments.values()))["exp_avg"][:] = torch.nan
    _, figures = learn(ppo)
    assert figures["critic_not_finite"] == 1
    assert all(bool(moments["exp_avg"].isfinite().all()) for moments in optimiser.moments.values())


def test_a_critic_that_was_never_finite_is_refused(ppo):
    with torch.no_grad():
        ppo.population.policy.critic.layers[0].weight[1, 2] = torch.nan
    with pytest.raises(UserError, match="the critic's weights are not finite"):
        stages.collect(ppo, Generation(0))
    with pytest.raises(UserError, match="the critic's estimate after text ' food' is nan: must be finite"):
        ppo.population.policy.values([" food"])
