"""A config says what is wrong with it."""

import pickle
import re
from dataclasses import FrozenInstanceError, fields, replace

import numpy as np
import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st
from reference import PLAIN

from envs.types import _RANGES, MOVES, Action, WorldConfig, is_night, members, phase_left, population_of

NAN, INF = float("nan"), float("inf")
RANGES = {  # name: (whole?, least, most), as the docstrings say
    "height": (True, 4, 256),
    "width": (True, 4, 256),
    "agents": (True, 1, 1024),
    "populations": (True, 1, 4),
    "rocks": (False, 0, 0.5),
    "walls": (True, 0, 16),
    "food": (True, 0, 65536),
    "food_regrow": (False, 0, 1),
    "patches": (True, 0, 64),
    "patch_radius": (True, 0, 32),
    "view_radius": (True, 1, 5),
    "energy_start": (False, 0.01, 1e6),
    "energy_max": (False, 0.01, 1e6),
    "food_energy": (False, 0, 1e6),
    "cost_step": (False, 0, 1e6),
    "day_length": (True, 1, 1e6),
    "night_length": (True, 0, 1e6),
    "night_cost": (False, 1, 1e6),
    "max_steps": (True, 1, 1e6),
    "reward_food": (False, -1e6, 1e6),
    "reward_step": (False, -1e6, 1e6),
    "reward_death": (False, -1e6, 1e6),
}


def refusal(**change: object) -> str:
    """Return what the config says to a change of an otherwise good one."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011, the tests compare the message
        replace(PLAIN, **change)
    return str(caught.value)


def test_every_field_has_a_range():
    assert [field.name for field in fields(WorldConfig)] == list(RANGES) == list(_RANGES)


@pytest.mark.parametrize("name", RANGES)
def test_a_value_out_of_range_is_named_with_what_is_allowed(name):
    is_whole, least, most = RANGES[name]
    step = 1 if is_whole else 0.001
    outside = [least - step, most + step, -(10**9), 10**9]
    if is_whole:
        outside = [int(value) for value in outside]
    else:
        outside += [NAN, INF, -INF]
    for value in outside:
        expected = f"WorldConfig.{name} = {value!r}: must be between {least:.10g} and {most:.10g}"
        assert refusal(**{name: value}) == expected


@pytest.mark.parametrize("name", RANGES)
def test_a_value_of_another_kind_is_named_with_what_is_allowed(name):
    is_whole, least, most = RANGES[name]
    kind = "a whole number" if is_whole else "a number"
    values = [True, False, "1", None, [1], 1 + 0j, *([20.0, 4.5, NAN] if is_whole else [])]
    for value in values:
        expected = f"WorldConfig.{name} = {value!r}: must be {kind} between {least:.10g} and {most:.10g}"
        assert refusal(**{name: value}) == expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"energy_start": 100.5}, "WorldConfig.energy_start = 100.5: must be at most 100.0, energy_max"),
        ({"height": 4, "width": 4, "food": 1, "agents": 17}, "WorldConfig.agents = 17: must be at most 16, the cells"),
        ({"food": 340}, "WorldConfig.food = 340: must be at most 339, the cells that are neither rock nor home"),
        (
            {"food": 337, "populations": 4},
            "WorldConfig.food = 337: must be at most 336, the cells that are neither rock nor home",
        ),
        (
            {"patches": 2, "patch_radius": 1, "food": 19},
            "WorldConfig.food = 19: must be at most 18, the cells of all patches",
        ),
    ],
)
def test_values_that_do_not_fit_each_other_are_named_with_what_is_allowed(change, message):
    assert refusal(**change) == message
    name, value = re.match(r"WorldConfig\.(\w+) = ([\d.]+)", message).groups()  # type: ignore[union-attr]
    most = re.search(r"at most ([\d.]+)", message)[1]  # type: ignore[index]
    fits = replace(PLAIN, **change | {name: type(change[name])(most)})
    assert getattr(fits, name) < float(value)


def test_walls_on_every_cell_are_refused():
    assert refusal(walls=1) == "WorldConfig.walls = 1: must be 0 for none, or between 2 and 16"
    assert replace(PLAIN, walls=2).walls == 2


def test_a_whole_number_will_do_where_a_real_one_is_asked_for():
    assert replace(PLAIN, food_energy=8, rocks=0).food_energy == 8


def test_a_config_cannot_be_changed_and_survives_pickling():
    config = WorldConfig(width=9, food=1)
    with pytest.raises(FrozenInstanceError):
        config.width = 10
    assert pickle.loads(pickle.dumps(config)) == config


def test_moves_point_where_their_names_say():
    assert MOVES[Action.NORTH].tolist() == [-1, 0]
    assert MOVES[Action.SOUTH].tolist() == [1, 0]
    assert MOVES[Action.EAST].tolist() == [0, 1]
    assert MOVES[Action.WEST].tolist() == [0, -1]
    assert MOVES[Action.STAY].tolist() == [0, 0]


@pytest.mark.parametrize(
    ("agents", "populations", "expected"),
    [
        (6, 1, [0, 0, 0, 0, 0, 0]),
        (6, 2, [0, 0, 0, 1, 1, 1]),
        (6, 3, [0, 0, 1, 1, 2, 2]),
        (5, 2, [0, 0, 0, 1, 1]),
        (1, 4, [0]),
    ],
)
def test_agents_belong_to_populations_in_their_order(agents, populations, expected):
    config = replace(PLAIN, agents=agents, populations=populations)
    assert population_of(config).tolist() == expected
    groups = [list(range(agents))[part] for part in members(config)]
    assert groups == [[i for i in range(agents) if expected[i] == q] for q in range(populations)]


@reference.worlds
@given(st.integers(1, 200), st.integers(1, 4))
def test_populations_are_as_equal_as_can_be_and_cover_everyone(agents, populations):
    config = replace(PLAIN, agents=agents, populations=populations)
    sizes = [part.stop - part.start for part in members(config)]
    assert sum(sizes) == agents
    assert max(sizes) - min(sizes) <= 1
    assert [reference.population(config, i) for i in range(agents)] == population_of(config).tolist()


@reference.worlds
@given(reference.configs())
def test_day_and_night_take_turns(config):
    steps = np.arange(40)
    assert is_night(config, steps).tolist() == [reference.is_night(config, int(now)) for now in steps]
    assert phase_left(config, steps).tolist() == [reference.phase_left(config, int(now)) for now in steps]


def test_the_first_step_is_by_day_and_the_night_begins_after_it():
    config = replace(PLAIN, day_length=2, night_length=3)
    assert is_night(config, np.arange(7)).tolist() == [False, False, True, True, True, False, False]
    assert phase_left(config, np.arange(7)).tolist() == [2, 1, 3, 2, 1, 2, 1]
    assert not is_night(replace(config, night_length=0), np.arange(50)).any()
