"""A new world keeps its promises."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import configs

from envs.generator import ATTEMPTS, HELD_OUT, generate
from envs.paths import UNREACHED, distances
from envs.types import WorldConfig, WorldState


@settings(max_examples=40, deadline=None)
@given(configs(), st.integers(0, 2**53 - 10))
def test_a_world_is_connected_furnished_and_peopled_as_promised(config, seed):
    state = generate(config, [seed, seed + 1])
    for w in range(2):
        home = np.zeros_like(state.rock[w])
        home[tuple(state.home[w])] = True
        reach = distances(~state.rock[w][None], home[None])[0]
        assert np.array_equal(reach == UNREACHED, state.rock[w])
        row, column = state.home[w]
        assert not state.rock[w, max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2].any()
        assert state.food[w].sum() == config.food
        assert not (state.food[w] & (state.rock[w] | home)).any()
        assert not state.rock[w][tuple(state.position[w].T)].any()
        assert (abs(state.position[w] - state.home[w]).max(-1) <= config.view_radius).all()


def test_a_world_depends_on_its_seed_and_not_on_its_batch():
    config = WorldConfig()
    batch = generate(config, [3, HELD_OUT, 5])
    for w, seed in enumerate([3, HELD_OUT, 5]):
        for together, alone in zip(batch, generate(config, [seed]), strict=True):
            assert np.array_equal(together[w], alone[0])
    assert not np.array_equal(batch.rock[0], batch.rock[2])


def test_tight_layouts_are_redrawn_alone_until_the_food_fits():
    config = WorldConfig(height=8, width=8, rocks=0.4, food=20)
    together = generate(config, np.arange(64))
    assert (together.food.sum((1, 2)) == 20).all()
    for seed in range(64):
        for of_all, alone in zip(together, generate(config, [seed]), strict=True):
            assert np.array_equal(of_all[seed], alone[0])


def test_a_hopeless_layout_ends_in_a_clear_error():
    with pytest.raises(ValueError, match=f"food = 199: no room in {ATTEMPTS} layouts of seed 4; lower food"):
        generate(WorldConfig(rocks=0.5, food=199), [4])


@pytest.mark.parametrize("seeds", [[-1], [2**53], [1.5], [], 3, [[1]], [True], ["a"], [2**70]])
def test_seeds_that_are_no_seeds_are_refused(seeds):
    with pytest.raises(ValueError, match="must be a list of whole numbers from 0 to"):
        generate(WorldConfig(), seeds)


def test_the_share_of_rock_is_the_one_asked_for():
    rock = generate(WorldConfig(rocks=0.1), np.arange(200)).rock
    assert 0.08 < rock.mean() < 0.11  # a little less for the clearing at home, more for walled-in cells


def test_homes_and_births_are_spread_evenly():
    state = generate(WorldConfig(rocks=0.0, agents=4), np.arange(4000))
    assert (abs(state.home.mean(0) - 9.5) < 0.4).all()
    assert set(np.unique(state.home)) == set(range(20))
    offset = state.position - state.home[:, None]
    assert set(np.unique(offset)) == set(range(-3, 4))


HASH_A_WALK = """
import hashlib, numpy as np
from envs import ForageBatch
world = ForageBatch()
world.reset([0, 1, 2**31])
for step in range(40):
    observations, _ = world.step((np.arange(60).reshape(3, 20) * 7 + step // 3) % 5)
arrays = [*world.state(), observations]
print(hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest())
"""


def test_a_world_is_the_same_in_another_process_and_for_ever():
    env = os.environ | {"PYTHONHASHSEED": "123", "PYTHONPATH": str(Path(__file__).parents[2])}
    run = subprocess.run([sys.executable, "-c", HASH_A_WALK], env=env, capture_output=True, check=True, text=True)
    # Pinned: where this changes, published layouts and recorded replays no longer repeat
    assert run.stdout.strip() == "bd09586efa882852cb9be393a3f9c7ac3f0e574d0724045a04db96b477282386"


def test_a_state_hashes_alike_when_made_twice():
    def digest(state: WorldState) -> str:
        return hashlib.sha256(b"".join(array.tobytes() for array in state)).hexdigest()

    assert digest(generate(WorldConfig(), [1, 2])) == digest(generate(WorldConfig(), [1, 2]))
