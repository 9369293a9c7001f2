"""The map moves as the agent moves, and what is seen corrects what is remembered."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.codecs.forage_map import NEVER, REACH, SIDE, STALE, newborn, remember, ways
from agents.codecs.wayfinding import NO_WAY
from envs import Action, ForageBatch, WorldConfig
from envs.observe import legal_from
from envs.paths import UNREACHED, distances

STAY, NORTH, SOUTH, EAST, WEST = Action
BORN = np.array([-1])


def test_a_newborn_knows_nothing_until_it_sees(walk):
    nothing = newborn(3)
    assert not any(plane.any() for plane in (nothing.rock, nothing.food, nothing.grew, nothing.home))
    assert (nothing.age == NEVER).all()
    bare = walk()
    assert (bare.food, bare.home) == ([], [])
    assert (bare.memory.age == 0).sum() == 7 * 7
    assert walk(food=[(6, 9)], home=(9, 4)).food == [[-1, 2]]
    assert walk(food=[(6, 9)], home=(9, 4)).home == [[2, -3]]


def test_places_out_of_view_move_against_each_step(walk):
    it = walk(food=[(7, 4), (4, 4)], home=(4, 7)).go(EAST, EAST, SOUTH)
    assert it.food == [[-4, -5], [-1, -5]]
    assert it.home == [[-4, -2]]
    assert it.go(NORTH, WEST, STAY).home == [[-3, -1]]


def test_a_blocked_move_moves_nothing(walk):
    it = walk(food=[(7, 4)], home=(4, 7), rock=[(7, 9), (6, 8)]).go(EAST)
    assert (it.food, it.home) == ([[0, -4]], [[-3, -1]])
    it.go(EAST, NORTH, EAST)
    assert (it.food, it.home) == ([[0, -4]], [[-3, -1]])


def test_the_border_blocks_too(walk):
    assert walk(position=(0, 1), home=(2, 3)).go(NORTH, WEST, WEST, NORTH).home == [[2, 3]]


def test_food_that_is_gone_is_forgotten_once_its_place_is_in_view_but_not_that_it_grew_there(walk):
    it = walk(food=[(7, 4)]).go(EAST).vanish_food()
    assert it.go(NORTH).food == [[1, -4]]
    assert it.go(WEST).food == []
    assert it.go(EAST, EAST).food == []
    assert np.argwhere(it.memory.grew[0]).tolist() == [[REACH + 1, REACH - 5]]


def test_the_age_of_a_place_is_the_steps_since_it_was_in_view(walk):
    it = walk().go(EAST)
    assert it.memory.age[0, REACH, REACH - 4 : REACH + 4].tolist() == [1, *[0] * 7]
    assert it.go(*[EAST] * 3).memory.age[0, REACH, REACH - 8 : REACH].tolist() == [NEVER, 4, 3, 2, 1, 0, 0, 0]


def test_what_was_seen_once_never_counts_as_unseen(walk):
    it = walk().go(EAST, *[STAY] * 300)
    assert it.memory.age[0, REACH, REACH - 4] == NEVER - 1
    assert it.memory.age[0, REACH, REACH - 5] == NEVER


def test_what_slides_over_the_edge_is_forgotten(walk):
    it = walk(position=(7, 5), food=[(7, 4)], home=(0, 0), width=40)
    assert it.go(*[EAST] * 14).food == [[0, -15]]
    assert it.go(EAST).food == []
    assert it.go(WEST).food == []


def steps(it, kind: str) -> list[int | None]:
    """Steps to the nearest of a kind if the first is each move; None where there is no way."""
    return [None if n == NO_WAY else n for n in getattr(ways(it.memory), kind)[0].tolist()]


def test_ways_go_around_rock_that_is_known(walk):
    assert steps(walk(food=[(7, 9)]), "food") == [2, 4, 4, 2, 4]
    assert steps(walk(food=[(7, 9)], rock=[(7, 8)]), "food") == [4, 4, 4, None, 6]
    corner = [(6, 8), (7, 8), (8, 8), (8, 7), (8, 6)]
    assert steps(walk(food=[(9, 9)], rock=corner), "food") == [8, 8, None, None, 8]


def test_food_here_is_no_step_away(walk):
    assert steps(walk(food=[(7, 7)]), "food") == [0, 2, 2, 2, 2]


def test_bare_places_where_food_was_are_worth_a_look_after_a_while(walk):
    it = walk(food=[(7, 4)]).go(EAST).vanish_food().go(WEST)
    assert steps(it, "regrown") == [None] * 5
    it.go(EAST, *[STAY] * (STALE - 1))
    assert steps(it, "regrown") == [None] * 5
    assert steps(it.go(STAY), "regrown") == [4, 6, 6, 6, 4]
    assert steps(it.go(WEST), "regrown") == [None] * 5, "it looked"


def test_the_unknown_begins_where_nobody_looked(walk):
    assert steps(walk(), "unknown")[1:] == [4, 4, 4, 4]
    it = walk(position=(2, 3), home=(0, 0))
    assert steps(it.go(*[EAST] * 3), "unknown")[1:] == [5, 4, 4, 5]  # beyond the border, in view, is rock


def test_another_s_food_is_no_goal():
    world = ForageBatch(WorldConfig(agents=2, height=9, width=9, rocks=0.0, food=0, patches=0))
    world.reset([0])
    state = world.state()
    state.rock[:] = state.food[:] = False
    state.position[:] = [[(4, 2), (4, 5)]]
    state.food[0, 4, 4] = True
    seen = world.set_state(state)[0]
    first, second = ways(remember(newborn(2), seen, np.array([-1, -1]), 3)).food.tolist()
    assert first == [NO_WAY] * 5
    assert second == [1, 3, 3, 3, 1]


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
            assert np.array_equal(field, expected), (step, name)


def _column(flags, like):
    return flags.reshape(-1, *[1] * (like.ndim - 1))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**20), st.integers(1, 4), st.floats(0, 0.4), st.lists(st.sampled_from(range(5)), max_size=60))
def test_on_a_random_walk_the_map_is_the_world_and_ways_are_its_shortest(seed, radius, rocks, actions):
    world = ForageBatch(
        WorldConfig(agents=1, height=12, width=9, food=5, rocks=rocks, view_radius=radius, cost_step=0.0)
    )
    world.reset([seed])
    state = world.state()
    free = np.argwhere(~state.rock[0])
    state.position[:] = free[seed % len(free)]
    seen = world.set_state(state)[0]
    memory, last_food = remember(newborn(1), seen, BORN, radius), np.zeros((12, 9), bool)
    looked = np.full((12, 9), -1)
    for step, action in enumerate([*actions, None]):
        state = world.state()
        row, column = state.position[0, 0]
        window = np.s_[max(row - radius, 0) : row + radius + 1, max(column - radius, 0) : column + radius + 1]
        looked[window], last_food[window] = step, state.food[0][window]
        here = np.s_[REACH - row : REACH - row + 12, REACH - column : REACH - column + 9]  # the world in the map
        was_seen = looked >= 0
        assert np.array_equal(memory.age[0][here] < NEVER, was_seen)
        assert np.array_equal(memory.age[0][here][was_seen], step - looked[was_seen])
        assert np.array_equal(memory.rock[0][here], state.rock[0] & was_seen)
        assert np.array_equal(memory.food[0][here], last_food)
        is_free = ~memory.rock
        expected = distances(is_free, memory.food)[0].astype(int)
        expected = np.where(expected == UNREACHED, NO_WAY, expected)
        around = [
            expected[REACH, REACH],
            *(expected[REACH + d, REACH + r] + 1 for d, r in ((-1, 0), (1, 0), (0, 1), (0, -1))),
        ]
        assert ways(memory).food[0].tolist() == [min(n, NO_WAY) for n in around]
        if action is not None:
            seen = world.step([[action]])[0][0]
            assert np.array_equal(legal_from(seen, radius), world.legal()[0])
            memory = remember(memory, seen, np.array([action]), radius)


def test_a_map_is_as_wide_as_bits_allow():
    assert SIDE == 31
