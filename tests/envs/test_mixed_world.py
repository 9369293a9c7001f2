"""Worlds of several kinds, mixed, are those worlds; nothing of one leaks into another."""

from dataclasses import replace

import numpy as np
import pytest

from envs import WorldConfig
from envs.worlds.mixed_world import MixedWorld, weave
from envs.worlds.world import ForageWorld

FREE = WorldConfig(agents=6, food=60, energy_start=15.0, max_steps=20)
KINDS = (FREE, replace(FREE, height=9, width=12, food=20, rocks=0.0), replace(FREE, night_length=5, day_length=6))


def test_rows_are_woven_by_turns():
    assert weave([np.array([1, 4]), np.array([2, 5]), np.array([3, 6])]).tolist() == [1, 2, 3, 4, 5, 6]


def test_each_kind_goes_on_as_if_it_were_alone():
    mixed, alone, rng = MixedWorld(KINDS), [ForageWorld(kind) for kind in KINDS], np.random.default_rng(0)
    seeds = np.arange(6)
    observation = mixed.reset(seeds)
    for i, world in enumerate(alone):
        np.testing.assert_array_equal(observation[i::3], world.reset(seeds[i::3]))
    for _ in range(FREE.max_steps):
        actions = rng.integers(0, 5, (6, 6))
        step = mixed.step(actions)
        for i, world in enumerate(alone):
            for mine, its in zip(step, world.step(actions[i::3]), strict=True):
                np.testing.assert_array_equal(mine[i::3], its)
    for name, figure in mixed.figures().items():
        for i, world in enumerate(alone):
            np.testing.assert_array_equal(figure[i::3], world.figures()[name])
    np.testing.assert_array_equal(mixed.state().position, alone[0].state().position)


def test_kinds_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"view_radius = \[3, 2\]: must be the same"):
        MixedWorld([FREE, replace(FREE, view_radius=2)])
    with pytest.raises(ValueError, match="4 worlds: must be a multiple of 3"):
        MixedWorld(KINDS).reset([0, 1, 2, 3])
