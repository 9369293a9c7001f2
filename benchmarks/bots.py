"""What the scripted bots reach in every preset, and which rules of a world matter, in held-out worlds.

    python -m benchmarks.bots [--worlds N] [--presets NAME ...] [--json FILE] [--markdown]

There are two tables. The first has return, food eaten, share that died and steps lived of each bot of `envs.bots`, as
means over all agents. The second takes one rule at a time from a `Forager` that follows all rules of its world; the
loss is the percentage of its return that it then lacks. A rule matters if the loss is `MATTERS` percent or more.

Figures are means with 95 % bootstrap intervals that resample worlds; losses are ratios of means over the same worlds.
This takes minutes. `--json` writes {"worlds": N, "bots": [row, ...], "rules": [row, ...]}, each figure as {mean, low,
high}.
"""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from envs import HELD_OUT, WorldConfig
from envs.bots import Bot, bots
from envs.bots.forager import RULES, Forager
from envs.presets import PRESETS, preset
from trainers.cli.command_line import run_command
from trainers.comparison import interval, interval_text, play_bot

if TYPE_CHECKING:
    from trainers.rollout import Outcome

MATTERS = 10.0
"""Percent of the return that a rule must be worth."""

FIGURES: dict[str, Callable[["Outcome"], np.ndarray]] = {
    "return": lambda outcome: outcome.episode_return,
    "food eaten": lambda outcome: outcome.figures["food_eaten"],
    "died %": lambda outcome: 100.0 * ~outcome.is_alive,
    "steps lived": lambda outcome: outcome.lifetime,
}
"""The columns of the first table, from an outcome to (W, N)."""

Row = dict[str, Any]


def rules_of(config: WorldConfig) -> list[str]:
    """The rules that apply in a world: that of rocks only with rocks, those of night and home only with nights."""
    has = {
        "memory": True,
        "rocks": config.rocks > 0 or config.walls > 0,
        "night": config.night_length > 0,
        "home": config.night_length > 0,
    }
    return [rule for rule in RULES if has[rule]]


def measure_preset(name: str, seeds: np.ndarray) -> tuple[list[Row], list[Row]]:
    """Rows of both tables for one preset, all played in the worlds of `seeds`."""
    config = preset(name)

    def play(who: str, bot: Bot) -> "Outcome":
        print(f"{name}: {who}", file=sys.stderr)
        return play_bot(bot, config, seeds)

    outcomes = {who: play(who, bot) for who, bot in bots(config).items()}
    bot_rows = [
        {"preset": name, "bot": who} | {key: interval(figure(o).mean(1)) for key, figure in FIGURES.items()}
        for who, o in outcomes.items()
    ]
    heeding = outcomes["forager"].episode_return.mean(1)
    rule_rows = []
    for rule in rules_of(config):
        ignorant = Forager(config, heeds=tuple(r for r in RULES if r != rule))
        loss = loss_percent(heeding, play(f"forager without {rule}", ignorant).episode_return.mean(1))
        rule_rows.append({"preset": name, "rule": rule, "loss %": loss, "matters": loss["mean"] >= MATTERS})
    return bot_rows, rule_rows


def loss_percent(heeding: np.ndarray, ignoring: np.ndarray, resamples: int = 2000) -> dict[str, float]:
    """Percent by which the mean of `ignoring` (W,) lies below that of `heeding` (W,), with a 95 % interval.

    A world's two returns are drawn together, so that what makes a world easy for both cancels.
    """
    draws = np.random.default_rng(0).integers(len(heeding), size=(resamples, len(heeding)))
    losses = 100 * (1 - ignoring[draws].mean(1) / heeding[draws].mean(1))
    low, high = np.percentile(losses, [2.5, 97.5])
    return {"mean": float(100 * (1 - ignoring.mean() / heeding.mean())), "low": float(low), "high": float(high)}


def cells(rows: list[Row]) -> list[list[str]]:
    """A heading and the rows as text."""

    def text(cell: object) -> str:
        if isinstance(cell, dict):
            return interval_text(cell)
        return cell if isinstance(cell, str) else "yes" if cell else "NO"

    return [list(rows[0]), *([text(cell) for cell in row.values()] for row in rows)]


def table(rows: list[Row], *, markdown: bool) -> str:
    """Rows as an aligned table; in Markdown if asked."""
    lines = cells(rows)
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    if markdown:
        lines.insert(1, ["-" * width for width in widths])
    padded = [[cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" if markdown else "  ".join(line).rstrip() for line in padded)


def main(argv: list[str] | None = None) -> None:
    """Measure, print both tables, and write the rows to a file if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", type=int, default=32)
    parser.add_argument("--presets", nargs="+", default=list(PRESETS), choices=list(PRESETS), metavar="NAME")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--markdown", action="store_true")
    options = parser.parse_args(argv)

    seeds = HELD_OUT + np.arange(options.worlds)
    measured = [measure_preset(name, seeds) for name in options.presets]
    tables = {"bots": [r for rows, _ in measured for r in rows], "rules": [r for _, rows in measured for r in rows]}
    print(f"{options.worlds} held-out worlds, means with 95 % intervals", end="\n\n")
    print(table(tables["bots"], markdown=options.markdown), end="\n\n")
    print(table(tables["rules"], markdown=options.markdown))
    if options.json:
        options.json.write_text(json.dumps({"worlds": options.worlds, **tables}, indent=2) + "\n")


if __name__ == "__main__":
    run_command(main)
