"""Pictures of a world: coloured text for a terminal, pixels for a film. NumPy only.

Ground is green where food grows and sand where it does not. Roofs have the colour of a population, the bodies of
agents its shape. At night the land is dark and the windows of the homes are lit.
"""

from collections.abc import Iterator

import numpy as np

from envs.observe import Observation
from envs.rendering import sprites
from envs.rendering.strip import STRIP, draw_strip
from envs.rendering.terminal import NIGHT_TINT, Trail, ansi, chequered, is_fertile, one_world
from envs.types import WorldConfig, WorldState, is_night, phase_left, population_of

__all__ = ["SMALLEST_CELL", "STRIP", "Trail", "ansi", "rgb_array", "slots", "view_array"]

SMALLEST_CELL = 8
"""Pixels along a side of a cell, the least that can be drawn in."""

_LAMPLIGHT = np.array([1.0, 0.86, 0.60], np.float32)
_GLOW = 4  # cells that lamplight reaches in each direction
_DUSK = 4  # steps before nightfall in which it grows dim
_MOURNING = 12  # steps in which a headstone fades
_REST = 0.55  # opacity that is left of it then
_SPILL, _GATHERING = 1.3, 1.9  # cells in each direction that a crowd takes up, in any one cell and in a home's


def rgb_array(
    state: WorldState, config: WorldConfig, w: int = 0, cell: int = 24, trail: Trail | None = None
) -> np.ndarray:
    """Return world `w` as pixels, ((H + STRIP) * cell, B * cell, 3) uint8.

    cell: pixels along a side of a cell, 8 or more. trail: earlier positions (T, N, 2), the oldest first, shown as
    dots that fade. The strip below has steps, time of day and the living, then a bar per agent: the food it has
    eaten, by population, grey for the dead. Raises ValueError where `cell` is too small.
    """
    if cell < SMALLEST_CELL:
        raise ValueError(f"cell = {cell}: must be at least {SMALLEST_CELL} pixels")
    world = one_world(state, w)
    height, width = world.rock.shape
    image = np.empty(((height + STRIP) * cell, width * cell, 3), np.float32)
    land = image[: height * cell]
    _draw_land(land, config, world, cell)
    dark = _darkness(config, world)
    _darken(land, world, cell, dark)
    if trail is not None:
        _draw_trail(land, config, world, cell, trail)
    _draw_food(land, world, cell, 1 - dark * (1 - NIGHT_TINT) / 2)  # brighter than the land, or berries were black
    _draw_homes(land, config, world, cell)
    _draw_graves(land, config, world, cell)
    _draw_foragers(land, config, world, cell, trail)
    draw_strip(image[height * cell :], config, world, cell)
    return image.round().astype(np.uint8)


def view_array(seen: Observation, config: WorldConfig, agent: int, cell: int = 24) -> np.ndarray:
    """Return what an agent sees, (V * cell, V * cell, 3) uint8. It cannot tell others apart, only kin from rivals.

    seen: its unpacked observation, planes (V, V). Raises ValueError where `cell` is too small.
    """
    if cell < SMALLEST_CELL:
        raise ValueError(f"cell = {cell}: must be at least {SMALLEST_CELL} pixels")
    population, side = int(population_of(config)[agent]), len(seen.rock)
    image = _spread(chequered(np.ones((side, side), bool)), cell)
    _draw_rocks(image, seen.rock, cell)
    image *= NIGHT_TINT if seen.is_night else 1
    small = cell * 3 // 4
    low, middle = cell - small, side // 2 * cell + (cell - small) // 2  # others leave in sight what else is there
    kin = sprites.POPULATIONS[population] if config.populations > 1 else sprites.STONE
    home = sprites.house(cell, sprites.home_colour(config, population), bool(seen.is_night))
    _stamp_all(image, seen.home, home, cell)
    _stamp_all(image, seen.food, sprites.berry(cell), cell)
    _stamp_all(image, seen.rivals, sprites.forager(small, sprites.INK, (population + 1) % 4), cell, (low, 0))
    _stamp_all(image, seen.kin, sprites.forager(small, kin, population), cell, (low, low))
    sprites.stamp(image, sprites.forager(small, sprites.agent_colours(config)[agent], population), middle, middle)
    return image.round().astype(np.uint8)


def _stamp_all(
    image: np.ndarray, where: np.ndarray, sprite: sprites.Sprite, cell: int, inset: tuple[int, int] = (0, 0)
) -> None:
    # Into all cells where (H, B) is true, `inset` pixels (down, right) from their corner
    for row, column in np.argwhere(where).tolist():
        sprites.stamp(image, sprite, row * cell + inset[0], column * cell + inset[1])


def _spread(colours: np.ndarray, cell: int) -> np.ndarray:
    # (H, B, 3) -> (H * cell, B * cell, 3)
    return colours.repeat(cell, axis=0).repeat(cell, axis=1)


def _draw_land(land: np.ndarray, config: WorldConfig, world: WorldState, cell: int) -> None:
    land[:] = _spread(chequered(is_fertile(config, world)), cell)
    rows, columns = np.indices(world.rock.shape)
    has_tuft = ~world.rock & ((rows * 7 + columns * 11 + rows * columns) % 6 == 0)
    if config.patches:
        has_tuft &= is_fertile(config, world)
    _stamp_all(land, has_tuft, sprites.tuft(cell), cell)
    _draw_rocks(land, world.rock, cell)


def _draw_food(land: np.ndarray, world: WorldState, cell: int, light: np.ndarray) -> None:
    paint, cover = sprites.berry(cell)
    _stamp_all(land, world.food, sprites.Sprite(paint * light, cover), cell)


def _draw_rocks(land: np.ndarray, rock: np.ndarray, cell: int) -> None:
    rim = np.pad(rock, 1)
    joins = np.stack([rim[:-2, 1:-1], rim[2:, 1:-1], rim[1:-1, 2:], rim[1:-1, :-2]], axis=-1)  # north south east west
    for row, column in np.argwhere(rock).tolist():
        sprites.stamp(land, sprites.rock(cell, *joins[row, column].tolist()), row * cell, column * cell)


def _darkness(config: WorldConfig, world: WorldState) -> float:
    # 0 by day, 1 at night, which falls over the last steps of the day
    if not config.night_length:
        return 0.0
    if is_night(config, world.step):
        return 1.0
    return 0.5 * max(0.0, 1 - float(phase_left(config, world.step)) / (_DUSK + 1))


def _darken(land: np.ndarray, world: WorldState, cell: int, dark: float) -> None:
    # At night lamps light the land around homes
    if dark == 0:
        return
    ambient = 1 - dark + dark * NIGHT_TINT
    land *= ambient
    around = (np.arange(_GLOW * 2 * cell, dtype=np.float32) + 0.5) / cell - _GLOW
    fall = np.exp(-(around**2) / 2.5)
    glow = 1 + (fall[:, None] * fall)[..., None] * (_LAMPLIGHT / ambient - 1)
    for row, column in ((2 * world.home + 1) * cell // 2 - _GLOW * cell).tolist() if dark == 1 else []:
        up, before = max(-row, 0), max(-column, 0)
        area = land[row + up : row + len(glow), column + before : column + len(glow)]
        lit = area * glow[up : up + area.shape[0], before : before + area.shape[1]]
        np.minimum(lit, 255, out=area)  # where two homes shine


def _draw_homes(land: np.ndarray, config: WorldConfig, world: WorldState, cell: int) -> None:
    side = cell * 3 // 2  # larger than a cell: a landmark, whose roof is seen over those at the door
    is_lit = bool(is_night(config, world.step))
    for population, (row, column) in enumerate(world.home.tolist()):
        sprite = sprites.house(side, sprites.home_colour(config, population), is_lit)
        sprites.stamp(land, sprite, max((row + 1) * cell - side, 0), column * cell - (side - cell) // 2)


def _draw_graves(land: np.ndarray, config: WorldConfig, world: WorldState, cell: int) -> None:
    colours, side = sprites.agent_colours(config), round(cell * 0.8)
    inset = (cell - side) // 2
    for agent in np.flatnonzero(~world.is_alive).tolist():
        row, column = world.position[agent].tolist()
        dead_for = int(world.step - world.lifetime[agent])  # more than that, for those born late
        opacity = _REST + (1 - _REST) * max(0.0, 1 - dead_for / _MOURNING)
        sprites.stamp(land, sprites.grave(side, colours[agent]), row * cell + inset, column * cell + inset, opacity)


def _draw_trail(land: np.ndarray, config: WorldConfig, world: WorldState, cell: int, trail: Trail) -> None:
    colours, steps = sprites.agent_colours(config), len(trail)
    for age, earlier in enumerate(trail):
        share = (age + 1) / (steps + 1)  # towards 1 for the newest
        has_left = world.is_alive & (earlier != world.position).any(-1)
        for agent in np.flatnonzero(has_left).tolist():
            row, column = earlier[agent].tolist()
            sprite = sprites.dot(cell, colours[agent], 0.17 + 0.15 * share)
            sprites.stamp(land, sprite, row * cell, column * cell, share)


def _draw_foragers(land: np.ndarray, config: WorldConfig, world: WorldState, cell: int, trail: Trail | None) -> None:
    colours, population = sprites.agent_colours(config), population_of(config).tolist()
    look = np.zeros_like(world.position)
    if trail is not None and len(trail):
        step = world.position - trail[-1]
        look = step * (np.abs(step).sum(-1, keepdims=True) == 1)  # one that was born elsewhere did not walk here
    for agent, top, left, side in slots(world, cell):
        has_bar = side >= max(6, 0.45 * cell)
        bar = max(2, round(side / 5)) if has_bar else 0
        body = side - bar
        sprite = sprites.forager(body, colours[agent], population[agent], tuple(look[agent].tolist()))
        sprites.stamp(land, sprite, top + bar, left + bar // 2)
        if has_bar:
            share = min(float(world.energy[agent]) / config.energy_max, 1.0)
            length = side if side == cell else side - 1  # neighbours' bars must not touch
            _draw_energy(land[top : top + bar, left : left + length], share)


def slots(world: WorldState, cell: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield, for all the living of one world, the agent and the square it is drawn in: top, left, side in pixels.

    world: the state of one world, without the axis of worlds.
    """
    places = world.position[world.is_alive].tolist()
    living = np.flatnonzero(world.is_alive).tolist()
    crowds: dict[tuple[int, ...], list[int]] = {}
    for agent, place in zip(living, places, strict=True):
        crowds.setdefault(tuple(place), []).append(agent)
    homes = {tuple(home) for home in world.home.tolist()}
    height, width = (size * cell for size in world.rock.shape)
    for (row, column), crowd in crowds.items():
        is_home = (row, column) in homes
        across, side = _formation(len(crowd), cell, is_home)
        rows = -(-len(crowd) // across)
        top = row * cell + (cell // 2 if is_home else (cell - rows * side) // 2)  # below the roof
        top = max(0, min(top, height - rows * side))
        for number, agent in enumerate(crowd):
            line, place = divmod(number, across)
            length = min(across, len(crowd) - line * across) * side
            left = max(0, min(column * cell + (cell - length) // 2, width - length))
            yield agent, top + line * side, left + place * side, side


def _formation(crowd: int, cell: int, is_home: bool) -> tuple[int, int]:
    # How those in one cell stand: this many in a row, each in a square of so many pixels
    across = int(np.ceil(np.sqrt(crowd)))
    if is_home:
        return across, max(1, round(_GATHERING * cell / max(across, 3)))
    return across, cell if crowd == 1 else max(1, round(_SPILL * cell / across))


def _draw_energy(bar: np.ndarray, share: float) -> None:
    # bar: (height, length, 3), filled from the left; framed where there is room
    bar[:] = sprites.INK
    edge = 1 if bar.shape[0] >= 4 else 0
    inside = bar[edge : bar.shape[0] - edge, edge : bar.shape[1] - edge]
    inside[:, : int(np.ceil(inside.shape[1] * share))] = sprites.energy_colour(share)
