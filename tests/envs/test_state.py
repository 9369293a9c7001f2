"""A state survives copying, flattening and checking exactly, and a wrong one is refused."""

import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st

from envs import dynamics
from envs.generator import generate
from envs.state import checked, flatten, unflatten
from envs.types import WorldConfig


@settings(max_examples=25, deadline=None)
@given(reference.configs(), st.integers(0, 2**53 - 1))
def test_a_state_comes_back_from_its_vector_bit_for_bit(config, seed):
    state = generate(config, [seed])
    for _ in range(3):
        state, _ = dynamics.step(config, state, np.full((1, config.agents), seed % 5))
    back = checked(config, unflatten(config, flatten(state)))
    for a, b in zip(state, back, strict=True):
        assert a.dtype == b.dtype
        assert a.tobytes() == b.tobytes()
        assert not np.shares_memory(a, b)


def test_a_state_of_another_config_is_refused_by_field():
    state = generate(WorldConfig(), [0])
    with pytest.raises(ValueError, match=r"state.position is int64 \(1, 20, 2\): must be int64 \(1, 9, 2\)"):
        checked(WorldConfig(agents=9), state)
    with pytest.raises(ValueError, match=r"state.energy is float64 .*: must be float32"):
        checked(WorldConfig(), state._replace(energy=state.energy.astype(float)))


def test_a_place_outside_the_grid_is_refused():
    state = generate(WorldConfig(), [0])
    state.position[0, 3] = 0, 20
    with pytest.raises(ValueError, match=r"state\.position lies outside the 20 x 20 grid"):
        checked(WorldConfig(), state)


def test_a_vector_of_another_length_is_refused():
    with pytest.raises(ValueError, match=r"state has shape \(3,\): must be"):
        unflatten(WorldConfig(), np.zeros(3))
