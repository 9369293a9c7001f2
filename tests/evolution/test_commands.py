"""What commands are called, where they are started from, and what stands in their way."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from evolution import commands
from evolution.commands import COMMANDS, command
from evolution.own import MARK
from trainers.__main__ import main

ROOT = Path(__file__).parent.parent.parent


def started_by(monkeypatch, *argv, executable=sys.executable):
    monkeypatch.setattr(sys, "argv", list(argv))
    monkeypatch.setattr(sys, "executable", executable)


def test_a_hint_is_what_a_shell_takes_from_where_the_user_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(commands.shutil, "which", lambda name: None)
    inside = str(tmp_path / ".venv" / "bin" / "python")
    started_by(monkeypatch, "train.py", executable=inside)
    assert command("trainers.watch", "runs/a b") == ".venv/bin/python -m trainers.watch 'runs/a b'"
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    assert command("trainers.watch", "x") == f"{inside} -m trainers.watch x"
    monkeypatch.setattr(commands.shutil, "which", lambda name: inside)
    assert command("trainers.watch", "x") == "python -m trainers.watch x"
    started_by(monkeypatch, "/elsewhere/terrarium", executable=inside)
    assert command("dashboard", "x") == "/elsewhere/terrarium dashboard x"
    monkeypatch.setattr(commands.shutil, "which", lambda name: "/elsewhere/terrarium")
    assert command("dashboard", "x") == "terrarium dashboard x"


def test_one_name_runs_every_command(capsys):
    main([])
    listed = capsys.readouterr().out
    assert all(f"  {name} " in listed for name in COMMANDS)
    for name in COMMANDS:
        with pytest.raises(SystemExit) as ended:
            main([name, "--help"])
        assert ended.value.code in (0, None)
        assert "usage: " in capsys.readouterr().out
    with pytest.raises(SystemExit) as ended:
        main(["trian"])
    assert ended.value.code == 2
    assert "command = 'trian': must be one of train, evaluate" in capsys.readouterr().err


@pytest.mark.parametrize(("module", "new"), [("evolution.lineage", "lineage"), ("agents.export", "export")])
def test_a_command_that_has_moved_says_where_to(module, new):
    done = subprocess.run(
        [sys.executable, "-m", module, "runs/x"], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: this command has moved: must be started as ")
    assert done.stderr.endswith(f"-m trainers.{new}\n")


def test_every_package_is_marked_as_ours():
    for package in ("envs", "agents", "evolution", "trainers", "dashboard"):
        assert MARK in (ROOT / package / "__init__.py").read_text()[:2000]


LAST_ON_THE_PATH = f"""
import sys
from importlib.machinery import PathFinder


class Last:
    @staticmethod
    def find_spec(name, path=None, target=None):
        return PathFinder.find_spec(name, [{str(ROOT)!r}])


sys.meta_path.append(Last)
"""
"""As an editable installation is found: after everything else."""


@pytest.mark.parametrize(
    ("package", "module"),
    [
        ("envs", "trainers.train"),
        ("agents", "trainers.evaluate"),
        ("envs", "trainers.export"),
        ("trainers", "dashboard"),
    ],
)
@pytest.mark.parametrize("is_package", [True, False])
def test_a_package_of_somebody_else_with_one_of_our_names_is_named(tmp_path, package, module, is_package):
    (tmp_path / package).mkdir()
    if is_package:
        (tmp_path / package / "__init__.py").write_text("bots = []")
    (tmp_path / "sitecustomize.py").write_text(LAST_ON_THE_PATH)
    done = subprocess.run(
        [sys.executable, "-m", module, "x"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    place = tmp_path / package / "__init__.py" if is_package else tmp_path / package
    assert done.stderr.startswith(f"error: {place} is not Terrarium's package '{package}'"), done.stderr
    assert done.stderr.count("\n") == 1
    assert done.returncode == 2
