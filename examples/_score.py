"""What the examples print at the end: food eaten per agent in worlds that nobody trained on, beside scripted bots."""

import numpy as np

from envs import HELD_OUT
from envs.bots import Bot, Policy, bots, by_sight, play
from envs.presets import preset as preset_named


def score(policy: Policy, preset: str = "meadow", worlds: int = 16) -> None:
    """Print how much food the policy and the bots eat in the same worlds."""
    food = food_eaten(by_sight(preset_named(preset), policy), preset, worlds)
    print(f"food eaten per agent, mean of {worlds} held-out worlds\nlearned  {food:5.1f}")
    for name in ("random", "greedy", "planner"):
        baseline = food_eaten(bots(preset_named(preset))[name], preset, worlds)
        print(f"{name:8s} {baseline:5.1f}   learned / {name} = {food / baseline:.2f}")


def food_eaten(bot: Bot, preset: str = "meadow", worlds: int = 16) -> float:
    """Return food per agent in held-out worlds where the bot plays all agents; who has died eats no more."""
    state, _ = play(bot, preset_named(preset), HELD_OUT + np.arange(worlds))
    return float(state.food_eaten.mean())
