"""A window on a world: play, pause, step, speed, and a click on an agent for its view, energy and memory.

Space plays and pauses; the right arrow or S makes one step; + and - change the speed; Esc or Q closes. There is one
window in a process, for so is pygame's display.
"""

import os
import sys
import time
from collections import deque
from collections.abc import Callable

import numpy as np

from envs.extras import advice
from envs.rendering.render import SMALLEST_CELL, STRIP, rgb_array, slots
from envs.rendering.terminal import one_world
from envs.types import WorldConfig, WorldState

os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")  # or it greets on standard output
try:
    import pygame
except ImportError as error:
    raise ImportError(f"the window needs pygame: {advice('render')} brings it") from error

from envs.rendering import panel, sprites

Details = Callable[[int], list[str]]
"""From an agent to lines of text about its memory."""

_TRAIL, _PATH = 8, 512  # steps shown in the world, and told of in the panel
_SLOWEST, _FASTEST = 0.5, 128.0  # steps a second
_HINT = 28  # pixels of the line with the keys
_PATH_TOLD = 12  # turns of a path in the panel
_FASTER, _SLOWER = (pygame.K_PLUS, pygame.K_EQUALS, pygame.K_KP_PLUS), (pygame.K_MINUS, pygame.K_KP_MINUS)
_UNSEEN = ("offscreen", "dummy")  # drivers of SDL that draw into memory
_SIZED = (pygame.VIDEORESIZE, pygame.WINDOWEXPOSED)


class Window:
    """Shows states as they come. Closed, it shows nothing and stops nobody."""

    def __init__(self, config: WorldConfig, fps: float = 8.0, title: str = "Terrarium") -> None:
        """Open the window, playing at `fps` steps a second. Raises RuntimeError where there is no display."""
        self._config, self._fps = config, fps
        self._state: WorldState | None = None  # of one world
        self._details: Details | None = None
        self._path: deque[np.ndarray] = deque(maxlen=_PATH)  # (N, 2) positions, the present ones last
        self._selected: int | None = None
        self._is_open, self._is_paused, self._may_step = True, False, False
        self._due = 0.0  # when the next state is to be shown, in seconds of the monotonic clock
        _find_display()
        try:
            cell = max(SMALLEST_CELL, min(32, 704 // (config.height + STRIP), 960 // config.width))
            size = config.width * cell + panel.WIDTH, max((config.height + STRIP) * cell + _HINT, 560)
            pygame.display.set_mode(size, pygame.RESIZABLE)
        except pygame.error as error:
            pygame.display.quit()
            raise RuntimeError(f"cannot open a window: {error}") from error
        pygame.font.init()
        pygame.display.set_caption(title)

    @property
    def is_open(self) -> bool:
        """Whether the window is there; False after `close`, or once it was closed by hand."""
        return self._is_open

    @property
    def is_paused(self) -> bool:
        """Whether `show` waits for a key."""
        return self._is_paused

    @property
    def fps(self) -> float:
        """Steps a second while it plays."""
        return self._fps

    @property
    def selected(self) -> int | None:
        """The agent in the panel, or None."""
        return self._selected

    def show(self, state: WorldState, details: Details | None = None, w: int = 0) -> None:
        """Draw world `w` of a state; return when it is time for the next one, and while paused only on a key.

        details: from an agent to lines about its memory; without it the panel tells the way it went. It is
        called before this returns, never later. Does nothing once the window is closed.
        """
        if not self._is_open:
            return
        self._remember(WorldState(*(array[w : w + 1] for array in state)))
        self._details = details
        self._draw()
        self._due = max(self._due + 1 / self._fps, time.monotonic())
        while True:
            self._handle_events()
            if not self._is_open or not self._must_wait():
                break
            time.sleep(0.005)
        self._may_step = False

    def close(self) -> None:
        """Close the window; a second time does nothing."""
        if self._is_open:
            self._is_open = False
            pygame.display.quit()

    def _must_wait(self) -> bool:
        return not self._may_step if self._is_paused else time.monotonic() < self._due

    def _remember(self, state: WorldState) -> None:
        before, self._state = self._state, state
        is_new = before is None or before.seed[0] != state.seed[0] or before.step[0] > state.step[0]
        if is_new:
            self._path.clear()
        elif before is not None and before.step[0] == state.step[0]:
            self._path.pop()  # shown again
        self._path.append(state.position[0].copy())

    def _handle_events(self) -> None:
        has_changed = False
        for event in pygame.event.get():
            if event.type == pygame.QUIT:
                self.close()
            elif event.type == pygame.KEYDOWN:
                self._press(event.key, getattr(event, "unicode", ""))
            elif event.type == pygame.MOUSEBUTTONDOWN and event.button == 1:
                self._click(*event.pos)
            elif event.type not in _SIZED:
                continue
            has_changed = True
            if not self._is_open:
                return
        if has_changed:
            self._draw()

    def _press(self, key: int, letter: str) -> None:
        if key in (pygame.K_ESCAPE, pygame.K_q):
            self.close()
        elif key == pygame.K_SPACE:
            self._is_paused = not self._is_paused
        elif key in (pygame.K_RIGHT, pygame.K_s):
            self._is_paused = self._may_step = True
        elif key in _FASTER or letter == "+":
            self._speed(2.0)
        elif key in _SLOWER or letter == "-":
            self._speed(0.5)

    def _speed(self, factor: float) -> None:
        self._fps = min(max(self._fps * factor, _SLOWEST), _FASTEST)
        self._due = min(self._due, time.monotonic() + 1 / self._fps)

    def _click(self, x: int, y: int) -> None:
        # Select the agent drawn there, the dead where none is; nobody on bare ground. Beside the world: no change.
        assert self._state is not None  # events are handled in `show` only
        cell, left, top = self._layout()
        row, column = (y - top) // cell, (x - left) // cell
        if not (0 <= row < self._config.height and 0 <= column < self._config.width):
            return
        scale = SMALLEST_CELL / cell if cell < SMALLEST_CELL else 1.0
        down, across = (y - top) * scale, (x - left) * scale
        hit = [
            agent
            for agent, upper, before, side in slots(one_world(self._state, 0), max(cell, SMALLEST_CELL))
            if upper <= down < upper + side and before <= across < before + side
        ]
        is_here = (self._state.position[0] == (row, column)).all(-1)
        dead = np.flatnonzero(is_here & ~self._state.is_alive[0]).tolist()
        self._selected = next(iter(hit + dead), None)

    def _surface(self) -> pygame.Surface:
        surface = pygame.display.get_surface()
        assert surface is not None  # while the window is open
        return surface

    def _layout(self) -> tuple[int, int, int]:
        # -> pixels along a cell, as many as there is room for, and left and top of the world
        width, height = self._surface().get_size()
        room, rows = (width - panel.WIDTH, height - _HINT), self._config.height + STRIP
        cell = max(1, min(room[0] // self._config.width, room[1] // rows))
        return cell, max(0, (room[0] - cell * self._config.width) // 2), max(0, (room[1] - cell * rows) // 2)

    def _draw(self) -> None:
        if self._state is None:
            return
        surface = self._surface()
        surface.fill(sprites.INK)
        self._draw_world(surface)
        self._draw_panel(surface)
        self._draw_hint(surface)
        pygame.display.flip()

    def _draw_world(self, surface: pygame.Surface) -> None:
        assert self._state is not None
        cell, left, top = self._layout()
        drawn = max(cell, SMALLEST_CELL)
        trail = list(self._path)[-1 - _TRAIL : -1]
        picture = panel.surface_of(rgb_array(self._state, self._config, cell=drawn, trail=trail))
        if self._selected is not None:
            self._mark(picture, self._selected, drawn)
        if drawn > cell:  # a world too large for the window
            size = cell * self._config.width, cell * (self._config.height + STRIP)
            picture = pygame.transform.smoothscale(picture, size)
        surface.blit(picture, (left, top))

    def _mark(self, picture: pygame.Surface, agent: int, cell: int) -> None:
        # A ring around the selected agent, and the square that it sees
        assert self._state is not None
        row, column = self._state.position[0, agent].tolist()
        radius, line = self._config.view_radius, max(2, cell // 12)
        land = pygame.Rect(0, 0, self._config.width * cell, self._config.height * cell)
        side = (2 * radius + 1) * cell
        seen = pygame.Rect((column - radius) * cell, (row - radius) * cell, side, side)
        places = {number: (x, y, size) for number, y, x, size in slots(one_world(self._state, 0), cell)}
        x, y, size = places.get(agent, (column * cell, row * cell, cell))
        pygame.draw.rect(picture, sprites.WHITE, seen.clip(land), 1)
        pygame.draw.rect(picture, sprites.WHITE, pygame.Rect(x, y, size, size).inflate(4, 4), line, 4)

    def _draw_panel(self, surface: pygame.Surface) -> None:
        assert self._state is not None
        width, height = surface.get_size()
        side = pygame.Surface((min(panel.WIDTH, width), max(height - _HINT, 1)))
        side.fill(panel.PAPER)
        if self._selected is None:
            panel.draw_legend(side, self._config)
        else:
            panel.draw_agent(side, self._state, self._config, self._selected, self._memory(self._selected))
        surface.blit(side, (width - side.get_width(), 0))

    def _memory(self, agent: int) -> list[str]:
        if self._details is not None:
            return self._details(agent)
        turns = panel.walk(np.stack(self._path)[:, agent])
        told = ", ".join(turns[-_PATH_TOLD:]) or "nowhere yet"
        return [f"went {'... ' if len(turns) > _PATH_TOLD else ''}{told}"]

    def _draw_hint(self, surface: pygame.Surface) -> None:
        width, height = surface.get_size()
        now = "paused" if self._is_paused else f"{self._fps:g} steps a second"
        verb = "play" if self._is_paused else "pause"
        keys = f"{now}  |  space: {verb}  |  right arrow: one step  |  + -: speed  |  Esc: close"
        panel.Pen(surface, 10, height - _HINT + 8, 10 * width).write(keys, sprites.STONE)


def _find_display() -> None:
    # Without a display SDL would draw into memory, for ever; that is for who asks for it by SDL_VIDEODRIVER
    is_asked = bool(os.environ.get("SDL_VIDEODRIVER"))
    if sys.platform == "linux" and not (is_asked or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise RuntimeError("cannot open a window: there is no display (DISPLAY and WAYLAND_DISPLAY are not set)")
    try:
        pygame.display.init()
    except pygame.error as error:
        raise RuntimeError(f"cannot open a window: {error}") from error
    if not is_asked and pygame.display.get_driver() in _UNSEEN:
        pygame.display.quit()
        raise RuntimeError("cannot open a window: there is no display that can be reached")
