"""The PettingZoo face: the contract, its official tests, and the traps those tests miss."""

import copy
import json
import warnings

import numpy as np
import pytest
from pettingzoo.test import api_test, parallel_api_test, parallel_seed_test

from envs import HELD_OUT, ForageBatch, WorldConfig, forage_v0
from envs.forage import SEED_STRIDE

SMALL = {"height": 8, "width": 8, "agents": 4, "food": 8, "energy_start": 10.0, "max_steps": 30}


def small(**changes):
    """Return a small environment, begun with seed 0."""
    env = forage_v0.parallel_env(**SMALL | changes)
    env.reset(seed=0)
    return env


def choose(env, generator):
    """Return a random action of every living agent."""
    return {agent: int(generator.integers(5)) for agent in env.agents}


def test_the_official_parallel_api_test_passes_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        parallel_api_test(forage_v0.parallel_env(), num_cycles=200)


def test_the_official_seed_test_passes():
    parallel_seed_test(lambda: forage_v0.parallel_env(**SMALL))


def test_the_official_api_test_passes_on_the_turn_based_face():
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*[Oo]bservation.*")
        api_test(forage_v0.env(**SMALL), num_cycles=300)


def test_step_dicts_are_plain_keyed_by_who_began_the_step_and_inside_their_spaces():
    env, generator = small(), np.random.default_rng(0)
    died = set()
    while env.agents:
        acting = list(env.agents)
        observations, rewards, terminations, truncations, infos = env.step(choose(env, generator))
        for part in (observations, rewards, terminations, truncations, infos):
            assert list(part) == acting
        for agent in acting:
            assert type(rewards[agent]) is float
            assert type(terminations[agent]) is bool
            assert type(truncations[agent]) is bool
            assert not (terminations[agent] and truncations[agent])
            assert env.observation_space(agent).contains(observations[agent])
            mask = infos[agent]["action_mask"]
            assert mask.dtype == np.int8
            assert mask.shape == (5,)
            died |= {agent} if terminations[agent] else set()
        assert env.agents == [a for a in acting if not (terminations[a] or truncations[a])]
        json.dumps([rewards, terminations, truncations])
    assert died
    assert env.step({}) == ({}, {}, {}, {}, {})


def test_death_on_the_last_step_is_death_and_not_truncation():
    env = small(max_steps=3, energy_start=3.0, food=0, cost_step=1.0, home_cost=1.0)
    for _ in range(3):
        _, _, terminations, truncations, _ = env.step(dict.fromkeys(env.agents, 0))
    assert all(terminations.values())
    assert not any(truncations.values())


def test_the_dict_face_equals_the_batch_exactly():
    env = forage_v0.parallel_env(**SMALL)
    batch = ForageBatch(env.config)
    observations, _ = env.reset(seed=11)
    seen = batch.reset([11])
    generator = np.random.default_rng(1)
    while env.agents:
        actions = choose(env, generator)
        array = np.array([[actions.get(agent, 0) for agent in env.possible_agents]])
        observations, rewards, terminations, _, infos = env.step(actions)
        seen, result = batch.step(array)
        for agent in actions:
            i = env.possible_agents.index(agent)
            assert np.array_equal(observations[agent], seen[0, i])
            assert rewards[agent] == result.reward[0, i]
            assert terminations[agent] == result.is_terminal[0, i]
            assert np.array_equal(infos[agent]["action_mask"], batch.legal()[0, i])


def test_observations_are_never_overwritten_by_later_steps_or_each_other():
    env = small()
    observations, _ = env.reset(seed=1)
    kept = {agent: observation.copy() for agent, observation in observations.items()}
    env.step(dict.fromkeys(env.agents, 1))
    observations["forager_0"][:] = 5
    for agent in env.possible_agents[1:]:
        assert np.array_equal(observations[agent], kept[agent])
        assert observations[agent].base is None


def test_spaces_are_the_same_object_each_time():
    env = small()
    for agent in env.possible_agents:
        assert env.observation_space(agent) is env.observation_space(agent)
        assert env.action_space(agent) is env.action_space(agent)
    assert env.action_space("forager_0") is not env.action_space("forager_1")  # each is seeded on its own


def seeds_of(env, count):
    """Return the seeds of the next unseeded episodes."""
    return [int(env.state()[0]) for _ in range(count) if env.reset()]


def test_unseeded_episodes_differ_and_a_seed_fixes_all_that_follow():
    env, other = small(), small()
    env.reset(seed=5)
    other.reset(seed=5)
    follow = seeds_of(env, 50)
    assert follow == seeds_of(other, 50)
    assert len(set(follow)) == 50
    assert max(follow) < HELD_OUT
    fresh = [seeds_of(forage_v0.parallel_env(**SMALL), 1)[0] for _ in range(4)]
    assert len(set(fresh)) > 1


def test_episodes_after_a_held_out_seed_stay_held_out():
    env = small()
    env.reset(seed=HELD_OUT + 5)
    assert min(seeds_of(env, 50)) >= HELD_OUT


def test_the_stride_visits_every_layout_and_keeps_neighbours_apart():
    assert SEED_STRIDE % 2 == 1
    walk = np.arange(1, 200_000, dtype=np.int64) * SEED_STRIDE % HELD_OUT
    assert np.minimum(walk, HELD_OUT - walk).min() > 1000


def test_a_state_is_restored_exactly_in_another_environment():
    env, generator = small(energy_start=8.0), np.random.default_rng(3)
    for _ in range(9):
        env.step(choose(env, generator))
    assert 0 < len(env.agents) < 4
    other = forage_v0.parallel_env(**SMALL | {"energy_start": 8.0})
    state = env.state()
    assert env.state_space.contains(state)
    other.set_state(state)
    assert other.agents == env.agents
    while env.agents:
        actions = choose(env, generator)
        for a, b in zip(env.step(actions), other.step(actions), strict=True):
            np.testing.assert_equal(a, b)
        assert np.array_equal(env.state(), other.state())
    assert seeds_of(env, 3) == seeds_of(other, 3)


def test_a_deep_copy_goes_on_alone_from_the_same_state():
    env, generator = small(), np.random.default_rng(0)
    env.step(choose(env, generator))
    twin = copy.deepcopy(env)
    before = env.state()
    actions = choose(env, generator)
    twin_step = twin.step(actions)
    assert np.array_equal(env.state(), before)
    np.testing.assert_equal(env.step(actions), twin_step)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"forager_1": 5}, "action of forager_1 = 5: must be an integer between 0 and 4"),
        ({"forager_1": -1}, "action of forager_1 = -1"),
        ({"forager_1": 1.0}, "action of forager_1 = 1.0"),
        ({"forager_1": float("nan")}, "action of forager_1 = nan"),
        ({"forager_1": True}, "action of forager_1 = True"),
        ({"forager_1": None}, "action of forager_1 = None"),
        ({"forager_9": 0}, "action for 'forager_9', which is no agent of this world; agents are"),
    ],
)
def test_wrong_actions_are_refused_and_nothing_happens(change, message):
    env = small()
    before = env.state()
    with pytest.raises(ValueError, match=message):
        env.step(dict.fromkeys(env.agents, 0) | change)
    assert np.array_equal(env.state(), before)


def test_a_missing_action_is_refused():
    env = small()
    with pytest.raises(ValueError, match="no action for forager_2: every living agent must act"):
        env.step(dict.fromkeys(["forager_0", "forager_1", "forager_3"], 0))


def test_an_action_for_the_dead_is_refused():
    env = small(energy_start=1.0, food=0, home_cost=1.0)
    everyone = dict.fromkeys(env.agents, 0)
    env.step(everyone)
    assert env.agents == []
    with pytest.raises(ValueError, match="action for 'forager_0', which is dead or done"):
        env.step(everyone)


@pytest.mark.parametrize("action", [np.int64(1), np.int8(1), np.uint8(1), np.array(1)])
def test_all_kinds_of_integers_are_actions(action):
    env = small()
    env.step(dict.fromkeys(env.agents, action))


def test_overrides_are_fields_of_the_config_and_others_are_named():
    env = forage_v0.parallel_env(WorldConfig(agents=3), width=12)
    assert (env.config.agents, env.config.width) == (3, 12)
    with pytest.raises(TypeError, match="unknown WorldConfig field 'witdh'; fields are height, width"):
        forage_v0.parallel_env(witdh=12)
    with pytest.raises(ValueError, match=r"WorldConfig\.width = 1"):
        forage_v0.parallel_env(width=1)


def test_nothing_works_before_the_first_reset():
    env = forage_v0.parallel_env(**SMALL)
    assert env.agents == []
    with pytest.raises(RuntimeError, match="call reset"):
        env.step({})


def test_it_renders_what_was_asked_for():
    assert small().render() is None
    assert "step 0" in small(render_mode="ansi").render()
    assert small(render_mode="rgb_array").render().shape == (10 * 24, 8 * 24, 3)
    with pytest.raises(ValueError, match="render_mode = 'human': must be None, 'ansi' or 'rgb_array'"):
        forage_v0.parallel_env(render_mode="human")
