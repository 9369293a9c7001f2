"""The PettingZoo interface: the contract, its official tests, and the traps those tests miss."""

import copy
import itertools
import json
import pickle
import warnings

import numpy as np
import pettingzoo
import pytest
from pettingzoo.test import api_test, max_cycles_test, parallel_api_test, parallel_seed_test, render_test, seed_test
from small_worlds import DEADLY, MODES, SMALL, small

from envs import HELD_OUT, ForageBatch, forage_v0
from envs.interfaces import SEED_STRIDE, Viewer
from envs.presets import PRESETS


@pytest.fixture
def no_window(monkeypatch):
    """Draw windows nowhere, and do not wait between steps."""
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    monkeypatch.setattr("envs.interfaces.FPS", 1000)


def choose(env, generator):
    """Return a random action of every agent that must act."""
    return {agent: int(generator.integers(5)) for agent in env.agents}


@pytest.mark.parametrize("on_death", MODES)
@pytest.mark.parametrize("preset", ["meadow", "night", "rivals"])
def test_the_official_parallel_api_test_passes_without_a_warning(preset, on_death):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        parallel_api_test(forage_v0.parallel_env(preset, on_death=on_death), num_cycles=150)


@pytest.mark.parametrize("on_death", MODES)
@pytest.mark.parametrize("preset", ["maze", "famine"])
def test_the_official_seed_tests_pass(preset, on_death):
    changes = {"preset": preset, "on_death": on_death, "agents": 4}
    parallel_seed_test(lambda: forage_v0.parallel_env(**changes), num_cycles=100)
    seed_test(lambda: forage_v0.env(**changes), num_cycles=50)


@pytest.mark.parametrize("on_death", MODES)
def test_the_official_api_test_passes_on_the_turn_based_face(on_death):
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*[Oo]bservation.*")
        api_test(forage_v0.env(on_death=on_death, **SMALL), num_cycles=300)


def test_the_official_max_cycles_test_passes():
    max_cycles_test(forage_v0)


def test_the_official_render_test_passes(no_window):
    """The other official test, test_save_obs, is for observations that are images; these are vectors."""
    render_test(lambda render_mode: forage_v0.env(render_mode=render_mode, **SMALL))


@pytest.mark.skipif(not hasattr(pettingzoo, "make"), reason="PettingZoo before 1.27 knows no names")
def test_pettingzoo_makes_it_by_name():
    assert pettingzoo.make("parallel", "forage_v0", preset="rivals").config == PRESETS["rivals"]
    assert pettingzoo.make("parallel", "forage_v0", max_cycles=7).config.max_steps == 7
    assert isinstance(pettingzoo.make("aec", "forage_v0", agents=3), pettingzoo.AECEnv)


def test_supersuit_vectorises_absorbing_worlds_as_they_are():
    supersuit = pytest.importorskip("supersuit")
    env = forage_v0.parallel_env(on_death="absorb", cost_step=0.0, **SMALL)
    vector = supersuit.concat_vec_envs_v1(supersuit.pettingzoo_env_to_vec_env_v1(env), 2, base_class="gymnasium")
    observations, _ = vector.reset(seed=3)
    assert observations.shape == (8, *env.observation_space("forager_0").shape)
    for _ in range(SMALL["max_steps"]):
        assert vector.num_envs == 8
        _, _, terminations, truncations, _ = vector.step(np.zeros(8, int))
    assert (terminations | truncations).all()


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
            assert type(infos[agent]["is_alive"]) is bool
            assert infos[agent]["is_alive"] is not terminations[agent]
            assert np.isfinite(rewards[agent])
            mask = infos[agent]["action_mask"]
            assert mask.dtype == np.int8
            assert mask.shape == (5,)
            died |= {agent} if terminations[agent] else set()
        assert env.agents == [a for a in acting if not (terminations[a] or truncations[a])]
        json.dumps([rewards, terminations, truncations])
    assert died
    assert env.step({}) == ({}, {}, {}, {}, {})


def test_death_on_the_last_step_is_death_and_not_truncation():
    env = small(**DEADLY | {"max_steps": 3})
    for _ in range(3):
        _, _, terminations, truncations, _ = env.step(dict.fromkeys(env.agents, 0))
    assert all(terminations.values())
    assert not any(truncations.values())


def test_a_death_gives_a_last_observation_and_the_reward_of_death():
    env = small(**DEADLY)
    for _ in range(2):
        env.step(dict.fromkeys(env.agents, 0))
    observations, rewards, terminations, _, infos = env.step(dict.fromkeys(env.agents, 0))
    for agent in env.possible_agents:
        assert terminations[agent] is True
        assert env.observation_space(agent).contains(observations[agent])
        assert observations[agent][-4] == 0  # energy
        assert rewards[agent] == pytest.approx(env.config.reward_step + env.config.reward_death)
        assert infos[agent]["action_mask"].tolist() == [1, 0, 0, 0, 0]
    assert env.agents == []


def run(env, seed, actions):
    """Return what every step of an episode gave, where `actions` (T, N) are those of all agents."""
    env.reset(seed=seed)
    steps = []
    for row in actions.tolist():
        everyone = dict(zip(env.possible_agents, row, strict=True))
        steps.append(env.step({agent: everyone[agent] for agent in env.agents}))
        if not env.agents:
            break
    return steps


def test_absorbing_worlds_keep_all_agents_until_all_are_done_at_once():
    env = small(on_death="absorb")
    actions = np.random.default_rng(0).integers(0, 5, (30, 4))
    steps = run(env, 0, actions)
    for t, (*parts, infos) in enumerate(steps):
        observations, rewards, terminations, truncations = parts
        is_last = t == len(steps) - 1
        for part in (*parts, infos):
            assert list(part) == env.possible_agents
        assert {terminations[a] or truncations[a] for a in terminations} == {is_last}
        for agent, info in infos.items():
            assert (observations[agent][-4] > 0) == info["is_alive"]
            if t and not steps[t - 1][4][agent]["is_alive"]:
                assert rewards[agent] == 0
                assert info["action_mask"].tolist() == [1, 0, 0, 0, 0]
    assert env.agents == []
    assert env.step({}) == ({}, {}, {}, {}, {})


@pytest.mark.parametrize(("max_steps", "has_terminated"), [(30, True), (3, True), (2, False)])
def test_absorbing_worlds_terminate_when_all_are_dead_and_are_truncated_when_time_is_up(max_steps, has_terminated):
    env = small(**DEADLY | {"max_steps": max_steps, "on_death": "absorb"})
    while env.agents:
        _, _, terminations, truncations, _ = env.step(dict.fromkeys(env.agents, 0))
    assert set(terminations.values()) == {has_terminated}
    assert set(truncations.values()) == {not has_terminated}


@pytest.mark.parametrize("preset", list(PRESETS))
def test_both_ways_to_die_give_the_living_the_same(preset):
    changes = {"preset": preset, "max_cycles": 60, "energy_start": 25.0}
    leave, absorb = forage_v0.parallel_env(**changes), forage_v0.parallel_env(on_death="absorb", **changes)
    actions = np.random.default_rng(0).integers(0, 5, (60, leave.config.agents))
    steps, others = run(leave, 5, actions), run(absorb, 5, actions)
    assert any(any(step[2].values()) for step in steps)  # some died
    for step, other in zip(steps, others, strict=True):
        for part, wider in zip((step[0], step[1], step[4]), (other[0], other[1], other[4]), strict=True):
            np.testing.assert_equal(part, {agent: wider[agent] for agent in part})


@pytest.mark.parametrize("preset", list(PRESETS))
def test_the_dict_face_equals_the_batch_exactly(preset):
    env = forage_v0.parallel_env(preset, energy_start=25.0, max_steps=50)
    batch = ForageBatch(env.config)
    seen = batch.reset([11])
    observations, infos = env.reset(seed=11)
    generator = np.random.default_rng(1)
    while env.agents:
        for agent in env.agents:
            i = env.possible_agents.index(agent)
            assert np.array_equal(observations[agent], seen[0, i])
            assert np.array_equal(infos[agent]["action_mask"], batch.legal()[0, i])
        actions = choose(env, generator)
        array = np.array([[actions.get(agent, 0) for agent in env.possible_agents]])
        observations, rewards, terminations, truncations, infos = env.step(actions)
        seen, result = batch.step(array)
        for agent in actions:
            i = env.possible_agents.index(agent)
            assert np.array_equal(observations[agent], seen[0, i])
            assert rewards[agent] == result.reward[0, i]
            assert terminations[agent] == result.is_terminal[0, i]
            assert truncations[agent] == (result.is_truncated[0] and not terminations[agent])


@pytest.mark.parametrize("on_death", MODES)
def test_what_a_step_gave_is_never_written_to_by_later_steps(on_death):
    env, generator = small(on_death=on_death), np.random.default_rng(0)
    given = [env.reset(seed=1)]
    while env.agents:
        given.append(env.step(choose(env, generator)))
    given.append(env.reset())
    before = copy.deepcopy(given)
    env.step(choose(env, generator))
    np.testing.assert_equal(given, before)
    arrays = [observation for observations, *_ in given for observation in observations.values()]
    for a, b in itertools.pairwise(arrays):
        assert not np.shares_memory(a, b)


def test_what_a_step_gave_is_the_callers_to_write_to():
    env, twin = small(), small()
    twin.reset(seed=1)
    observations, infos = env.reset(seed=1)
    for agent in env.agents:
        observations[agent][:] = 9
        infos[agent]["action_mask"][:] = 9
    np.testing.assert_equal(env.step(dict.fromkeys(env.agents, 1)), twin.step(dict.fromkeys(twin.agents, 1)))


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


@pytest.mark.parametrize("on_death", MODES)
def test_a_state_is_restored_exactly_in_another_environment(on_death):
    changes = {"energy_start": 8.0, "on_death": on_death}
    env, generator = small(**changes), np.random.default_rng(3)
    for _ in range(9):
        _, _, _, _, infos = env.step(choose(env, generator))
    assert 0 < sum(info["is_alive"] for info in infos.values()) < 4
    other = forage_v0.parallel_env(**SMALL | changes)
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


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))])
def test_a_copy_goes_on_alone_from_the_same_state(duplicate):
    env, generator = small(), np.random.default_rng(0)
    env.step(choose(env, generator))
    twin = duplicate(env)
    before = env.state()
    actions = choose(env, generator)
    twin_step = twin.step(actions)
    assert np.array_equal(env.state(), before)
    np.testing.assert_equal(env.step(actions), twin_step)


def test_it_renders_what_was_asked_for(no_window):
    assert small().render() is None
    assert isinstance(small(render_mode="ansi").render(), str)
    picture = small(render_mode="rgb_array").render()
    assert picture.dtype == np.uint8
    assert picture.shape[2] == 3


def test_a_window_is_shown_by_every_reset_and_step_and_closed_by_close(monkeypatch):
    shown = []
    monkeypatch.setattr(Viewer, "show", lambda self, state, w=0: shown.append(int(state.step[0])))
    env = small(render_mode="human")
    env.step(dict.fromkeys(env.agents, 0))
    assert shown == [0, 1]


def test_a_copy_does_not_share_the_window(no_window):
    env = small(render_mode="human")
    twin = copy.deepcopy(env)
    assert twin._viewer._window is None
    env.close()
    env.close()
    assert env._viewer._window is None
