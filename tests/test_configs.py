"""Every experiment in configs/ is one that the main program takes."""

from pathlib import Path

import pytest

from trainers.cli.parser import parse
from trainers.variants import FullConfig

CONFIGS = sorted((Path(__file__).parent.parent / "configs").glob("*.yaml"))


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.stem)
def test_a_config_parses_and_differs_from_the_default(file):
    config, _ = parse(["--config", str(file)])
    assert config != FullConfig()
    assert config.run_dir == f"runs/{file.stem}"


def test_there_are_configs():
    assert len(CONFIGS) >= 4
