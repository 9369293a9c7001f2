"""A rollout records what really happened."""

import numpy as np
import pytest

from envs import ForageBatch
from trainers.colony import Colony, found_colony
from trainers.rollout import Life, rollout


@pytest.fixture
def colony(tiny_config) -> Colony:
    return found_colony(tiny_config)


@pytest.fixture
def life(colony, tiny_config) -> Life:
    world = ForageBatch(tiny_config.env)
    return rollout(colony.policy, colony.codec, world, np.array([3, 4]), np.random.default_rng(0), keep_states=True)


def test_replaying_the_recorded_actions_gives_the_same_rewards_and_end(life, tiny_config):
    world = ForageBatch(tiny_config.env)
    world.reset(np.array([3, 4]))
    for t, action in enumerate(life.trajectory.action):
        _, result = world.step(action.reshape(2, 6))
        np.testing.assert_array_equal(result.reward.reshape(-1), life.trajectory.reward[t])
    np.testing.assert_array_equal(world.state().food_eaten, life.outcome.food_eaten)
    np.testing.assert_array_equal(world.state().position, life.states[-1].position)


def test_the_dead_do_nothing_and_get_nothing(life):
    dead = ~life.trajectory.is_alive
    assert dead.any(), "the world of this test must be hard enough for some to die"
    assert (life.trajectory.reward[dead] == 0).all()
    assert (life.trajectory.action[dead] == 0).all()
    assert (life.trajectory.is_terminal.sum(axis=0) == ~life.outcome.is_alive.reshape(-1)).all()


def test_recorded_log_probs_and_values_are_those_of_the_texts_read(life, colony):
    t, agent = 2, 4
    text = life.trajectory.texts[life.trajectory.text[t, agent]]
    logits = colony.policy.logits([text], np.array([agent]))[0]
    logits[~life.trajectory.legal[t, agent]] = -np.inf
    log_probs = logits - np.log(np.exp(logits - logits.max()).sum()) - logits.max()
    assert life.trajectory.log_prob[t, agent] == pytest.approx(log_probs[life.trajectory.action[t, agent]], abs=1e-4)
    assert life.trajectory.value[t, agent] == pytest.approx(colony.policy.values([text])[0], abs=1e-5)


def test_returns_are_the_sums_of_rewards(life):
    np.testing.assert_allclose(life.outcome.episode_return.reshape(-1), life.trajectory.reward.sum(axis=0), rtol=1e-6)


def test_the_same_seeds_give_the_same_life(life, colony, tiny_config):
    again = rollout(
        colony.policy, colony.codec, ForageBatch(tiny_config.env), np.array([3, 4]), np.random.default_rng(0)
    )
    np.testing.assert_array_equal(again.trajectory.action, life.trajectory.action)
    np.testing.assert_array_equal(again.trajectory.log_prob, life.trajectory.log_prob)


def test_bare_agents_all_act_by_the_base(colony, tiny_config):
    colony.policy.mind.bank.values += 1.0
    colony.policy.mind.bank.version += 1
    world = ForageBatch(tiny_config.env)
    life = rollout(colony.policy, colony.codec, world, np.array([3]), np.random.default_rng(0), bare=True)
    text = life.trajectory.texts[life.trajectory.text[0, 0]]
    logits = colony.policy.logits([text], np.array([-1]))[0]
    legal = life.trajectory.legal[0, 0]
    expected = logits[legal] - np.log(np.exp(logits[legal]).sum())
    chosen = life.trajectory.action[0, 0]
    assert life.trajectory.log_prob[0, 0] == pytest.approx(expected[legal[:chosen].sum()], abs=1e-4)
