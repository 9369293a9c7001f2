"""Remembered places move as the agent moves, and what is seen corrects what is remembered."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.memory import nearest, newborn, remember
from envs import Action, ForageBatch, WorldConfig
from envs.observe import legal_from

STAY, NORTH, SOUTH, EAST, WEST = Action
BORN = np.array([-1])


def test_a_newborn_knows_nothing_until_it_sees(walk):
    assert not newborn(3).knows_food.any()
    assert not newborn(3).knows_home.any()
    nothing = walk()
    assert (nothing.food, nothing.home) == (None, None)
    both = walk(food=[(6, 9)], home=(9, 4))
    assert (both.food, both.home) == ([-1, 2], [2, -3])
    assert both.memory.sees_food[0]


def test_places_out_of_view_move_against_each_step(walk):
    it = walk(food=[(7, 4)], home=(4, 7)).go(EAST, EAST, SOUTH)
    assert (it.food, it.home) == ([-1, -5], [-4, -2])
    assert not it.memory.sees_food[0]
    assert it.go(NORTH, WEST, STAY).home == [-3, -1]


def test_a_blocked_move_moves_nothing(walk):
    it = walk(food=[(7, 4)], home=(4, 7), rock=[(7, 9), (6, 8)]).go(EAST)
    assert (it.food, it.home) == ([0, -4], [-3, -1])
    it.go(EAST, NORTH, EAST)
    assert (it.food, it.home) == ([0, -4], [-3, -1])


def test_the_border_blocks_too(walk):
    it = walk(position=(0, 1), home=(2, 3)).go(NORTH, WEST, WEST, NORTH)
    assert it.home == [2, 3]


def test_food_in_view_replaces_food_remembered(walk):
    it = walk(food=[(7, 4), (7, 12)]).go(EAST)
    assert it.food == [0, -4]
    assert it.go(EAST).food == [0, 3]
    assert it.memory.sees_food[0]


def test_food_that_is_gone_is_forgotten_once_its_place_is_in_view(walk):
    it = walk(food=[(7, 4)]).go(EAST).vanish_food()
    assert it.go(NORTH).food == [1, -4]
    assert it.go(WEST).food is None
    assert it.go(EAST, EAST).food is None


def test_food_eaten_is_forgotten(walk):
    assert walk(food=[(7, 8)]).go(EAST).food is None


def test_home_is_remembered_for_good(walk):
    it = walk(home=(7, 6)).go(*[EAST] * 7, *[SOUTH] * 7)
    assert it.home == [-7, -8]
    assert it.go(*[WEST] * 8, *[NORTH] * 7).home == [0, 0]


def test_the_nearest_is_nearest_in_steps(walk):
    assert walk(food=[(5, 9), (7, 10)]).food == [0, 3]
    assert walk(food=[(7, 7), (7, 8)]).food == [0, 0]
    plane = np.zeros((2, 5, 5), bool)
    plane[1, 4, 0] = True
    offset, is_there = nearest(plane, 2)
    assert offset[1].tolist() == [2, -2]
    assert is_there.tolist() == [False, True]


def test_agents_do_not_share_memories():
    world = ForageBatch(WorldConfig(agents=8, rocks=0.2))
    seen = world.reset([0, 1]).reshape(16, -1)
    together = remember(newborn(16), seen, np.full(16, -1), 3)
    alone = [remember(newborn(1), s[None], BORN, 3) for s in seen]
    generator = np.random.default_rng(0)
    for _ in range(20):
        actions = generator.integers(0, 5, 16)
        seen = world.step(actions.reshape(2, 8))[0].reshape(16, -1)
        together = remember(together, seen, actions, 3)
        alone = [remember(m, s[None], a[None], 3) for m, s, a in zip(alone, seen, actions, strict=True)]
    for field, parts in zip(together, zip(*alone, strict=True), strict=True):
        assert np.array_equal(field, np.concatenate(parts))


def test_where_an_episode_begins_memory_starts_anew_and_elsewhere_it_goes_on():
    config = WorldConfig(agents=6, rocks=0.2, food=20, cost_step=0.0, day_length=10, night_length=5)
    world, generator = ForageBatch(config), np.random.default_rng(0)
    seen = world.reset([5])[0]
    together = alone = remember(newborn(6), seen, np.full(6, -1), 3)
    for step in range(40):
        actions = generator.integers(0, 5, 6)
        seen = world.step([actions])[0][0]
        begins = generator.random(6) < 0.2
        actions[begins] = -1
        together = remember(together, seen, actions, 3)
        fresh = remember(newborn(6), seen, np.full(6, -1), 3)
        alone = remember(alone, seen, np.maximum(actions, 0), 3)
        alone = type(alone)(*(np.where(_column(begins, new), new, old) for new, old in zip(fresh, alone, strict=True)))
        for name, field, expected in zip(together._fields, together, alone, strict=True):
            known = {"food": together.knows_food, "home": together.knows_home}.get(name, np.ones(6, bool))
            assert np.array_equal(field[known], expected[known]), (step, name)


def _column(flags, like):
    return flags.reshape(-1, *[1] * (like.ndim - 1))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**20), st.integers(1, 4), st.floats(0, 0.4), st.lists(st.sampled_from(range(5)), max_size=60))
def test_on_a_random_walk_home_is_where_it_is_and_food_was_where_it_is_remembered(seed, radius, rocks, actions):
    world = ForageBatch(
        WorldConfig(agents=1, height=12, width=9, food=5, rocks=rocks, view_radius=radius, cost_step=0.0)
    )
    world.reset([seed])
    state = world.state()
    free = np.argwhere(~state.rock[0])
    state.position[:] = free[seed % len(free)]
    seen = world.set_state(state)[0]
    memory, has_seen_home, food_seen = remember(newborn(1), seen, BORN, radius), False, set()
    for action in [*actions, None]:
        state = world.state()
        position, home = state.position[0, 0], state.home[0]
        has_seen_home |= bool(np.abs(home - position).max() <= radius)
        assert memory.knows_home[0] == has_seen_home
        if has_seen_home:
            assert (memory.home[0] == home - position).all()

        in_view = {tuple(c) for c in np.argwhere(state.food[0]) if np.abs(c - position).max() <= radius}
        food_seen |= in_view
        assert memory.sees_food[0] == bool(in_view)
        assert memory.knows_food[0] or not in_view
        if memory.knows_food[0]:
            place = tuple(position + memory.food[0])
            assert place in (in_view or food_seen)
            assert in_view or np.abs(memory.food[0]).max() > radius
        if action is not None:
            seen = world.step([[action]])[0][0]
            assert np.array_equal(legal_from(seen, radius), world.legal()[0])
            memory = remember(memory, seen, np.array([action]), radius)
