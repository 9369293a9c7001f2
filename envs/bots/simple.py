"""Baselines: what chance, sight without thought, sight and memory, and full knowledge reach in the same worlds."""

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import ArrayLike

from envs.batch import ForageBatch
from envs.bots.forager import Forager
from envs.bots.planner import Planner
from envs.dynamics import legal_actions
from envs.observe import observe, unpack
from envs.types import Action, WorldConfig, WorldState

Bot = Callable[[WorldState], np.ndarray]
"""From the state of W worlds to actions (W, N)."""

Policy = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""From observations (R, O) and legal actions (R, A) bool of R agents to their actions (R,)."""


def bots(config: WorldConfig, seed: int = 0) -> dict[str, Bot]:
    """Return the four baselines by name: random, greedy, forager, planner."""
    rng = np.random.default_rng(seed)
    return {
        "random": partial(random_bot, config, rng=rng),
        "greedy": partial(greedy_bot, config, rng=rng),
        "forager": Forager(config, seed),
        "planner": Planner(config),
    }


def play(bot: Bot, config: WorldConfig, seeds: ArrayLike) -> tuple[WorldState, np.ndarray]:
    """Play one episode in each world of `seeds` (W,); return the last state and the return of each agent (W, N)."""
    batch = ForageBatch(config)
    batch.reset(seeds)
    total = np.zeros(batch.state().energy.shape, np.float32)
    for _ in range(config.max_steps):
        total += batch.step(bot(batch.state()))[1].reward
    return batch.state(), total


def by_sight(config: WorldConfig, policy: Policy) -> Bot:
    """Return the bot in which every agent acts by the policy.

    The bot raises ValueError where the policy gives something else than one whole number for each agent.
    """

    def act(state: WorldState) -> np.ndarray:
        seen, legal = observe(config, state), legal_actions(state)
        rows, allowed = seen.reshape(-1, seen.shape[-1]), legal.reshape(-1, legal.shape[-1])
        return _checked(policy(rows, allowed), len(rows)).reshape(seen.shape[:2])

    return act


def _checked(actions: object, agents: int) -> np.ndarray:
    array = np.asarray(actions)
    if array.dtype.kind not in "iu" or array.size != agents:
        wanted = f"({agents},) integers between 0 and {len(Action) - 1}, an action of each agent"
        raise ValueError(f"the policy gave {array.dtype} {array.shape}: must be {wanted}")
    return array


def random_bot(config: WorldConfig, state: WorldState, rng: np.random.Generator) -> np.ndarray:
    """Return actions (W, N), uniform over the legal moves; STAY where there is none."""
    is_legal = legal_actions(state)
    is_legal[..., Action.STAY] &= ~is_legal[..., 1:].any(-1)
    return np.where(is_legal, rng.random(is_legal.shape), -1.0).argmax(-1)


def greedy_bot(config: WorldConfig, state: WorldState, rng: np.random.Generator) -> np.ndarray:
    """Return actions (W, N) towards the nearest food in each agent's own view, along the longer axis.

    An agent that sees no food, or whose way is blocked, makes a random legal move.
    """
    radius = config.view_radius
    seen = unpack(observe(config, state), radius).food  # (W, N, V, V)
    around = np.arange(-radius, radius + 1)
    reach = np.abs(around[:, None]) + np.abs(around)  # (V, V) steps
    far = 4 * radius
    steps = np.where(seen, reach, far).reshape(*seen.shape[:2], -1)
    row, column = np.divmod(steps.argmin(-1), 2 * radius + 1)  # (W, N)
    row, column = row - radius, column - radius
    wish = np.zeros((*row.shape, len(Action)))
    wish[..., Action.NORTH], wish[..., Action.SOUTH] = -row, row
    wish[..., Action.WEST], wish[..., Action.EAST] = -column, column
    wish = np.where(legal_actions(state) & (wish > 0), wish, 0)
    is_lost = (steps.min(-1) == far) | ((wish.max(-1) == 0) & (steps.min(-1) > 0))
    return np.where(is_lost, random_bot(config, state, rng), wish.argmax(-1))
