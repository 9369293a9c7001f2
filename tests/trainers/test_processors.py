"""The main programs run on processors and with builds of torch that can do less than these."""

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from agents.weights.products import has_packed

PROGRAMS = Path(__file__).with_name("main_programs.py")
LESS = [
    {"ATEN_CPU_CAPABILITY": "default"},
    {"ATEN_CPU_CAPABILITY": "avx2"},
    {"ONEDNN_MAX_CPU_ISA": "AVX2"},  # oneDNN then refuses bfloat16, as on processors without AVX512
]


@pytest.fixture
def arguments(tiny_deep_model: Path, tiny_arguments: list[str]) -> list[str]:
    return [str(tiny_deep_model), *tiny_arguments, "--generations", "1"]


def check(output: str, folder: Path) -> None:
    assert output.count("held-out worlds") == 2
    assert '"fitness"' in output
    assert "after eating" in output
    for dtype in ("auto", "bfloat16"):
        assert len((folder / "runs" / dtype / "metrics.jsonl").read_text().splitlines()) == 1


def test_they_run_where_operations_are_missing(processor, arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(PROGRAMS), *arguments])
    runpy.run_path(str(PROGRAMS), run_name="__main__")
    output, errors = capsys.readouterr()
    check(output, tmp_path)
    assert ("no fast bfloat16 product" in errors) == (not has_packed(torch.bfloat16))
    assert processor == "as it is" or "no fast bfloat16 product" in errors


@pytest.mark.parametrize("less", LESS, ids=lambda less: "=".join(*less.items()))
def test_they_run_where_instructions_are_missing(less, arguments, tmp_path):
    done = subprocess.run(
        [sys.executable, str(PROGRAMS), *arguments],
        env={**os.environ, **less, "PYTHONPATH": str(PROGRAMS.parents[2])},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    check(done.stdout, tmp_path)
    assert "ONEDNN_MAX_CPU_ISA" not in less or "no fast bfloat16 product" in done.stderr
