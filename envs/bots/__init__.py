"""Scripted bots, the baselines of the world: what chance, sight, memory and full knowledge reach.

A bot goes from the state of W worlds to actions (W, N). `bots` has them by name, `play` plays one.
"""

from envs.bots.forager import Forager
from envs.bots.planner import Planner
from envs.bots.simple import Bot, Policy, bots, by_sight, greedy_bot, play, random_bot

__all__ = ["Bot", "Forager", "Planner", "Policy", "bots", "by_sight", "greedy_bot", "play", "random_bot"]
