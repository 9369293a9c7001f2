"""The strip below a picture of a world: steps, time of day and the living; then what each agent has eaten."""

import numpy as np

from envs.rendering import sprites
from envs.rendering.sprites import Colour
from envs.types import WorldConfig, WorldState, is_night, members, population_of

STRIP = 2
"""Rows of cells below the grid."""


def draw_strip(strip: np.ndarray, config: WorldConfig, world: WorldState, cell: int) -> None:
    """Draw into the strip (STRIP * cell, B * cell, 3) float32. What has no room is left out.

    world: the state of one world, without the axis of worlds.
    """
    strip[:] = sprites.INK
    line, bars = strip[:cell], strip[cell:]
    left = _write(line, str(world.step), cell // 4)
    left = _write(line, f"/{config.max_steps}", left + max(1, round(cell / 8)), sprites.ROCK_LIGHT)
    right = _draw_alive(line, config, world, left)
    if config.night_length and right - left > 3 * cell:
        _draw_time(line[:, left + cell // 2 : right - cell // 2], config, world)
    sprites.stamp(bars, sprites.berry(cell), 0, 0)
    _draw_bars(bars[:, cell:], config, world)


def _write(line: np.ndarray, text: str, left: int, colour: Colour = sprites.WHITE) -> int:
    # line: (cell, length, 3). Writes if there is room. -> where the next thing can begin
    cell = line.shape[0]
    ink = sprites.digits(text, max(1, round(cell / 8)))
    top, right = (cell - ink.shape[0]) // 2, left + ink.shape[1]
    if right > line.shape[1]:
        return left
    line[top : top + ink.shape[0], left:right][ink] = colour
    return right


def _draw_alive(line: np.ndarray, config: WorldConfig, world: WorldState, left: int) -> int:
    # A face and a count for each population, at the right end of the line. -> where that begins
    cell = line.shape[0]
    side, gap = cell * 2 // 3, cell // 4
    begin = line.shape[1]
    for population, of in reversed(list(enumerate(members(config)))):
        count = str(world.is_alive[of].sum())
        length = sprites.digits(count, max(1, round(cell / 8))).shape[1]
        if begin - length - 2 * gap - side < left + gap:
            break
        begin -= length + gap
        _write(line, count, begin)
        begin -= side + gap // 2
        colour = sprites.POPULATIONS[population] if config.populations > 1 else sprites.STONE
        sprites.stamp(line, sprites.forager(side, colour, population), (cell - side) // 2, begin)
        begin -= gap
    return begin


def _draw_time(line: np.ndarray, config: WorldConfig, world: WorldState) -> None:
    # The day and the night as a bar of two colours, on which sun or moon shows the time
    cell, length = line.shape[:2]
    cycle = config.day_length + config.night_length
    side = cell - 2
    dawn, dusk = side // 2, side // 2 + round((length - side) * config.day_length / cycle)
    band = line[cell // 2 - cell // 8 : cell // 2 + max(cell // 8, 1)]
    band[:, dawn:dusk], band[:, dusk : length - side // 2] = sprites.SKY, sprites.NIGHT_SKY
    sign = sprites.moon if is_night(config, world.step) else sprites.sun
    now = round((length - side) * float(world.step % cycle) / cycle)
    line[:, now : now + side] = sprites.INK
    sprites.stamp(line, sign(side), 1, now)


def _draw_bars(strip: np.ndarray, config: WorldConfig, world: WorldState) -> None:
    # strip: (pixels, pixels, 3); the scale grows with the best agent, populations stand apart
    margin = 2
    room = strip.shape[0] - 2 * margin
    eaten, colours = world.food_eaten, sprites.agent_colours(config)
    heights = np.ceil(room * eaten / max(eaten.max(), 10)).astype(int)
    slot = np.arange(config.agents + 1) + 0.0
    slot[:-1] += population_of(config)  # the space of one bar between populations
    slot[-1] += config.populations - 1
    edges = ((strip.shape[1] - margin) * slot / slot[-1]).astype(int)
    width = max(int((strip.shape[1] - margin) / slot[-1]) - 1, 1)
    bottom = strip.shape[0] - margin
    for agent, height in enumerate(heights.tolist()):
        colour = colours[agent] if world.is_alive[agent] else sprites.ROCK_SHADE
        strip[bottom - height : bottom, edges[agent] : edges[agent] + width] = colour
        strip[bottom : bottom + 1, edges[agent] : edges[agent] + width] = sprites.ROCK
