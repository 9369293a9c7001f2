"""Points of a curve: which adapters play, after how many steps, and what a picture needs."""

import json
import re
from pathlib import Path

import pytest

pytest.importorskip("minigrid")

from agents.types import UserError
from benchmarks import babyai_curve, babyai_words
from benchmarks.babyai_words import CONDITIONS
from envs.babyai import TASKS
from tests.test_benchmarks_babyai_words import BABYAI, trained
from tests.trainers.test_worlds import Tiny
from trainers.cli.parser import parse, read_config
from trainers.records.opening import open_run

OF_TINY = (*BABYAI, "--env.codec", f"{Tiny.__module__}:Tiny", "--env.shared_layouts", "false")
EACH = ("--log.adapters_every", "1", "--learn.learning_rate", "0.05")


@pytest.fixture(scope="module")
def folder(tiny_model, tmp_path_factory) -> Path:
    """Of two runs, `second` with the population of `first`."""
    folder = tmp_path_factory.mktemp("curve")
    first = trained(tiny_model, folder / "first", *OF_TINY, *EACH, "--generations", "2")
    trained(tiny_model, folder / "second", *OF_TINY, *EACH, "--init_from", first)
    return folder


def test_each_generation_plays_with_its_own_adapters_after_all_steps_before_it(folder, tmp_path, capsys):
    file, picture = tmp_path / "found.json", tmp_path / "curve.png"
    runs = [str(folder / "first"), str(folder / "second")]
    babyai_curve.main([*runs, "--episodes", "6", "--json", str(file), "--plot", str(picture)])
    found = json.loads(file.read_text())["runs"]
    taken = [json.loads(line)["env_steps"] for line in (folder / "first" / "metrics.jsonl").read_text().splitlines()]
    own = json.loads((folder / "second" / "metrics.jsonl").read_text())["env_steps"]
    points = [(one["generation"], one["steps"]) for run in found.values() for one in run["held_out"]]
    assert points == [(0, taken[0]), (1, taken[1]), (0, taken[1] + own)]
    assert [steps for run in found.values() for steps, _ in run["while_learning"]] == [*taken, taken[1] + own]
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert capsys.readouterr().out.count("agent-steps") == 3
    for generation, one in enumerate(found["first"]["held_out"]):
        population, config, _ = open_run(folder / "first", generation)
        env = babyai_words.held_out_env(config)
        judged = babyai_words.success(population.policy, population.codec, env, CONDITIONS["as trained"], 6)
        assert one["found"] == {task: judged[task]._asdict() for task in TASKS}


def test_rollouts_of_an_expert_are_not_success_while_learning(folder, tmp_path):
    config = read_config(folder / "first")
    assert babyai_curve.while_learning(folder / "first", config, 7)[0][0] > 7
    keys = ["--learn.algorithm", "distil", "--distillation.teacher", "expert", "--learn.max_kl", "1e9"]
    led = parse([*OF_TINY, *keys, "--distillation.led_generations", "1"])[0]
    assert len(babyai_curve.while_learning(folder / "first", led, 0)) == 1


def test_founders_that_are_gone_are_named(folder, tmp_path):
    (tmp_path / "second").symlink_to(folder / "second")
    lost = re.escape("init_from = '") + ".*" + re.escape("must be there, as its steps count too")
    (folder / "first").rename(folder / "elsewhere")
    try:
        with pytest.raises(UserError, match=lost):
            babyai_curve.main([str(tmp_path / "second"), "--episodes", "1"])
    finally:
        (folder / "elsewhere").rename(folder / "first")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "--episodes", "0"], "--episodes 0: must be 1 or more"),
        (["a/run", "b/run"], "RUN_DIR run run: must have different names, by which curves are told apart"),
        (["run", "--plot", "curve.foo"], "--plot curve.foo: must end with .png, .svg, .pdf"),
    ],
)
def test_bad_options_are_named(words, said, capsys):
    with pytest.raises(SystemExit):
        babyai_curve.main(words)
    assert said in capsys.readouterr().err
