"""The Stable-Baselines3 interface: its VecEnv contract, and a replay on the batch."""

import numpy as np
import pytest
from sb3_contrib import MaskablePPO
from sb3_contrib.common.maskable.utils import get_action_masks, is_masking_supported
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import VecMonitor, VecNormalize

from envs import HELD_OUT, ForageBatch, WorldConfig
from envs.interfaces import seed_after
from envs.presets import PRESETS
from envs.sb3 import ForageVecEnv

SMALL = {"height": 8, "width": 8, "agents": 4, "food": 8, "energy_start": 10.0, "max_steps": 30}


def small(**changes):
    """Return two small worlds, as eight slots."""
    return ForageVecEnv(worlds=2, **SMALL | changes)


def draw(env, steps, seed=0):
    """Return actions (steps, M)."""
    return np.random.default_rng(seed).integers(0, 5, (steps, env.num_envs))


@pytest.mark.parametrize("preset", list(PRESETS))
def test_it_equals_a_replay_on_the_batch(preset):
    env = ForageVecEnv(preset, worlds=2, seed=4, energy_start=10.0, max_steps=25)
    batch = ForageBatch(env.config)
    assert np.array_equal(env.reset(), batch.reset([4, 5]).reshape(env.num_envs, -1))
    deaths, seeds = 0, [4, 5]
    for t, actions in enumerate(draw(env, 60), start=1):
        observations, rewards, dones, infos = env.step(actions)
        last, result = batch.step(actions.reshape(2, -1))
        last, eaten = last.reshape(env.num_envs, -1), batch.state().food_eaten.ravel()
        died, is_late = result.is_terminal.ravel(), t % 25 == 0
        if is_late:
            seeds = [seed_after(seed) for seed in seeds]
            expected = batch.reset(seeds)
        else:
            expected = batch.give_birth(result.is_terminal)
        assert np.array_equal(observations, expected.reshape(env.num_envs, -1))
        assert np.array_equal(rewards, result.reward.ravel())
        assert np.array_equal(dones, died | is_late)
        for slot, info in enumerate(infos):
            assert info["TimeLimit.truncated"] is bool(is_late and not died[slot])
            assert ("terminal_observation" in info) == dones[slot]
            if dones[slot]:
                assert np.array_equal(info["terminal_observation"], last[slot])
                assert info["food_eaten"] == eaten[slot]
        assert batch.state().is_alive.all()
        deaths += died.sum()
    assert deaths > 0


def test_what_a_step_gives_has_the_types_that_stable_baselines_expects():
    env = small()
    observations = env.reset()
    assert observations.shape == (8, *env.observation_space.shape)
    for actions in draw(env, 40):
        observations, rewards, dones, infos = env.step(actions)
        assert observations.dtype == rewards.dtype == np.float32
        assert dones.dtype == bool
        assert rewards.shape == dones.shape == (8,)
        assert np.isfinite(rewards).all()
        assert len(infos) == 8
        assert len({id(info) for info in infos}) == 8
        for observation in [*observations, *(i["terminal_observation"] for i in infos if "terminal_observation" in i)]:
            assert env.observation_space.contains(observation)


def test_observations_are_never_written_to_again():
    env = small()
    kept = [(env.reset(),)]
    kept += [env.step(actions) for actions in draw(env, 40)]
    twin = small()
    again = [(twin.reset(),)]
    np.testing.assert_equal(kept[0], again[0])
    for actions, given in zip(draw(env, 40), kept[1:], strict=True):
        np.testing.assert_equal(given, twin.step(actions))


def test_seeds_choose_the_worlds_of_the_next_reset_only():
    env = small(seed=3)
    first = env.reset()
    assert np.array_equal(first, small(seed=3).reset())
    assert not np.array_equal(first, env.reset())
    assert env.seed(3) == [3, 3, 3, 3, 4, 4, 4, 4]
    assert np.array_equal(first, env.reset())
    env.seed(HELD_OUT + 1)
    for _ in range(4):
        env.reset()
        assert env._batch.state().seed.min() >= HELD_OUT
    assert len({small(seed=None).reset().tobytes() for _ in range(4)}) > 1


def test_masks_are_those_of_the_world_and_found_by_maskable_ppo():
    env = small()
    env.reset()
    for actions in draw(env, 15):
        env.step(actions)
        legal = env._batch.legal().reshape(8, 5)
        assert np.array_equal(get_action_masks(env), legal)
        assert np.array_equal(env.action_masks(), legal)
    assert is_masking_supported(env)
    assert np.array_equal(env.env_method("action_masks", indices=[3, 1]), legal[[3, 1]])
    with pytest.raises(AttributeError, match="slots have no method 'jump', only 'action_masks'"):
        env.env_method("jump")


def test_attributes_are_shared_by_all_slots():
    env = small()
    assert env.get_attr("config") == [env.config] * 8
    assert env.get_attr("worlds", indices=2) == [2]
    assert not env.has_attr("wings")
    env.set_attr("wings", 2)
    assert env.get_attr("wings", indices=[0, 1]) == [2, 2]
    assert env.env_is_wrapped(object) == [False] * 8


def test_its_wrappers_count_episodes_and_normalise():
    env = VecNormalize(VecMonitor(small(max_steps=15), info_keywords=("food_eaten",)))
    env.reset()
    episodes = []
    for actions in draw(env, 40):
        _, _, dones, infos = env.step(actions)
        assert ["episode" in info for info in infos] == dones.tolist()
        episodes += [info["episode"] for info in infos if "episode" in info]
    assert len(episodes) >= 16
    for episode in episodes:
        assert 0 < episode["l"] <= 15
        assert episode["food_eaten"] >= 0


@pytest.mark.parametrize("algorithm", [PPO, MaskablePPO])
def test_learners_learn_on_it(algorithm):
    model = algorithm("MlpPolicy", VecMonitor(small()), n_steps=32, batch_size=64, n_epochs=1, seed=0)
    model.learn(512)
    assert model.num_timesteps == 512
    assert len(model.ep_info_buffer) > 0


def test_it_draws_all_worlds_in_one_picture():
    env = small(render_mode="rgb_array")
    env.reset()
    one = env.get_images()[0]
    assert env.render().shape == (2 * one.shape[0], one.shape[1], 3)
    env.close()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"preset": "desert"}, "preset = 'desert': must be one of meadow, maze"),
        ({"preset": "maze", "config": WorldConfig()}, "preset = 'maze' and a config: must be one of them"),
        ({"worlds": 0}, "worlds = 0: must be at least 1"),
        ({"render_mode": "human"}, "render_mode = 'human': must be None or 'rgb_array'"),
    ],
)
def test_impossible_arguments_are_refused_with_what_is_allowed(arguments, message):
    with pytest.raises(ValueError, match=message):
        ForageVecEnv(**arguments)


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        (np.zeros(8), r"actions are float64 \(8,\): must be integers of shape \(8,\)"),
        (np.zeros((2, 4), int), r"actions are int64 \(2, 4\): must be integers of shape \(8,\)"),
        (np.full(8, 7), r"actions\[0, 0\] = 7: must be between 0 and 4"),
    ],
)
def test_wrong_actions_are_refused(actions, message):
    env = small()
    env.reset()
    with pytest.raises(ValueError, match=message):
        env.step(actions)


def test_nothing_works_before_the_first_reset():
    with pytest.raises(RuntimeError, match="call reset"):
        small().step(np.zeros(8, int))
