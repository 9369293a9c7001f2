"""A picture of how far each agent's adapter has come in each layer, with axes and a scale."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

CELL = 24
LEFT, TOP, RIGHT, BOTTOM = 56, 32, 128, 54
"""Pixels around the cells, for axes and scale."""
PAPER, INK = (255, 255, 255), (40, 46, 43)
DARK, BRIGHT = np.array([20, 24, 60]), np.array([255, 214, 90])
"""Of a norm of zero, and of the largest."""


def heatmap(norms: np.ndarray, layers: Sequence[int]) -> np.ndarray:
    """Picture (H, W, 3) uint8 of norms (P, K) of P agents (down) by K layers (across); bright is large."""
    agents, across = norms.shape
    height, width = CELL * agents, CELL * across
    largest = float(norms.max())
    picture = Image.new("RGB", (LEFT + width + RIGHT, TOP + height + BOTTOM), PAPER)
    picture.paste(_cells(norms / max(largest, 1e-12)), (LEFT, TOP))
    pen = ImageDraw.Draw(picture)
    font = ImageFont.load_default(15)

    def write(x: float, y: float, text: str, anchor: str) -> None:
        pen.text((x, y), text, INK, font, anchor)

    for agent in range(agents):
        write(LEFT - 5, TOP + CELL * (agent + 0.5), str(agent), "rm")
    for place, layer in enumerate(layers):
        write(LEFT + CELL * (place + 0.5), TOP + height + 4, str(layer), "mt")
    write(LEFT - 5, TOP / 2, "agent", "rm")
    write(LEFT + width / 2, TOP + height + BOTTOM - 6, "layer", "mb")
    scale = LEFT + width + 32
    picture.paste(_cells(np.linspace(1, 0, agents)[:, None]), (scale, TOP))
    write(scale, TOP / 2, "norm of BA", "lm")
    write(scale + CELL + 4, TOP, f"{largest:.3g}", "lt")
    write(scale + CELL + 4, TOP + height, "0", "ls")
    return np.asarray(picture)


def _cells(shares: np.ndarray) -> Image.Image:
    # shares: (H, W) between 0 and 1, each a square of CELL pixels
    colours = DARK + shares[..., None] * (BRIGHT - DARK)
    return Image.fromarray(np.kron(colours, np.ones((CELL, CELL, 1))).astype(np.uint8))
