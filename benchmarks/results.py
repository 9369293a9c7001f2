"""What a comparison of runs found, for people: tables and a chart in a page of docs/, and every number beside it."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from trainers.records.run_folder import machine

Table = Sequence[Sequence[str]]
"""Rows of texts; the first one is the head."""


class Chart(NamedTuple):
    """Panels side by side, by their titles, each with a line for each name."""

    caption: str
    panels: Mapping[str, Mapping[str, Sequence[float] | np.ndarray]]
    xlabel: str
    ylabel: str = "% of the planner's food"
    legend: str | None = None  # the title of the legend; None: there is none
    top: float | None = None  # of the y axis from 0; None: as the lines need it
    x: Sequence[float] | None = None  # of marked points; None: 0, 1, 2 and so on, without marks
    level: tuple[str, float] | None = None  # the name and height of a dotted line across
    size: tuple[float, float] = (9, 3.6)  # inches


class Results(NamedTuple):
    """A table for each section of the page, all numbers, and a chart."""

    tables: Mapping[str, Table]
    numbers: Mapping[str, Any]
    chart: Chart


def write(results: Results, page: Path) -> None:
    """Write picture and numbers beside the page and the tables into it, the picture under the last one."""
    picture = page.with_suffix(".png")
    draw(results.chart, picture)
    texts = {section: markdown(table) for section, table in results.tables.items()}
    texts[list(texts)[-1]] += f"\n\n![{results.chart.caption}]({picture.name})"
    for section, text in texts.items():
        write_section(page, section, text)
    numbers = {"machine": machine(), **results.numbers}
    page.with_suffix(".json").write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")


def draw(chart: Chart, file: Path) -> None:
    """Write the picture."""
    from matplotlib.figure import Figure  # here, so that only those who want a picture need it
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=chart.size, layout="constrained")
    panels = figure.subplots(1, len(chart.panels), sharey=True, squeeze=False)[0]
    for panel, (title, lines) in zip(panels, chart.panels.items(), strict=True):
        if chart.level:
            panel.axhline(chart.level[1], color="grey", linestyle="dotted", label=chart.level[0])
        for name, line in lines.items():
            style = {"marker": "o", "alpha": 0.7} if chart.x else {}
            panel.plot(chart.x or range(len(line)), line, label=name, **style)
        panel.set(title=title, xlabel=chart.xlabel)
        if chart.top:
            panel.set_ylim(0, chart.top)
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel(chart.ylabel)
    if chart.legend:
        panels[-1].legend(frameon=False, title=chart.legend, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(file, dpi=120)


def markdown(table: Table) -> str:
    """A table in Markdown, a line of any length for each row."""
    head, *rows = table
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows))


def write_section(page: Path, name: str, text: str) -> None:
    """Put text into a page, between the comments `name` and `end`; ValueError where the page has no such section."""
    check_sections(page, name)
    found = _section(name).sub(lambda match: f"{match[1]}\n{text}\n\n{match[2]}", page.read_text(encoding="utf-8"))
    page.write_text(found, encoding="utf-8")


def check_sections(page: Path, *names: str) -> None:
    """Raise ValueError, before hours of work, where a page is missing or has no section of such a name."""
    for name in names:
        if not page.is_file() or not _section(name).search(page.read_text(encoding="utf-8")):
            raise ValueError(f"--page {page}: must be a file with a place <!-- {name} --> ... <!-- end -->")


def _section(name: str) -> re.Pattern[str]:
    return re.compile(rf"(<!-- {name} -->\n).*?(<!-- end -->)", re.DOTALL)
