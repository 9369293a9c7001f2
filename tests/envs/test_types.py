"""A config says what is wrong with it."""

import pickle
import re
from dataclasses import FrozenInstanceError, fields

import numpy as np
import pytest

from envs.types import _RANGES, MOVES, Action, WorldConfig


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 2}, "WorldConfig.width = 2: must be between 4 and 256"),
        ({"width": 300}, "WorldConfig.width = 300: must be between 4 and 256"),
        ({"height": 20.0}, "WorldConfig.height = 20.0: must be a whole number between 4 and 256"),
        ({"agents": True}, "WorldConfig.agents = True: must be a whole number"),
        ({"agents": 0}, "WorldConfig.agents = 0: must be between 1 and 1024"),
        ({"rocks": float("nan")}, "WorldConfig.rocks = nan: must be between 0 and 0.5"),
        ({"rocks": False}, "WorldConfig.rocks = False: must be a number"),
        ({"energy_max": float("inf")}, "WorldConfig.energy_max = inf: must be between"),
        ({"reward_food": "1"}, "WorldConfig.reward_food = '1': must be a number"),
        ({"reward_death": -np.inf}, "WorldConfig.reward_death = -inf: must be between"),
        ({"food": -1}, "WorldConfig.food = -1: must be between"),
        ({"food": 360}, "WorldConfig.food = 360: must be at most 359"),
        ({"energy_start": 101.0}, "WorldConfig.energy_start = 101.0: must be at most energy_max = 100.0"),
        ({"view_radius": 6}, "WorldConfig.view_radius = 6: must be between 1 and 5"),
    ],
)
def test_an_impossible_value_is_named_with_what_is_allowed(change, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        WorldConfig(**change)


def test_every_field_has_a_range():
    assert [field.name for field in fields(WorldConfig)] == list(_RANGES)


def test_a_whole_number_will_do_where_a_real_one_is_asked_for():
    assert WorldConfig(food_energy=8, rocks=0).food_energy == 8


def test_a_config_cannot_be_changed_and_survives_pickling():
    config = WorldConfig(width=9)
    with pytest.raises(FrozenInstanceError):
        config.width = 10
    assert pickle.loads(pickle.dumps(config)) == config


def test_moves_point_where_their_names_say():
    assert MOVES[Action.NORTH].tolist() == [-1, 0]
    assert MOVES[Action.SOUTH].tolist() == [1, 0]
    assert MOVES[Action.EAST].tolist() == [0, 1]
    assert MOVES[Action.WEST].tolist() == [0, -1]
    assert MOVES[Action.STAY].tolist() == [0, 0]
