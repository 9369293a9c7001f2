"""The page of `--dashboard`: in a terminal it stays when the run has ended, elsewhere it ends with the run."""

import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from agents.types import UserError
from trainers import train

ROOT = Path(__file__).parents[2]
RUN = """
import sys
from pathlib import Path
from trainers.cli.command_line import run_command
from trainers.train import page_beside

def live():
    with page_beside(Path(sys.argv[1])):
        print("lived", flush=True)

run_command(live)
"""


def is_served(place: str) -> bool:
    try:
        with urllib.request.urlopen(f"{place}/runs", timeout=10) as answer:
            return answer.status == 200
    except urllib.error.URLError:
        return False


def test_where_there_is_no_terminal_it_ends_with_the_run(two_runs):
    command = [sys.executable, "-c", RUN, str(two_runs[0])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=ROOT)
    assert done.returncode == 0
    found = re.fullmatch(r"watch at (http://localhost:\d+)   \(ends with the run\)\nlived\n", done.stdout)
    assert found
    assert not is_served(found[1])


def test_in_a_terminal_it_stays_until_ctrl_c(two_runs):
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    command = [sys.executable, "-c", RUN, str(two_runs[0])]
    with subprocess.Popen(
        command, stdout=theirs, stderr=subprocess.PIPE, text=True, cwd=ROOT, start_new_session=True
    ) as run:
        os.close(theirs)
        shown = ""
        while "Ctrl-C ends it" not in shown:
            shown += os.read(ours, 4096).decode()
        assert "(stays when the run has ended)" in shown
        assert "lived" in shown
        place = re.search(r"http://localhost:\d+", shown)[0]
        assert is_served(place)
        os.killpg(run.pid, signal.SIGINT)  # as a terminal does, to all that run in it
        assert run.wait(20) == 0
        assert run.stderr.read() == ""
        assert not is_served(place)
    os.close(ours)


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="no process can be stopped here")
def test_a_page_that_is_stopped_does_not_keep_a_run_from_ending(two_runs, monkeypatch):
    pages, begin = [], subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda *args, **more: pages.append(begin(*args, **more)) or pages[-1])
    monkeypatch.setattr(train, "PAGE_ENDS_S", 0.5)
    with train.page_beside(two_runs[0]):
        os.kill(pages[0].pid, signal.SIGSTOP)
        os.waitpid(pages[0].pid, os.WUNTRACED)  # until it has stopped
    assert pages[0].returncode == -signal.SIGKILL


@pytest.mark.skipif(os.name != "posix", reason="the page that hangs is a shell's")
def test_a_page_that_does_not_begin_is_not_waited_for(two_runs, monkeypatch, tmp_path):
    hanging = tmp_path / "python"
    hanging.write_text("#!/bin/sh\nexec sleep 600\n")
    hanging.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(hanging))
    monkeypatch.setattr(train, "PAGE_BEGINS_S", 0.5)
    with pytest.raises(UserError, match="where the page cannot be served"), train.page_beside(two_runs[0]):
        pytest.fail("there is no page")
