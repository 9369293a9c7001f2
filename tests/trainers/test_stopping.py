"""A run that is interrupted, or whose machine fails, keeps its last good state and says how to go on."""

import errno
import os
import signal
import subprocess
import sys
import threading

import pytest
from safetensors import SafetensorError

from agents.types import UserError
from trainers import stages
from trainers.cli.parser import parse
from trainers.cli.stopping import Stopped, stopping_cleanly
from trainers.records import checkpoint, run_log
from trainers.records.reading import read_log
from trainers.train import main, train

TWICE = """
import os, signal, time
from trainers.cli import stopping
stopping.ONE_WISH = 0
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in the background of a shell
with stopping.stopping_cleanly() as check:
    os.kill(os.getpid(), signal.SIGINT)
    print("goes on", flush=True)
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(60)
"""


@pytest.fixture(autouse=True)
def not_in_the_background():
    """A test may run where a shell has SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def arguments(tiny_arguments, tmp_path):
    return [*tiny_arguments, "--run_dir", str(tmp_path / "run")]


def figures(run_dir):
    times = ("wall_s", "decide_ms", "learn_s", "texts_known", "texts_read", "text_hit_rate", "prefix_cache_mb")
    return [{k: v for k, v in line.items() if k not in times} for line in read_log(run_dir, "metrics.jsonl")]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("more", [[], ["--trainer", "online", "--learn.background", "true"]], ids=["ppo", "background"])
def test_a_signal_is_heeded_between_steps(arguments, tmp_path, monkeypatch, capsys, number, code, more):
    collect, calls = stages.collect, []

    def signalled(run, generation):
        calls.append(generation.number)
        if generation.number == 1:
            os.kill(os.getpid(), number)
            calls.append("goes on")
        return collect(run, generation)

    monkeypatch.setattr(stages, "collect", signalled)
    before = signal.getsignal(number)
    threads = threading.active_count()
    with pytest.raises(SystemExit) as ended:
        main([*arguments, *more])
    assert ended.value.code == code
    assert calls == [0, 1, "goes on"]
    assert signal.getsignal(number) == before
    assert threading.active_count() == threads
    *_, asked, kept, last = capsys.readouterr().err.splitlines()
    assert asked == "stopping after this step; Ctrl-C again ends at once"
    assert kept.startswith("generation 0 and those before are kept, and --resume")
    assert last == "interrupted"


def test_a_second_signal_ends_the_process_at_once():
    done = subprocess.run([sys.executable, "-c", TWICE], capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == -signal.SIGINT
    assert done.stdout == "goes on\n"


def test_signals_that_come_together_are_one_wish():
    with stopping_cleanly() as check:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Stopped):
            check()


def test_a_signal_that_is_ignored_stays_so():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with stopping_cleanly() as check:
            os.kill(os.getpid(), signal.SIGINT)
            check()
    finally:
        signal.signal(signal.SIGINT, before)


def test_in_another_thread_signals_are_left_alone():
    before, seen = signal.getsignal(signal.SIGINT), []

    def work():
        with stopping_cleanly() as check:
            check()
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]
    with stopping_cleanly() as check:
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Stopped):
            check()


@pytest.mark.parametrize("fault", [errno.ENOSPC, errno.EIO, errno.EROFS, errno.EFBIG, errno.EMFILE])
def test_a_fault_of_the_disk_is_one_sentence_and_the_run_goes_on_when_it_is_mended(
    arguments, finished, tmp_path, monkeypatch, capsys, fault
):
    real, calls = os.fsync, []

    def fails(handle):
        calls.append(handle)
        if (tmp_path / "run" / "checkpoints" / "gen_0000").is_dir() and len(calls) % 3 == 0:
            raise OSError(fault, os.strerror(fault), "the file")
        real(handle)

    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 74
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith(f"error: [Errno {fault}] {os.strerror(fault)}: 'the file'; generation ")
    assert said.endswith("goes on from there")
    monkeypatch.setattr(os, "fsync", real)
    assert train(*parse(["--resume", str(tmp_path / "run")])) == finished[1]
    assert figures(tmp_path / "run") == figures(finished[0])


def test_a_full_disk_under_tensors_and_a_folder_that_is_gone_are_said_the_same_way(
    arguments, tmp_path, monkeypatch, capsys
):
    def full(tensors, file):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "save_file", full)
        with pytest.raises(SystemExit) as ended:
            main(arguments)
    assert ended.value.code == 74
    assert "No space left on device (os error 28); no generation was complete" in capsys.readouterr().err


def test_a_run_that_cannot_begin_leaves_no_thread_that_speaks_of_it_later(tiny_config, monkeypatch):
    def fail(*_):
        raise OSError(errno.ENOSPC, "full")

    before = set(threading.enumerate())
    monkeypatch.setattr(run_log.RunLog, "events", fail)
    with pytest.raises(OSError, match="full"):
        train(tiny_config)
    assert set(threading.enumerate()) <= before


def test_a_thread_that_the_disk_ended_is_silent_from_the_beginning_on(tiny_config, monkeypatch):
    said = []
    monkeypatch.setattr(threading, "excepthook", lambda failed: said.append(failed.exc_value))

    def fail(error: Exception) -> None:
        raise error

    def begin(*_):
        for error in (OSError(errno.ENOSPC, "full"), ValueError("a bug")):
            thread = threading.Thread(target=fail, args=(error,))
            thread.start()
            thread.join()
        raise UserError("no more of it")

    monkeypatch.setattr("trainers.begin.begin", begin)
    with pytest.raises(UserError, match="no more"):
        train(tiny_config)
    assert [str(error) for error in said] == ["a bug"]
