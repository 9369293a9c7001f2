"""What the examples print at the end: food eaten per agent in worlds that nobody trained on, beside scripted bots."""

from collections.abc import Callable

import numpy as np

from envs import HELD_OUT, ForageBatch
from envs.bots import Bot, bots
from envs.presets import preset as preset_named

Policy = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""From observations (R, O) and legal actions (R, A) bool of R agents to their actions (R,)."""


def score(policy: Policy, preset: str = "meadow", worlds: int = 16) -> None:
    """Print how much food the policy and the bots eat in the same worlds."""
    food = food_eaten(policy, preset, worlds)
    print(f"food eaten per agent, mean of {worlds} held-out worlds\nlearned  {food:5.1f}")
    for name, yardstick in yardsticks(preset, worlds).items():
        print(f"{name:8s} {yardstick:5.1f}   learned / {name} = {food / yardstick:.2f}")


def food_eaten(policy: Policy, preset: str = "meadow", worlds: int = 16) -> float:
    """Return food per agent in held-out worlds where all agents act by the policy; who has died eats no more."""

    def act(observations: np.ndarray, batch: ForageBatch) -> np.ndarray:
        agents, legal = observations.shape[:2], batch.legal()
        rows = policy(observations.reshape(-1, observations.shape[-1]), legal.reshape(-1, legal.shape[-1]))
        return rows.reshape(agents)

    return _play(act, preset, worlds)


def yardsticks(
    preset: str = "meadow", worlds: int = 16, names: tuple[str, ...] = ("random", "greedy", "planner")
) -> dict[str, float]:
    """Return the same of bots of `envs.bots`, by name."""
    known = bots(preset_named(preset))

    def food(bot: Bot) -> float:
        return _play(lambda _, batch: bot(batch.state()), preset, worlds)

    return {name: food(known[name]) for name in names}


def _play(act: Callable[[np.ndarray, ForageBatch], np.ndarray], preset: str, worlds: int) -> float:
    # act: from observations (W, N, O) and their worlds to actions (W, N)
    batch = ForageBatch(preset_named(preset))
    observations = batch.reset(HELD_OUT + np.arange(worlds))
    for _ in range(batch.config.max_steps):
        observations, _ = batch.step(act(observations, batch))
    return float(batch.state().food_eaten.mean())
