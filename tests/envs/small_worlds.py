"""Small PettingZoo worlds, in which much happens soon."""

from envs import forage_v0

SMALL = {"rocks": 0.2, "height": 8, "width": 8, "agents": 4, "food": 8, "energy_start": 10.0, "max_steps": 30}
DEADLY = SMALL | {"food": 0, "energy_start": 3.0, "cost_step": 1.0}
MODES = ("leave", "absorb")


def small(**changes):
    """Return a small environment, begun with seed 0."""
    env = forage_v0.parallel_env(**SMALL | changes)
    env.reset(seed=0)
    return env
