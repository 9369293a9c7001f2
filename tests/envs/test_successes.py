"""Which episodes succeeded: by the world's own word, of all and of each task."""

import numpy as np
import pytest

from envs.worlds.gym_world import GymWorld
from envs.worlds.successes import MOST_TASKS, Successes

WON, LOST, BEGUN = ({"success": won, "task": "goto"} for won in (True, False, False))


def test_the_share_of_the_episodes_that_ended_counts():
    told = Successes(2)
    for _ in range(3):
        told.note(0, BEGUN, is_over=False)
        told.note(0, WON, is_over=True)
    told.note(0, LOST, is_over=True)
    told.note(1, {"success": True, "task": "open"}, is_over=True)
    told.note(1, LOST, is_over=True)
    told.note(1, LOST, is_over=True)
    told.note(1, BEGUN, is_over=False)  # is under way, and not its first
    found = told.figures((1, 2))
    assert list(found) == ["success", "success_of_goto", "success_of_open"]
    np.testing.assert_allclose(found["success"], [[0.75, 1 / 3]])
    np.testing.assert_allclose(found["success_of_goto"], [[0.75, 0.0]])
    np.testing.assert_allclose(found["success_of_open"], [[np.nan, 1.0]])


def test_a_first_episode_under_way_is_a_failure_so_far():
    told = Successes(2)
    told.note(0, BEGUN, is_over=False)
    told.note(1, WON, is_over=True)
    np.testing.assert_array_equal(told.figures((2, 1))["success_of_goto"], [[0.0], [1.0]])


@pytest.mark.parametrize("said", [True, 1, 1.0, np.True_, np.float32(1), np.array(True), np.array([1.0])])
@pytest.mark.parametrize("key", ["success", "is_success"])
def test_a_world_may_say_it_at_the_end_alone_and_name_no_task(key, said):
    told = Successes(3)
    for copy in (0, 1, 2):
        told.note(copy, {}, is_over=False)
    told.note(0, {key: said}, is_over=True)
    told.note(1, {key: said * 0}, is_over=True)
    assert told.figures((1, 3))["success"].tolist() == [[1.0, 0.0, 0.0]]
    assert list(told.figures((1, 3))) == ["success"]


@pytest.mark.parametrize(
    "info",
    [
        {},
        {"success": "yes"},
        {"success": None},
        {"task": "goto"},
        {"success": [1, 1]},
        {"success": float("nan")},
        {"success": -1},
    ],
)
def test_where_a_world_does_not_say_there_are_no_figures(info):
    told = Successes(1)
    told.note(0, info, is_over=True)
    assert told.figures((1, 1)) == {}


def test_what_is_said_last_counts_where_an_episode_is_cut_off():
    """As in Meta-World, whose episodes go on after a success."""
    told = Successes(2)
    for copy in (0, 1):
        told.note(copy, {}, is_over=False)
    told.note(0, {"success": 1.0}, is_over=False)
    told.note(1, {"success": 0.0}, is_over=False)
    assert told.figures((1, 2))["success"].tolist() == [[1.0, 0.0]]


def test_a_task_that_the_reset_names_holds_for_the_episode_and_no_longer():
    told = Successes(1)
    told.note(0, {"task": "goto"}, is_over=False)
    told.note(0, {"success": True}, is_over=True)
    told.note(0, {}, is_over=False)
    told.note(0, {"success": False}, is_over=True)
    assert told.figures((1, 1))["success_of_goto"] == 1
    assert told.figures((1, 1))["success"] == 0.5


def test_tasks_without_number_have_no_figures_of_their_own():
    told = Successes(1)
    for number in range(MOST_TASKS + 1):
        told.note(0, {"success": number % 2 == 0, "task": f"find {number}"}, is_over=True)
    assert list(told.figures((1, 1))) == ["success"]


def test_a_task_that_is_no_text_names_none():
    told = Successes(1)
    told.note(0, {"success": True, "task": 7}, is_over=True)
    assert list(told.figures((1, 1))) == ["success"]


@pytest.mark.parametrize("renews", [True, False])
def test_in_a_rollout_every_episode_of_every_copy_is_counted_anew(renews):
    options = {"task": "goto", "num_dists": 0, "max_steps": 40}
    world, rng = GymWorld("envs:BabyAI-MixedTrainLocal-v0", options, 3, 120, renews=renews), np.random.default_rng(0)
    for _ in range(2):
        world.reset([1, 2])
        won, ended = np.zeros((2, 3)), np.zeros((2, 3))
        for _ in range(120):
            step = world.step(rng.integers(0, 3, (2, 3)))
            is_over = step.is_terminal | step.is_truncated
            won, ended = won + (step.reward > 0), ended + is_over
        assert won.sum() >= 1
        np.testing.assert_allclose(world.figures()["success"], won / ended.clip(min=1))
        np.testing.assert_allclose(world.figures()["success_of_goto"], won / ended.clip(min=1))
    world.close()


def test_a_world_that_says_nothing_has_no_figures():
    world = GymWorld("FrozenLake-v1", {}, 2, 30, renews=True)
    world.reset([0])
    world.step(np.zeros((1, 2), int))
    assert world.figures() == {}
