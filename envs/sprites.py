"""What things look like: rock, berry, house and forager, drawn into square tiles of pixels with NumPy.

A tile spans -1 to 1 in both directions, x to the right and y down. Shapes are signed distances whose edge is
blended over one pixel, so they are smooth at any tile size. `tiles` is always (H, B, cell, cell, 3) float,
colours 0 to 255, and is drawn into; `where` selects tiles, as a (H, B) bool or as one (row, column).
"""

import colorsys

import numpy as np

Colour = tuple[float, float, float]

GROUND, GROUND_DARK = (232, 222, 196), (226, 215, 187)
ROCK, ROCK_LIGHT, ROCK_SHADE = (118, 116, 122), (146, 144, 150), (88, 84, 92)
BERRY, BERRY_SHINE, LEAF = (200, 38, 70), (255, 190, 200), (74, 140, 70)
WALL, ROOF, DOOR = (250, 244, 232), (176, 74, 52), (110, 74, 50)
INK, WHITE = (44, 40, 48), (255, 255, 255)
ENERGY_LOW, ENERGY_FULL = (220, 70, 50), (70, 170, 80)


def agent_colour(index: int) -> Colour:
    """Return the (red, green, blue) of an agent, whole numbers 0 to 255, far from its neighbours' in hue."""
    hue = (0.58 + index * 0.618033988749895) % 1.0  # golden ratio: never close to an earlier hue for long
    lightness = (0.50, 0.38, 0.64)[index % 3]
    red, green, blue = colorsys.hls_to_rgb(hue, lightness, 0.75)
    return round(red * 255), round(green * 255), round(blue * 255)


def draw_ground(tiles: np.ndarray) -> None:
    """Cover all tiles with a faint chequerboard, on which distances can be counted."""
    rows, columns = tiles.shape[:2]
    is_light = (np.arange(rows)[:, None] + np.arange(columns)) % 2 == 0
    tiles[:] = np.where(is_light[..., None, None, None], GROUND, GROUND_DARK)


def draw_rock(tiles: np.ndarray, where: np.ndarray) -> None:
    """Draw a boulder with a light top."""
    cell = tiles.shape[2]
    _blend(tiles, where, _box(cell, -0.94, -0.90, 0.94, 0.96, corner=0.35), ROCK_SHADE)
    _blend(tiles, where, _box(cell, -0.94, -0.96, 0.94, 0.82, corner=0.35), ROCK)
    _blend(tiles, where, _box(cell, -0.70, -0.76, 0.30, 0.05, corner=0.30), ROCK_LIGHT)


def draw_berry(tiles: np.ndarray, where: np.ndarray | tuple) -> None:
    """Draw a food item."""
    cell = tiles.shape[2]
    _blend(tiles, where, _disc(cell, 0.0, 0.12, 0.46), BERRY)
    _blend(tiles, where, _disc(cell, -0.15, -0.04, 0.12), BERRY_SHINE)
    _blend(tiles, where, _box(cell, -0.05, -0.56, 0.34, -0.32, corner=0.11), LEAF)


def draw_house(tiles: np.ndarray, where: tuple) -> None:
    """Draw the home."""
    cell = tiles.shape[2]
    x, y = _points(cell)
    roof = np.clip((y + 0.92 - np.abs(x) * 0.95) * cell / 2.8 + 0.5, 0, 1) * (y < -0.02)
    _blend(tiles, where, _box(cell, -0.68, -0.15, 0.68, 0.88), WALL)
    _blend(tiles, where, _box(cell, -0.20, 0.22, 0.20, 0.88), DOOR)
    _blend(tiles, where, roof, ROOF)


def draw_forager(
    tiles: np.ndarray, where: tuple, centre: tuple[float, float], size: float, colour: Colour, energy: float
) -> None:
    """Draw an agent of radius `size` at `centre` (x, y) of a tile, its energy, 0 to 1, as a bar above it."""
    cell = tiles.shape[2]
    x, y = centre
    _blend(tiles, where, _disc(cell, x, y, size + 0.10), INK)
    _blend(tiles, where, _disc(cell, x, y, size), colour)
    for eye in (x - size * 0.38, x + size * 0.38):
        _blend(tiles, where, _disc(cell, eye, y - size * 0.18, size * 0.26), WHITE)
        _blend(tiles, where, _disc(cell, eye, y - size * 0.12, size * 0.13), INK)
    left, right, top = x - size, x + size, y - size - 0.28
    _blend(tiles, where, _box(cell, left, top, right, top + 0.20), INK)
    level = min(1.0, 2 * energy)
    bar = np.array(ENERGY_LOW) * (1 - level) + np.array(ENERGY_FULL) * level
    _blend(tiles, where, _box(cell, left, top, left + (right - left) * energy, top + 0.20), bar)


def _points(cell: int) -> tuple[np.ndarray, np.ndarray]:
    # Pixel centres, x (1, cell) and y (cell, 1)
    line = (np.arange(cell) + 0.5) / cell * 2 - 1
    return line[None, :], line[:, None]


def _disc(cell: int, x: float, y: float, radius: float) -> np.ndarray:
    # -> (cell, cell) share of each pixel that is covered
    px, py = _points(cell)
    return np.clip((radius - np.hypot(px - x, py - y)) * cell / 2 + 0.5, 0, 1)


def _box(cell: int, left: float, top: float, right: float, bottom: float, corner: float = 0.0) -> np.ndarray:
    # -> (cell, cell) share of each pixel that is covered; `corner` is the radius of the corners
    px, py = _points(cell)
    dx = np.abs(px - (left + right) / 2) - (right - left) / 2 + corner
    dy = np.abs(py - (top + bottom) / 2) - (bottom - top) / 2 + corner
    outside = np.hypot(np.maximum(dx, 0), np.maximum(dy, 0)) + np.minimum(np.maximum(dx, dy), 0) - corner
    return np.clip(0.5 - outside * cell / 2, 0, 1)


def _blend(tiles: np.ndarray, where: np.ndarray | tuple, cover: np.ndarray, colour: Colour | np.ndarray) -> None:
    tiles[where] += cover[..., None] * (np.asarray(colour) - tiles[where])
