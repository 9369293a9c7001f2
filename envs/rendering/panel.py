"""What stands beside the world in a window: one agent's view, energy and memory, or what the signs mean.

Needs pygame-ce.
"""

from dataclasses import dataclass
from itertools import groupby

import numpy as np
import pygame

from envs.observe import observe, unpack
from envs.rendering import sprites
from envs.rendering.render import view_array
from envs.rendering.sprites import Colour, Sprite
from envs.types import MOVES, Action, WorldConfig, WorldState, members, population_of

WIDTH = 272
"""Pixels."""

PAPER = (58, 54, 64)
_FAINT: Colour = (170, 166, 178)
_MARGIN, _SIGN = 16, 28


@dataclass
class Pen:
    """A place on a surface, which moves down with what is written."""

    surface: pygame.Surface
    left: int
    top: int
    width: int

    def write(self, text: str, colour: Colour = sprites.WHITE, size: int = 20, indent: int = 0) -> None:
        """Write text in lines that fit the width; what is below the surface is cut off."""
        font = pygame.font.Font(None, size)
        for line in wrapped(text, font, self.width - indent):
            if self.top < self.surface.get_height():
                self.surface.blit(font.render(line, True, _whole(colour)), (self.left + indent, self.top))
            self.top += font.get_linesize()

    def picture(self, pixels: np.ndarray, gap: int = 8) -> None:
        """Show pixels (height, width, 3) uint8."""
        self.surface.blit(surface_of(pixels), (self.left, self.top))
        self.top += len(pixels) + gap

    def sign(self, sprite: Sprite, text: str) -> None:
        """Show a sprite and what it means."""
        top = self.top
        self.surface.blit(surface_of(_on_paper(sprite)), (self.left, top))
        self.top += (_SIGN - 16) // 2
        self.write(text, indent=_SIGN + 12)
        self.top = max(self.top, top + _SIGN) + 6

    def bar(self, share: float) -> None:
        """Draw an energy bar, filled to `share`, 0 to 1."""
        frame = pygame.Rect(self.left, self.top, self.width, 16)
        pygame.draw.rect(self.surface, sprites.INK, frame)
        inside = frame.inflate(-4, -4)
        inside.width = round(inside.width * share)
        pygame.draw.rect(self.surface, _whole(sprites.energy_colour(share)), inside)
        self.top += 24


def surface_of(pixels: np.ndarray) -> pygame.Surface:
    """Return pixels (height, width, 3) uint8 as a surface."""
    return pygame.image.frombuffer(pixels.tobytes(), (pixels.shape[1], pixels.shape[0]), "RGB")


def wrapped(text: str, font: pygame.font.Font, width: int) -> list[str]:
    """Return text as lines that fit `width` pixels, broken between words; a longer word has its own line."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.size(longer)[0] > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def walk(path: np.ndarray) -> list[str]:
    """Return the way through positions (T, 2) in words, as ["2 north", "1 east"]; from the last birth on."""
    steps = np.diff(path, axis=0)
    jumps = np.flatnonzero(np.abs(steps).sum(-1) > 1)  # nobody walks so far
    steps = steps[jumps[-1] + 1 :] if len(jumps) else steps
    moves = [int((step == MOVES).all(-1).argmax()) for step in steps]
    return [f"{len(list(same))} {Action(move).name.lower()}" for move, same in groupby(moves)]


def draw_agent(surface: pygame.Surface, state: WorldState, config: WorldConfig, agent: int, memory: list[str]) -> None:
    """Draw what there is to know about an agent; `state` is of one world, with the axis of worlds."""
    pen = Pen(surface, _MARGIN, _MARGIN, surface.get_width() - 2 * _MARGIN)
    population, is_alive = int(population_of(config)[agent]), bool(state.is_alive[0, agent])
    colour = sprites.agent_colours(config)[agent]
    face = sprites.forager(_SIGN, colour, population) if is_alive else sprites.grave(_SIGN, colour)
    surface.blit(surface_of(_on_paper(face)), (pen.left, pen.top))
    pen.write(f"Agent {agent}" + ("" if is_alive else ", dead"), size=30, indent=_SIGN + 10)
    pen.top += 8
    if config.populations > 1:
        red, green, blue = sprites.POPULATIONS[population]
        pen.write(f"population {population}", (128 + red / 2, 128 + green / 2, 128 + blue / 2))
    energy = float(state.energy[0, agent])
    pen.write(f"energy {energy:.0f} of {config.energy_max:g}")
    pen.top += 4
    pen.bar(min(energy / config.energy_max, 1.0))
    pen.write(f"{state.food_eaten[0, agent]} food eaten, {state.lifetime[0, agent]} steps lived")
    pen.top += 10
    pen.write("sees" if is_alive else "saw last", _FAINT)
    seen = unpack(observe(config, state)[0, agent], config.view_radius)
    pen.picture(view_array(seen, config, agent, pen.width // len(seen.rock)))
    pen.top += 2
    for line in memory:
        pen.write(line)


def draw_legend(surface: pygame.Surface, config: WorldConfig) -> None:
    """Draw what the signs in the world mean."""
    pen = Pen(surface, _MARGIN, _MARGIN, surface.get_width() - 2 * _MARGIN)
    pen.write("Click an agent", size=30)
    pen.top += 8
    colours = sprites.agent_colours(config)
    for population, agents in enumerate(members(config)):
        whose = f" of population {population}" if config.populations > 1 else ""
        pen.sign(sprites.forager(_SIGN, colours[agents.start], population), f"agent{whose}; above it its energy")
        pen.sign(sprites.house(_SIGN, sprites.home_colour(config, population), False), "home" + whose)
    pen.sign(sprites.berry(_SIGN), "food; in the strip, what each has eaten")
    pen.sign(sprites.dot(_SIGN, colours[0], 0.3), "where it came from")
    pen.sign(sprites.grave(_SIGN, colours[0]), "one died here")
    pen.sign(sprites.rock(_SIGN, False, False, False, False), "rock")
    if config.patches:
        pen.sign(_patch(sprites.GRASS), "food grows here only")
    if config.night_length:
        pen.sign(sprites.sun(_SIGN), "day")
        pen.sign(sprites.moon(_SIGN), f"night: who is not home spends {config.night_cost:g} times the energy")


def _whole(colour: Colour) -> tuple[int, int, int]:
    # What pygame takes
    red, green, blue = colour
    return round(red), round(green), round(blue)


def _patch(colour: Colour) -> Sprite:
    paint = np.broadcast_to(np.array(colour, np.float32), (_SIGN, _SIGN, 3))
    return Sprite(paint, np.ones((_SIGN, _SIGN, 1), np.float32))


def _on_paper(sprite: Sprite) -> np.ndarray:
    # -> (side, side, 3) uint8
    return (sprite.paint + (1 - sprite.cover) * np.array(PAPER)).round().astype(np.uint8)
