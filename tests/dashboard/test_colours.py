"""Every colour of the page stands out from what it lies on, in both themes: the contrasts that WCAG 2.2 asks for."""

import re
from pathlib import Path

import pytest

STYLE = Path(__file__).parents[2] / "dashboard" / "page" / "style.css"
BACKGROUNDS = ("card", "ground")
RUNS = [f"run-{i}" for i in range(8)]


def colours() -> dict[str, dict[str, str]]:
    """By theme, the variables of the style sheet."""
    light, dark = re.findall(r":root[^{]*\{([^}]*)\}", STYLE.read_text())[:2]
    found = [dict(re.findall(r"--([\w-]+): ([^;]+);", block)) for block in (light, dark)]
    assert found[0].keys() == found[1].keys(), "each theme has a colour of its own for everything"
    return {"light": found[0], "dark": found[1]}


TEXT = [(ink, on) for ink in ("ink", "quiet") for on in (*BACKGROUNDS, "track")]
TEXT += [("card", "accent"), ("card", "warm"), ("ground", "ink")]
"""Letters, and what they stand on: also in chips and in the explanation on hover."""

GRAPHICS = [(mark, on) for mark in ("accent", "warm", "edge", "champion", *RUNS) for on in BACKGROUNDS]
GRAPHICS += [(mark, "track") for mark in ("accent", "warm", "quiet")]
GRAPHICS += [(mark, on) for mark in ("rock", "berry", "outline") for on in ("grass", "grass2", "sand", "sand2")]
GRAPHICS += [("map-unseen", "map-rock"), ("map-unseen", "map-free")]
GRAPHICS += [(f"map-{mark}", "map-free") for mark in ("rock", "food", "grew", "home")]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_letters_and_graphics_stand_out(theme, contrast):
    known = colours()[theme]
    weak = [(ink, on) for ink, on in TEXT if contrast(known[ink], known[on]) < 4.5]
    weak += [(mark, on) for mark, on in GRAPHICS if contrast(known[mark], known[on]) < 3]
    weak += [(step, on) for step in known["scale"].split() for on in BACKGROUNDS if contrast(step, known[on]) < 3]
    assert weak == []


def test_contrast_is_as_wcag_has_it(contrast):
    assert contrast("#ffffff", "#000000") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.005)
