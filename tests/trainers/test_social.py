"""Agents take over from those near them that do better, and from nobody else; the controls differ as they say."""

import json

import numpy as np
import pytest

from agents.types import UserError
from envs.types import WorldConfig
from envs.worlds.mixed_world import MixedWorld
from envs.worlds.world import ForageWorld
from trainers import stages
from trainers.cli.parser import parse
from trainers.learning.imitation import Examples, examples_of
from trainers.rollout import Rollout, Trajectory
from trainers.train import train
from trainers.variants.social import NOBODY, models, pools, shuffled
from trainers.variants.social_config import SocialConfig

TEXTS = [" food north" * 6, " food south" * 6]


def trajectory(reward, alive=None, action=None) -> Trajectory:
    """A trajectory of which only rewards (T, M) matter, and who lived when."""
    reward = np.array(reward, np.float32)
    never, zero = np.zeros(reward.shape, bool), np.zeros_like(reward)
    truncated = never.copy()
    truncated[-1] = True
    alive = ~never if alive is None else np.array(alive)
    action = zero.astype(int) if action is None else action
    legal = np.ones((*reward.shape, 5), bool)
    return Trajectory(
        TEXTS, zero.astype(int), legal, action, zero - 1.6, zero, reward, alive, never, truncated, zero, alive
    )


def standing(*places, steps=1, worlds=1) -> np.ndarray:
    """Positions (T, W, N, 2) of agents that do not move."""
    return np.broadcast_to(np.array(places), (steps, worlds, len(places), 2))


def follow(rule, position, t, radius=3) -> list[list[int]]:
    return models(position, t, rule, radius, np.random.default_rng(0)).tolist()


def test_the_most_successful_in_sight_is_followed_if_it_has_more_than_oneself():
    position = standing((0, 0), (0, 3), (3, 0), (0, 4))
    assert follow("neighbour", position, trajectory([[0, 1, 2, 3]])) == [[2, 3, NOBODY, NOBODY]]
    assert follow("neighbour", position, trajectory([[1, 1, 1, 1]])) == [[NOBODY] * 4]
    assert follow("neighbour", position, trajectory([[0, 1, 2, 3]]), radius=2) == [[NOBODY, 3, NOBODY, NOBODY]]


def test_what_counts_is_what_was_earned_so_far():
    position = standing((0, 0), (0, 1), steps=3)
    assert follow("neighbour", position, trajectory([[1, 0], [0, 1], [0, 1]])) == [
        [NOBODY, 0],
        [NOBODY] * 2,
        [1, NOBODY],
    ]


def test_the_dead_follow_nobody_and_are_not_followed():
    t = trajectory([[0, 5, 1]], alive=[[True, False, True]])
    for rule in ("neighbour", "best"):
        assert follow(rule, standing((0, 0), (0, 1), (1, 0)), t) == [[2, NOBODY, NOBODY]]


def test_the_best_is_followed_from_afar_but_not_from_another_world():
    position = standing((0, 0), (0, 9), (9, 0), worlds=2)
    assert follow("best", position, trajectory([[0, 1, 2, 9, 8, 7]])) == [[2, 2, NOBODY, NOBODY, 3, 3]]
    assert follow("neighbour", position, trajectory([[0, 1, 2, 9, 8, 7]])) == [[NOBODY] * 6]


def test_anyone_is_any_other_who_lives():
    t = trajectory([[9, 0, 0, 0]] * 200, alive=[[True, True, True, False]] * 200)
    model = models(standing(*[(0, 0)] * 4, steps=200), t, "anyone", 3, np.random.default_rng(0))
    assert [set(column) for column in model.T.tolist()] == [{1, 2}, {0, 2}, {0, 1}, {NOBODY}]


def test_examples_are_the_latest_steps_of_the_other_while_it_lived():
    model = np.full((5, 4), NOBODY)  # two worlds of two agents
    model[3, 0], model[0, 3] = 1, 2
    alive = np.ones((5, 4), bool)
    alive[1, 1] = False
    seen = pools(model, alive, window=3, agents=2)
    assert [pool.tolist() for pool in seen] == [[2 * 4 + 1, 3 * 4 + 1], [2]]


def test_shuffled_examples_have_others_actions_and_none_that_is_not_allowed():
    rng = np.random.default_rng(0)
    legal = rng.random((500, 5)) < 0.7
    legal[:, 0] = True
    action = np.where(legal, rng.random((500, 5)), -1).argmax(axis=1)
    alive = np.ones(500, bool)
    dealt = shuffled(Examples(TEXTS, np.zeros(500, int), legal, action, np.ones(500)), alive, rng).action
    assert np.take_along_axis(legal, dealt[:, None], axis=1).all()
    assert 0.1 < (dealt == action).mean() < 0.5
    everything = Examples(TEXTS, np.zeros(500, int), np.ones_like(legal), action, np.ones(500))
    assert np.bincount(shuffled(everything, alive, rng).action).tolist() == np.bincount(action).tolist()


def test_what_the_dead_did_not_do_is_not_dealt_out():
    alive = np.arange(200) < 50
    action = np.where(alive, 3, 0)
    examples = Examples(TEXTS, np.zeros(200, int), np.ones((200, 5), bool), action, np.ones(200))
    assert (shuffled(examples, alive, np.random.default_rng(0)).action[alive] == 3).all()


def test_who_sees_others_succeed_does_as_they_did(begun):
    """Agents 3 to 5 do action 3 and eat; 0 and 1 see them, 2 sees nobody. PPO alone has nothing to learn for 0 to 2."""
    keys = ["--social.imitate", "neighbour", "--learn.epochs", "1", "--learn.max_kl", "10"]
    run = begun(*keys, "--learn.learning_rate", "0.01", "--learn.entropy_coef", "0")
    policy, (watching,) = run.population.policy, run.variants[0].observers(run, stages.Generation(0))
    before = policy.logits(TEXTS[:1] * 6, np.arange(6))
    reward, action = np.zeros((40, 6), np.float32), np.zeros((40, 6), int)
    reward[:, 3:], action[:, 3:] = 1, 3
    log_prob = before - np.logaddexp.reduce(before, axis=1, keepdims=True)
    t = trajectory(reward, action=action)._replace(log_prob=log_prob[np.arange(6), action])
    watching.positions = list(standing((0, 0), (0, 1), (9, 9), (1, 0), (1, 1), (1, 2), steps=40))
    figures = stages.learn(run, Rollout(t, None, None, None))
    after = policy.logits(TEXTS[:1] * 6, np.arange(6))
    gained = (after[:, 3] - after[:, 0]) - (before[:, 3] - before[:, 0])
    assert gained[:2].min() > gained[2] + 0.01
    assert figures["examples_mean"] == pytest.approx(2 * 40 / 6), "all steps of agent 3, the first of the best"


def test_what_earned_less_than_expected_is_no_example_worth_following(tiny_policy):
    t = trajectory(np.ones((10, 6)))
    worth = examples_of(tiny_policy, t, np.full(60, -100.0, np.float32)).advantage
    assert (worth < 0).all()


def test_a_run_with_social_learning_can_be_repeated_and_resumed(tiny_arguments, tmp_path):
    arguments = [*tiny_arguments, "--social.imitate", "neighbour"]
    for name in ("one", "other"):
        train(parse([*arguments, "--run_dir", str(tmp_path / name)])[0])
    train(parse([*arguments, "--generations", "2", "--run_dir", str(tmp_path / "stopped")])[0])
    train(*parse(["--resume", str(tmp_path / "stopped"), "--generations", "3"]))
    lines = [
        [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("one", "other", "stopped")
    ]
    figures = [[(line["fitness_mean"], line["examples_mean"]) for line in run] for run in lines]
    assert figures[0] == figures[1] == figures[2]
    assert any(line["examples_mean"] > 0 for line in lines[0])


def test_positions_of_mixed_worlds_are_those_of_each_world():
    configs = [WorldConfig(agents=4, rocks=0.1), WorldConfig(agents=4, rocks=0.1, height=14, width=14, food=20)]
    mixed = MixedWorld(configs)
    mixed.reset([5, 6, 7, 8])
    for kind, config in enumerate(configs):
        alone = ForageWorld(config)
        alone.reset([5 + kind, 7 + kind])
        assert np.array_equal(mixed.positions()[kind::2], alone.positions())


@pytest.mark.parametrize("trainer", ["ppo", "online"])
def test_it_works_in_several_presets_at_once(tiny_arguments, tmp_path, trainer):
    more = ["--env.also", "[maze]", "--worlds", "2", "--evolution.episodes", "2", "--social.imitate", "neighbour"]
    folder = tmp_path / "run"
    train(parse([*tiny_arguments, *more, "--trainer", trainer, "--generations", "2", "--run_dir", str(folder)])[0])
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert max(line["examples_mean"] for line in lines) > 0


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (["--social.imitate=everybody"], "social.imitate = 'everybody': must be one of nobody, neighbour"),
        (["--social.imitate=best", "--learn.algorithm=none"], "'best': must be nobody with learn.algorithm = none"),
        (["--social.window=0"], "social.window = 0: must be 1 or more"),
        (["--social.imitate=best", "--env.id=FrozenLake-v1"], "must be forage with social.imitate"),
        (["--social.imitate=best", "--steady_state.enabled=true"], "steady_state.enabled = True: must be false with"),
    ],
)
def test_what_cannot_be_is_refused(keys, said):
    with pytest.raises(UserError, match=said):
        parse(keys)
    assert SocialConfig().imitate == "nobody"
