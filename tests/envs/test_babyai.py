"""BabyAI-Text's tasks: Gymnasium's checker, what missions name, what lies in the rooms, and that they can be done."""

import json
import re
import sys
import warnings
from collections import Counter

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env, data_equivalence
from minigrid.utils.baby_ai_bot import BabyAIBot

from envs.babyai import ACTIONS, HELD_OUT_WORDS, MIXED, TASKS, BabyAITextEnv
from envs.worlds.faults import NoWorld
from envs.worlds.gym_world import make_gym

TRAIN, TEST = "envs:BabyAI-MixedTrainLocal-v0", "envs:BabyAI-MixedTestLocal-v0"
THING = r"(?:the|a) (\w+) (box|ball|key)"
MISSIONS = {
    "goto": [f"go to {THING}"],
    "pickup": [f"pick up {THING}"],
    "open": [r"open (?:the|a) (?:(\w+) )?(door)"],
    "putnext": [f"put {THING} next to {THING}"],
    "pickup_then_goto": [f"pick up {THING}, then go to {THING}", f"go to {THING} after you pick up {THING}"],
}
STEPS = {"goto": 64, "pickup": 64, "open": 128, "putnext": 128, "pickup_then_goto": 128}


def named(task: str, mission: str) -> list[tuple[str, str]]:
    """(Colour, kind) of what a mission names; fails where the mission is not one of its task."""
    found = next(match for pattern in MISSIONS[task] if (match := re.fullmatch(pattern, mission)))
    words = found.groups()
    return list(zip(words[::2], words[1::2], strict=True))


def begun(name: str, task: str, seeds: int, **options):
    """The environment and its mission after each of some resets."""
    env = gymnasium.make(name, task=task, **options)
    for seed in range(seeds):
        observation, info = env.reset(seed=seed)
        assert info == {"task": task, "success": False}
        yield env.unwrapped, observation["mission"]


def things(env: BabyAITextEnv) -> list[tuple[str, str, int]]:
    """(Colour, kind, column) of all that lies around, doors too."""
    cells = [(env.grid.get(i, j), i) for i in range(env.width) for j in range(env.height)]
    return [(cell.color, cell.type, i) for cell, i in cells if cell is not None and cell.type != "wall"]


@pytest.mark.parametrize("name", [TRAIN, TEST])
@pytest.mark.parametrize("task", [MIXED, "open"])
def test_the_official_check_passes_without_a_warning(name, task):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(gymnasium.make(name, task=task).unwrapped, skip_render_check=True)


def test_pictures_are_as_wide_as_the_rooms():
    env = gymnasium.make(TRAIN, render_mode="rgb_array").unwrapped
    shapes = {env.reset(seed=seed)[1]["task"] == "open": env.render().shape for seed in range(20)}
    assert shapes == {False: (256, 256, 3), True: (256, 480, 3)}


def test_a_seed_fixes_all_that_follows():
    one, twin, other = (gymnasium.make(TRAIN) for _ in range(3))
    given = [(env.reset(seed=seed)) for env, seed in ((one, 3), (twin, 3), (other, 4))]
    assert data_equivalence(given[0], given[1], exact=True)
    missions: list[set] = [set(), set(), set()]
    for action in np.random.default_rng(0).integers(0, ACTIONS, 600):
        given = [env.step(action) for env in (one, twin, other)]
        assert data_equivalence(given[0], given[1], exact=True)
        for env, said, step in zip((one, twin, other), missions, given, strict=True):
            said.add(step[0]["mission"])
            if step[2] or step[3]:
                env.reset()
    assert missions[0] == missions[1] != missions[2]
    assert len(missions[0]) > 3, "episodes without a seed differ"


def test_a_mixed_environment_draws_each_task_alike_at_every_reset():
    env = gymnasium.make(TRAIN)
    drawn = Counter(env.reset(seed=None if seed else 0)[1]["task"] for seed in range(400))
    assert set(drawn) == set(TASKS)
    assert all(50 < count < 110 for count in drawn.values())


def test_of_several_tasks_each_reset_draws_one():
    env = gymnasium.make(TRAIN, task=["pickup", "goto"])
    assert {env.reset(seed=seed)[1]["task"] for seed in range(20)} == {"pickup", "goto"}


@pytest.mark.parametrize("task", TASKS)
def test_training_never_names_what_the_test_names_and_the_test_names_nothing_else(task):
    for name, is_test in ((TRAIN, False), (TEST, True)):
        pairs = Counter(pair for _, mission in begun(name, task, 100) for pair in named(task, mission))
        assert all((pair in HELD_OUT_WORDS) == is_test for pair in pairs), pairs
        kinds = ("door",) if task == "open" else ("box", "ball", "key")
        colours = ("red", "green", "blue", "purple", "yellow", "grey")
        possible = {(c, k) for c in colours for k in kinds if ((c, k) in HELD_OUT_WORDS) == is_test}
        assert set(pairs) - {(None, "door")} == possible
        assert ((None, "door") in pairs) == (task == "open" and not is_test)


def test_half_of_the_sequences_are_told_in_the_other_order():
    after = [" after you " in mission for _, mission in begun(TRAIN, "pickup_then_goto", 100)]
    assert 35 < sum(after) < 65


@pytest.mark.parametrize("dists", [0, 3, 8, 12])
@pytest.mark.parametrize("task", TASKS)
def test_there_are_so_many_distractors_beside_what_matters(task, dists):
    matter = {"goto": 1, "pickup": 1, "open": 2, "putnext": 2, "pickup_then_goto": 2}[task]
    for env, mission in begun(TRAIN, task, 10, num_dists=dists):
        lying = things(env)
        assert len(lying) == matter + dists
        asked, there = Counter(named(task, mission)), Counter((colour, kind) for colour, kind, _ in lying)
        assert (task == "open") or asked <= there
        assert env.max_steps == STEPS[task]


def test_everything_may_lie_around_in_training():
    lying = {thing[:2] for env, _ in begun(TRAIN, "goto", 60) for thing in things(env)}
    assert len(lying) == 18
    assert {(colour, kind) for colour, kind in HELD_OUT_WORDS if kind != "door"} <= lying


def test_the_rooms_are_eight_by_eight_and_the_agent_is_with_the_key_before_a_locked_door():
    sides = set()
    for env, mission in begun(TEST, "open", 40):
        assert (env.width, env.height) == (15, 8)
        lying = things(env)
        ((colour, _, at),) = [thing for thing in lying if thing[1] == "door"]
        assert at == 7
        assert mission == f"open the {colour} door"
        assert env.grid.get(at, env.room_grid[0][0].door_pos[0][1]).is_locked
        side = env.agent_pos[0] < 7
        sides.add(side)
        assert all((column < 7) == side for _, kind, column in lying if kind != "door")
        assert (colour, "key") in {thing[:2] for thing in lying}
    assert sides == {True, False}
    assert all((env.width, env.height) == (8, 8) for env, _ in begun(TRAIN, "putnext", 3))


@pytest.mark.parametrize("task", TASKS)
def test_all_can_be_reached_however_full_the_room_is_and_nothing_is_printed(task, capsys):
    assert all(env.check_objs_reachable(raise_exc=False) for env, _ in begun(TRAIN, task, 20, num_dists=12))
    assert len(list(begun(TEST, task, 60, num_dists=0))) == 60  # three kinds of things: many pairs of the same
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("task", TASKS)
def test_how_many_other_things_lie_around_is_drawn_where_a_range_is_given(task):
    named_things = {"goto": 1, "pickup": 1, "open": 2, "putnext": 2, "pickup_then_goto": 2}[task]
    counts = Counter(len(things(env)) - named_things for env, _ in begun(TRAIN, task, 80, num_dists=3, fewest_dists=1))
    assert set(counts) == {1, 2, 3}
    assert min(counts.values()) > 10
    same = begun(TRAIN, task, 20, num_dists=3, fewest_dists=3)
    assert [things(a) for a, _ in same] == [things(b) for b, _ in begun(TRAIN, task, 20, num_dists=3)]


@pytest.mark.parametrize("task", ["goto", "putnext"])
def test_nothing_is_done_before_the_first_step(task):
    for env, mission in begun(TRAIN, task, 60, num_dists=0):
        first, *rest = named(task, mission)
        place = {(c.color, c.type): np.array(c.cur_pos) for c in env.grid.grid if c is not None and c.type != "wall"}
        goal = place[rest[0]] if rest else np.array(env.agent_pos)
        assert abs(place[first] - goal).sum() > 1


def solve(env, seed: int) -> tuple[float, int, dict]:
    """What MiniGrid's bot gets: its reward, its steps and the last info."""
    env.reset(seed=seed)
    bot, action, steps = BabyAIBot(env), None, 0
    while True:
        action = bot.replan(action)
        if action >= ACTIONS:  # the bot gives up
            return 0.0, steps, {"task": "", "success": False}
        _, reward, is_done, is_late, info = env.step(action)
        steps += 1
        if is_done or is_late:
            return reward, steps, info
        assert reward == 0
        assert not info["success"]


@pytest.mark.parametrize("name", [TRAIN, TEST])
@pytest.mark.parametrize("task", TASKS)
def test_the_bot_of_minigrid_solves_nearly_all(name, task):
    env, solved = gymnasium.make(name, task=task), 0
    for seed in range(100):
        reward, steps, info = solve(env, seed)
        assert info["success"] == (reward > 0)
        if info["success"]:
            solved += 1
            assert info["task"] == task
            assert reward == pytest.approx(1 - 0.9 * steps / STEPS[task])
    assert solved >= 98


def test_an_episode_without_success_is_truncated_and_what_it_gives_is_plain():
    env, ends = gymnasium.make(TRAIN, task="pickup", max_steps=5), []
    env.reset(seed=0)
    for _ in range(5):
        observation, reward, is_done, is_late, info = env.step(0)
        ends.append((is_done, is_late))
        assert type(reward) is float
        json.dumps(info)
    assert ends == [(False, False)] * 4 + [(False, True)]
    assert not info["success"]
    assert observation["image"].shape == (7, 7, 3)


def test_success_on_the_last_step_is_no_truncation():
    env = gymnasium.make(TRAIN, task="goto")
    _, steps, _ = solve(env, 0)
    late = gymnasium.make(TRAIN, task="goto", max_steps=steps)
    late.reset(seed=0)
    bot, action = BabyAIBot(late), None
    for _ in range(steps):
        action = bot.replan(action)
        _, reward, is_done, is_late, info = late.step(action)
    assert (is_done, is_late, info["success"]) == (True, False, True)
    assert reward == pytest.approx(0.1)


@pytest.mark.parametrize("task", TASKS)
def test_who_follows_the_expert_succeeds_and_keeps_what_it_is_to_go_on_with(task):
    env, solved = gymnasium.make(TRAIN, task=task, expert=True), 0
    for seed in range(50):
        (_, info), is_over, picks = env.reset(seed=seed), False, 0
        while not is_over and "expert_action" in info:
            picks += info["expert_action"] == env.unwrapped.actions.pickup
            _, _, is_done, is_late, info = env.step(info["expert_action"])
            is_over = is_done or is_late
        solved += info["success"]
        assert not (is_over and "expert_action" in info), "there is nothing to do any more"
        assert task != "pickup_then_goto" or picks <= 2, "it would pick up again what it dropped"
    assert solved >= 49


def test_the_expert_advises_who_goes_another_way_until_a_box_is_opened():
    env, rng = gymnasium.make(TRAIN, task="pickup", expert=True).unwrapped, np.random.default_rng(0)
    opened = 0
    for seed in range(40):
        _, info = env.reset(seed=seed)
        for action in rng.integers(3, size=10).tolist():
            assert "expert_action" in info
            *_, info = env.step(action)
        while info["expert_action"] != env.actions.pickup:
            *_, info = env.step(info["expert_action"])
        if env.instrs.desc.type == "box":
            opened += 1
            assert "expert_action" not in env.step(env.actions.toggle)[-1]
            assert "expert_action" not in env.step(env.actions.left)[-1]
    assert opened


def test_an_expert_changes_neither_rooms_nor_rewards():
    env, advised = (gymnasium.make(TRAIN, expert=expert) for expert in (False, True))
    rng = np.random.default_rng(0)
    for seed in range(20):
        assert data_equivalence(env.reset(seed=seed)[0], advised.reset(seed=seed)[0])
        for action in rng.integers(ACTIONS, size=30).tolist():
            one, other = env.step(action), advised.step(action)
            assert data_equivalence(one[:4], other[:4])
            if one[2]:
                break


def test_without_being_asked_for_there_is_no_expert():
    env = gymnasium.make(TRAIN)
    assert "expert_action" not in env.reset(seed=0)[1]
    assert "expert_action" not in env.step(0)[-1]


SOME_TASKS = "one of mixed, goto, pickup, open, putnext, pickup_then_goto, or a list of tasks, each once"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"expert": 1}, "expert = 1: must be true or false"),
        ({"task": "fly"}, f"task = 'fly': must be {SOME_TASKS}"),
        ({"task": 3}, f"task = 3: must be {SOME_TASKS}"),
        ({"task": []}, f"task = []: must be {SOME_TASKS}"),
        ({"task": ["goto", "goto"]}, f"task = ['goto', 'goto']: must be {SOME_TASKS}"),
        ({"task": ["goto", "mixed"]}, f"task = ['goto', 'mixed']: must be {SOME_TASKS}"),
        ({"num_dists": -1}, "num_dists = -1: must be an integer between 0 and 12"),
        ({"num_dists": 13}, "num_dists = 13: must be an integer between 0 and 12"),
        ({"num_dists": 2.0}, "num_dists = 2.0: must be an integer between 0 and 12"),
        ({"num_dists": True}, "num_dists = True: must be an integer between 0 and 12"),
        ({"fewest_dists": 9}, "fewest_dists = 9: must be None or an integer between 0 and num_dists = 8"),
        ({"fewest_dists": -1}, "fewest_dists = -1: must be None or an integer between 0 and num_dists = 8"),
        ({"fewest_dists": "1"}, "fewest_dists = '1': must be None or an integer between 0 and num_dists = 8"),
        ({"max_steps": 0}, "max_steps = 0: must be None or an integer of at least 1"),
        ({"max_steps": "9"}, "max_steps = '9': must be None or an integer of at least 1"),
        ({"render_mode": "ansi"}, "render_mode = 'ansi': must be one of None, human, rgb_array"),
    ],
)
def test_impossible_options_are_refused_when_it_is_made(options, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        BabyAITextEnv(**options)


@pytest.mark.parametrize("action", [6, -1, 1.0, True, None])
def test_actions_that_do_not_exist_are_refused(action):
    env = BabyAITextEnv()
    env.reset(seed=0)
    with pytest.raises(ValueError, match=rf"^action = {action}: must be an integer between 0 and 5$"):
        env.step(action)


def test_without_minigrid_one_sentence_names_the_extra(monkeypatch):
    for module in [*sys.modules]:
        if module.partition(".")[0] == "minigrid":
            monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.delitem(sys.modules, "envs.babyai")
    sentence = re.escape("the package minigrid is not installed; `pip install -e '.[worlds]'` brings it")
    with pytest.raises(ModuleNotFoundError, match=f"^{sentence}$"):
        gymnasium.make(TRAIN)
    with pytest.raises(NoWorld, match=f"^{sentence}$"):
        make_gym(TRAIN, {})
