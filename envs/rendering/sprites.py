"""What things look like: rock, berry, house, forager, grave, sun and moon as small square pictures, with NumPy.

A sprite spans -1 to 1 in both directions, x to the right and y down. Shapes are signed distances whose edge is
blended over one pixel, so they are smooth at any size. Sprites are remembered: a frame only stamps them.
Colours are (red, green, blue), 0 to 255.
"""

import colorsys
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from envs.types import WorldConfig, population_of

Colour = tuple[float, float, float]

GRASS, GRASS_DARK, BLADE = (211, 221, 170), (203, 214, 160), (150, 178, 108)
SAND, SAND_DARK = (236, 224, 194), (230, 217, 184)
ROCK, ROCK_LIGHT, ROCK_SHADE = (124, 121, 128), (150, 148, 155), (86, 82, 92)
BERRY, BERRY_SHINE, LEAF = (204, 30, 66), (255, 196, 206), (52, 116, 58)
WALL, ROOF, DOOR, WINDOW, LAMP = (250, 243, 228), (150, 74, 56), (104, 70, 50), (126, 150, 170), (255, 214, 92)
STONE, SUN, MOON = (226, 224, 230), (255, 200, 60), (236, 236, 214)
SKY, NIGHT_SKY = (126, 186, 226), (82, 84, 156)
INK, WHITE = (44, 40, 48), (255, 255, 255)
ENERGY_LOW, ENERGY_HALF, ENERGY_FULL = (216, 48, 40), (238, 180, 40), (60, 172, 74)
POPULATIONS: tuple[Colour, ...] = ((40, 104, 200), (226, 112, 20), (30, 144, 110), (150, 62, 190))

_GOLDEN = 0.618033988749895  # multiples of it, modulo 1, are never close to an earlier one for long
_FAMILY_HUES, _FAMILY_WIDTH = (0.60, 0.075, 0.43, 0.79), 0.15
_FONT = ("75557", "26222", "71747", "71717", "55711", "74717", "74757", "71122", "75757", "75717", "11244")  # 0 to 9, /


class Sprite(NamedTuple):
    """A picture with transparency, side by side pixels."""

    paint: np.ndarray  # (side, side, 3) float32, colours times cover
    cover: np.ndarray  # (side, side, 1) float32, 0 where one sees through it, 1 where not


def agent_colour(index: int, population: int | None = None) -> Colour:
    """Return the colour of an agent, whole numbers 0 to 255, far from its neighbours'.

    population: keeps the hue within the family of that population (0 to 3); None uses all hues.
    """
    hue = (0.58 + index * _GOLDEN) % 1.0
    if population is not None:
        hue = (_FAMILY_HUES[population] + _FAMILY_WIDTH * (index * _GOLDEN % 1.0 - 0.5)) % 1.0
    lightness = (0.50, 0.38, 0.64)[index % 3]
    red, green, blue = colorsys.hls_to_rgb(hue, lightness, 0.75)
    return round(red * 255), round(green * 255), round(blue * 255)


@lru_cache(maxsize=16)
def agent_colours(config: WorldConfig) -> list[Colour]:
    """Return the N colours of the agents: all hues for one population, a family of hues for each of several."""
    if config.populations == 1:
        return [agent_colour(index) for index in range(config.agents)]
    population = population_of(config).tolist()
    return [agent_colour(i - population.index(p), p) for i, p in enumerate(population)]


def home_colour(config: WorldConfig, population: int) -> Colour:
    """Return the colour of a home's roof, which also stands for the population."""
    return POPULATIONS[population] if config.populations > 1 else ROOF


def energy_colour(share: float) -> Colour:
    """Return the colour of an energy bar that is filled to `share`, 0 to 1: red, amber, green."""
    (low, high), part = (
        ((ENERGY_LOW, ENERGY_HALF), 2 * share)
        if share < 0.5
        else (
            (ENERGY_HALF, ENERGY_FULL),
            2 * share - 1,
        )
    )
    red, green, blue = (a + (b - a) * part for a, b in zip(low, high, strict=True))
    return red, green, blue


def stamp(image: np.ndarray, sprite: Sprite, top: int, left: int, opacity: float = 1.0) -> None:
    """Draw a sprite into an image (height, width, 3) float32; what is outside is cut off."""
    rows, columns = sprite.cover.shape[:2]
    up, before = max(-top, 0), max(-left, 0)
    area = image[top + up : max(top + rows, 0), left + before : max(left + columns, 0)]
    part = slice(up, up + area.shape[0]), slice(before, before + area.shape[1])
    area += opacity * (sprite.paint[part] - sprite.cover[part] * area)


@lru_cache(maxsize=256)
def rock(side: int, north: bool, south: bool, east: bool, west: bool) -> Sprite:
    """Return a boulder that runs into those next to it on the sides named."""
    top, bottom, right, left = (2.0 if joined else 0.95 for joined in (north, south, east, west))
    shelf = 2.0 if south else 0.66
    return _sprite(
        side,
        (_box(side, -left, -top, right, bottom, corner=0.42), ROCK_SHADE),
        (_box(side, -left, -top, right, shelf, corner=0.42), ROCK),
        (_box(side, -0.66, -0.70, 0.10, -0.16, corner=0.27), ROCK_LIGHT),
        (_box(side, 0.20, 0.05, 0.64, 0.34, corner=0.14), ROCK_LIGHT),
    )


@lru_cache(maxsize=16)
def berry(side: int) -> Sprite:
    """Return a food item."""
    return _sprite(
        side,
        (_disc(side, 0.0, 0.14, 0.62), INK),
        (_disc(side, 0.0, 0.14, 0.53), BERRY),
        (_disc(side, -0.18, -0.04, 0.14), BERRY_SHINE),
        (_box(side, -0.06, -0.70, 0.42, -0.40, corner=0.14), LEAF),
    )


@lru_cache(maxsize=16)
def tuft(side: int) -> Sprite:
    """Return three blades of grass."""
    blades = (_box(side, x - 0.05, top, x + 0.05, 0.3) for x, top in ((-0.2, -0.05), (0.0, -0.25), (0.2, 0.0)))
    return _sprite(side, *((blade, BLADE) for blade in blades))


@lru_cache(maxsize=32)
def house(side: int, roof: Colour, is_lit: bool) -> Sprite:
    """Return a home; with lamps on behind its windows if `is_lit`."""
    glass = LAMP if is_lit else WINDOW
    return _sprite(
        side,
        (_box(side, -0.74, -0.22, 0.74, 0.98), INK),
        (_box(side, -0.66, -0.22, 0.66, 0.90), WALL),
        (_box(side, 0.38, -0.92, 0.62, -0.30), INK),
        (_gable(side, -0.02, 1.02), INK),
        (_gable(side, -0.10, 0.88), roof),
        (_box(side, -0.19, 0.28, 0.19, 0.90), DOOR),
        (_box(side, -0.54, 0.10, -0.27, 0.46), glass),
        (_box(side, 0.27, 0.10, 0.54, 0.46), glass),
    )


@lru_cache(maxsize=256)
def grave(side: int, colour: Colour) -> Sprite:
    """Return the headstone of an agent, with a band of its colour."""
    return _sprite(
        side,
        (np.maximum(_disc(side, 0, -0.14, 0.58), _box(side, -0.58, -0.14, 0.58, 0.80)), INK),
        (np.maximum(_disc(side, 0, -0.14, 0.46), _box(side, -0.46, -0.14, 0.46, 0.72)), STONE),
        (_box(side, -0.08, -0.46, 0.08, 0.26), INK),
        (_box(side, -0.26, -0.24, 0.26, -0.06), INK),
        (_box(side, -0.46, 0.44, 0.46, 0.72), colour),
    )


@lru_cache(maxsize=1024)
def forager(side: int, colour: Colour, kind: int, look: tuple[int, int] = (0, 0)) -> Sprite:
    """Return an agent: `kind` 0 to 3 is the shape of its body, `look` the (row, column) step its eyes follow."""
    y, x = 0.24 * look[0] - 0.16, 0.24 * look[1]
    if side < 4:
        return _sprite(side, (_body(side, kind, 1.0), colour))
    layers = [(_body(side, kind, 0.97), INK), (_body(side, kind, 0.97 - max(0.14, 1.5 / side)), colour)]
    for eye in (x - 0.36, x + 0.36) if side >= 7 else ():
        layers.append((_disc(side, eye, y, 0.27), WHITE))
        layers.append((_disc(side, eye + 0.11 * look[1], y + 0.08 + 0.08 * look[0], 0.15), INK))
    return _sprite(side, *layers)


@lru_cache(maxsize=256)
def dot(side: int, colour: Colour, radius: float) -> Sprite:
    """Return a footprint."""
    return _sprite(side, (_disc(side, 0, 0, radius), colour))


@lru_cache(maxsize=16)
def sun(side: int) -> Sprite:
    """Return the sign for day."""
    x, y = _points(side)
    rays = np.clip(np.cos(8 * np.arctan2(y, x)) * 2 + 0.5, 0, 1) * _disc(side, 0, 0, 0.98)
    return _sprite(side, (rays, SUN), (_disc(side, 0, 0, 0.68), SUN))


@lru_cache(maxsize=16)
def moon(side: int) -> Sprite:
    """Return the sign for night: a crescent."""
    crescent = _disc(side, 0, 0, 0.84) * (1 - _disc(side, 0.44, -0.22, 0.72))
    return _sprite(side, (crescent, MOON))


def digits(text: str, scale: int) -> np.ndarray:
    """Return (5 * scale, (4 * len - 1) * scale) bool: where ink goes to write digits and slashes."""
    rows = np.array([[int(line) for line in _FONT["0123456789/".index(letter)]] for letter in text])  # (letters, 5)
    is_ink = (rows.T[..., None] >> np.array([2, 1, 0, 3])) & 1  # (5, letters, 4), the last column empty
    return np.kron(is_ink.reshape(5, -1)[:, :-1], np.ones((scale, scale), int)).astype(bool)


def _sprite(side: int, *layers: tuple[np.ndarray, Colour]) -> Sprite:
    # The lowest layer first; each is (side, side) cover and a colour
    paint, cover = np.zeros((side, side, 3)), np.zeros((side, side, 1))
    for shape, colour in layers:
        over = shape[..., None]
        paint = paint * (1 - over) + over * np.array(colour)
        cover = cover * (1 - over) + over
    return Sprite(paint.astype(np.float32), cover.astype(np.float32))


def _points(side: int) -> tuple[np.ndarray, np.ndarray]:
    # Pixel centres, x (1, side) and y (side, 1)
    line = (np.arange(side) + 0.5) / side * 2 - 1
    return line[None, :], line[:, None]


def _disc(side: int, x: float, y: float, radius: float) -> np.ndarray:
    # -> (side, side) share of each pixel that is covered
    px, py = _points(side)
    return np.clip((radius - np.hypot(px - x, py - y)) * side / 2 + 0.5, 0, 1)


def _box(side: int, left: float, top: float, right: float, bottom: float, corner: float = 0.0) -> np.ndarray:
    # -> (side, side) share of each pixel that is covered; `corner` is the radius of the corners
    px, py = _points(side)
    dx = np.abs(px - (left + right) / 2) - (right - left) / 2 + corner
    dy = np.abs(py - (top + bottom) / 2) - (bottom - top) / 2 + corner
    outside = np.hypot(np.maximum(dx, 0), np.maximum(dy, 0)) + np.minimum(np.maximum(dx, dy), 0) - corner
    return np.clip(0.5 - outside * side / 2, 0, 1)


def _gable(side: int, base: float, reach: float) -> np.ndarray:
    # -> (side, side): a triangle of 45 degrees that stands on y = base, `reach` to each side
    x, y = _points(side)
    slope = np.clip((reach - (base - y) - np.abs(x)) * side / 2.8 + 0.5, 0, 1)
    return slope * np.clip((base - y) * side / 2 + 0.5, 0, 1)


def _body(side: int, kind: int, size: float) -> np.ndarray:
    # -> (side, side): disc, block, egg standing on its broad end, lozenge
    if kind == 0:
        return _disc(side, 0, 0, size)
    if kind == 1:
        return _box(side, -size * 0.92, -size * 0.92, size * 0.92, size * 0.92, corner=0.26)
    if kind == 2:
        return np.maximum(_disc(side, 0, 0, size), _box(side, -size, 0, size, size, corner=0.2))
    x, y = _points(side)
    return np.clip(
        (size * 1.22 - np.hypot(np.abs(x) + 0.2, np.abs(y) + 0.2) * 0.3 - (np.abs(x) + np.abs(y)) * 0.78) * side / 2.4
        + 0.5,
        0,
        1,
    )
