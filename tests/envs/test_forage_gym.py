"""The Gymnasium interfaces: official checks, the same worlds as the other ones, and samples between two episodes."""

import json
import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env, data_equivalence
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from sb3_contrib import MaskablePPO
from small_worlds import SMALL
from stable_baselines3.common.env_checker import check_env as sb3_check_env
from stable_baselines3.common.vec_env import DummyVecEnv

from envs import HELD_OUT, ForageBatch, WorldConfig
from envs.bots import bots
from envs.forage_gym import ForageEnv
from envs.forage_vector import ForageVectorEnv
from envs.generator import generate
from envs.interfaces import renewed, seed_after, seeds_from
from envs.presets import PRESETS

NAME = "envs:Forage-v0"
OTHERS = ("empty", "random", "greedy", "forager", "planner")


@pytest.fixture
def no_window(monkeypatch):
    """Draw windows nowhere, and do not wait between steps."""
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    monkeypatch.setattr("envs.interfaces.FPS", 1000)


def play(env, seed, actions):
    """Return all that an episode gave, and the actions it took."""
    given = [env.reset(seed=seed)]
    for action in actions:
        given.append(env.step(action))
        if given[-1][2] or given[-1][3]:
            break
    return given


@pytest.mark.parametrize("others", OTHERS)
def test_the_official_check_passes_without_a_warning(others):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(gymnasium.make(NAME, others=others, **SMALL).unwrapped, skip_render_check=True)


@pytest.mark.parametrize("preset", list(PRESETS))
def test_the_official_check_passes_in_every_preset(preset):
    check_env(gymnasium.make(NAME, preset=preset).unwrapped, skip_render_check=True)


def test_the_official_check_passes_in_every_render_mode(no_window):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(gymnasium.make(NAME, render_mode="rgb_array", **SMALL).unwrapped)
        gymnasium.make(NAME, render_mode="human", **SMALL).reset()


def test_the_check_of_stable_baselines_passes_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sb3_check_env(ForageEnv(**SMALL))


def test_maskable_ppo_learns_on_it():
    env = DummyVecEnv([lambda: gymnasium.make(NAME, **SMALL)] * 2)
    model = MaskablePPO("MlpPolicy", env, n_steps=16, batch_size=16, n_epochs=1, seed=0).learn(64)
    assert model.num_timesteps == 64


def test_make_wraps_no_time_limit_around_it():
    env = gymnasium.make(NAME, max_steps=5, cost_step=0.0)
    assert "TimeLimit" not in str(env)
    ends = [step[2:4] for step in play(env, 0, [0] * 9)[1:]]
    assert ends == [(False, False)] * 4 + [(False, True)]


def test_what_a_step_gives_is_plain_and_inside_the_space():
    env = ForageEnv(others="random", **SMALL)
    given = play(env, 3, np.random.default_rng(0).integers(0, 5, 30))
    for observation, reward, is_terminated, is_truncated, info in given[1:]:
        assert env.observation_space.contains(observation)
        assert observation.base is None
        assert type(reward) is float
        assert type(is_terminated) is type(is_truncated) is bool
        assert not (is_terminated and is_truncated)
        assert info["action_mask"].dtype == np.int8
        json.dumps([reward, is_terminated, is_truncated, info["food_eaten"], info["energy"]])
    assert info["energy"] == 0 if is_terminated else is_truncated


def test_it_does_not_step_before_the_first_reset_or_after_the_end():
    env = ForageEnv(**SMALL | {"max_steps": 1})
    with pytest.raises(RuntimeError, match="the episode has not begun or is over: call reset"):
        env.step(0)
    env.reset(seed=0)
    env.step(0)
    with pytest.raises(RuntimeError, match="the episode has not begun or is over: call reset"):
        env.step(0)


@pytest.mark.parametrize("action", [5, -1, 1.0, float("nan"), True, None, "1", np.array([1])])
def test_actions_that_do_not_exist_are_refused(action):
    env = ForageEnv(**SMALL)
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"action = .*: must be an integer between 0 and 4"):
        env.step(action)
    env.step(np.array(1))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"preset": "desert"}, "preset = 'desert': must be one of meadow, maze"),
        ({"others": "wolf"}, "others = 'wolf': must be one of empty, random, greedy, forager, planner"),
        ({"preset": "maze", "config": WorldConfig()}, "preset = 'maze' and a config: must be one of them"),
        ({"render_mode": "rgb"}, "render_mode = 'rgb': must be None"),
        ({"agents": 0}, r"WorldConfig\.agents = 0"),
    ],
)
@pytest.mark.parametrize("interface", [ForageEnv, ForageVectorEnv])
def test_impossible_arguments_are_refused_with_what_is_allowed(interface, arguments, message):
    with pytest.raises(ValueError, match=message):
        interface(**arguments)


def test_an_unknown_field_is_refused_with_those_there_are():
    with pytest.raises(TypeError, match="unknown WorldConfig field 'witdh'; fields are height, width"):
        gymnasium.make(NAME, witdh=3)


def test_an_empty_world_has_one_agent_and_all_its_food():
    world = ForageEnv("rivals", others="empty").config
    assert (world.agents, world.populations, world.food) == (1, 1, PRESETS["rivals"].food)


@pytest.mark.parametrize("others", ["random", "greedy", "forager", "planner"])
def test_the_learner_and_its_bots_are_the_agents_of_the_batch(others):
    env = ForageEnv("meadow", others, energy_start=30.0, max_steps=40)
    actions = np.random.default_rng(0).integers(0, 5, 40)
    batch, bot = ForageBatch(env.config), bots(env.config, 7)[others]
    seen = batch.reset([7])
    given = play(env, 7, actions)
    for action, (observation, reward, is_terminated, is_truncated, info) in zip(actions, given[1:], strict=False):
        everyone = np.array(bot(batch.state()))
        everyone[0, 0] = action
        seen, result = batch.step(everyone)
        assert np.array_equal(observation, seen[0, 0])
        assert reward == result.reward[0, 0]
        assert is_terminated == result.is_terminal[0, 0]
        assert is_truncated == (result.is_truncated[0] and not is_terminated)
        assert np.array_equal(info["action_mask"], batch.legal()[0, 0])
        assert info["food_eaten"] == batch.state().food_eaten[0, 0]
        assert info["energy"] == batch.state().energy[0, 0]


def test_unseeded_episodes_differ_are_fixed_by_the_last_seed_and_stay_held_out():
    def seeds(env, count=20):
        return [int(env.reset() and env._batch.state().seed[0]) for _ in range(count)]

    env, twin = ForageEnv(**SMALL), ForageEnv(**SMALL)
    env.reset(seed=HELD_OUT + 1)
    twin.reset(seed=HELD_OUT + 1)
    follow = seeds(env)
    assert follow == seeds(twin)
    assert len(set(follow)) == 20
    assert min(follow) >= HELD_OUT
    assert len({seeds(ForageEnv(**SMALL), 1)[0] for _ in range(4)}) > 1


def test_seeds_of_several_worlds_are_all_held_out_or_none():
    assert seeds_from(HELD_OUT - 1, 3) == [HELD_OUT - 1, 0, 1]
    assert seeds_from(2**53 - 1, 2) == [2**53 - 1, HELD_OUT]
    assert seeds_from(HELD_OUT, 2) == [HELD_OUT, HELD_OUT + 1]


def test_only_worlds_that_are_over_begin_anew():
    config = WorldConfig(**SMALL)
    batch = ForageBatch(config)
    batch.reset([1, 2, 3])
    batch.step(np.ones((3, 4), int))
    before = batch.state()
    after = renewed(config, before, np.array([False, True, False]))
    fresh = generate(config, [seed_after(2)])
    for old, new, expected in zip(before, after, fresh, strict=True):
        assert np.array_equal(old[[0, 2]], new[[0, 2]])
        assert np.array_equal(new[1], expected[0])
        assert not np.shares_memory(old, new)


def make_vec(mode, autoreset_mode=AutoresetMode.SAME_STEP, **changes):
    """Return three environments as the native vector, or as Gymnasium's own one of single ones."""
    if mode == "native":
        return gymnasium.make_vec(NAME, num_envs=3, autoreset_mode=autoreset_mode, **SMALL | changes)
    return gymnasium.make_vec(
        NAME, 3, vectorization_mode="sync", vector_kwargs={"autoreset_mode": autoreset_mode}, **SMALL | changes
    )


def test_make_vec_takes_the_native_vector_by_default():
    env, theirs = gymnasium.make_vec(NAME, num_envs=3), gymnasium.make_vec(NAME, 3, vectorization_mode="sync")
    assert isinstance(env.unwrapped, ForageVectorEnv)
    assert isinstance(theirs.unwrapped, SyncVectorEnv)
    assert env.metadata["autoreset_mode"] is theirs.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    assert make_vec("native", "SameStep").metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    assert env.spec.kwargs["num_envs"] == 3


@pytest.mark.parametrize("mode", ["SameStep", "NextStep"])
@pytest.mark.parametrize("others", ["empty", "planner"])
@pytest.mark.parametrize("preset", list(PRESETS))
def test_the_native_vector_equals_single_environments_through_several_episodes(preset, others, mode):
    changes = {"preset": preset, "others": others, "height": 14, "width": 14, "max_steps": 12, "energy_start": 9.0}
    native, single = make_vec("native", mode, **changes), make_vec("sync", mode, **changes)
    assert native.observation_space == single.observation_space
    assert native.action_space == single.action_space
    np.testing.assert_equal(native.reset(seed=5), single.reset(seed=5))
    generator, ends = np.random.default_rng(0), 0
    for _ in range(40):
        actions = generator.integers(0, 5, 3)
        ours, theirs = native.step(actions), single.step(actions)
        assert data_equivalence(ours, theirs, exact=True)
        assert [part.dtype for part in ours[:4]] == [part.dtype for part in theirs[:4]]
        ends += int((ours[2] | ours[3]).sum())
        assert ours[0] in native.observation_space
    assert ends >= 6
    np.testing.assert_equal(native.reset(), single.reset())
    np.testing.assert_equal(native.reset(seed=[4, 2, 9]), single.reset(seed=[4, 2, 9]))


def test_where_nothing_begins_anew_by_itself_the_vector_equals_single_environments_too():
    modes = "Disabled", {"others": "empty", "max_steps": 12, "energy_start": 9.0}
    native, single = make_vec("native", modes[0], **modes[1]), make_vec("sync", modes[0], **modes[1])
    np.testing.assert_equal(native.reset(seed=5), single.reset(seed=5))
    generator, begun = np.random.default_rng(0), 0
    for _ in range(40):
        actions = generator.integers(0, 5, 3)
        ours = native.step(actions)
        assert data_equivalence(ours, single.step(actions), exact=True)
        is_over = ours[2] | ours[3]
        if is_over.any():
            begun += 1
            seed = [7, 8, 9] if begun == 2 else None
            with pytest.raises(
                RuntimeError, match=r"the episodes of worlds \[.*\] are over: call reset with a reset_mask"
            ):
                native.step(actions)
            ours, theirs = (env.reset(seed=seed, options={"reset_mask": is_over}) for env in (native, single))
            assert data_equivalence(ours, theirs, exact=True)
    assert begun >= 3


def test_gymnasium_normalises_observations_of_the_vector():
    env = gymnasium.wrappers.vector.NormalizeObservation(gymnasium.make_vec(NAME, num_envs=3, **SMALL))
    env.reset(seed=0)
    observations = [env.step(env.action_space.sample())[0] for _ in range(20)]
    assert np.isfinite(observations).all()
    assert np.abs(np.mean(observations)) < 0.5


def test_an_episode_is_recorded_as_a_film(tmp_path):
    pytest.importorskip("moviepy", reason="needs the extra video")
    env = gymnasium.wrappers.RecordVideo(gymnasium.make(NAME, render_mode="rgb_array", **SMALL), str(tmp_path))
    env.reset(seed=0)
    while not any(env.step(0)[2:4]):
        pass
    env.close()
    assert (tmp_path / "rl-video-episode-0.mp4").stat().st_size > 1000


def test_the_last_observation_of_an_episode_is_that_of_a_single_world():
    native, single = make_vec("native", others="empty"), ForageEnv(others="empty", **SMALL)
    native.reset(seed=8)
    actions = np.random.default_rng(1).integers(0, 5, (30, 3))
    given = play(single, 9, actions[:, 1])  # world 1 has the seed after
    for row in actions[: len(given) - 1]:
        observations, _, _, _, infos = native.step(row)
    assert infos["_final_obs"][1]
    assert np.array_equal(infos["final_obs"][1], given[-1][0])
    assert infos["final_info"]["food_eaten"][1] == given[-1][4]["food_eaten"]
    assert np.array_equal(observations[1], single.reset()[0])


def test_bots_that_draw_play_the_same_again_after_the_same_seed():
    env, twin = make_vec("native", others="greedy"), make_vec("native", others="greedy")
    actions = np.random.default_rng(0).integers(0, 5, (40, 3))
    for _ in range(2):
        np.testing.assert_equal(env.reset(seed=3), twin.reset(seed=3))
        for row in actions:
            assert data_equivalence(env.step(row), twin.step(row), exact=True)


def test_observations_of_the_vector_are_never_written_to_again():
    env = make_vec("native")
    kept = [env.reset(seed=0)[0]]
    copies = [kept[0].copy()]
    for row in np.random.default_rng(0).integers(0, 5, (40, 3)):
        kept.append(env.step(row)[0])
        copies.append(kept[-1].copy())
    np.testing.assert_equal(kept, copies)


def test_gymnasiums_vector_wrappers_work_on_it():
    env = gymnasium.wrappers.vector.RecordEpisodeStatistics(make_vec("native", cost_step=0.0))
    env.reset(seed=0)
    for _ in range(30):
        _, _, _, _, infos = env.step(np.zeros(3, int))
    assert infos["episode"]["l"].tolist() == [30, 30, 30]


def test_the_vector_tells_legal_actions_and_draws_every_world():
    env = make_vec("native", render_mode="rgb_array")
    _, infos = env.reset(seed=0)
    assert np.array_equal(env.unwrapped.action_masks(), infos["action_mask"])
    pictures = env.render()
    assert [picture.dtype for picture in pictures] == [np.uint8] * 3
    assert make_vec("native").render() is None


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        (np.zeros(3), r"actions are float64 \(3,\): must be integers of shape \(3,\)"),
        (np.zeros(2, int), r"actions are int64 \(2,\): must be integers of shape \(3,\)"),
        (np.zeros(3, bool), "actions are bool"),
        ([0, 5, 0], r"actions\[1, 0\] = 5: must be between 0 and 4"),
    ],
)
def test_wrong_actions_of_the_vector_are_refused(actions, message):
    env = make_vec("native")
    env.reset(seed=0)
    with pytest.raises(ValueError, match=message):
        env.step(actions)


def test_the_vector_refuses_nonsense():
    env = make_vec("native")
    with pytest.raises(RuntimeError, match="call reset"):
        env.step(np.zeros(3, int))
    with pytest.raises(ValueError, match="seed has 2 numbers: must be one, or one for each of 3 worlds"):
        env.reset(seed=[1, 2])
    with pytest.raises(ValueError, match="num_envs = 0: must be at least 1"):
        ForageVectorEnv(num_envs=0)
    with pytest.raises(ValueError, match="autoreset_mode = 'never': must be one of NextStep, SameStep, Disabled"):
        ForageVectorEnv(autoreset_mode="never")
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"reset_mask is int64 \(3,\): must be bool \(3,\), and true somewhere"):
        env.reset(options={"reset_mask": np.ones(3, int)})
