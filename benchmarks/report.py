"""The page of `benchmarks.ablation`: tables, curves, and which condition learns how fast."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.results import markdown
from benchmarks.statistics import (
    ENOUGH,
    bootstrap,
    format_interval,
    interval,
    probability_of_improvement,
    share_better,
)
from trainers.records.run_folder import machine

Result = dict[str, Any]
"""A run's preset, condition, seed, score, curve, and the scores of the baselines in its held-out worlds."""
Curve = list[dict[str, float]]
"""Points in time, each with its steps `learning` and `all`, its `seconds`, and the `share` of the planner."""
WHOLE, MLP = "both", "MLP"
"""The condition that others are compared with, and how the names of plain networks begin."""
FRUGAL = "2 worlds of fitness"
"""The condition that takes as few steps as one can, compared with plain networks as the whole method is."""
LEVEL = 0.03
"""Curves nearer than this count as level: so much is luck of the few worlds in which fitness is measured."""

HEAD = """# Results

Written by `python -m benchmarks.ablation`, {generations} generations a run, on {cpu}.

A score is the food that all agents of a run's last generation eat on average in held-out worlds, as a share of what the
full-knowledge planner eats in them. The tables show interquartile means over seeds with 95 % bootstrap intervals (of
five runs they hold the truth nine times in ten; of fewer, the lowest and the highest run are shown instead), and how
often a run of `{whole}` beats one of the condition. Scripted bots and the frozen model play the worlds of a run of
`{whole}` and are compared with that run; so are its agents with every thing renamed, or all clauses in reverse. Curves
of the language model show the food in the worlds of fitness, over what the planner eats in the held-out ones."""


def report(
    results: list[Result], out: Path, presets: Sequence[str], generations: int, changes: Mapping[str, Sequence[str]]
) -> None:
    """Write results.md with tables for each preset and for all together, pictures, and results.json with every number.

    results: as `benchmarks.ablation.read` gives them. changes: what each condition changes, as on a command line.
    """
    out.mkdir(parents=True, exist_ok=True)
    parts = [HEAD.format(generations=generations, cpu=machine()["cpu"], whole=WHOLE)]
    tables = {}
    for preset in presets:
        tables[preset] = summary([r for r in results if r["preset"] == preset])
        picture = out / f"results_{preset}.png"
        draw(results, preset, picture)
        shown = [summary_table(tables[preset]), f"![{preset}]({picture.name})", early(results, preset)]
        parts += [f"## {preset}", *shown, *catching_up(results, preset), *catching_up(results, preset, FRUGAL)]
    if len(presets) > 1:
        tables["all"] = summary(in_all(results, presets))
        parts.append(f"## All presets\n\n{summary_table(tables['all'])}")
    lines = [f"- {name}: {'`' + ' '.join(words) + '`' if words else 'the default'}" for name, words in changes.items()]
    parts.append("## What the conditions change\n\n" + "\n".join(lines))
    (out / "results.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    numbers = {"machine": machine(), "summary": tables, "runs": results}
    (out / "results.json").write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")
    print("\n\n".join(parts[1:]))


def in_all(results: list[Result], presets: Sequence[str]) -> list[Result]:
    """The results of conditions that have runs in all presets."""
    known = {(r["condition"], r["preset"]) for r in results}
    return [r for r in results if all((r["condition"], preset) in known for preset in presets)]


def summary(results: list[Result], whole: str = WHOLE) -> dict[str, dict[str, Any]]:
    """Interquartile mean of each condition over all presets, its interval, and how often `whole` is better."""
    scores = {name: _scores(results, name) for name in dict.fromkeys(r["condition"] for r in results)}
    judged = [r for r in results if r["condition"] == whole]
    baselines = [n for r in judged[:1] for n in r["baselines"] if all(n in other["baselines"] for other in judged)]
    scores |= {name: _matrix(judged, [r["baselines"][name] for r in judged]) for name in baselines}
    table = {}
    for name, values in scores.items():
        table[name] = interval(values) | {"seeds": len(values)}
        if name in baselines:
            table[name] |= _improvement(share_better, [scores[whole] - values])
        elif name != whole and whole in scores:
            table[name] |= _improvement(probability_of_improvement, [scores[whole], values])
    return table


def _improvement(share: Callable[..., float], scores: list[np.ndarray]) -> dict[str, float]:
    """How often the whole method is better, with the 95 % bootstrap interval of that."""
    low, high = bootstrap(scores, share)
    return {"whole_is_better": share(*scores), "from": low, "to": high}


def _scores(results: list[Result], condition: str) -> np.ndarray:
    rows = [r for r in results if r["condition"] == condition]
    return _matrix(rows, [r["score"] for r in rows])


def _matrix(rows: list[Result], scores: list[float]) -> np.ndarray:
    """Scores (runs, presets) of the seeds that all presets have."""
    by = {(r["preset"], r["seed"]): score for r, score in zip(rows, scores, strict=True)}
    presets = list(dict.fromkeys(preset for preset, _ in by))
    seeds = [s for s in dict.fromkeys(seed for _, seed in by) if all((p, s) in by for p in presets)]
    return np.array([[by[preset, seed] for preset in presets] for seed in seeds])


def summary_table(table: dict[str, dict[str, Any]], whole: str = WHOLE) -> str:
    """The summary in Markdown, best first."""
    rows = [["condition", "share of the planner", "runs", f"`{whole}` is better"]]
    for name, row in sorted(table.items(), key=lambda item: -item[1]["iqm"]):
        score = format_interval(row, ".1%") if row["seeds"] > 1 else f"{row['iqm']:.1%}"
        better = f"{row['whole_is_better']:.0%}" if "from" in row else ""
        if better and row["seeds"] >= ENOUGH and row["from"] < row["to"]:  # none where all pairs are on one side
            better += f" [{row['from']:.0%}, {row['to']:.0%}]"
        rows.append([name, score, f"{row['runs']}", better])
    return markdown(rows)


EARLY = {
    "10,000 steps learned from": ("learning", 10_000),
    "40,000": ("learning", 40_000),
    "100,000 steps in all": ("all", 100_000),
    "1 minute": ("seconds", 60),
    "3 minutes": ("seconds", 180),
}
"""Columns of the table of who learns how fast: the axis of the curves, and the point on it."""
AREA = 100_000
"""Steps in all over which a curve's height is averaged: the area under it."""


def early(results: list[Result], preset: str) -> str:
    """A table of the shares of the planner that each condition had reached at some points, means over seeds."""
    table = [["condition", *EARLY, f"mean to {AREA:,} steps in all"]]
    for name, curves in _curves(results, preset).items():
        points = [_heights(curve, axis, np.array([at])) for curve in curves for axis, at in EARLY.values()]
        heights = np.reshape(points, (len(curves), -1)).mean(axis=0).tolist()
        heights.append(np.mean([_heights(curve, "all", np.linspace(0, AREA, 101)).mean() for curve in curves]))
        table.append([name, *("" if np.isnan(h) else f"{h:.0%}" for h in heights)])
    return "How far they had come, mean over seeds, after\n\n" + markdown(table)


def catching_up(results: list[Result], preset: str, whole: str = WHOLE) -> list[str]:
    """A sentence for each MLP and kind of step: from where on its mean curve is level with the language model's."""
    curves, lines = _curves(results, preset), []
    for name in (name for name in curves if name.startswith(MLP) and whole in curves):
        for axis, what in (("learning", "steps learned from"), ("all", "steps in all")):
            steps = np.arange(5_000, int(min(c[-1][axis] for c in curves[whole])), 1_000)
            ours, its = (np.mean([_heights(c, axis, steps) for c in curves[n]], axis=0) for n in (whole, name))
            behind = np.flatnonzero(its < ours - LEVEL)
            if not len(behind):
                lines.append(f"{name}: level with `{whole}` or ahead from the beginning, by {what}.")
            elif behind[-1] + 1 == len(steps):
                lines.append(f"{name}: behind `{whole}` to the end, by {what} ({steps[-1]:,}).")
            else:
                lines.append(f"{name}: level with `{whole}` after {steps[behind[-1] + 1]:,} {what}.")
    return lines


def _curves(results: list[Result], preset: str) -> dict[str, list[Curve]]:
    names = dict.fromkeys(r["condition"] for r in results)
    every = {n: [r["curve"] for r in results if (r["preset"], r["condition"]) == (preset, n)] for n in names}
    return {name: curves for name, curves in every.items() if curves and curves[0]}


def _heights(curve: Curve, axis: str, at: np.ndarray) -> np.ndarray:
    """Heights (len(at),) of a curve between its points; the first one before it, NaN after the last."""
    x, share = ([row[key] for row in curve] for key in (axis, "share"))
    return np.interp(at, x, share, right=np.nan)


def draw(results: list[Result], preset: str, file: Path) -> None:
    """Share of the planner against all steps in the world and against seconds, a line a condition, mean and range."""
    from matplotlib import colormaps  # here, so that only those who want a picture need it
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 4.4), layout="constrained")
    for axes, key in zip(figure.subplots(1, 2, sharey=True), ("all", "seconds"), strict=True):
        for number, (name, curves) in enumerate(_curves(results, preset).items()):
            length = min(map(len, curves))
            x = np.mean([[row[key] for row in curve[:length]] for curve in curves], axis=0)
            y = np.array([[row["share"] for row in curve[:length]] for curve in curves])
            colour, width = colormaps["tab20"](number % 20), 2.2 if name == WHOLE else 1.2
            axes.plot(x, y.mean(axis=0), label=name, linewidth=width, color=colour)
            axes.fill_between(x, y.min(axis=0), y.max(axis=0), alpha=0.08, color=colour, linewidth=0)
        axes.set(xlabel={"all": "steps of single agents, fitness included", "seconds": "seconds"}[key])
    figure.axes[0].set(ylabel="share of the planner's food")
    figure.axes[1].set(xscale="log", xlim=(1, None))
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside right center", fontsize=8)
    figure.suptitle(f"{preset}: mean and range over seeds")
    figure.savefig(file, dpi=120)
