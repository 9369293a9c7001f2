"""Who may import whom, as docs/architecture.md has it."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ALLOWED = {
    "envs": set(),
    "evolution": set(),
    "agents": {"envs.types", "envs.observe", "evolution.genome", "evolution.own", "evolution.commands"},
    "trainers": {"envs", "agents", "evolution"},
    "dashboard": {
        *("envs", "agents.forage_codec", "agents.memory", "agents.types"),
        *("evolution.own", "evolution.commands"),
        *(
            "trainers.cli.command_line",
            "trainers.config",
            "trainers.lineage",
            "trainers.cli.parser",
            "trainers.records.episode",
        ),
    },
}


def imports(file: Path) -> set[str]:
    """Modules of this project that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
        elif isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
    return {name for name in found if name.split(".")[0] in ALLOWED}


@pytest.mark.parametrize("room", ALLOWED)
def test_a_room_imports_only_what_it_may(room):
    files = sorted((ROOT / room).rglob("*.py"))
    assert files
    for file in files:
        for name in imports(file):
            package = name.split(".")[0]
            allowed = package == room or package in ALLOWED[room] or name in ALLOWED[room]
            assert allowed, f"{file.relative_to(ROOT)} must not import {name}"


SETTINGS_AND_WORLDS = (
    *("envs", "envs.worlds.gym_world", "envs.worlds.team_world", "agents", "agents.types", "agents.other_codecs"),
    *("trainers.config", "trainers.cli.parser", "trainers.worlds", "trainers.lineage", "trainers.export"),
    *("evolution.config", "dashboard.server"),
)


@pytest.mark.parametrize("module", SETTINGS_AND_WORLDS)
def test_settings_and_worlds_do_not_import_torch(module):
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=ROOT).returncode == 0


def test_our_own_world_needs_no_other_packages_than_its_own():
    code = "import sys, envs, trainers.worlds; sys.exit(not {'minigrid', 'mpe2', 'pygame'}.isdisjoint(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=ROOT).returncode == 0


def test_evolution_imports_no_model():
    code = "import sys, evolution; sys.exit('transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=ROOT).returncode == 0


def test_nothing_in_the_project_unpickles():
    for room in ALLOWED:
        for file in (ROOT / room).rglob("*.py"):
            assert "pickle" not in {n.split(".")[0] for n in _all_imports(file)}, file
            assert "torch.load(" not in file.read_text(), file


def test_text_is_read_as_utf_8_on_every_system():
    for room in (*ALLOWED, "benchmarks", "examples"):
        for file in (ROOT / room).rglob("*.py"):
            assert ".read_text()" not in file.read_text(encoding="utf-8"), file


def _all_imports(file: Path) -> set[str]:
    tree = ast.walk(ast.parse(file.read_text()))
    return {a.name for n in tree if isinstance(n, ast.Import) for a in n.names} | {
        n.module or "" for n in ast.walk(ast.parse(file.read_text())) if isinstance(n, ast.ImportFrom)
    }
