"""A state survives copying, flattening and checking exactly, and a wrong one is refused."""

from dataclasses import replace

import numpy as np
import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st
from reference import PLAIN

from envs import dynamics
from envs.generator import generate
from envs.state import checked, flatten, layout, unflatten
from envs.types import WorldState

PATCHY = replace(PLAIN, populations=2, patches=3, food=9)


@reference.worlds
@given(reference.configs(), st.integers(0, 2**53 - 1))
def test_a_state_comes_back_from_its_vector_bit_for_bit(config, seed):
    state = reference.begin(config, [seed])
    for _ in range(3):
        state, _ = dynamics.step(config, state, np.full((1, config.agents), seed % 5))
    vector = flatten(state)
    assert vector.dtype == np.float64
    assert vector.size == sum(array.size for array in state)
    back = checked(config, unflatten(config, vector))
    for a, b in zip(state, back, strict=True):
        assert a.dtype == b.dtype
        assert a.tobytes() == b.tobytes()
        assert not np.shares_memory(a, b)


def test_the_largest_values_come_back_from_the_vector_too():
    state = generate(PATCHY, [2**53 - 1])
    state.step[:], state.lifetime[:], state.energy[:] = 2**31 - 1, 2**31 - 1, np.float32(1) / 3
    for a, b in zip(state, unflatten(PATCHY, flatten(state)), strict=True):
        assert a.tobytes() == b.tobytes()


def test_the_layout_is_that_of_a_state():
    state = generate(PATCHY, [0, 1, 2])
    assert layout(PATCHY, 3) == {name: (array.dtype, array.shape) for name, array in state._asdict().items()}


def test_a_checked_state_shares_no_memory_with_the_one_given():
    state = generate(PATCHY, [0, 1])
    for given_one, copy in zip(state, checked(PATCHY, state), strict=True):
        assert np.array_equal(given_one, copy)
        assert not np.shares_memory(given_one, copy)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"agents": 9}, r"state.position is int64 \(1, 20, 2\): must be int64 \(1, 9, 2\)"),
        ({"populations": 3}, r"state.home is int64 \(1, 2, 2\): must be int64 \(1, 3, 2\)"),
        ({"patches": 2}, r"state.patch is int64 \(1, 3, 2\): must be int64 \(1, 2, 2\)"),
        ({"height": 21}, r"state.rock is bool \(1, 20, 20\): must be bool \(1, 21, 20\)"),
    ],
)
def test_a_state_of_another_config_is_refused_by_field(change, message):
    with pytest.raises(ValueError, match=message):
        checked(replace(PATCHY, **change), generate(PATCHY, [0]))


@pytest.mark.parametrize("name", WorldState._fields)
def test_an_array_of_another_dtype_or_shape_is_refused(name):
    state = generate(PATCHY, [0, 1])
    array = getattr(state, name)
    for wrong in (array.astype(np.complex128), array[..., None]):
        with pytest.raises(ValueError, match=rf"state\.{name} is {wrong.dtype} .*: must be {array.dtype}"):
            checked(PATCHY, state._replace(**{name: wrong}))


@pytest.mark.parametrize("name", ["patch", "home", "position"])
@pytest.mark.parametrize("place", [(0, 20), (20, 0), (-1, 0), (0, -1)])
def test_a_place_outside_the_grid_is_refused(name, place):
    state = generate(PATCHY, [0])
    getattr(state, name)[0, 1] = place
    with pytest.raises(ValueError, match=rf"state\.{name} lies outside the 20 x 20 grid"):
        checked(PATCHY, state)


def test_a_vector_of_another_length_is_refused():
    length = flatten(generate(PATCHY, [0])).size
    with pytest.raises(ValueError, match=rf"state has shape \({length + 1},\): must be \({length},\)"):
        unflatten(PATCHY, np.zeros(length + 1))
