"""The commands that read a run folder, each with what its figures are: what must not change without a word."""

import http.client
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Any, NamedTuple

import dashboard.__main__ as page
from benchmarks.reliability.compare import contents
from benchmarks.reliability.forked import Ended
from benchmarks.reliability.subjects import Subject
from trainers import evaluate, export, lineage, train, watch

Figures = dict[str, Any]
PATHS = ("metrics", "adapters", "lineage", "recordings", "recordings/rollout/0", "recordings/held_out/0")
PATIENCE = 20.0
"""Seconds in which the page must answer."""


class Command(NamedTuple):
    """A command that reads the folder of a run."""

    call: Callable[[Subject, Path, Path], object]  # for a subject's run folder, and a folder in which there is nothing
    figures: Callable[[Ended, Path, Path], Figures]  # of how it ended, and of the same two folders, by name


def _resume(subject: Subject, run_dir: Path, new: Path) -> None:
    train.main(["--resume", str(run_dir), "--generations", "4"])


def _init_from(subject: Subject, run_dir: Path, new: Path) -> None:
    train.main([*subject.keys, "--generations", "1", "--init_from", str(run_dir), "--run_dir", str(new)])


def _taught(subject: Subject, run_dir: Path, new: Path) -> None:
    teacher = ["--learn.algorithm", "distil", "--distillation.teacher", str(run_dir)]
    train.main([*subject.keys, "--generations", "1", *teacher, "--run_dir", str(new)])


def _evaluate(subject: Subject, run_dir: Path, new: Path) -> None:
    evaluate.main([str(run_dir), "--episodes", "1", "--json"])


def _watch(subject: Subject, run_dir: Path, new: Path) -> None:
    watch.main([str(run_dir), "--generation", "0"])  # its adapters lie in adapters/, newer ones in a checkpoint


def _lineage(subject: Subject, run_dir: Path, new: Path) -> None:
    lineage.main([str(run_dir)])


def _export(subject: Subject, run_dir: Path, new: Path) -> None:
    export.main([str(run_dir), "--agent", "id:3", "--generation", "0", "--format", "peft", "--out", str(new)])


def _page(subject: Subject, run_dir: Path, new: Path) -> None:
    """Serve the page of this run and of a whole one, and ask for all parts; the answers go to standard output."""
    words = [str(subject.alone), str(run_dir), "--port", "0"]
    server = Thread(target=page.main, args=[words], daemon=True)
    server.start()
    while "http://" not in (said := Path("/proc/self/fd/1").read_text(encoding="utf-8")):
        if not server.is_alive():
            sys.exit(2)  # it has said why
        time.sleep(0.01)
    place = said.split("http://")[1].split()[0].rstrip("/")
    answers = {path: _ask(place, path) for path in ("/runs", "/runs/0/metrics", *(f"/runs/1/{path}" for path in PATHS))}
    print("\n" + json.dumps(answers))


def _ask(place: str, path: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection(place, timeout=PATIENCE)
    connection.request("GET", path)
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


def _of_folder(ended: Ended, run_dir: Path, new: Path) -> Figures:
    return contents(run_dir)


def _of_new_folder(ended: Ended, run_dir: Path, new: Path) -> Figures:
    return contents(new, root=new.parent)


def _of_output(ended: Ended, run_dir: Path, new: Path) -> Figures:
    return {"output": ended.out}


def _of_page(ended: Ended, run_dir: Path, new: Path) -> Figures:
    answers: Figures = json.loads(ended.out.splitlines()[-1])
    status, said = answers["/runs"]
    if status == 200:  # whether a run goes on follows from the time
        answers["/runs"] = [status, [{**run, "status": ""} for run in json.loads(said)]]
    return answers


COMMANDS = {
    "resume": Command(_resume, _of_folder),
    "init_from": Command(_init_from, _of_new_folder),
    "teacher": Command(_taught, _of_new_folder),
    "evaluate": Command(_evaluate, _of_output),
    "watch": Command(_watch, _of_output),
    "lineage": Command(_lineage, _of_output),
    "export": Command(_export, _of_new_folder),
    "page": Command(_page, _of_page),
}
