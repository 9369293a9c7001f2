"""The campaign against runs: that its instruments see and do what they say, and in its short form, what it finds."""

import errno
import json
import os
import signal
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from benchmarks.reliability import crowd, disk, faults, harm, soak
from benchmarks.reliability.campaign import table_of, undone
from benchmarks.reliability.case import GOOD, Case, Finding, spread
from benchmarks.reliability.compare import differences
from benchmarks.reliability.forked import Ended
from benchmarks.reliability.power import UNSYNCED, Disk

ROOT = Path(__file__).parents[1]
WRITES = """
import os
import shutil
import sys
from pathlib import Path
import numpy as np
from safetensors.numpy import save_file
from benchmarks.reliability import faults

folder = Path(sys.argv[1])
exec(sys.argv[2])
folder.mkdir()
with (folder / "log").open("w") as log:  # synced after its first line, and not after its second
    log.write("first")
    log.flush()
    os.fsync(log.fileno())
    log.write("second")
(folder / ".box").mkdir()
for name in ("whole", "unsynced"):
    with (folder / ".box" / name).open("wb") as file:
        file.write(b"0123456789")
        file.flush()
        os.fsync(file.fileno()) if name == "whole" else None
(folder / ".box").rename(folder / "box")
save_file({"zeros": np.zeros(1000)}, folder / "tensors.safetensors")  # renamed by a raw system call
with (folder / "tensors.safetensors").open("r+b") as file:
    os.fsync(file.fileno())
(folder / "gone").mkdir()
(folder / "gone" / "file").write_text("x")
shutil.rmtree(folder / "gone")
shutil.copyfile(folder / "log", folder / "copy")
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    made = faults.library(tmp_path_factory.mktemp("library"))
    if made is None:
        pytest.skip("there is no C compiler")
    return made


def write(library, folder, disturbance):
    """A process that writes into a folder, after a call of `faults`."""
    command = [sys.executable, "-c", WRITES, str(folder), disturbance]
    env = {**os.environ, "LD_PRELOAD": str(library)}
    return subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, check=False)


def files(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def written(library, tmp_path_factory):
    """A folder that was written to, and the disk as it was recorded."""
    box = tmp_path_factory.mktemp("written")
    done = write(library, box / "run", f"faults.record(folder, Path({str(box / 'log')!r}))")
    assert done.returncode == 0, done.stderr
    made = Disk()
    for operation in faults.recorded(box / "log"):
        made.apply(operation)
    return box / "run", made


def test_the_record_of_a_folder_holds_all_that_is_in_it(written):
    folder, made = written
    assert {path.relative_to(folder).as_posix(): file.data for path, file in made.files.items()} == files(folder)


@pytest.mark.parametrize("unsynced", UNSYNCED)
def test_after_a_power_cut_only_what_was_synced_is_sure(written, tmp_path, unsynced):
    folder, made = written
    broken = made.put(folder, tmp_path, unsynced)
    left = files(tmp_path)
    log = {"lost": b"first", "half": b"firstsec", "zeros": b"first" + bytes(6)}
    assert left["log"] == log[unsynced]
    assert left["box/whole"] == b"0123456789"
    assert left["box/unsynced"] == {"lost": b"", "half": b"01234", "zeros": bytes(10)}[unsynced]
    assert broken == ["box/unsynced"], "a rename shows it; the log was never renamed"
    assert left["tensors.safetensors"] == files(folder)["tensors.safetensors"]


def test_operations_fail_for_good_or_once(library, tmp_path):
    kinds = faults.KINDS["write"]
    for lasting in (True, False):
        call = f"faults.strike(folder, 1, {kinds}, {errno.ENOSPC}, lasting={lasting})"
        done = write(library, tmp_path / f"lasting {lasting}", call)
        assert "No space left on device" in done.stderr
        assert files(tmp_path / f"lasting {lasting}") == {"log": b"" if lasting else b"first"}, (
            "Python tries once more at the end"
        )


@pytest.mark.parametrize(("lasting", "left"), [(False, b"first"), (True, b"firstsec")])
def test_a_process_is_killed_before_a_write_or_halfway_through_it(library, tmp_path, lasting, left):
    log = tmp_path / "log"
    write(library, tmp_path / "run", f"faults.record(folder, Path({str(log)!r}))")
    nth = next(number for number, one in enumerate(faults.recorded(log), 1) if one.data == b"second")
    kinds = sum(faults.KINDS.values())
    done = write(library, tmp_path / "killed", f"faults.strike(folder, {nth}, {kinds}, lasting={lasting})")
    assert done.returncode == -signal.SIGKILL
    assert files(tmp_path / "killed") == {"log": left}


@pytest.mark.parametrize("way", harm.HARMS)
def test_every_harm_changes_a_file_and_repeats(way, tmp_path):
    found = []
    for name in ("once", "again"):
        (tmp_path / name).mkdir()
        file = tmp_path / name / "metrics.jsonl"
        file.write_bytes(b'{"generation": 0, "fitness": 1.5}\n{"generation": 1, "fitness": -2}\n')
        before = file.read_bytes()
        harm.harm(file, way, "seed")
        found.append(file.read_bytes() if file.is_file() else file.exists())
    assert found[0] == found[1] != before


def test_what_cannot_be_harmed_is_no_case(tmp_path):
    (tmp_path / "README.md").write_text("no number in one line")
    assert [way for way in harm.HARMS if harm.harmed(tmp_path / "README.md", way, "seed") is None] == [
        "swap",
        "number",
        "type",
    ]


EXPECTED = {"metrics.jsonl": 1, "recordings/a": 1}


@pytest.mark.parametrize(
    ("code", "err", "figures", "outcome"),
    [
        (0, "", {}, "unharmed"),
        (0, "", {"metrics.jsonl": 2}, "silent"),
        (0, "metrics.jsonl: line 2 is damaged, and left out", {"metrics.jsonl": 2}, "named"),
        (0, "loading libraries", {"metrics.jsonl": 2}, "silent"),
        (2, "error: metrics.jsonl: damaged", {}, "refused"),
        (1, "Traceback (most recent call last):\nerror: x", {}, "traceback"),
        (1, "", {}, "traceback"),
        (-11, "", {}, "crash"),
    ],
)
def test_what_a_command_came_to_is_told_apart(code, err, figures, outcome):
    ended = Ended(code, False, "", err, 1.0)
    found = harm.judged(ended, "metrics.jsonl", EXPECTED, "loading libraries", lambda: EXPECTED | figures)
    assert found.outcome == outcome


def test_a_file_that_was_kept_may_stay_as_it_was_harmed():
    ended = Ended(0, False, "", "", 1.0)
    assert (
        harm.judged(ended, "recordings/a", EXPECTED, "", lambda: EXPECTED | {"recordings/a": 2}).outcome == "unharmed"
    )


@pytest.mark.parametrize(
    ("changes", "outcome"),
    [
        ({}, "unharmed"),
        ({"/runs/1/metrics": [200, "[2]"]}, "silent"),
        ({"/runs/1/metrics": [200, "[2]"], "/runs": [200, "metrics.jsonl is damaged"]}, "named"),
        ({"/runs/1/metrics": [422, ""]}, "refused"),
        ({"/runs/1/metrics": [500, ""]}, "traceback"),
        ({"/runs": [422, ""]}, "lost"),
    ],
)
def test_what_the_page_came_to_is_told_apart(changes, outcome):
    expected = {path: [200, "[1]"] for path in ("/runs", "/runs/0/metrics", "/runs/1/metrics")}
    ended = Ended(0, False, "", "", 1.0)
    assert harm.judged(ended, "metrics.jsonl", expected, "", lambda: expected | changes).outcome == outcome


def test_run_folders_are_compared_but_for_times(tmp_path):
    folders = [tmp_path / name for name in ("one", "other")]
    for seconds, folder in enumerate(folders):
        (folder / "tb").mkdir(parents=True)
        (folder / "tb" / str(seconds)).touch()
        (folder / "config.yaml").write_text(f"run_dir: {folder}\n")
        (folder / "metrics.jsonl").write_text(json.dumps({"generation": 0, "wall_s": seconds}) + "\n")
    assert differences(*folders) == []
    (folders[1] / "results.json").write_text("{")
    (folders[1] / "metrics.jsonl").write_text(json.dumps({"generation": 1, "wall_s": 0}) + "\n")
    assert differences(*folders) == ["metrics.jsonl", "results.json"]


def test_each_kind_of_case_comes_up_before_any_comes_up_again():
    import random

    chosen = spread([*"aaaaaaaab", *"c"], str, 4, random.Random(0))
    assert set(chosen[:3]) == {*"abc"}
    assert chosen[3] == "a"


def test_memory_that_grows_is_told_from_memory_that_does_not():
    line = {"mb": 300.0, "descriptors": 7.0, "threads": 3.0}
    flat = [line | {"hours": i / 10, "generation": 100.0 * i, "kb": 1600.0 * i} for i in range(20)]
    said = "1900 generations; 0.00 MB an hour; 7 to 7 descriptors, 3 to 3 threads; 16.0 kB a generation"
    assert soak.judged(flat) == ("flat", said)
    assert soak.judged([line | {"mb": 300 + 2 * line["hours"]} for line in flat]).outcome == "grows"
    assert soak.judged([*flat[:-1], flat[-1] | {"descriptors": 8.0}]).outcome == "flat", "a file is open for a moment"
    assert soak.judged([*flat[:10], *(line | {"descriptors": 8.0} for line in flat[10:])]).outcome == "grows"


def test_a_run_that_is_slowed_is_told_from_a_page_that_starves():
    assert crowd.judged(1.02, [0.1, 0.2]).outcome == "served"
    assert {"served", "flat"} <= GOOD
    assert crowd.judged(1.06, [0.1, 0.2]).outcome == "slowed"
    assert crowd.judged(1.02, [0.1, float("inf")]).outcome == "starved"


def test_who_is_answered_is_told_from_who_is_not(monkeypatch):
    class Answer(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

    monkeypatch.setattr(crowd, "PATIENCE", 0.5)
    with HTTPServer(("localhost", 0), Answer) as server:
        place = f"localhost:{server.server_port}"
        assert crowd._ask(place) == float("inf"), "nobody answers yet"
        thread = Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setattr(crowd, "PATIENCE", 20)
        assert crowd._ask(place) < 20
        server.shutdown()
        thread.join()


def test_every_kind_of_disk_fault_is_one_that_the_library_knows():
    assert all(kinds <= faults.KINDS.keys() for kinds in disk.FAILS.values())
    assert all(hasattr(errno, name) for name in disk.FAILS)


@pytest.fixture(scope="module")
def campaign(tmp_path_factory):
    """The lines that the short campaign wrote, and its result."""
    work = tmp_path_factory.mktemp("campaign")
    result = work / "result.json"
    command = [sys.executable, "-m", "benchmarks.reliability", "--short", "--work", str(work), "--json", str(result)]
    env = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST")}
    done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr
    lines = [json.loads(line) for line in (work / "cases.jsonl").read_text().splitlines()]
    return lines, json.loads(result.read_text())


def test_the_campaign_writes_its_table(campaign):
    lines, result = campaign
    assert [list(row) for row in table_of(lines)] == result["table"]
    assert {"kills", "harm"} <= {row[0] for row in result["table"]}
    assert result["faults"] == [line for line in lines if line["outcome"] not in GOOD]


def test_a_case_that_is_done_is_not_done_again(tmp_path):
    cases = [Case("kills", name, lambda folder: Finding("equal")) for name in ("one", "other")]
    lines = tmp_path / "cases.jsonl"
    assert undone(cases, lines) == cases
    lines.write_text(json.dumps({"test": "kills", "name": "one", "outcome": "equal"}) + "\n")
    assert undone(cases, lines) == cases[1:]


def test_killed_runs_go_on_equal(campaign):
    assert [line["outcome"] for line in campaign[0] if line["test"] == "kills"] == ["equal"]


def test_the_short_campaign_finds_no_fault(campaign):
    assert [line for line in campaign[0] if line["outcome"] not in GOOD] == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a campaign forks")
def test_a_child_may_be_killed_before_it_has_begun():
    code = """
import time
from benchmarks.reliability.forked import forked
for seconds in (0, 0.0005, 0.002):
    assert forked(lambda: time.sleep(60), limit=60, kill_after=seconds).is_killed
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
