"""What viewers of the dashboard cost a run: its speed with no page open, with one and with many.

    python -m benchmarks.pages [--viewers N ...] [--rounds N] [--generations N] [--browser] [--json FILE]

The same run is made in turn with no page, and with a page that N viewers have open. The viewers ask for everything that
the world's view asks for, at first and after each piece of news, and draw nothing, as if their browsers were on other
machines. --browser adds a headless Chromium with one tab that plays the world on this machine, without a graphics card;
it needs a processor of its own, which a machine with two does not have. The seconds of a generation are compared,
without the first of each run. Needs the `dashboard` and `dev` extras.
"""

import argparse
import json
import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.request import urlopen

from playwright.sync_api import sync_playwright
from websockets.exceptions import WebSocketException
from websockets.sync.client import connect
from websockets.typing import Origin

from trainers.cli.command_line import run_command
from trainers.records.run_folder import machine

QUIET = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
BROWSER = -1
"""In place of a number of viewers."""


def view(address: str) -> None:
    """Act as a viewer of the run until its page is closed; the answers are read and not drawn."""

    def ask(path: str) -> bytes:
        with urlopen(f"{address}/{path}") as answer:
            return bytes(answer.read())

    news_at = address.replace("http", "ws") + "/news"
    with suppress(OSError, WebSocketException), connect(news_at, origin=Origin(address)) as news:
        for path in ("", "app.js", "plotly.js"):
            ask(path)
        while True:
            ask("runs")
            ask("runs/0/lineage")
            recordings = [entry for entry in json.loads(ask("runs/0/recordings")) if entry["kind"] == "rollout"]
            if recordings:
                newest = f"runs/0/recordings/rollout/{recordings[-1]['generation']}"
                ask(newest)
                ask(newest + "/memory/0")
            news.recv()


def view_all(address: str, count: int) -> None:
    """Act as `count` viewers, at the lowest priority."""
    os.nice(19)
    threads = [threading.Thread(target=view, args=(address,)) for _ in range(count)]
    for thread in threads:
        thread.start()


@contextmanager
def viewers(address: str, count: int) -> Iterator[None]:
    """Within the block, `count` viewers have the page open."""
    process = multiprocessing.get_context("spawn").Process(target=view_all, args=(address, count))
    process.start()
    yield
    process.join()


@contextmanager
def browser(address: str) -> Iterator[None]:
    """Within the block, a tab of a browser shows the page."""
    with sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=shutil.which("chromium"), args=QUIET)
        chromium.new_page(viewport={"width": 1366, "height": 768}).goto(address)
        yield
        chromium.close()


def seconds_of_generations(count: int, generations: int) -> list[float]:
    """Make a run while `count` viewers have its page open; seconds of each generation, without the first."""
    with tempfile.TemporaryDirectory() as folder:
        words = [sys.executable, "-m", "trainers.train", "--run_dir", folder + "/run", "--generations", generations]
        words += ["--dashboard"] if count else []
        with subprocess.Popen(list(map(str, words)), stdout=subprocess.PIPE, text=True) as run:
            assert run.stdout
            if count:
                address = run.stdout.readline().split()[2]
                with browser(address) if count == BROWSER else viewers(address, count):
                    run.communicate()
            else:
                run.communicate()
        lines = (Path(folder) / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        return [json.loads(line)["wall_s"] for line in lines][1:]


def main(argv: list[str] | None = None) -> None:
    """Measure, print, and write if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--viewers", type=int, nargs="+", default=[1, 20])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--generations", type=int, default=8)
    parser.add_argument("--browser", action="store_true", help="also one viewer that draws, on this machine")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(argv)
    counts = [0, *options.viewers, *([BROWSER] if options.browser else [])]
    names = {0: "no page", BROWSER: "a browser on this machine"} | {n: f"{n} viewers" for n in options.viewers}
    found: dict[str, list[float]] = {names[count]: [] for count in counts}
    for turn in range(options.rounds):
        start = turn % len(counts)
        for count in counts[start:] + counts[:start]:
            seconds = statistics.mean(seconds_of_generations(count, options.generations))
            found[names[count]].append(seconds)
            print(f"{names[count]:26s} {seconds:.2f} s a generation", flush=True)
    medians = {name: statistics.median(seconds) for name, seconds in found.items()}
    for name, median in medians.items():
        print(f"{name:26s} {median / medians['no page']:.3f} of the time without a page")
    if options.json:
        about = {"machine": machine(), "seconds": found, "medians": medians}
        options.json.write_text(json.dumps(about, indent=2) + "\n")


if __name__ == "__main__":
    run_command(main)
