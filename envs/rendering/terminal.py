"""A world as coloured text for a terminal, and the colours of its ground."""

from collections.abc import Sequence

import numpy as np

from envs.rendering import sprites
from envs.types import WorldConfig, WorldState, is_night, members, phase_left

Trail = Sequence[np.ndarray] | np.ndarray
"""Earlier positions (T, N, 2), the oldest first, without the present one."""

IN_ASCII = str.maketrans("·●†⌂", ".o+^")
"""Another letter for each that a plain terminal cannot show, for `str.translate`."""

NIGHT_TINT = np.array([0.34, 0.40, 0.68], np.float32)
"""What is left of red, green and blue in the dark."""


def ansi(state: WorldState, config: WorldConfig, w: int = 0, trail: Trail | None = None) -> str:
    """Return world `w` as text with ANSI colours: a header, then one line per row of two letters a cell.

    trail: earlier positions (T, N, 2), the oldest first, shown as dots.
    """
    world = one_world(state, w)
    shade = NIGHT_TINT if is_night(config, world.step) else np.ones(3, np.float32)
    letters, inks, papers = _letters(config, world, trail, shade)
    lines = ["".join(map(_paint, *row)) for row in zip(letters, inks, papers, strict=True)]
    return "\n".join([_header(config, world), *lines])


def one_world(state: WorldState, w: int) -> WorldState:
    """Return the state of world `w`, without the axis of worlds."""
    return WorldState(*(array[w] for array in state))


def is_fertile(config: WorldConfig, world: WorldState) -> np.ndarray:
    """Return (H, B) bool: where food can grow in one world, but for rock and homes."""
    if not config.patches:
        return np.ones(world.rock.shape, bool)
    rows, columns = (np.arange(size) for size in world.rock.shape)
    far = np.maximum(np.abs(rows[:, None, None] - world.patch[:, 0]), np.abs(columns[:, None] - world.patch[:, 1]))
    return far.min(-1) <= config.patch_radius


def chequered(is_green: np.ndarray) -> np.ndarray:
    """Return the colours (H, B, 3) float32 of green and sandy ground, on which distances can be counted."""
    rows, columns = np.indices(is_green.shape)
    colours = np.array([[sprites.SAND, sprites.SAND_DARK], [sprites.GRASS, sprites.GRASS_DARK]], np.float32)
    return colours[is_green.astype(int), (rows + columns) % 2]


def _header(config: WorldConfig, world: WorldState) -> str:
    alive = " and ".join(f"{world.is_alive[of].sum()}/{of.stop - of.start}" for of in members(config))
    energy = world.energy[world.is_alive].sum() / max(world.is_alive.sum(), 1) / config.energy_max
    parts = [f"step {world.step}"]
    if config.night_length:
        now, then = ("night", "day") if is_night(config, world.step) else ("day", "night")
        parts.append(f"{now}, {then} in {phase_left(config, world.step)}")
    parts += [f"alive {alive}", f"food eaten {world.food_eaten.sum()}", f"mean energy {energy:.0%}"]
    return "   ".join(parts)


def _letters(
    config: WorldConfig, world: WorldState, trail: Trail | None, shade: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    # -> (H, B) two letters a cell, and (H, B, 3) each their ink and paper; what is drawn last shows
    letters = np.full(world.rock.shape, "  ", dtype="<U2")
    papers = chequered(is_fertile(config, world)) * shade
    inks = np.zeros_like(papers)
    is_dark = bool(shade[0] < 1)
    papers[world.rock] = sprites.ROCK * shade
    colours = sprites.agent_colours(config)
    for earlier in [] if trail is None else trail:
        for agent, place in enumerate(map(tuple, earlier.tolist())):
            letters[place], inks[place] = "· ", colours[agent]
    letters[world.food], inks[world.food] = "● ", sprites.BERRY
    for agent in np.flatnonzero(~world.is_alive).tolist():
        place = tuple(world.position[agent])
        letters[place], inks[place] = "† ", sprites.STONE if is_dark else sprites.INK
    for of, place in enumerate(map(tuple, world.home.tolist())):
        letters[place], inks[place] = "⌂ ", sprites.LAMP if is_dark else sprites.WHITE
        papers[place] = sprites.home_colour(config, of)
    for agent in np.flatnonzero(world.is_alive)[::-1].tolist():  # of those that share a cell, the first shows
        place = tuple(world.position[agent])
        letters[place], papers[place] = f"{agent % 100:<2d}", colours[agent]
        inks[place] = sprites.INK if np.dot(colours[agent], (0.3, 0.6, 0.1)) > 150 else sprites.WHITE
    return letters, inks, papers


def _paint(text: str, ink: np.ndarray, paper: np.ndarray) -> str:
    colours = (";".join(f"{part:.0f}" for part in colour) for colour in (ink, paper))
    return "\x1b[38;2;{}m\x1b[48;2;{}m".format(*colours) + text + "\x1b[0m"
