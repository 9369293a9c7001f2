"""How programs end: whoever stops reading them, or can read no more than ASCII, gets no traceback."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PRINT = "from trainers.cli.command_line import run_command; run_command(lambda: print({}))"
PROGRESS = "from trainers.cli.command_line import run_command; from rich.console import Console; run_command({})"


def unread(*arguments: str) -> tuple[int, str]:
    """Exit code and complaints of a program whose output nobody reads."""
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, *arguments]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False, cwd=ROOT)
    os.close(writer)
    return done.returncode, done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="Windows knows no SIGPIPE")
@pytest.mark.parametrize(
    "code",
    [
        PRINT.format("'one line, which waits in the buffer'"),
        PRINT.format("'x' * 100_000"),
        PROGRESS.format("lambda: Console().print('as progress prints')"),
    ],
    ids=["short", "long", "rich"],
)
def test_who_stops_reading_ends_a_program_as_others_end(code):
    assert unread("-c", code) == (141, "")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows knows no SIGPIPE")
def test_who_stops_reading_ends_lineage(finished):
    assert unread("-m", "trainers.lineage", str(finished[0])) == (141, "")


def test_what_a_plain_terminal_cannot_show_is_a_question_mark():
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-c", PRINT.format(r"'runs/k\xf6nig'")]
    done = subprocess.run(command, capture_output=True, check=False, cwd=ROOT, env=environment)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"runs/k?nig\n", b"")
