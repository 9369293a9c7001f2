"""Worlds by name, each with a question of its own.

Layouts for training have seeds below `envs.HELD_OUT`, those for evaluation seeds from there on; see `envs.generator`.
"""

from envs.types import WorldConfig

PRESETS: dict[str, WorldConfig] = {
    # Food in many places: find it, walk around rocks to it, remember where it grows, do not starve
    "meadow": WorldConfig(),
    # Corridors: the straight way to what is in sight is often blocked
    "maze": WorldConfig(rocks=0.0, walls=3, patches=0),
    # Four rich places in a bare land: find them, and come back when food has grown again
    "famine": WorldConfig(rocks=0.0, food=24, patches=4, food_regrow=0.5),
    # Nobody survives a night outside: be home in time, and rest there
    "night": WorldConfig(
        height=14,
        width=14,
        rocks=0.15,
        food=54,
        patches=0,
        day_length=48,
        night_length=16,
        night_cost=20.0,
        reward_death=-10.0,
    ),
    # Two populations, two homes, one scarce supply of food
    "rivals": WorldConfig(populations=2, rocks=0.3, food=20, patches=0),
}
"""The worlds by name."""


def preset(name: str) -> WorldConfig:
    """Return the world of that name. Raises ValueError, with all names, where there is none."""
    if name not in PRESETS:
        raise ValueError(f"preset = {name!r}: must be one of {', '.join(PRESETS)}")
    return PRESETS[name]
