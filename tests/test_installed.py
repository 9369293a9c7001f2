"""The clean room: the wheel alone, in an environment of its own, trains, watches and serves from an empty folder."""

import os
import shutil
import site
import subprocess
import sys
import tarfile
import urllib.request
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
NOT_OURS = shutil.ignore_patterns(".*", "runs", "build", "dist", "*.egg-info", "__pycache__")


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The source distribution and the wheel, built from a copy of the checkout."""
    source, out = tmp_path_factory.mktemp("source") / "terrarium", tmp_path_factory.mktemp("dist")
    shutil.copytree(ROOT, source, ignore=NOT_OURS)
    code = (
        "import sys; from setuptools import build_meta as b; out = sys.argv[1]; b.build_sdist(out); b.build_wheel(out)"
    )
    subprocess.run([sys.executable, "-c", code, str(out)], cwd=source, check=True, capture_output=True)
    return next(out.glob("*.tar.gz")), next(out.glob("*.whl"))


@pytest.fixture(scope="module")
def terrarium(built, tmp_path_factory):
    """Runs `terrarium ...` in an empty folder, from an environment that has the wheel, and borrows what it needs."""
    folder = tmp_path_factory.mktemp("installed")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / "venv")], check=True)
    scripts = folder / "venv" / ("Scripts" if os.name == "nt" else "bin")
    python = scripts / "python"
    ask = [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    packages = Path(subprocess.run(ask, check=True, capture_output=True, text=True).stdout.strip())
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--no-index", "--quiet"]
    subprocess.run([*install, str(built[1])], check=True)
    # A .pth file adds the folders, but does not read the .pth files in them: the checkout is not found
    (packages / "borrowed.pth").write_text("\n".join(site.getsitepackages()))
    (folder / "empty").mkdir()
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}

    def start(*words, **options):
        return subprocess.Popen(
            [str(scripts / "terrarium"), *map(str, words)],
            cwd=folder / "empty",
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **options,
        )

    return start


def said(process):
    """Standard output and error of a process that must end well."""
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return out, err


def test_the_wheel_has_all_that_a_run_needs(built):
    with zipfile.ZipFile(built[1]) as wheel:
        names = set(wheel.namelist())
        (entries,) = (name for name in names if name.endswith("entry_points.txt"))
        assert "terrarium = trainers.__main__:main" in wheel.read(entries).decode()
        (about,) = (name for name in names if name.endswith("METADATA"))
        assert "docs/" not in wheel.read(about).decode().split("\n\n", 1)[1].replace("`docs/", "")
    packages = ("envs", "agents", "evolution", "trainers", "dashboard")
    modules = {str(f.relative_to(ROOT)) for package in packages for f in (ROOT / package).rglob("*.py")}
    page = {str(f.relative_to(ROOT)) for f in (ROOT / "dashboard" / "page").iterdir()}
    configs = {f"trainers/configs/{f.name}" for f in (ROOT / "configs").glob("*.yaml")}
    assert modules | page | configs | {f"{package}/py.typed" for package in packages} <= names
    assert {name.split("/")[0] for name in names if "dist-info" not in name} == set(packages)


def test_the_source_distribution_has_what_the_repository_has(built):
    with tarfile.open(built[0]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for folder in ("benchmarks", "configs", "docs", "examples", "tests"):
        files = {str(f.relative_to(ROOT)) for f in (ROOT / folder).rglob("*") if f.is_file() and f.suffix != ".pyc"}
        assert files <= names
    assert {"Makefile", "constraints.txt", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "README.md"} <= names


def test_what_is_installed_trains_watches_exports_and_serves(terrarium, tiny_model):
    small = ["--config", "quick", "--env.max_steps", "12", "--model.name", tiny_model, "--model.dtype", "float32"]
    few = ["--generations", "2", "--held_out_episodes", "2", "--adapter.top_layers", "2", "--run_dir", "my run"]
    out, _ = said(terrarium("train", *small, *few))
    assert "of what the planner eats" in out
    assert "terrarium watch 'my run'" in out
    assert "wrote film.gif" in said(terrarium("watch", "my run", "--out", "film.gif"))[0]
    assert "heritability" in said(terrarium("lineage", "my run"))[0]
    assert "agent" in said(terrarium("export", "my run", "--agent", "3", "--format", "peft"))[0]
    with terrarium("dashboard", "my run", "--port", "0") as server:
        address = server.stdout.readline().split("watch at ")[1].split()[0]
        with urllib.request.urlopen(address, timeout=30) as page:
            assert b"<html" in page.read().lower()
        server.terminate()
