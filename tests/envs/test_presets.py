"""Every preset is a world that can be made, and poses its question."""

import re

import numpy as np
import pytest
import reference

from envs import HELD_OUT, WorldConfig
from envs.generator import generate
from envs.presets import PRESETS, preset


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_makes_a_world_of_any_seed(name):
    config = preset(name)
    for seeds in (np.arange(50), HELD_OUT + np.arange(50)):
        state = generate(config, seeds)
        assert (state.food.sum((1, 2)) == config.food).all()
        for w in range(0, 50, 10):
            homes = [reference.cell_of(home) for home in state.home[w]]
            assert all(len(reference.reachable(state.rock[w], home)) == (~state.rock[w]).sum() for home in homes)


def test_each_preset_has_what_it_asks_about():
    assert preset("meadow") == WorldConfig()
    assert preset("maze").walls > 0
    assert preset("famine").patches > 0
    assert preset("night").night_length > 0
    assert preset("night").night_cost > 1
    assert preset("rivals").populations > 1


def test_an_unknown_name_is_answered_with_all_names():
    message = f"preset = 'desert': must be one of {', '.join(PRESETS)}"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        preset("desert")
    assert {"meadow", "maze", "famine", "night", "rivals"} <= set(message.replace(",", "").split())
