"""The batched interface: worlds are independent, its state is all there is, and it refuses nonsense."""

import io
from dataclasses import replace

import numpy as np
import pytest
from reference import PLAIN

from envs import ForageBatch
from envs.dynamics import legal_actions
from envs.generator import give_birth
from envs.observe import observe

CONFIG = replace(
    PLAIN,
    height=9,
    width=11,
    agents=5,
    populations=2,
    patches=3,
    food=8,
    energy_start=12.0,
    day_length=7,
    night_length=4,
    night_cost=2.0,
)


def walk(worlds: int, steps: int, seed: int = 0) -> list[np.ndarray]:
    """Return actions (W, N) for each step."""
    return list(np.random.default_rng(seed).integers(0, 5, (steps, worlds, CONFIG.agents)))


def test_a_world_in_a_batch_equals_the_same_world_alone():
    seeds = [4, 9, 2**31 + 1]
    together, alone = ForageBatch(CONFIG), [ForageBatch(CONFIG) for _ in seeds]
    seen = together.reset(seeds)
    for w, seed in enumerate(seeds):
        assert np.array_equal(alone[w].reset([seed])[0], seen[w])
    for actions in walk(3, 30):
        seen, result = together.step(actions)
        for w in range(3):
            seen_alone, result_alone = alone[w].step(actions[w : w + 1])
            assert np.array_equal(seen_alone[0], seen[w])
            for a, b in zip(result, result_alone, strict=True):
                assert np.array_equal(a[w], b[0])
        is_born = ~together.state().is_alive
        seen = together.give_birth(is_born)
        for w in range(3):
            assert np.array_equal(alone[w].give_birth(is_born[w : w + 1])[0], seen[w])
            assert np.array_equal(alone[w].legal()[0], together.legal()[w])


def test_a_resumed_world_equals_an_uninterrupted_one_through_a_file():
    world, resumed = ForageBatch(CONFIG), ForageBatch(CONFIG)
    world.reset([1, 2])
    actions = walk(2, 20)
    for action in actions[:10]:
        seen, _ = world.step(action)
    file = io.BytesIO()
    np.savez(file, **world.state_dict())
    file.seek(0)
    assert np.array_equal(resumed.load_state_dict(np.load(file, allow_pickle=False)), seen)
    for action in actions[10:]:
        for a, b in zip(world.step(action)[1], resumed.step(action)[1], strict=True):
            assert np.array_equal(a, b)
    for a, b in zip(world.state(), resumed.state(), strict=True):
        assert a.tobytes() == b.tobytes()


def test_nobody_outside_can_reach_into_the_state():
    world = ForageBatch(CONFIG)
    seen = world.reset([1])
    before = world.state()
    given = world.state()
    world.set_state(given)
    for array in (*given, *world.state_dict().values(), *world.state()):
        array[:] = 1
    seen[:] = 9
    world.legal()[:] = True
    for a, b in zip(before, world.state(), strict=True):
        assert np.array_equal(a, b)


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        (np.zeros((1, 5)), r"actions are float64 \(1, 5\): must be integers of shape \(1, 5\)"),
        (np.zeros((1, 5), bool), "actions are bool"),
        (np.zeros((5,), int), r"actions are int64 \(5,\)"),
        ([[0, 0, 9, 0, 0]], r"actions\[0, 2\] = 9: must be between 0 and 4"),
        ([[0, -1, 0, 0, 0]], r"actions\[0, 1\] = -1: must be between 0 and 4"),
    ],
)
def test_wrong_actions_are_refused_with_what_is_allowed(actions, message):
    world = ForageBatch(CONFIG)
    world.reset([0])
    with pytest.raises(ValueError, match=message):
        world.step(actions)


def test_actions_of_the_dead_do_not_matter():
    world = ForageBatch(CONFIG)
    world.reset([0])
    state = world.state()
    state.is_alive[0, 2] = False
    state.energy[0, 2] = 0
    world.set_state(state)
    _, result = world.step([[0, 0, 99, 0, 0]])
    assert result.reward[0, 2] == 0


def test_new_agents_can_be_put_into_any_slot():
    world = ForageBatch(CONFIG)
    world.reset([0, 1])
    for actions in walk(2, 14):
        world.step(actions)
    before = world.state()
    is_born = np.zeros((2, 5), bool)
    is_born[0, 1] = is_born[1, 3:] = True
    assert not before.is_alive[is_born].all()
    seen = world.give_birth(is_born.tolist())
    expected = give_birth(CONFIG, before, is_born)
    assert np.array_equal(seen, observe(CONFIG, expected))
    for a, b in zip(world.state(), expected, strict=True):
        assert np.array_equal(a, b)
    assert np.array_equal(world.legal(), legal_actions(expected))
    _, result = world.step(np.zeros((2, 5), int))
    assert (result.reward[is_born] != 0).all()  # they live


@pytest.mark.parametrize(
    ("is_born", "message"),
    [
        (np.zeros((1, 5), int), r"is_born is int64 \(1, 5\): must be bool \(1, 5\)"),
        (np.zeros(5, bool), r"is_born is bool \(5,\): must be bool \(1, 5\)"),
        ([[True]], r"is_born is bool \(1, 1\): must be bool \(1, 5\)"),
    ],
)
def test_births_of_another_shape_or_kind_are_refused(is_born, message):
    world = ForageBatch(CONFIG)
    world.reset([0])
    with pytest.raises(ValueError, match=message):
        world.give_birth(is_born)


@pytest.mark.parametrize(
    "deed",
    [
        lambda world: world.step(np.zeros((1, 5), int)),
        lambda world: world.give_birth(np.zeros((1, 5), bool)),
        lambda world: world.legal(),
        lambda world: world.state(),
    ],
)
def test_nothing_can_be_done_before_the_first_reset(deed):
    with pytest.raises(RuntimeError, match="call reset"):
        deed(ForageBatch(CONFIG))


def test_a_state_dict_with_other_names_is_refused():
    world = ForageBatch(CONFIG)
    world.reset([0])
    arrays = world.state_dict()
    arrays["wings"] = arrays.pop("food")
    with pytest.raises(ValueError, match="missing or unknown in the state: food, wings"):
        world.load_state_dict(arrays)
