"""The family tree of a run, and figures of whether heredity and selection do what they should.

    python -m trainers.lineage RUN_DIR [--draw FILE]

prints each generation's best, the champion's line of descent, and the health of evolution; `--draw` makes a picture of
the family tree (needs the extra `draw`). Reads lineage.jsonl and metrics.jsonl of a run, also of one that is still
going on, up to its newest complete generation. Never imports torch.

Fitness is measured in other worlds each generation, so comparisons across generations are between standard scores: by
how many standard deviations an individual was above the mean of its generation (of those of its role, where a world has
several).
"""

import argparse
from collections import defaultdict
from collections.abc import Iterable
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import networkx as nx
import numpy as np

from agents.types import UserError
from evolution.commands import a_path, command
from trainers.cli.command_line import run_command
from trainers.records.reading import read_log
from trainers.records.sealed import DamagedRun


class Health(NamedTuple):
    """Figures of quantitative genetics (Falconer & Mackay 1996, chapters 10 and 11); NaN if unknown."""

    heritability: float  # slope of a child's first score on the mean score of its parents before its birth
    selection_differential: float  # mean score of parents, each counted once per child; that of all is 0
    better_than_parents: float  # share of children whose first score is above the mean score of their parents
    learning_gain: float  # fitness after learning minus return before, mean of all but those born in a rollout
    diversity: float  # mean distance between two adapters, in the last generation
    living_founders: int  # founders that live, or have a descendant, in the last generation


def family_tree(events: Iterable[dict[str, Any]]) -> nx.DiGraph:
    """A graph from parents to children.

    Nodes are ids, with generation (of birth), slot, operator, in_rollout, role and, by generation, `fitness` and
    `score`, as far as measured.

    ValueError, with the number of the line, for one who is born twice or measured without a birth, and for parents that
    were not born before: so nobody descends from itself, and every line of descent has a beginning.
    """
    tree = nx.DiGraph()
    measured: defaultdict[int, dict[int, float]] = defaultdict(dict)  # generation -> id -> fitness
    for number, event in enumerate(events, 1):
        try:
            _grow(tree, measured, event)
        except ValueError as error:
            raise ValueError(f"lineage.jsonl, line {number}: damaged ({error})") from error
    for generation, fitness in measured.items():
        of_role = defaultdict(list)
        for one, value in fitness.items():
            of_role[tree.nodes[one]["role"]].append(value)
        for one, value in fitness.items():
            values = np.array(of_role[tree.nodes[one]["role"]])
            tree.nodes[one]["fitness"][generation] = value
            tree.nodes[one]["score"][generation] = float((value - values.mean()) / (values.std() or 1.0))
    return tree


def _grow(tree: nx.DiGraph, measured: dict[int, dict[int, float]], event: dict[str, Any]) -> None:
    """Add a birth to the tree, or an evaluation to what was measured; ValueError if it cannot be."""
    one = event["id"]
    if event["event"] == "birth":
        about = {key: event[key] for key in ("generation", "slot", "operator", "in_rollout")}
        for parent in event["parents"]:
            if not (parent < one and parent in tree):
                raise ValueError(f"parent {parent} of {one}: must be an id below it, of one born before")
        if one in tree:
            raise ValueError(f"id = {one}: must be of one not yet born")
        tree.add_node(one, **about, role=event.get("role", "agent"), fitness={}, score={})
        tree.add_edges_from((parent, one) for parent in event["parents"])
    elif event["event"] == "evaluation":
        if one not in tree:
            raise ValueError(f"id = {one}: must be of one born before")
        measured[event["generation"]][one] = event["fitness"]


def line_of(tree: nx.DiGraph, one: int) -> list[int]:
    """An individual's line of descent, oldest first: of two parents always the one that was fitter at the birth."""
    line = [one]
    while parents := list(tree.predecessors(line[-1])):
        born = tree.nodes[line[-1]]["generation"]
        line.append(max(parents, key=lambda parent: tree.nodes[parent]["fitness"].get(born - 1, -np.inf)))
    return line[::-1]


def health(tree: nx.DiGraph, events: Iterable[dict[str, Any]], diversity: float = float("nan")) -> Health:
    """The health of evolution in a run. diversity: from the last line of its metrics."""
    children, parents = [], []
    for one, about in tree.nodes(data=True):
        before = [tree.nodes[p]["score"].get(about["generation"] - 1) for p in tree.predecessors(one)]
        first = about["score"].get(about["generation"])
        if before and first is not None and None not in before:
            children.append(first)
            parents.append(np.mean(before))
    child, parent = np.array(children), np.array(parents)
    born_late = {(one, about["generation"]) for one, about in tree.nodes(data=True) if about["in_rollout"]}
    whole = [e for e in events if e["event"] == "evaluation" and (e["id"], e["generation"]) not in born_late]
    gains = [event["fitness"] - event["return"] for event in whole]
    last = max(generations(tree), default=0)
    living = {one for one, about in tree.nodes(data=True) if last in about["fitness"]}
    founders = [one for one in tree if not tree.in_degree(one)]
    spread = parent.var() if len(parent) else 0.0
    nan = float("nan")
    return Health(
        heritability=float(np.cov(child, parent, bias=True)[0, 1] / spread) if spread else nan,
        selection_differential=float(parent.mean()) if len(parent) else nan,
        better_than_parents=float((child > parent).mean()) if len(child) else nan,
        learning_gain=float(np.mean(gains)) if gains else nan,
        diversity=diversity,
        living_founders=sum(bool(living & ({one} | nx.descendants(tree, one))) for one in founders),
    )


def generations(tree: nx.DiGraph) -> list[int]:
    """The generations in which fitness was measured, in order."""
    return sorted({g for _, about in tree.nodes(data=True) for g in about["fitness"]})


def best_of(tree: nx.DiGraph, generation: int) -> int:
    """The fittest individual of a generation."""
    return max(tree, key=lambda one: tree.nodes[one]["fitness"].get(generation, -np.inf))


def champion_of(tree: nx.DiGraph) -> int:
    """The fittest individual of the last generation that was measured; UserError if none was."""
    measured = generations(tree)
    if not measured:
        raise UserError("no individual's fitness has been measured yet")
    return best_of(tree, measured[-1])


def draw(tree: nx.DiGraph, file: Path) -> None:
    """Draw the family tree from left to right, coloured by fitness when young, the champion's line in red."""
    from matplotlib.figure import Figure  # here, since only a picture needs it

    line = line_of(tree, champion_of(tree))
    place = {one: (about["generation"], -about["slot"]) for one, about in tree.nodes(data=True)}
    figure = Figure(figsize=(max(6, 0.5 * len({x for x, _ in place.values()})), 6), layout="constrained")
    axes = figure.subplots()
    first = [min(about["fitness"].items(), default=(0, np.nan))[1] for _, about in tree.nodes(data=True)]
    nx.draw_networkx_edges(tree, place, ax=axes, arrows=False, edge_color="lightgrey", width=0.5)
    edges = list(pairwise(line))
    nx.draw_networkx_edges(tree, place, edges, ax=axes, arrows=False, edge_color="crimson", width=2)
    nodes = nx.draw_networkx_nodes(tree, place, ax=axes, node_size=25, node_color=first, cmap="viridis")
    figure.colorbar(nodes, ax=axes, label="fitness in its first generation")
    axes.tick_params(bottom=True, labelbottom=True)
    axes.set(xlabel="generation of birth", ylabel="slot", title=f"the line of {line[-1]}")
    figure.savefig(file, dpi=120)


def report(tree: nx.DiGraph, figures: Health) -> str:
    """The best of each generation, the champion's line and the figures of health, as text."""
    rows = []
    for generation in generations(tree):
        born = [one for one, about in tree.nodes(data=True) if about["generation"] == generation]
        best = best_of(tree, generation)
        fitness = tree.nodes[best]["fitness"][generation]
        rows.append(f"generation {generation:3d}: {len(born):3d} born, best {best} with fitness {fitness:.2f}")
    line = line_of(tree, champion_of(tree))
    steps = (f"{one} ({tree.nodes[one]['operator']}, {tree.nodes[one]['generation']})" for one in line)
    rows += ["", "the champion's line, id (operator, generation of birth):", "  " + " > ".join(steps), ""]
    rows += [f"{name.replace('_', ' '):24s} {value:8.2f}" for name, value in figures._asdict().items()]
    return "\n".join(rows)


def lineage(run_dir: Path, picture: Path | None = None) -> str:
    """The report on a run, with a picture of its family tree in a file if asked for; UserError for what is no run."""
    if picture and find_spec("matplotlib") is None:
        raise UserError(f"--draw {picture}: needs `pip install -e '.[draw]'` (matplotlib is not installed)")
    try:
        events, metrics = (read_log(run_dir, log, only_complete=True) for log in ("lineage.jsonl", "metrics.jsonl"))
        tree = family_tree(events)
        text = report(tree, health(tree, events, metrics[-1]["diversity"] if metrics else float("nan")))
        if picture:
            draw(tree, picture)
    except DamagedRun as error:
        raise UserError(f"{error}; {run_dir} must be the whole folder of a run") from error
    except (OSError, ValueError) as error:
        raise UserError(str(error)) from error
    return text


def main(argv: list[str] | None = None) -> None:
    """Print the report, and draw if asked to; a mistake is one sentence and exit code 2."""
    parser = argparse.ArgumentParser(prog=command("trainers.lineage"), allow_abbrev=False)
    parser.add_argument("run_dir", type=a_path, metavar="RUN_DIR", help="folder of the run")
    parser.add_argument("--draw", type=a_path, metavar="FILE", help="also draw the family tree, as .png or .svg")
    options = parser.parse_args(argv)
    run_command(lambda: print(lineage(options.run_dir, options.draw)))


if __name__ == "__main__":
    main()
