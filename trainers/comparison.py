"""The comparison of a population with its baselines on held-out worlds, on which no agent ever trained.

All play the same worlds: the agents, as many that act by chance, the frozen model without adapters, and in the forage
world the scripted bots, up to the planner that knows everything.
"""

from collections.abc import Callable
from contextlib import closing
from math import isfinite
from typing import TYPE_CHECKING, Any

import numpy as np

from agents.types import UserError, require
from envs import HELD_OUT, WorldConfig, bots
from envs.bots.planner import MAX_CELLS
from envs.worlds.mixed_world import weave
from envs.worlds.successes import BY_TASK, SUCCESS
from trainers.config import MAX_HELD_OUT, SEEDS
from trainers.env_config import EnvConfig
from trainers.worlds import make_world

if TYPE_CHECKING:
    from agents.policy import Decision
    from trainers.population import Population
    from trainers.rollout import Outcome

WHO_THEY_ARE = {
    "frozen": "the model without adapters",
    "random": "takes any action that is allowed",
    "greedy": "walks to the nearest food that it sees",
    "forager": "sees no more, but remembers, and finds ways around rocks",
    "planner": "sees the whole world, and plans",
}
"""What the table says of them."""


def held_out_seeds(episodes: int, seed: int) -> np.ndarray:
    """Seeds (episodes,) of held-out worlds; each `seed` names other ones. UserError if either is out of range."""
    require(1 <= episodes <= MAX_HELD_OUT, "episodes", episodes, f"between 1 and {MAX_HELD_OUT}")
    require(0 <= seed < SEEDS, "seed", seed, f"between 0 and {SEEDS - 1}")
    return HELD_OUT + MAX_HELD_OUT * seed + np.arange(episodes)


def contestants(env: EnvConfig) -> list[str]:
    """The agents and their baselines, in the order in which they play."""
    return ["agents", "frozen", *env.baselines]


def compare(
    population: "Population", env: EnvConfig, episodes: int, seed: int, show: Callable[[str], None] | None = None
) -> dict[str, Any]:
    """Play `episodes` held-out worlds with the agents and with each baseline; `show` is called with whose turn it is.

    Returns, for fitness (return), lifetime and what else the world measures (food eaten, success), the mean over agents
    and worlds of each with a 95 % interval; the share of the episodes of each task that succeeded; where the planner
    plays also the agents' share of its food, in all worlds and by preset.
    """
    require(not env.also or episodes % len(env.kinds) == 0, "episodes", episodes, f"a multiple of {len(env.kinds)}")
    seeds = held_out_seeds(episodes, seed)
    outcomes = {}
    for who in contestants(env):
        if show:
            show(f"{who} in {episodes} worlds")
        if who in ("agents", "frozen"):
            outcomes[who] = play(population, env, seeds, seed, bare=who == "frozen")
        elif env.is_forage:
            outcomes[who] = play_baseline(who, env, seeds, seed)
        else:
            outcomes[who] = play(population, env, seeds, seed, actor=Chance())
    result: dict[str, Any] = {"episodes": episodes, "seed": seed}
    measured = {
        who: {"fitness": outcome.episode_return, "lifetime": outcome.lifetime} | outcome.figures
        for who, outcome in outcomes.items()
    }
    told = any(SUCCESS in figures for figures in measured.values())
    for figures in measured.values() if told else ():  # a world may say so only when somebody succeeds
        figures.setdefault(SUCCESS, np.zeros_like(figures["fitness"]))
    for key in (key for key in ("fitness", "lifetime", "food_eaten", SUCCESS) if key in measured["agents"]):
        result[key] = {who: _interval_of(who, key, figures[key]) for who, figures in measured.items()}
    by_task = {who: _by_task(outcome.figures) for who, outcome in outcomes.items()}
    if any(by_task.values()):
        result["success_by_task"] = by_task
    if "planner" in outcomes:
        food = {who: outcomes[who].figures["food_eaten"] for who in ("agents", "planner")}  # (W, N)
        kinds = {name: slice(i, None, len(env.kinds)) for i, name in enumerate(env.kinds)}
        shares = {name: _share(food["agents"][rows], food["planner"][rows]) for name, rows in kinds.items()}
        result |= {"share_of_planner": _share(*food.values()), "share_by_preset": shares}
    return result


def _interval_of(who: str, key: str, figures: np.ndarray) -> dict[str, float]:
    """The mean of figures (W, N) with its interval; UserError, naming whose, for a mean that is not finite."""
    with np.errstate(over="ignore", invalid="ignore"):
        found = interval(figures.mean(axis=1))
    wrong = next((value for value in found.values() if not isfinite(value)), None)
    require(wrong is None, f"{key} of {who} in held-out worlds", wrong, "finite; rewards may be too large")
    return found


def _by_task(figures: dict[str, np.ndarray]) -> dict[str, float]:
    """The share of the episodes of each task that succeeded."""
    of_task = {key.removeprefix(BY_TASK): values for key, values in figures.items() if key.startswith(BY_TASK)}
    return {task: float(np.nanmean(values)) for task, values in of_task.items()}


def _share(part: np.ndarray, whole: np.ndarray) -> float:
    return float(part.sum() / whole.sum()) if whole.any() else 0.0


class Chance:
    """Decides by chance, uniformly over what is allowed."""

    def act(self, texts: list[str], adapters: np.ndarray, legal: np.ndarray, rng: np.random.Generator) -> "Decision":
        """An action for each of R texts; legal (R, A). UserError where none is legal."""
        if not legal.any(axis=1).all():
            raise UserError(f"no action is legal after text {texts[int(legal.any(axis=1).argmin())]!r}")
        from agents.policy import Decision

        log_prob = -np.log(legal.sum(axis=1)).astype(np.float32)
        draw = np.where(legal, rng.random(legal.shape), -1.0)
        log_probs = np.where(legal, log_prob[:, None], np.float32(-np.inf))
        return Decision(draw.argmax(axis=1), log_prob, self.values(texts), log_probs)

    def values(self, texts: list[str]) -> np.ndarray:
        """Zeros (R,): chance expects nothing."""
        return np.zeros(len(texts), np.float32)


def play(
    population: "Population",
    env: EnvConfig,
    seeds: np.ndarray,
    seed: int,
    *,
    bare: bool = False,
    actor: Chance | None = None,
) -> "Outcome":
    """One episode of the agents, of the bare base, or of another actor, in the worlds of `seeds`."""
    from trainers.rollout import collect_rollout

    rng, nobody = np.random.default_rng(seed), np.full((len(seeds), env.agents), -1) if bare else None
    policy, codec = actor or population.policy, population.codec
    with closing(make_world(env, renews=False)) as world:
        return collect_rollout(policy, codec, world, seeds, rng, adapter_ids=nobody).outcome


def play_bot(bot: bots.Bot, config: WorldConfig, seeds: np.ndarray) -> "Outcome":
    """One episode of a scripted bot in every slot, in the worlds of `seeds`."""
    from trainers.rollout import Outcome

    state, total = bots.play(bot, config, seeds)
    return Outcome(total, state.lifetime, state.is_alive, {"food_eaten": state.food_eaten, "energy": state.energy})


def play_baseline(name: str, env: EnvConfig, seeds: np.ndarray, seed: int) -> "Outcome":
    """One episode of the bot of that name in the worlds of `seeds`, of all kinds that `env` has, as `World` plays them.

    seed: of what the bot does by chance.
    """
    from trainers.rollout import Outcome

    kinds = env.kinds.values()
    parts = [play_bot(bots.bots(k, seed)[name], k, seeds[i :: len(kinds)]) for i, k in enumerate(kinds)]
    return Outcome(
        weave([part.episode_return for part in parts]),
        weave([part.lifetime for part in parts]),
        weave([part.is_alive for part in parts]),
        {key: weave([part.figures[key] for part in parts]) for key in parts[0].figures},
    )


def interval(values: np.ndarray, resamples: int = 2000) -> dict[str, float]:
    """Mean of `values` (one a world) and its 95 % percentile bootstrap interval (Efron 1979), resampling worlds."""
    draws = np.random.default_rng(0).integers(len(values), size=(resamples, len(values)))
    low, high = np.percentile(values[draws].mean(axis=1), [2.5, 97.5])
    return {"mean": float(values.mean()), "low": float(low), "high": float(high)}


def table(result: dict[str, Any], agents: str, first: dict[str, Any] | None = None) -> str:
    """The comparison as text; `agents` says which ones they are, `first` is that of the first generation."""
    keys = {"fitness": "fitness", "food_eaten": "food eaten", SUCCESS: "success", "lifetime": "steps lived"}
    keys = {key: title for key, title in keys.items() if key in result}
    rows: list[tuple[str, ...]] = [("", *keys.values())]
    named = [(agents, result, "agents"), *((w, result, w) for w in result["fitness"] if w != "agents")]
    if first:
        named.insert(0, ("generation 0", first, "agents"))
    for name, source, who in named:
        rows.append((name, *(interval_text(source[key][who]) if key in source else "" for key in keys)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    head = f"{result['episodes']} held-out worlds, mean of all agents with 95 % interval"
    if "share_of_planner" in result:
        lines.append(f"the agents eat {result['share_of_planner']:.0%} of what the planner eats")
        shares = result["share_by_preset"]
        if len(shares) > 1:
            lines.append("by preset: " + ", ".join(f"{name} {share:.0%}" for name, share in shares.items()))
    elif shares := result.get("success_by_task", {}).get("agents"):
        lines.append("success by task: " + ", ".join(f"{task} {share:.0%}" for task, share in shares.items()))
    elif "food_eaten" in result:
        lines.append(f"the planner is left out: it is for worlds of at most {MAX_CELLS} cells")
    who = [f"    {name:<8} {about}" for name, about in WHO_THEY_ARE.items() if name in result["fitness"]]
    return "\n".join([head, *lines, "", *who])


def interval_text(figure: dict[str, float]) -> str:
    """A mean with its interval, with as many digits as its size calls for."""
    digits = 1 if max(abs(figure["low"]), abs(figure["high"])) >= 2 else 2
    return f"{figure['mean']:.{digits}f} [{figure['low']:.{digits}f}, {figure['high']:.{digits}f}]"
