"""Two finished runs on a tiny model, and the page that a process of its own serves of them."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from trainers.cli.parser import parse
from trainers.train import train

ROOT = Path(__file__).parents[2]


@contextmanager
def served(*arguments: object, port: int = 0) -> Iterator[str]:
    """The address of a page that is served within the block, at this port, or any that is free."""
    command = [sys.executable, "-m", "dashboard", *map(str, arguments), "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as server:
        assert server.stdout
        try:
            yield server.stdout.readline().split()[2]
        finally:
            server.terminate()


@pytest.fixture(scope="session")
def page_arguments(tiny_model: Path) -> list[str]:
    """Command line of a run of six agents that takes a second a generation."""
    return [
        *("--model.name", str(tiny_model), "--model.dtype", "float32"),
        *("--adapter.top_layers", "2", "--adapter.rank", "2"),
        *("--env.agents", "6", "--env.width", "9", "--env.height", "9", "--env.food", "12", "--env.max_steps", "20"),
        *("--env.energy_start", "15", "--evolution.parents", "3", "--evolution.elites", "2"),
        *("--evolution.episodes", "3", "--held_out_episodes", "2", "--generations", "3", "--log.episode_every", "2"),
    ]


@pytest.fixture(scope="session")
def two_runs(page_arguments: list[str], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The folders of two finished runs; the name of the second would do harm if it were not shown as text."""
    folder = tmp_path_factory.mktemp("runs")
    runs = [folder / "first", folder / "<img src=x onerror=alert(1)>"]
    for seed, run_dir in enumerate(runs):
        train(parse([*page_arguments, "--seed", str(seed), "--run_dir", str(run_dir)])[0])
    return runs


@pytest.fixture(scope="session")
def address(two_runs: list[Path]) -> Iterator[str]:
    """The page of both."""
    with served(*two_runs) as address:
        yield address


@pytest.fixture(scope="session")
def serving() -> Callable:
    """`served`, for tests that have runs of their own."""
    return served


def _luminance(colour: str) -> float:
    """Relative luminance of #rrggbb (WCAG 2.2)."""
    shares = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (s / 12.92 if s <= 0.04045 else ((s + 0.055) / 1.055) ** 2.4 for s in shares)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.fixture(scope="session")
def contrast() -> Callable[[str, str], float]:
    """From two colours, as #rrggbb, to their contrast, between 1 and 21 (WCAG 2.2)."""

    def of(one: str, other: str) -> float:
        dark, light = sorted((_luminance(one), _luminance(other)))
        return (light + 0.05) / (dark + 0.05)

    return of
