"""Pictures show what is there."""

import re

import numpy as np
import pytest

from envs.generator import generate
from envs.render import ansi, rgb_array
from envs.sprites import agent_colour
from envs.types import WorldConfig

CONFIG = WorldConfig(height=6, width=8, agents=3, food=5, rocks=0.0)


def scene():
    """Return one small world with its three agents apart and off the food."""
    state = generate(CONFIG, [0, 1])
    state.food[:, 0] = False
    state.position[:] = [(0, 0), (0, 3), (0, 6)]
    state.home[:] = 5, 7
    return state


def test_the_picture_has_a_pixel_square_per_cell_and_a_strip_below():
    picture = rgb_array(scene(), w=1, cell=16)
    assert picture.shape == (8 * 16, 8 * 16, 3)
    assert picture.dtype == np.uint8


def test_an_agent_is_drawn_in_its_colour_and_not_when_it_is_dead():
    state = scene()
    chin = rgb_array(state)[18, 3 * 24 + 12]  # below the eyes of agent 1
    assert chin.tolist() == list(agent_colour(1))
    state.is_alive[0, 1] = False
    assert rgb_array(state)[18, 3 * 24 + 12].tolist() != list(agent_colour(1))


def test_agents_who_share_a_cell_are_all_seen():
    state = scene()
    state.position[0] = 0, 0
    pixels = {tuple(pixel) for pixel in rgb_array(state, cell=48)[:48, :48].reshape(-1, 3).tolist()}
    assert {agent_colour(i) for i in range(3)} <= pixels


def test_drawing_changes_nothing():
    state = scene()
    before = [array.copy() for array in state]
    rgb_array(state)
    ansi(state)
    assert all(np.array_equal(a, b) for a, b in zip(before, state, strict=True))


def test_the_colours_of_twenty_agents_are_distinct():
    colours = np.array([agent_colour(i) for i in range(20)], int)
    apart = np.abs(colours[:, None] - colours).sum(-1) + 999 * np.eye(20, dtype=int)
    assert apart.min() > 50


def test_a_cell_too_small_to_draw_in_is_refused():
    with pytest.raises(ValueError, match="cell = 4: must be at least 8 pixels"):
        rgb_array(scene(), cell=4)


def test_text_counts_and_places_everything():
    state = scene()
    state.step[0], state.food_eaten[0, 1], state.is_alive[0, 2] = 7, 4, False
    lines = re.sub(r"\x1b\[[\d;]*m", "", ansi(state)).splitlines()
    assert lines[0] == "step 7   alive 2/3   food eaten 4   mean energy 80%"
    assert len(lines) == 7
    assert all(len(line) == 16 for line in lines[1:])
    assert (lines[1][0], lines[1][6], lines[6][14]) == ("0", "1", "⌂")
    assert "".join(lines[1:]).count("●") == state.food[0].sum()


def test_a_world_where_all_are_dead_can_be_drawn():
    state = scene()
    state.is_alive[:] = False
    state.energy[:] = 0
    assert "alive 0/3" in ansi(state)
    assert rgb_array(state).any()
