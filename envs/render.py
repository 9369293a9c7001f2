"""Pictures of a world: coloured text for a terminal, pixels for a film. NumPy only."""

import numpy as np

from envs import sprites
from envs.sprites import Colour
from envs.types import WorldState


def ansi(state: WorldState, w: int = 0, energy_max: float = 100.0) -> str:
    """Return world `w` as text with ANSI colours: a header, then one line per row of two letters a cell.

    energy_max: the energy that the header calls 100 %.
    """
    cells = np.full(state.rock[w].shape, _paint("  ", sprites.INK, sprites.GROUND), dtype=object)
    cells[state.rock[w]] = _paint("  ", sprites.INK, sprites.ROCK)
    cells[state.food[w]] = _paint("● ", sprites.BERRY, sprites.GROUND)
    cells[tuple(state.home[w])] = _paint("⌂ ", sprites.WHITE, sprites.ROOF)
    living = np.flatnonzero(state.is_alive[w])
    for agent in living[::-1]:  # of those that share a cell, the first shows
        label = _paint(f"{agent % 100:<2d}", sprites.WHITE, sprites.agent_colour(int(agent)))
        cells[tuple(state.position[w, agent])] = label
    energy = state.energy[w, living].sum() / max(living.size, 1) / energy_max
    header = (
        f"step {state.step[w]}   alive {living.size}/{state.is_alive[w].size}"
        f"   food eaten {state.food_eaten[w].sum()}   mean energy {energy:.0%}"
    )
    return "\n".join([header, *("".join(row) for row in cells)])


def rgb_array(state: WorldState, w: int = 0, cell: int = 24, energy_max: float = 100.0) -> np.ndarray:
    """Return world `w` as pixels, ((H + 2) * cell, B * cell, 3) uint8.

    cell: pixels along a side of a cell, 8 or more. energy_max: the energy that fills an agent's bar.
    The strip below has one bar per agent: the food it has eaten. The bars of the dead are grey.
    """
    if cell < 8:
        raise ValueError(f"cell = {cell}: must be at least 8 pixels")
    height, width = state.rock[w].shape
    image = np.empty(((height + 2) * cell, width * cell, 3))
    tiles = image.reshape(height + 2, cell, width, cell, 3).swapaxes(1, 2)  # a view, (H + 2, B, cell, cell, 3)
    sprites.draw_ground(tiles)
    sprites.draw_rock(tiles[:height], state.rock[w])
    sprites.draw_house(tiles, tuple(state.home[w]))
    sprites.draw_berry(tiles[:height], state.food[w])
    _draw_foragers(tiles, state, w, energy_max)
    tiles[height:] = sprites.INK
    sprites.draw_berry(tiles, (height + 1, 0))
    _draw_bars(image[height * cell :, cell:], state.food_eaten[w], state.is_alive[w])
    return image.round().astype(np.uint8)


def _paint(text: str, ink: Colour, paper: Colour) -> str:
    return "\x1b[38;2;{};{};{}m\x1b[48;2;{};{};{}m{}\x1b[0m".format(*ink, *paper, text)


def _draw_foragers(tiles: np.ndarray, state: WorldState, w: int, energy_max: float) -> None:
    # Agents that share a cell stand in a ring, smaller
    living = np.flatnonzero(state.is_alive[w]).tolist()
    places = [tuple(place) for place in state.position[w, living].tolist()]
    for number, (agent, place) in enumerate(zip(living, places, strict=True)):
        crowd = places.count(place)
        angle = 2 * np.pi * places[:number].count(place) / crowd
        ring, size = (0.0, 0.62) if crowd == 1 else (0.42, 0.38)
        centre = ring * np.cos(angle), 0.16 + ring * np.sin(angle)
        energy = min(float(state.energy[w, agent]) / energy_max, 1.0)
        sprites.draw_forager(tiles, place, centre, size, sprites.agent_colour(agent), energy)


def _draw_bars(strip: np.ndarray, eaten: np.ndarray, is_alive: np.ndarray) -> None:
    # strip: (pixels, pixels, 3), drawn into; the scale grows with the best agent
    margin = 3
    room = strip.shape[0] - 2 * margin
    heights = np.ceil(room * eaten / max(eaten.max(), 10)).astype(int)
    edges = np.linspace(0, strip.shape[1] - margin, len(eaten) + 1).astype(int)
    for agent, height in enumerate(heights):
        top = strip.shape[0] - margin - height
        colour = sprites.agent_colour(agent) if is_alive[agent] else sprites.ROCK
        strip[top : top + height, edges[agent] + 1 : max(edges[agent + 1] - 1, edges[agent] + 2)] = colour
