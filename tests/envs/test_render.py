"""Pictures show what is there."""

import re
from dataclasses import replace

import numpy as np
import pytest

from envs.generator import generate
from envs.observe import observe, unpack
from envs.presets import PRESETS
from envs.rendering.render import STRIP, ansi, rgb_array, slots, view_array
from envs.rendering.sprites import BERRY, POPULATIONS, agent_colour, agent_colours
from envs.types import WorldConfig

CONFIG = WorldConfig(height=6, width=8, agents=3, food=5, rocks=0.0, energy_start=80.0)
NIGHTS = replace(CONFIG, day_length=10, night_length=5)
RIVALS = replace(CONFIG, agents=4, populations=2)


def scene(config=CONFIG, step=0):
    """Return one small world with its agents apart and off the food."""
    state = generate(config, [0, 1])
    state.step[:] = step
    state.food[:, 0] = False
    state.position[:] = [(0, 0), (0, 3), (0, 6), (2, 0)][: config.agents]
    state.food[:, 2, 0] = False
    state.home[:] = [(5, 7), (5, 0)][: config.populations]
    return state


def plain(text):
    """Return the lines of text without colours."""
    return re.sub(r"\x1b\[[\d;]*m", "", text).splitlines()


def cell_of(picture, row, column, cell=24):
    """Return the pixels of one cell."""
    return picture[row * cell : (row + 1) * cell, column * cell : (column + 1) * cell].astype(int)


@pytest.mark.parametrize("cell", [8, 13, 24])
@pytest.mark.parametrize("name", PRESETS)
def test_the_picture_has_a_pixel_square_per_cell_and_a_strip_below(name, cell):
    config = PRESETS[name]
    picture = rgb_array(generate(config, [0, 1]), config, w=1, cell=cell)
    assert picture.shape == ((config.height + STRIP) * cell, config.width * cell, 3)
    assert picture.dtype == np.uint8


def test_a_world_with_nothing_but_a_corner_to_write_in_can_be_drawn():
    config = WorldConfig(height=4, width=4, agents=1, food=1, populations=1, night_length=3, max_steps=1_000_000)
    assert rgb_array(generate(config, [0]), config, cell=8).shape == (48, 32, 3)


def test_an_agent_is_drawn_in_its_colour_and_a_headstone_when_it_is_dead():
    state = scene()
    chin = rgb_array(state, CONFIG)[19, 3 * 24 + 12]  # below the eyes of agent 1
    assert chin.tolist() == list(agent_colour(1))
    state.is_alive[0, 1] = False
    dead = cell_of(rgb_array(state, CONFIG), 0, 3)
    bare = cell_of(rgb_array(state, CONFIG), 1, 4)  # of the same shade of ground
    assert dead[19, 12].tolist() != list(agent_colour(1))
    assert (dead != bare).any()


def test_a_headstone_fades_but_stays():
    def contrast(steps_ago):
        state = scene(step=60)
        state.is_alive[0, 1], state.lifetime[0, 1] = False, 60 - steps_ago
        drawn = rgb_array(state, CONFIG)
        return np.abs(cell_of(drawn, 0, 3) - cell_of(drawn, 1, 4)).sum()

    assert contrast(0) > contrast(6) > contrast(12) == contrast(50) > 0


@pytest.mark.parametrize("place", [(0, 0), (2, 4), (5, 7)])  # a corner, open ground, home
def test_agents_who_share_a_cell_are_all_seen(place):
    state = scene()
    state.position[0] = place
    pixels = {tuple(pixel) for pixel in rgb_array(state, CONFIG, cell=48).reshape(-1, 3)[: 6 * 48 * 8 * 48].tolist()}
    assert {agent_colour(i) for i in range(3)} <= pixels


def test_a_thousand_agents_on_one_cell_can_be_drawn():
    config = WorldConfig(height=32, width=32, agents=1024, food=0, rocks=0.0)
    state = generate(config, [0])
    state.position[:] = 31, 31
    squares = list(slots(type(state)(*(array[0] for array in state)), 8))
    assert sorted(agent for agent, *_ in squares) == list(range(1024))
    assert all(top >= 0 and left >= 0 and side >= 1 for _, top, left, side in squares)
    assert rgb_array(state, config, cell=8).any()


def test_the_energy_bar_is_as_long_as_the_energy():
    def filled(share):
        state = scene()
        state.energy[0, 1] = share * CONFIG.energy_max
        bar = cell_of(rgb_array(state, CONFIG, cell=48), 0, 3, 48)[4]
        return int((bar.sum(-1) > 200).sum())

    lengths = [filled(share) for share in (0.25, 0.5, 1.0)]
    assert lengths == pytest.approx([46 / 4, 46 / 2, 46], abs=1)
    assert filled(0) == 0


def test_nights_are_darker_and_bluer_than_days_and_fall_slowly():
    bare = {step: cell_of(rgb_array(scene(NIGHTS, step), NIGHTS), 0, 1).mean((0, 1)) for step in (0, 5, 9, 10, 15)}
    assert bare[10].sum() < bare[9].sum() < bare[5].sum() == bare[0].sum()
    assert (bare[15] == bare[0]).all()
    assert bare[10][2] > bare[10][0]
    assert bare[0][2] < bare[0][0]


def test_homes_are_lit_at_night():
    state = scene(NIGHTS, step=10)
    picture = rgb_array(state, NIGHTS)
    assert cell_of(picture, 4, 6).mean() > 1.3 * cell_of(picture, 0, 1).mean()


def test_the_strip_shows_the_time_of_day_only_where_there_are_nights():
    def line(config, step):
        return rgb_array(scene(config, step), config)[6 * 24 : 7 * 24, 2 * 24 : 6 * 24]

    without = replace(NIGHTS, night_length=0)
    assert (line(NIGHTS, 3) != line(without, 3)).any()
    columns = [np.flatnonzero((line(NIGHTS, step) == (255, 200, 60)).all(-1).any(0)).mean() for step in (1, 8)]
    assert columns[0] < columns[1]  # the sun moves on
    assert not (line(NIGHTS, 12) == (255, 200, 60)).all(-1).any()


def test_homes_and_agents_have_the_look_of_their_population():
    picture = rgb_array(scene(RIVALS), RIVALS)
    for population, column in enumerate((7, 0)):
        colours = {
            tuple(pixel) for pixel in picture[: 6 * 24, max(column - 1, 0) * 24 :][:, :48].reshape(-1, 3).tolist()
        }
        assert POPULATIONS[population] in colours
        assert POPULATIONS[1 - population] not in colours
    first, _, third, _ = agent_colours(RIVALS)
    assert np.argmax(first) == 2  # blue
    assert np.argmax(third) == 0  # orange


def test_the_ground_is_greener_where_food_grows():
    config = WorldConfig(height=12, width=12, agents=1, food=0, rocks=0.0, patches=1, patch_radius=1)
    state = generate(config, [0])
    state.patch[:], state.home[:], state.position[:] = (6, 6), (0, 0), (0, 0)
    picture = rgb_array(state, config)
    grass, sand = (cell_of(picture, row, 7).mean((0, 1)) for row in (7, 9))
    assert grass[1] - grass[0] > sand[1] - sand[0]


def test_a_trail_fades():
    state = scene()
    trail = np.repeat(state.position[:1], 3, axis=0)
    trail[:, 1] = [(1, 6), (1, 4), (1, 2)]  # of agent 1, all on the same shade of ground
    without, drawn = rgb_array(state, CONFIG), rgb_array(state, CONFIG, trail=trail)
    marks = [np.abs(cell_of(drawn, 1, x) - cell_of(without, 1, x)).sum() for x in (6, 4, 2)]
    assert 0 < marks[0] < marks[1] < marks[2]


def test_eyes_follow_the_way_an_agent_goes():
    state = scene()
    before = state.position[0].copy()
    before[1] = 0, 2
    gone = rgb_array(state, CONFIG, trail=[before])
    assert (cell_of(gone, 0, 3) != cell_of(rgb_array(state, CONFIG), 0, 3)).any()


def test_bars_of_food_grow_and_are_grey_for_the_dead():
    state = scene()
    state.food_eaten[0] = 3, 9, 0
    strip = rgb_array(state, CONFIG)[7 * 24 :, 24:].astype(int)
    areas = [(strip == agent_colour(agent)).all(-1).sum() for agent in range(3)]
    assert areas[1] > 2 * areas[0] > areas[2] == 0
    state.is_alive[0, 1] = False
    assert not (rgb_array(state, CONFIG)[7 * 24 :, 24:] == agent_colour(1)).all(-1).any()


def test_drawing_changes_nothing_and_is_the_same_each_time():
    state = scene(NIGHTS, step=12)
    before, trail = [array.copy() for array in state], [state.position[0] + 1]
    first = rgb_array(state, NIGHTS, trail=trail)
    ansi(state, NIGHTS, trail=trail)
    assert (rgb_array(state, NIGHTS, trail=trail) == first).all()
    assert all(np.array_equal(a, b) for a, b in zip(before, state, strict=True))
    assert (trail[0] == state.position[0] + 1).all()


@pytest.mark.parametrize(("populations", "apart"), [(1, 50), (2, 15)])
def test_the_colours_of_twenty_agents_are_distinct(populations, apart):
    colours = np.array(agent_colours(WorldConfig(populations=populations)), int)
    assert (np.abs(colours[:, None] - colours).sum(-1) + 999 * np.eye(20, dtype=int)).min() > apart


def test_a_cell_too_small_to_draw_in_is_refused():
    with pytest.raises(ValueError, match="cell = 4: must be at least 8 pixels"):
        rgb_array(scene(), CONFIG, cell=4)
    seen = unpack(observe(CONFIG, scene())[0, 0], CONFIG.view_radius)
    with pytest.raises(ValueError, match="cell = 4: must be at least 8 pixels"):
        view_array(seen, CONFIG, agent=0, cell=4)


def test_a_view_shows_what_the_agent_sees_and_no_more():
    state = scene()
    state.food[0] = False
    state.food[0, 2, 4] = state.food[0, 5, 0] = True
    seen = unpack(observe(CONFIG, state)[0, 1], CONFIG.view_radius)
    picture = view_array(seen, CONFIG, agent=1)
    assert picture.shape == (7 * 24, 7 * 24, 3)
    assert (cell_of(picture, 5, 4) == BERRY).all(-1).any()
    berries = (picture == BERRY).all(-1).sum()
    assert berries == (cell_of(picture, 5, 4) == BERRY).all(-1).sum()


def test_text_counts_and_places_everything():
    state = scene()
    state.step[0], state.food_eaten[0, 1], state.is_alive[0, 2] = 7, 4, False
    lines = plain(ansi(state, CONFIG))
    assert lines[0] == "step 7   alive 2/3   food eaten 4   mean energy 80%"
    assert len(lines) == 7
    assert all(len(line) == 16 for line in lines[1:])
    assert (lines[1][0], lines[1][6], lines[1][12], lines[6][14]) == ("0", "1", "†", "⌂")
    assert "".join(lines[1:]).count("●") == state.food[0].sum()


@pytest.mark.parametrize("name", PRESETS)
def test_text_has_two_letters_for_each_cell(name):
    config = PRESETS[name]
    state = generate(config, [0])
    _, *lines = plain(ansi(state, config, trail=[state.position[0]]))
    assert [len(line) for line in lines] == [2 * config.width] * config.height


def test_text_says_the_time_of_day_and_the_living_of_each_population():
    assert "step 3   day, night in 7   alive 3/3" in ansi(scene(NIGHTS, 3), NIGHTS)
    assert "step 12   night, day in 3   alive 3/3" in ansi(scene(NIGHTS, 12), NIGHTS)
    assert "day" not in ansi(scene(), CONFIG)
    state = scene(RIVALS)
    state.is_alive[0, 3] = False
    assert "alive 2/2 and 1/2" in ansi(state, RIVALS)


def test_text_is_darker_at_night_and_shows_where_agents_came_from():
    papers = [
        np.array(
            [list(map(int, rgb)) for rgb in re.findall(r"48;2;(\d+);(\d+);(\d+)m", ansi(scene(NIGHTS, step), NIGHTS))]
        )
        for step in (3, 12)
    ]
    assert papers[1].mean() < 0.7 * papers[0].mean()
    trail = scene().position[0] + 1
    lines = plain(ansi(scene(), CONFIG, trail=[trail]))
    assert "".join(lines[1:]).count("·") + "".join(lines[1:]).count("●") >= scene().food[0].sum() + 1


def test_a_world_where_all_are_dead_can_be_drawn():
    state = scene()
    state.is_alive[:] = False
    state.energy[:] = 0
    assert "alive 0/3" in ansi(state, CONFIG)
    assert rgb_array(state, CONFIG).any()
