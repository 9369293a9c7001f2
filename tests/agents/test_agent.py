"""The loop of the original idea: born, living, learning, saved, bred."""

from dataclasses import replace
from math import inf, nan
from typing import get_args

import numpy as np
import pytest
import torch

from agents import TinyLLMAgent
from agents.types import AdapterConfig, Tokens
from envs import Habitat, WorldConfig
from envs.observe import observation_size
from evolution import breed, select_top_k

ADAPTER = AdapterConfig(top_layers=4)


@pytest.fixture
def make(tiny_model):
    """Make an agent on the tiny model; arguments as in the constructor."""

    def build(**settings) -> TinyLLMAgent:
        return TinyLLMAgent(base_model=str(tiny_model), **({"adapter_config": ADAPTER, "dtype": "float32"} | settings))

    return build


@pytest.fixture
def trio(tiny_model) -> list[TinyLLMAgent]:
    return TinyLLMAgent.population(3, str(tiny_model), adapter_config=ADAPTER, dtype="float32", energy=20.0)


def open_world() -> Habitat:
    """A world in which nothing is in the way of a newborn, whatever the defaults are."""
    return Habitat(WorldConfig(height=20, width=20, rocks=0.0, walls=0, food=40, patches=0, populations=1), seed=3)


def same(first, second) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def live(agent: TinyLLMAgent, world: Habitat, cost: float = 1.0) -> list[tuple[int, float]]:
    """The loop of the original idea; returns the actions and rewards."""
    agent.enter(world)
    deeds = []
    while agent.alive:
        obs = world.observe(agent.position)
        action = agent.decide(obs)
        reward = agent.act(action)
        agent.learn(obs, action, reward)
        agent.energy -= cost
        deeds.append((action, reward))
    return deeds


def test_it_lives_learns_and_ends_when_its_energy_does(make):
    agent = make(energy=10.0)
    before = agent.adapter
    world = Habitat(WorldConfig(food=5, food_regrow=0.0, food_energy=8.0), seed=2)
    deeds = live(agent, world)
    items = sum(reward > 0 for _, reward in deeds)
    assert len(deeds) == 10 + 8 * items
    assert agent.energy == 0
    assert not agent.alive
    assert agent.fitness == pytest.approx(sum(reward for _, reward in deeds))
    assert not same(agent.adapter, before)


def test_the_same_seed_gives_the_same_life_and_another_id_another(make):
    world = WorldConfig(food=5, food_regrow=0.0)
    lives = [live(make(energy=8.0, id=i, seed=3), Habitat(world, seed=1)) for i in (0, 0, 1)]
    assert lives[0] == lives[1]
    assert lives[0] != lives[2]


def test_acting_moves_it_and_feeds_it(make):
    world = Habitat(WorldConfig(rocks=0.0, food=300, food_regrow=0.0, food_energy=8.0, patches=0), seed=0)
    agent = make(energy=50.0)
    agent.enter(world)
    assert agent.position == world.start()
    row, column = agent.position
    reward = agent.act(1)
    assert agent.position == (row - 1, column)
    assert reward == pytest.approx(0.98)
    assert agent.energy == 58
    assert agent.fitness == reward


def test_it_never_runs_into_rocks(make):
    world = Habitat(WorldConfig(rocks=0.5, food=5), seed=0)
    agent = make(energy=1.0)
    agent.enter(world)
    for _ in range(40):
        before = agent.position
        action = agent.decide(world.observe(before))
        agent.act(action)
        assert (agent.position == before) == (action == 0)


@pytest.mark.parametrize("tokens", get_args(Tokens))
def test_it_learns_which_action_pays(make, tokens):
    agent, world = make(adapter_config=replace(ADAPTER, tokens=tokens)), open_world()
    agent.enter(world)
    obs = world.observe(agent.position)
    actions = []
    agent.decide(obs)
    pays = int(np.argsort([probability(agent, obs, action) for action in range(5)])[-2])
    for _ in range(200):
        actions.append(agent.decide(obs))
        agent.learn(obs, actions[-1], float(actions[-1] == pays))
    assert probability(agent, obs, pays) > 0.9
    assert actions[-20:].count(pays) >= 17


def test_credit_for_the_last_deed_alone_finds_even_the_rarest_action(make):
    agent, world = make(discount=0.0), open_world()
    agent.enter(world)
    obs = world.observe(agent.position)
    agent.decide(obs)
    pays = int(np.argmin([probability(agent, obs, action) for action in range(5)]))
    assert probability(agent, obs, pays) < 0.15
    for _ in range(300):
        action = agent.decide(obs)
        agent.learn(obs, action, float(action == pays))
    assert probability(agent, obs, pays) > 0.9


def probability(agent: TinyLLMAgent, obs: np.ndarray, action: int) -> float:
    """How likely the agent's policy, as it is now, is to choose `action` in a place where all are legal."""
    logits = agent._shared.policy.logits(agent._texts(obs[None]), np.array([agent._row]))
    return float(torch.from_numpy(logits[0]).softmax(0)[action])


def test_the_step_follows_a_decaying_trace_of_the_last_deeds_and_the_surprise(make, monkeypatch):
    agent, world = make(window=2, discount=0.5), open_world()
    agent.enter(world)
    obs = world.observe(agent.position)
    policy, bank, steps = agent._shared.policy, agent._bank, []

    def keep(rows, gradients, rates, max_norm, is_learning):
        steps.append(gradients[0].clone())

    monkeypatch.setattr(agent._shared.optimiser, "step", keep)
    for action, reward in ((1, 1.0), (3, 0.5), (0, -1.0)):
        agent.decide(obs)
        agent.learn(obs, action, reward)

    def slope(action):
        legal = torch.ones(1, 5, dtype=torch.bool)
        log_prob, _ = policy.evaluate(agent._texts(obs[None]), torch.tensor([0]), torch.tensor([action]), legal)
        with bank.gathering(slice(0, 1)) as gradients:
            log_prob.sum().backward()
        return gradients[0].clone()

    surprises = (1.0, 0.5 - 1.0, -1.0 - 0.75)
    traces = (slope(1), 0.5 * slope(1) + slope(3), 0.5 * slope(3) + slope(0))
    for step, surprise, trace in zip(steps, surprises, traces, strict=True):
        torch.testing.assert_close(step, -surprise * trace, rtol=1e-4, atol=1e-5)
        assert step.norm() > 0.01


def test_learning_changes_only_its_own_row(trio):
    world, bank = open_world(), trio[0]._bank
    for agent in trio:
        agent.enter(world)
    optimiser = trio[0]._shared.optimiser
    for agent in (trio[1], trio[0], trio[1]):
        before = [x.clone() for x in (bank.values, optimiser.mean, optimiser.square, optimiser.steps)]
        obs = world.observe(agent.position)
        agent.learn(obs, agent.decide(obs), 1.0)
        others = [row for row in range(3) if row != agent.id]
        for x, old in zip((bank.values, optimiser.mean, optimiser.square, optimiser.steps), before, strict=True):
            assert torch.equal(x[others], old[others])
        assert not torch.equal(bank.values[agent.id], before[0][agent.id])


def test_a_population_shares_one_base_and_begins_equal(trio):
    assert [agent.id for agent in trio] == [0, 1, 2]
    assert [agent.energy for agent in trio] == [20.0] * 3
    assert len({id(agent._shared.policy.network.base.causal_lm) for agent in trio}) == 1
    assert same(trio[0].adapter, trio[2].adapter)


def test_its_adapter_is_a_copy_and_a_new_one_starts_without_moments(trio):
    agent, optimiser = trio[1], trio[1]._shared.optimiser
    for tensor in agent.adapter.values():
        tensor.fill_(9.0)
    assert not any((tensor == 9.0).any() for tensor in agent.adapter.values())
    agent.enter(open_world())
    obs = agent.world.observe(agent.position)
    agent.learn(obs, agent.decide(obs), 1.0)
    assert optimiser.steps.tolist() == [0, 1, 0]
    child = {name: torch.full_like(tensor, 0.5) for name, tensor in agent.adapter.items()}
    agent.adapter = child
    assert same(agent.adapter, child)
    assert optimiser.steps.tolist() == [0, 0, 0]
    assert not optimiser.mean[1].any()


@pytest.mark.parametrize("tokens", get_args(Tokens))
def test_what_it_saved_another_is_born_with(make, tmp_path, tokens):
    kind = {"adapter_config": replace(ADAPTER, tokens=tokens)}
    agent = make(id=7, generation=3, energy=5.0, **kind)
    live(agent, open_world())
    folder = agent.save_lora(f"{tmp_path}/agent_{{id}}_gen_{{gen}}")
    assert folder == tmp_path / "agent_7_gen_3"
    for source in (folder, str(folder), agent.adapter):
        assert same(make(lora_adapter=source, **kind).adapter, agent.adapter)
    assert not same(make(**kind).adapter, agent.adapter)


def test_an_adapter_that_does_not_fit_is_refused(make, tmp_path):
    agent = make()
    with pytest.raises(ValueError, match=r"lora_adapter = '.*nothing'"):
        make(lora_adapter=tmp_path / "nothing")
    with pytest.raises(ValueError, match="adapter does not fit the model: missing"):
        agent.adapter = {}


def test_agents_can_be_selected_and_bred(trio):
    for agent, fitness in zip(trio, (1.0, 3.0, 2.0), strict=True):
        agent.fitness = fitness
        agent.adapter = {name: tensor + fitness for name, tensor in agent.adapter.items()}
    best = select_top_k(trio, 2)
    assert [agent.id for agent in best] == [1, 2]
    child = breed(*best, mutation_std=0.0)
    assert child.parents == (1, 2)
    assert child.hyperparameters == {"learning_rate": 1e-3}
    newborn = trio[0].adapter
    trio[0].adapter = child.adapter
    for name, tensor in trio[0].adapter.items():
        torch.testing.assert_close(tensor, newborn[name] + 1.5)


def test_the_dead_decide_nothing(make):
    agent = make()
    agent.enter(open_world())
    obs = agent.world.observe(agent.position)
    agent.decide(obs)
    agent.die()
    assert not agent.alive
    assert agent.energy == 0
    with pytest.raises(RuntimeError, match="agent 0 is dead"):
        agent.decide(obs)


def test_it_cannot_act_without_a_world_nor_learn_before_it_decided(make):
    agent = make(id=4)
    with pytest.raises(RuntimeError, match=r"agent 4 is in no world: call agent\.enter\(world\) first"):
        agent.act(0)
    world = open_world()
    agent.enter(world)
    obs = world.observe(agent.position)
    with pytest.raises(RuntimeError, match="agent 4 has not decided"):
        agent.learn(obs, 0, 1.0)
    agent.decide(obs)
    agent.enter(world)
    with pytest.raises(RuntimeError, match="agent 4 has not decided"):
        agent.learn(obs, 0, 1.0)


@pytest.mark.parametrize("energy", [0.0, -1.0, nan, inf])
def test_an_impossible_energy_is_refused(make, energy):
    with pytest.raises(ValueError, match=rf"energy = {energy}: must be finite and above 0"):
        make(energy=energy)


@pytest.mark.parametrize("reward", [nan, inf])
def test_a_reward_that_is_no_number_is_refused_and_nothing_learned(make, reward):
    agent, world = make(), open_world()
    agent.enter(world)
    obs, before = world.observe(agent.position), agent.adapter
    action = agent.decide(obs)
    with pytest.raises(ValueError, match=r"reward = .*: must be finite"):
        agent.learn(obs, action, reward)
    assert same(agent.adapter, before)
    agent.learn(obs, action, 1.0)
    assert all(tensor.isfinite().all() for tensor in agent.adapter.values())


def test_an_action_that_does_not_exist_is_refused_and_not_remembered(make):
    agent, world = make(), open_world()
    agent.enter(world)
    obs = world.observe(agent.position)
    action = agent.decide(obs)
    with pytest.raises((ValueError, RuntimeError, IndexError)):
        agent.learn(obs, 7, 1.0)
    agent.learn(obs, action, 1.0)


def test_entering_a_world_forgets_the_one_before(make):
    agent, world = make(), open_world()
    agent.enter(world)
    agent.decide(world.observe(agent.position))
    agent.enter(world)
    bare = np.zeros(observation_size(3), np.float32)
    bare[-1] = 1  # all of the day is left
    agent.decide(bare)
    assert agent._texts(bare[None]) == [" no food, new north"]


def test_a_reward_does_not_reach_back_into_the_world_before(make, monkeypatch):
    agent, world = make(discount=1.0), open_world()
    evaluate, counts = agent._shared.policy.evaluate, []
    monkeypatch.setattr(
        agent._shared.policy, "evaluate", lambda texts, *rest: counts.append(len(texts)) or evaluate(texts, *rest)
    )
    for _ in range(2):
        agent.enter(world)
        for _ in range(2):
            obs = world.observe(agent.position)
            agent.learn(obs, agent.decide(obs), 1.0)
    assert counts == [1, 2, 1, 2]
