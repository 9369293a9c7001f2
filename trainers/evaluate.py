"""Compare a population with the yardsticks on layouts that no agent ever trained on.

    python -m trainers.evaluate RUN_DIR [--generation G] [--episodes N] [--seed N] [--json]

All play the same held-out worlds: the agents, twenty random walkers, the frozen model without adapters, and the
planner that knows everything.
"""

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from agents.types import require
from envs import HELD_OUT, ForageBatch, WorldConfig
from envs.bots import Bot, bots
from trainers.command_line import parse_run_arguments, run_command
from trainers.config import MAX_HELD_OUT, SEEDS

if TYPE_CHECKING:
    from trainers.colony import Colony
    from trainers.rollout import Outcome

WHO = ("agents", "random", "frozen", "planner")


def main(argv: list[str] | None = None) -> None:
    """Evaluate a run from the command line."""
    options = parse_run_arguments(
        "evaluate",
        argv,
        episodes=(int, 8, "held-out worlds to play"),
        seed=(int, 0, "which held-out worlds"),
        json=(bool, False, "print one JSON object instead of a table"),
    )

    def evaluate() -> None:
        from trainers.run_folder import open_run

        colony, config, generation = open_run(options.run_dir, options.generation)
        result = compare(colony, config.env, options.episodes, options.seed)
        print(json.dumps(result) if options.json else table(result, f"generation {generation}"))

    run_command(evaluate)


def held_out_seeds(episodes: int, seed: int) -> np.ndarray:
    """Seeds (episodes,) of held-out worlds; each `seed` names other ones. UserError if either is out of range."""
    require(1 <= episodes <= MAX_HELD_OUT, "episodes", episodes, f"between 1 and {MAX_HELD_OUT}")
    require(0 <= seed < SEEDS, "seed", seed, f"between 0 and {SEEDS - 1}")
    return HELD_OUT + MAX_HELD_OUT * seed + np.arange(episodes)


def compare(colony: "Colony", config: WorldConfig, episodes: int, seed: int) -> dict[str, Any]:
    """Play `episodes` held-out worlds with the agents and with each yardstick.

    Returns, for food eaten, fitness (return) and lifetime, the mean over agents and worlds of each with a 95 %
    interval, and the agents' share of the planner's food.
    """
    yardsticks = bots(config, seed)
    seeds = held_out_seeds(episodes, seed)
    outcomes = {
        "agents": play(colony, config, seeds, seed),
        "random": play_bot(yardsticks["random"], config, seeds),
        "frozen": play(colony, config, seeds, seed, bare=True),
        "planner": play_bot(yardsticks["planner"], config, seeds),
    }
    food = {who: interval(outcomes[who].food_eaten.mean(axis=1)) for who in WHO}
    fitness = {who: interval(outcomes[who].episode_return.mean(axis=1)) for who in WHO}
    lifetime = {who: interval(outcomes[who].lifetime.mean(axis=1)) for who in WHO}
    share = food["agents"]["mean"] / food["planner"]["mean"] if food["planner"]["mean"] else 0.0
    return {
        "episodes": episodes,
        "seed": seed,
        "food_eaten": food,
        "fitness": fitness,
        "lifetime": lifetime,
        "share_of_planner": share,
    }


def play(colony: "Colony", config: WorldConfig, seeds: np.ndarray, seed: int, *, bare: bool = False) -> "Outcome":
    """One episode of the agents, or of the bare base, in the worlds of `seeds`."""
    from trainers.rollout import rollout

    return rollout(
        colony.policy, colony.codec, ForageBatch(config), seeds, np.random.default_rng(seed), bare=bare
    ).outcome


def play_bot(bot: Bot, config: WorldConfig, seeds: np.ndarray) -> "Outcome":
    """One episode of a scripted bot in every slot, in the worlds of `seeds`."""
    from trainers.rollout import Outcome

    world = ForageBatch(config)
    world.reset(seeds)
    total = np.zeros((len(seeds), config.agents), np.float32)
    for _ in range(config.max_steps):
        _, result = world.step(bot(world.state()))
        total += result.reward
    state = world.state()
    return Outcome(state.food_eaten, state.lifetime, total, state.is_alive)


def interval(values: np.ndarray, resamples: int = 2000) -> dict[str, float]:
    """Mean of `values` (one a world) and its 95 % percentile bootstrap interval (Efron 1979), resampling worlds."""
    draws = np.random.default_rng(0).integers(len(values), size=(resamples, len(values)))
    low, high = np.percentile(values[draws].mean(axis=1), [2.5, 97.5])
    return {"mean": float(values.mean()), "low": float(low), "high": float(high)}


def table(result: dict[str, Any], agents: str, first: dict[str, Any] | None = None) -> str:
    """The comparison as text; `agents` says which ones they are, `first` is that of the first generation."""
    rows: list[tuple[str, ...]] = [("", "fitness", "food eaten", "steps lived")]
    named = [(agents, result, "agents"), *((w, result, w) for w in WHO[1:])]
    if first:
        named.insert(0, ("generation 0", first, "agents"))
    for name, source, who in named:
        figures = [source[key][who] for key in ("fitness", "food_eaten", "lifetime")]
        rows.append((name, *(f"{f['mean']:.1f} [{f['low']:.1f}, {f['high']:.1f}]" for f in figures)))
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    head = f"{result['episodes']} held-out worlds, mean of all agents with 95 % interval"
    return "\n".join([head, *lines, f"the agents eat {result['share_of_planner']:.0%} of what the planner eats"])


if __name__ == "__main__":
    main()
