"""The PettingZoo interface: what it takes, and what it refuses with a sentence that says what is allowed."""

import re

import numpy as np
import pytest
from small_worlds import DEADLY, MODES, SMALL, small

from envs import WorldConfig, forage_v0
from envs.presets import PRESETS


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"forager_1": 5}, "action of forager_1 = 5: must be an integer between 0 and 4"),
        ({"forager_1": -1}, "action of forager_1 = -1"),
        ({"forager_1": 1.0}, "action of forager_1 = 1.0"),
        ({"forager_1": float("nan")}, "action of forager_1 = nan"),
        ({"forager_1": True}, "action of forager_1 = True"),
        ({"forager_1": np.bool_(True)}, f"action of forager_1 = {np.bool_(True)!r}"),
        ({"forager_1": np.float32("nan")}, "action of forager_1 = " + re.escape(repr(np.float32("nan")))),
        ({"forager_1": np.array([1])}, r"action of forager_1 = array\(\[1\]\)"),
        ({"forager_1": "1"}, "action of forager_1 = '1'"),
        ({"forager_1": 2**70}, f"action of forager_1 = {2**70}"),
        ({"forager_1": np.uint8(255)}, "action of forager_1 = " + re.escape(repr(np.uint8(255)))),
        ({"forager_1": None}, "action of forager_1 = None"),
        ({"forager_9": 0}, "action for 'forager_9', which is no agent of this world; agents are"),
    ],
)
@pytest.mark.parametrize("on_death", MODES)
def test_wrong_actions_are_refused_and_nothing_happens(change, message, on_death):
    env = small(on_death=on_death)
    before = env.state()
    with pytest.raises(ValueError, match=message):
        env.step(dict.fromkeys(env.agents, 0) | change)
    assert np.array_equal(env.state(), before)


def test_a_missing_action_is_refused():
    env = small()
    with pytest.raises(ValueError, match="no action for forager_2: every agent in `agents` must act"):
        env.step(dict.fromkeys(["forager_0", "forager_1", "forager_3"], 0))


def test_an_action_for_the_dead_is_refused():
    env = small(**DEADLY)
    everyone = dict.fromkeys(env.agents, 0)
    for _ in range(3):
        env.step(everyone)
    assert env.agents == []
    with pytest.raises(ValueError, match="action for 'forager_0', which is dead or done"):
        env.step(everyone)


@pytest.mark.parametrize("action", [np.int64(1), np.int8(1), np.uint8(1), np.array(1)])
def test_all_kinds_of_integers_are_actions(action):
    env = small()
    env.step(dict.fromkeys(env.agents, action))


def test_overrides_are_fields_of_the_config_and_others_are_named():
    env = forage_v0.parallel_env(config=WorldConfig(agents=3), width=12)
    assert (env.config.agents, env.config.width) == (3, 12)
    assert forage_v0.parallel_env("maze", agents=2).config.walls == PRESETS["maze"].walls
    with pytest.raises(TypeError, match="unknown WorldConfig field 'witdh'; fields are height, width"):
        forage_v0.parallel_env(witdh=12)
    with pytest.raises(ValueError, match=r"WorldConfig\.width = 1"):
        forage_v0.parallel_env(width=1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"preset": "desert"}, "preset = 'desert': must be one of meadow, maze, famine, night, rivals"),
        ({"preset": "maze", "config": WorldConfig()}, "preset = 'maze' and a config: must be one of them"),
        ({"on_death": "stay"}, "on_death = 'stay': must be 'leave' or 'absorb'"),
        ({"render_mode": "rgb"}, "render_mode = 'rgb': must be None, 'human', 'ansi', 'rgb_array'"),
        ({"max_cycles": 0}, r"WorldConfig\.max_steps = 0: must be between 1"),
    ],
)
def test_impossible_arguments_are_refused_with_what_is_allowed(arguments, message):
    with pytest.raises(ValueError, match=message):
        forage_v0.parallel_env(**arguments)


def test_nothing_works_before_the_first_reset():
    env = forage_v0.parallel_env(**SMALL)
    assert env.agents == []
    with pytest.raises(RuntimeError, match="the episode has not begun: call reset"):
        env.step({})


def test_a_refused_seed_changes_nothing():
    env = small()
    before = env.state()
    for seed in (-1, 2**53):
        with pytest.raises(ValueError, match="must be a list of whole numbers from 0"):
            env.reset(seed=seed)
    with pytest.raises(TypeError):
        env.reset(seed=1.5)
    assert np.array_equal(env.state(), before)
