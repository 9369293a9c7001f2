"""Which package may import which, as docs/architecture.md has it."""

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from trainers.variants import VARIANTS

ROOT = Path(__file__).parent.parent
ALLOWED = {
    "envs": set(),
    "evolution": set(),
    "agents": {"envs.types", "envs.observe", "evolution.genome", "evolution.own", "evolution.commands"},
    "trainers": {"envs", "agents", "evolution"},
    "dashboard": {
        *("envs", "agents.codecs.forage", "agents.codecs.forage_map", "agents.types"),
        *("evolution.own", "evolution.commands"),
        *("trainers.cli.command_line", "trainers.cli.parser", "trainers.config", "trainers.lineage"),
        *("trainers.records.episode", "trainers.records.reading", "trainers.records.sealed"),
    },
}


TOP_LEVEL = {
    *("envs", "agents", "trainers", "evolution", "configs", "tests", "dashboard", "benchmarks", "examples", "docs"),
    *("pyproject.toml", "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "MANIFEST.in", "Makefile"),
    *("constraints.txt", ".ci", ".gitignore", ".pre-commit-config.yaml"),
}


def test_nothing_new_lies_at_the_top():
    """A package that pip was told to download was committed there once."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("this is no git repository")
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip(f"git does not list this folder: {listed.stderr.strip()}")
    assert {Path(file).parts[0] for file in listed.stdout.splitlines()} == TOP_LEVEL


def imports(file: Path) -> set[str]:
    """Modules of this project that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
        elif isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
    return {name for name in found if name.split(".")[0] in ALLOWED}


@pytest.mark.parametrize("name", ALLOWED)
def test_a_package_imports_only_what_it_may(name):
    files = sorted((ROOT / name).rglob("*.py"))
    assert files
    for file in files:
        for imported in imports(file):
            package = imported.split(".")[0]
            allowed = package == name or package in ALLOWED[name] or imported in ALLOWED[name]
            assert allowed, f"{file.relative_to(ROOT)} must not import {imported}"


VARIANT_MODULES = [
    file for file in (ROOT / "trainers" / "variants").glob("*.py") if file.stem.startswith(tuple(VARIANTS))
]


def variant_of(module: str) -> str | None:
    """The variant that a module belongs to: its files all begin with its name."""
    name = module.removeprefix("trainers.variants.") if module.startswith("trainers.variants.") else ""
    return next((variant for variant in VARIANTS if name.startswith(variant)), None)


def test_the_core_imports_no_variant():
    core = {*ROOT.glob("[a-z]*/**/*.py")} - {*VARIANT_MODULES, *(ROOT / "tests").rglob("*.py")}
    core = {file for file in core if file.relative_to(ROOT).parts[0] in ALLOWED}
    assert len(core) > 100
    for file in core:
        for imported in imports(file):
            assert variant_of(imported) is None, f"{file.relative_to(ROOT)} must not import {imported}"


def test_no_variant_imports_another():
    assert len(VARIANT_MODULES) >= 2 * len(VARIANTS)
    for file in VARIANT_MODULES:
        own = variant_of(f"trainers.variants.{file.stem}")
        for imported in imports(file):
            assert variant_of(imported) in (None, own), f"{file.relative_to(ROOT)} must not import {imported}"


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_variant_is_deleted_with_its_files_and_one_line(variant, tmp_path):
    for package in ("envs", "agents", "evolution", "trainers"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    folder = tmp_path / "trainers" / "variants"
    for file in folder.glob(f"{variant}*.py"):
        file.unlink()
    table = folder / "__init__.py"
    lines = table.read_text(encoding="utf-8").splitlines(keepends=True)
    kept = [line for line in lines if not line.startswith(f'    "{variant}": ')]
    assert len(kept) == len(lines) - 1
    table.write_text("".join(kept), encoding="utf-8")
    code = (
        "import trainers.begin, trainers.records.report; from trainers.cli.parser import parse; "
        f"assert not hasattr(parse([])[0], {variant!r})"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)


SETTINGS_AND_WORLDS = (
    *("envs", "envs.worlds.gym_world", "envs.worlds.team_world", "agents", "agents.types", "agents.codecs.others"),
    "agents.files",
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
    for package in ALLOWED:
        for file in (ROOT / package).rglob("*.py"):
            assert "pickle" not in {n.split(".")[0] for n in _all_imports(file)}, file
            assert "torch.load(" not in file.read_text(), file


def test_text_is_read_as_utf_8_on_every_system():
    for package in (*ALLOWED, "benchmarks", "examples"):
        for file in (ROOT / package).rglob("*.py"):
            assert ".read_text()" not in file.read_text(encoding="utf-8"), file


def _all_imports(file: Path) -> set[str]:
    tree = ast.walk(ast.parse(file.read_text()))
    return {a.name for n in tree if isinstance(n, ast.Import) for a in n.names} | {
        n.module or "" for n in ast.walk(ast.parse(file.read_text())) if isinstance(n, ast.ImportFrom)
    }
