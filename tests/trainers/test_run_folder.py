"""Who may write in a run folder, and where its figures are said to come from."""

import gc
import os
import shutil
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest

from agents.types import UserError
from trainers.records import checkpoint, run_folder
from trainers.records.manifest import account
from trainers.records.run_folder import LOCK, git_commit, reserved

HOLD = """
import sys, time
from pathlib import Path
from trainers.records.run_folder import reserved
with reserved(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_one_process_at_a_time_and_a_dead_one_is_no_obstacle(tmp_path):
    run_dir = tmp_path / "run"
    with subprocess.Popen([sys.executable, "-c", HOLD, str(run_dir)], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        (run_dir / "run.json").write_text("{}")
        message = r"run_dir = '.*run': must be a folder in which no other process trains"
        with pytest.raises(UserError, match=message), reserved(run_dir):
            pytest.fail("both are in it")
        other.kill()
    assert (run_dir / LOCK).is_file()
    with reserved(run_dir), pytest.raises(UserError, match="no other process trains"), reserved(run_dir):
        pytest.fail("both are in it")
    assert sorted(file.name for file in run_dir.iterdir()) == ["run.json"]


def test_a_folder_in_which_nothing_came_to_be_is_gone_afterwards(tmp_path):
    (tmp_path / "mine").mkdir()
    for name in ("new", "mine"):
        with pytest.raises(KeyError), reserved(tmp_path / name):
            raise KeyError
    assert [folder.name for folder in tmp_path.iterdir()] == ["mine"]
    assert not any((tmp_path / "mine").iterdir())


def test_a_place_where_nothing_can_be_written_is_said(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    for run_dir in (tmp_path / "file", tmp_path / "file" / "run"):
        message = r"run_dir = '.*': must be a folder in which files can be written"
        with pytest.raises(UserError, match=message), reserved(run_dir):
            pytest.fail("it is no folder")

    def refuse(path, *args, **kwargs):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "open", refuse)  # root may write anywhere, so this stands in for a folder of others
    with pytest.raises(UserError, match="Permission denied"), reserved(tmp_path / "run"):
        pytest.fail("nothing can be written")


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A folder in which our code is said to be."""
    folder = tmp_path / "site" / "trainers" / "records"
    folder.mkdir(parents=True)
    monkeypatch.setattr(run_folder, "__file__", str(folder / "run_folder.py"))
    return tmp_path / "site"


def commit(folder: Path) -> str:
    who = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    for words in (["init", "--quiet"], [*who, "commit", "--quiet", "--allow-empty", "--message", "x"]):
        subprocess.run(["git", "-C", str(folder), *words], check=True)
    done = subprocess.run(["git", "-C", str(folder), "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_only_a_commit_of_our_own_checkout_is_recorded(installed, monkeypatch):
    assert git_commit() is None
    commit(installed.parent)  # somebody else's repository, our code somewhere in it
    assert git_commit() is None
    ours = commit(installed)
    assert git_commit() == ours
    monkeypatch.setenv("PATH", "")
    assert git_commit() is None


def test_where_folders_cannot_be_opened_checkpoints_are_kept_all_the_same(tmp_path, monkeypatch):
    opened, real_open, real_sync = {}, os.open, os.fsync

    def windows_open(path, flags, *args, **kwargs):
        if Path(path).is_dir():
            raise PermissionError(13, "Permission denied", str(path))
        handle = real_open(path, flags, *args, **kwargs)
        opened[handle] = flags & (os.O_RDWR | os.O_WRONLY)
        return handle

    def windows_fsync(handle):
        if not opened.get(handle):
            raise OSError(9, "Bad file descriptor")
        real_sync(handle)

    monkeypatch.setattr(os, "open", windows_open)
    monkeypatch.setattr(os, "fsync", windows_fsync)
    checkpoint.save_checkpoint(tmp_path, 3, {}, {"generation": 3})
    assert checkpoint.load_checkpoint(tmp_path / "checkpoints" / "gen_0003")[1] == {"generation": 3}
    assert opened


def test_the_account_of_a_generation_leaves_nothing_in_memory(tmp_path):
    (tmp_path / "recordings").mkdir()

    def generations(first: int, end: int) -> int:
        for generation in range(first, end):
            (tmp_path / "recordings" / f"life_{generation:04d}.safetensors").write_bytes(b"x")
            assert b"recordings/life" in account(tmp_path, generation, {}, "")
            (tmp_path / "recordings" / f"life_{generation:04d}.safetensors").unlink()
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        before = generations(1, 50)
        assert generations(50, 150) - before < 10_000, "bytes, of a hundred generations"
    finally:
        tracemalloc.stop()
