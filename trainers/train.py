"""The main program: a population of small language models lives, learns and evolves.

python -m trainers.train [--config FILE] [--run_dir DIR] [--seed N] [--generations N] [--any.key VALUE]
python -m trainers.train --resume RUN_DIR [--generations N] [--strict]

--dashboard besides shows the run in a browser while it goes on, and in a terminal until Ctrl-C (needs the extra
`dashboard`).

config ─> population ─> generation:  evolve    select, breed, mutate (from the second on)   (evolution)
                                     collect   a rollout in new worlds                      (rollout)
                                     learn     one batched update of all adapters           (learning)
                                               (both `rollouts_per_generation` times)
                                     evaluate  fitness in worlds common to all              (rollout)
                                     record    metrics, checkpoint, adapters, lineage       (records)
"""

import os
import shlex
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from threading import Timer
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from agents.types import UserError, log, require
from agents.weights.fetch import hash_model_ahead
from envs.extras import EXTRAS, advice
from trainers.cli.command_line import MachineFault, run_command
from trainers.cli.stopping import stopping_cleanly
from trainers.config import TrainConfig

if TYPE_CHECKING:
    from trainers.stages import Run

PAGE_BEGINS_S = 120.0
"""Seconds in which the page beside a run must have begun."""
PAGE_ENDS_S = 5.0
"""Seconds in which it must have ended when it is told to."""


def train(
    config: TrainConfig, resume: Path | None = None, dashboard: bool = False, strict: bool = False
) -> dict[str, Any]:
    """Run `config.generations` generations; return the comparison with the baselines on held-out worlds.

    With `resume`, go on from the newest checkpoint in that run folder: the result equals that of a run never stopped.
    What is damaged there is made anew or set aside, and said; if `strict`, DamagedRun is raised instead.
    dashboard: show the run in a browser until it ends, in a terminal until Ctrl-C. Raises UserError for a run folder
    that is not empty, or that cannot be resumed, or a page that cannot be served.
    """
    require(resume is not None or not strict, "strict", strict, "left out without --resume")
    lacking = [name for name, extra in EXTRAS.items() if dashboard and extra == "dashboard" and find_spec(name) is None]
    wanted = f"left out, or needs {advice('dashboard')} ({', '.join(lacking)} not installed)"
    require(not lacking, "dashboard", dashboard, wanted)
    log.info("loading libraries")
    hash_model_ahead(config.model.name)
    # Here, not above: torch takes seconds to import, and --help should not wait
    from trainers.begin import begin
    from trainers.records.report import report
    from trainers.records.run_folder import reserved

    with ExitStack() as page, saying_faults_once(), reserved(Path(config.run_dir)):
        run = begin(config, resume, strict)
        if dashboard:
            page.enter_context(page_beside(run.run_dir))
        with saying_what_is_kept(run.run_dir), closing(run), run.progress, stopping_cleanly() as run.progress.check:
            all_generations(run)
            return report(run)


def all_generations(run: "Run") -> None:
    """All generations of a run, one after the other."""
    from trainers import stages
    from trainers.records.report import record

    for generation in stages.generations(run):
        evolves = run.config.evolution.enabled and generation.number > 0
        figures = stages.evolve(run, generation) if evolves else {}
        for _ in range(run.config.rollouts_per_generation):
            rollout = stages.collect(run, generation)
            learned = stages.learn(run, rollout)
        outcome, evaluated = stages.evaluate(run, generation)
        record(run, generation, rollout, figures | learned | evaluated, outcome)


@contextmanager
def saying_faults_once() -> Iterator[None]:
    """Within the block, a thread that a fault of the disk ends is silent.

    TensorBoard's writer has one from its beginning on. Its fault is raised again where the writer is flushed or closed.
    """
    say = threading.excepthook
    threading.excepthook = lambda failed: None if isinstance(failed.exc_value, OSError) else say(failed)
    try:
        yield
    finally:
        threading.excepthook = say


@contextmanager
def saying_what_is_kept(run_dir: Path) -> Iterator[None]:
    """Within the block, a UserError goes on with how much of the run is kept, and Ctrl-C has it said.

    MachineFault, with the same, where a file cannot be written or read: the disk is full, or the folder is gone.
    """
    try:
        yield
    except UserError as error:
        raise type(error)(f"{error}; {_kept(run_dir)}") from error
    except BrokenPipeError:
        raise
    except (OSError, SafetensorError) as error:
        raise MachineFault(f"{' '.join(str(error).split())}; {_kept(run_dir)}") from error
    except KeyboardInterrupt:
        log.info(_kept(run_dir))
        raise


def _kept(run_dir: Path) -> str:
    from trainers.records.manifest import checkpoints

    saved = max(checkpoints(run_dir), default=None)
    if saved is None:
        return f"no generation was complete, so nothing is kept, and {run_dir} can be deleted"
    way_on = f"--resume {shlex.quote(str(run_dir))}"
    return f"generation {saved} and those before are kept, and {way_on} goes on from there"


@contextmanager
def page_beside(run_dir: Path) -> Iterator[None]:
    """Within the block, a process of its own serves the page of the run; UserError if it cannot.

    In a terminal, where somebody can end it, the page stays after the block until Ctrl-C.
    """
    stays = sys.stdout.isatty()
    command = [sys.executable, "-m", "dashboard", str(run_dir), "--end_with", str(os.getpid())]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        address = _first_line(server)
        if not address:  # it has said why, or nothing in all that time
            raise UserError("--dashboard: must be left out where the page cannot be served")
        print(f"{address.strip()}   ({'stays when the run has ended' if stays else 'ends with the run'})", flush=True)
        try:
            yield
            if stays:
                print("The page is still there; Ctrl-C ends it.", flush=True)
                with suppress(KeyboardInterrupt):
                    server.wait()
        finally:
            _end(server)


def _first_line(server: "subprocess.Popen[str]") -> str:
    """What a page says when it has begun; nothing if it ends before, or does not begin in time, which ends it."""
    assert server.stdout
    too_late = Timer(PAGE_BEGINS_S, server.kill)
    too_late.daemon = True
    too_late.start()
    try:
        return server.stdout.readline()
    finally:
        too_late.cancel()


def _end(server: "subprocess.Popen[str]") -> None:
    """End the process of a page; by force where it is stopped or hangs, for a finished run waits for nobody."""
    server.terminate()
    try:
        server.wait(PAGE_ENDS_S)
    except subprocess.TimeoutExpired:
        server.kill()


def main(argv: list[str] | None = None) -> None:
    """Train from the command line. A mistake in it is one sentence and exit code 2."""
    from trainers.cli.parser import parse

    words = sys.argv[1:] if argv is None else argv
    keys = [word for word in words if word not in ("--dashboard", "--strict")]
    run_command(lambda: train(*parse(keys), dashboard="--dashboard" in words, strict="--strict" in words))


if __name__ == "__main__":
    main()
