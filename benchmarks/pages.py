"""What it costs a run that people look at it: its speed with no page, with one and with many open.

    python -m benchmarks.pages [--viewers N ...] [--rounds N] [--generations N] [--browser] [--json FILE]

The same run is made by turns with no page, and with the page served and N viewers, who ask for all that the world's
view asks for, at once and after news, and draw nothing: so it is where they look from other machines. --browser adds a
headless Chromium with one tab that plays the world on this machine, without a graphics card; it needs a processor of
its own, which a machine of two has not to spare. Compared are seconds of a generation, without the first of each run.
Needs the `dashboard` and `dev` extras.
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

from trainers.command_line import run_command
from trainers.run_folder import machine

QUIET = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
BROWSER = -1
"""In place of a number of viewers."""


def look(address: str) -> None:
    """Be a viewer of the run until its page is gone; one who takes no more of this machine than another one would."""

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
            lives = [told for told in json.loads(ask("runs/0/recordings")) if told["kind"] == "life"]
            if lives:
                life = f"runs/0/recordings/life/{lives[-1]['generation']}"
                ask(life)
                ask(life + "/memory/0")
            news.recv()


def crowd(address: str, count: int) -> None:
    """So many viewers, who stand back for whatever else runs here."""
    os.nice(19)
    threads = [threading.Thread(target=look, args=(address,)) for _ in range(count)]
    for thread in threads:
        thread.start()


@contextmanager
def viewers(address: str, count: int) -> Iterator[None]:
    """So many look at the page within the block."""
    process = multiprocessing.get_context("spawn").Process(target=crowd, args=(address, count))
    process.start()
    yield
    process.join()


@contextmanager
def browser(address: str) -> Iterator[None]:
    """A tab of a browser shows the page within the block."""
    with sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=shutil.which("chromium"), args=QUIET)
        chromium.new_page(viewport={"width": 1366, "height": 768}).goto(address)
        yield
        chromium.close()


def seconds_of_generations(count: int, generations: int) -> list[float]:
    """Live through a run while `count` viewers look at it."""
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
    parser.add_argument("--browser", action="store_true", help="also one that draws, on this machine")
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
