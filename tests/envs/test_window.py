"""The window does what its keys say. Without a display: SDL draws into memory."""

import subprocess
import sys
import threading
import time

import numpy as np
import pytest

pygame = pytest.importorskip("pygame")

from envs.generator import generate  # noqa: E402
from envs.rendering.panel import walk, wrapped  # noqa: E402
from envs.rendering.render import STRIP  # noqa: E402
from envs.rendering.window import Window  # noqa: E402
from envs.types import WorldConfig  # noqa: E402

CONFIG = WorldConfig(height=6, width=8, agents=3, food=5, rocks=0.0)
FAST = 128.0


@pytest.fixture(autouse=True)
def _no_display(monkeypatch):
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")


@pytest.fixture
def window():
    window = Window(CONFIG, fps=FAST)
    yield window
    window.close()


def scene(step=0, seed=0):
    """Return a small world with its agents at known places."""
    state = generate(CONFIG, [seed])
    state.step[:] = step
    state.position[:] = [(0, 0), (0, 3), (4, 6)]
    state.home[:] = 5, 0
    return state


def press(key, letter=""):
    pygame.event.post(pygame.event.Event(pygame.KEYDOWN, key=key, unicode=letter, mod=0))


def click(row, column):
    """Click the middle of a cell, worked out from the size of the window."""
    width, height = pygame.display.get_surface().get_size()
    cell = min((width - 272) // CONFIG.width, (height - 28) // (CONFIG.height + STRIP))
    left = (width - 272 - cell * CONFIG.width) // 2
    top = (height - 28 - cell * (CONFIG.height + STRIP)) // 2
    place = left + column * cell + cell // 2, top + row * cell + cell * 2 // 3
    pygame.event.post(pygame.event.Event(pygame.MOUSEBUTTONDOWN, button=1, pos=place))


def later(seconds, act, *arguments):
    timer = threading.Timer(seconds, act, arguments)
    timer.start()
    return timer


def pixels():
    return pygame.surfarray.array3d(pygame.display.get_surface()).copy()


def seconds(act, *arguments):
    begun = time.perf_counter()
    act(*arguments)
    return time.perf_counter() - begun


def test_it_plays_at_its_speed(window):
    press(pygame.K_MINUS)
    press(pygame.K_MINUS)
    press(pygame.K_MINUS)
    window.show(scene())
    assert window.fps == FAST / 8
    assert seconds(lambda: [window.show(scene(step)) for step in range(1, 6)]) > 4 / window.fps


def test_speed_has_limits(window):
    for _ in range(20):
        press(0, "+")
    window.show(scene())
    assert window.fps == 128
    window.show(scene(1))
    for _ in range(20):
        press(pygame.K_MINUS)
    press(pygame.K_s)  # or this frame would be shown for two seconds
    window.show(scene(2))
    assert window.fps == 0.5


def test_paused_it_waits_for_a_step_and_stays_paused(window):
    press(pygame.K_SPACE)
    later(0.2, press, pygame.K_RIGHT)
    assert seconds(window.show, scene()) > 0.15
    assert window.is_paused
    later(0.2, press, pygame.K_s)
    assert seconds(window.show, scene(1)) > 0.15
    later(0.2, press, pygame.K_SPACE)
    assert seconds(window.show, scene(2)) > 0.15
    assert not window.is_paused


def test_a_step_while_it_plays_pauses(window):
    press(pygame.K_RIGHT)
    window.show(scene())
    assert window.is_paused


@pytest.mark.parametrize("key", [pygame.K_ESCAPE, pygame.K_q, None])
def test_closed_by_hand_it_shows_nothing_and_stops_nobody(window, key):
    if key is None:
        pygame.event.post(pygame.event.Event(pygame.QUIT))
    else:
        press(key)
    window.show(scene())
    assert not window.is_open
    assert seconds(window.show, scene(1)) < 0.1
    window.close()


def test_closing_ends_a_pause(window):
    press(pygame.K_SPACE)
    later(0.1, press, pygame.K_ESCAPE)
    window.show(scene())
    assert not window.is_open


@pytest.mark.parametrize(("place", "agent"), [((0, 3), 1), ((4, 6), 2), ((0, 0), 0), ((2, 2), None)])
def test_a_click_selects_the_agent_that_is_there(window, place, agent):
    click(*place)
    window.show(scene())
    assert window.selected == agent


def test_a_click_beside_the_world_changes_nothing(window):
    click(0, 3)
    pygame.event.post(pygame.event.Event(pygame.MOUSEBUTTONDOWN, button=1, pos=(pixels().shape[0] - 5, 5)))
    window.show(scene())
    assert window.selected == 1


def test_those_who_share_a_cell_can_be_told_apart_and_the_dead_be_asked(window):
    state = scene()
    state.position[0] = 2, 2
    state.is_alive[0, 2] = False
    state.position[0, 2] = 4, 4
    found = set()
    for across in (-0.2, 0.2):
        click(2, 2 + across)
        window.show(state)
        found.add(window.selected)
    assert found == {0, 1}
    click(4, 4)
    window.show(state)
    assert window.selected == 2


def test_a_click_hits_in_a_window_of_another_size(window):
    for size in ((1200, 900), (400, 300), (300, 90)):  # the last is too small for cells of 8 pixels
        pygame.display.set_mode(size, pygame.RESIZABLE)
        click(4, 6)
        window.show(scene())
        assert window.selected == 2, size


def test_the_panel_tells_of_the_agent_and_of_its_memory(window):
    asked = []
    window.show(scene())
    legend = pixels()
    click(0, 3)
    window.show(scene(), lambda agent: asked.append(agent) or ["I saw food in the east."])
    assert set(asked) == {1}
    told = pixels()
    assert (told[-200:] != legend[-200:]).any()
    window.show(scene(), lambda agent: ["Something else."])
    assert (pixels() != told).any()


def test_trails_grow_and_begin_anew_with_an_episode(window):
    window.show(scene())
    moved = scene(1)
    moved.position[0, 1] = 1, 3
    window.show(moved)
    with_trail = pixels()
    window.close()
    other = Window(CONFIG, fps=FAST)
    other.show(moved)
    without = pixels()
    assert (with_trail != without).any()
    other.show(scene(1, seed=5))
    other.show(moved)  # of another seed: a new episode
    assert (pixels() == without).all()
    other.close()


def test_showing_changes_nothing_and_shows_the_world_asked_for(window):
    state = generate(CONFIG, [0, 1])
    before = [array.copy() for array in state]
    window.show(state, w=1)
    second = pixels()
    assert all(np.array_equal(a, b) for a, b in zip(before, state, strict=True))
    window.show(generate(CONFIG, [1]))
    assert (pixels() == second).all()


def test_a_way_is_told_in_words_from_birth_on():
    path = np.array([(0, 0), (9, 9), (8, 9), (7, 9), (7, 10), (7, 10)])
    assert walk(path) == ["2 north", "1 east", "1 stay"]
    assert walk(path[:1]) == []


def test_text_is_broken_between_words():
    pygame.font.init()
    font = pygame.font.Font(None, 20)
    lines = wrapped("many words that do not fit in one line", font, 100)
    assert " ".join(lines) == "many words that do not fit in one line"
    assert len(lines) > 1
    assert all(font.size(line)[0] <= 100 for line in lines)


def test_without_pygame_it_says_how_to_get_it():
    code = "import sys; sys.modules['pygame'] = None; import envs.rendering.window"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "the window needs pygame: `pip install -e '.[render]'` brings it" in run.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there always is a display")
@pytest.mark.parametrize("display", ["", ":77"], ids=["none", "one that nobody serves"])
def test_without_a_display_no_window_waits_unseen(monkeypatch, display):
    for name in ("SDL_VIDEODRIVER", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DISPLAY", display)
    with pytest.raises(RuntimeError, match="cannot open a window: there is no display"):
        Window(CONFIG)
