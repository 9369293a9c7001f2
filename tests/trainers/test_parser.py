"""The command line: what it takes, and what it says to mistakes."""

import io
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest

from agents.types import UserError
from trainers.cli import parser
from trainers.cli.help import SECTIONS
from trainers.cli.parser import config_from_file, config_to_yaml, parse, read_config
from trainers.evaluate import main as evaluate
from trainers.records.run_folder import write_config
from trainers.records.sealed import sealed_text
from trainers.train import main as train
from trainers.variants import FullConfig


def test_without_arguments_the_config_is_the_default():
    assert parse([]) == (FullConfig(), None)


def test_any_key_can_be_overridden_on_top_of_a_file(tmp_path):
    file = tmp_path / "some.yaml"
    file.write_text("seed: 4\nlearn:\n  epochs: 3\n  clip: 0.1\n")
    config, _ = parse(["--config", str(file), "--learn.epochs", "5", "--env.width=30"])
    assert (config.seed, config.learn.epochs, config.learn.clip, config.env.width) == (4, 5, 0.1, 30)


def test_a_given_key_overrides_a_file_that_is_named_behind_it(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text("seed: 4\nrun_dir: runs/there\nlearn: {clip: 0.1}\n")
    for config in (["--config", str(file)], [f"--config={file}"]):
        found = parse(["--run_dir", "runs/here", "--learn.clip=0.3", *config])[0]
        assert (found.run_dir, found.learn.clip, found.seed) == ("runs/here", 0.3, 4)


def test_two_keys_have_short_names():
    config, _ = parse(["--trainer", "online", "--replay=500"])
    assert (config.learn.algorithm, config.replay.steps) == ("online", 500)


def test_a_written_config_reads_back_equal(tmp_path):
    config, _ = parse(["--seed", "9", "--evolution.crossover", "mean", "--adapter.modules", "[q_proj, v_proj]"])
    file = tmp_path / "config.yaml"
    file.write_text(config_to_yaml(config))
    assert config_from_file(file) == config


def test_threads_parse_one_at_a_time_and_the_process_stays_where_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "chdir", lambda folder: pytest.fail(f"went to {folder}"))
    file, config = tmp_path / "config.yaml", FullConfig(seed=3)
    file.write_text(config_to_yaml(config))
    at_work, together, make = [], [], parser._parser

    def slow_parser(preset: str | None = None):
        at_work.append(preset)
        time.sleep(0.01)  # so that another would surely come meanwhile
        together.append(len(at_work))
        made = make(preset)
        at_work.pop()
        return made

    monkeypatch.setattr(parser, "_parser", slow_parser)
    with ThreadPoolExecutor(4) as pool:
        files = [pool.submit(config_from_file, file) for _ in range(3)]
        lines = [pool.submit(parse, ["--config", str(file)]) for _ in range(3)]
        assert all(job.result() == config for job in files)
        assert all(job.result() == (config, None) for job in lines)
    assert together == [1] * 12


def test_no_config_is_printed_that_would_be_refused(capsys):
    with pytest.raises(ValueError, match=r"learn.clip = -1.0: must be finite and above 0"):
        parse(["--learn.clip", "-1", "--print_config"])
    assert not capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--env.widht", "3"], ["--env.widht"]),
        (["--seed", "many"], ["seed", "many", "int"]),
        (["--learn.clip", "-1"], ["learn.clip", "-1", "above 0"]),
        (["--learn.learning_rate", "nan"], ["learn.learning_rate", "nan", "float"]),
        (["--learn.algorithm", "sac"], ["learn.algorithm", "sac", "one of ppo, reinforce, online, "]),
        (["--evolution.crossover", "sum"], ["evolution.crossover = 'sum': must be one of mean, uniform_layers, "]),
        (["--evolution.selection=top"], ["evolution.selection = 'top': must be", "top is now called truncation"]),
        (["--evolution.mutation_rate", "1"], ["evolution.mutation_rate: is now called evolution.mutation_std"]),
        (["--env.agents", "3"], ["evolution.parents", "5", "at most the 3 agents that breed together"]),
        (["--replay", "8", "--trainer", "none"], ["replay.steps", "8", "0 with learn.algorithm = none"]),
        (
            ["--inheritance.kind", "baldwinian", "--replay", "8"],
            ["replay", "on", "left out", "baldwinian", "rollouts_per_generation = 1"],
        ),
        (
            ["--learn.anneal_to", "0.1", "--trainer", "none"],
            ["learn.anneal_to", "0.1", "1 with learn.algorithm = none"],
        ),
        (["--learn.anneal_to", "0"], ["learn.anneal_to", "0", "above 0, at most 1"]),
        (["--inheritance.kind", "baldwinian", "--evolution.enabled", "false"], ["evolution.enabled", "true with"]),
        (
            ["--env.height", "80", "--env.width", "80", "--trainer", "distil", "--distillation.teacher", "planner"],
            ["env.height * env.width", "6400", "at most 4096 with distillation.teacher = planner"],
        ),
        (["--env.rocks", "0.9"], ["env.rocks", "0.9", "0.5"]),
        (["--model.dtype", "int3"], ["model.dtype", "int3", "one of auto, float32, bfloat16"]),
        (["--held_out_episodes", "5000"], ["held_out_episodes", "5000", "at most 1000"]),
        (["--seed", "-1"], ["seed", "-1", "between 0"]),
        (["--generations", "0"], ["generations", "0", "1 or more"]),
        (["--config", "nowhere.yaml"], ["nowhere.yaml"]),
        (["--help", "words"], ["--help words", "one of run, env, model"]),
        (["--resume", "nowhere"], ["nowhere"]),
        (["--resume", "x", "--seed", "3"], ["--seed"]),
    ],
)
def test_a_mistake_is_one_sentence_that_names_key_value_and_what_is_allowed(arguments, says):
    with pytest.raises(ValueError, match=re.escape(says[0])) as error:
        parse(arguments)
    message = str(error.value)
    assert "\n" not in message
    assert all(part in message for part in says), message


@pytest.mark.parametrize("anneal_to", [1.0, 0.5])
def test_a_run_whose_rate_falls_keeps_its_number_of_generations(tmp_path, anneal_to):
    config = parse(["--learn.anneal_to", str(anneal_to), "--generations", "4", "--run_dir", str(tmp_path)])[0]
    write_config(tmp_path, config)
    resume = ["--resume", str(tmp_path), "--generations"]
    assert parse([*resume, "4"])[0].generations == 4
    if anneal_to == 1:
        assert parse([*resume, "8"])[0].generations == 8
        return
    with pytest.raises(UserError, match=r"^--generations = 8: must be 4, as it was, since learn.anneal_to = 0.5"):
        parse([*resume, "8"])


def test_where_nobody_breeds_even_one_agent_is_enough():
    assert parse(["--env.agents", "1", "--evolution.enabled", "false"])[0].env.agents == 1


def test_an_unknown_key_in_a_file_is_named(tmp_path):
    file = tmp_path / "bad.yaml"
    file.write_text("env:\n  widht: 3\n")
    with pytest.raises(ValueError, match="widht"):
        parse(["--config", str(file)])


LETTERS = "abcdefghi"
BOMB = "a: &a [1]\n" + "".join(f"{b}: &{b} [{','.join([f'*{a}'] * 9)}]\n" for a, b in pairwise(LETTERS))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (BOMB, "line 1: must be without the anchor or alias 'a'"),
        ("seed: *a\n", "line 1: must be without the anchor or alias 'a'"),
        ("seed: 1\nlearn: &x {clip: 0.1}\n", "line 2: must be without the anchor or alias 'x'"),
        ("seed: " + 10_000 * "[", "line 1: lists and keys must be nested at most 16 levels deep"),
        ("#" * 300_000, " bytes: must be at most 262144"),
        ("seed: {", "expected the node content"),
        ("seed: !!python/object/apply:os.getpid []", "could not determine a constructor"),
        ("seed: \x00", "special characters are not allowed"),
        ("? [a]\n: 1", "found unhashable key"),
    ],
)
def test_a_file_that_cannot_be_loaded_safely_is_named_before_it_is_loaded(tmp_path, text, says):
    file = tmp_path / "config.yaml"
    file.write_text(sealed_text(f"{text}\n"))
    asks = [lambda: config_from_file(file), lambda: read_config(tmp_path), lambda: parse(["--config", str(file)])]
    for ask in [*asks, lambda: parse(["--resume", str(tmp_path)])]:
        with pytest.raises(UserError, match=re.escape(says)) as refusal:
            ask()
        assert str(file) in str(refusal.value)
        assert "\n" not in str(refusal.value)


def test_resume_and_evaluate_refuse_such_a_run_in_one_sentence(tmp_path, capsys):
    (tmp_path / "config.yaml").write_text(sealed_text(BOMB))
    for program, words in ((train, ["--resume", str(tmp_path)]), (evaluate, [str(tmp_path)])):
        with pytest.raises(SystemExit) as end:
            program(words)
        said = capsys.readouterr().err
        assert end.value.code == 2
        assert said.startswith(f"error: {tmp_path / 'config.yaml'}: made by another version")
        assert said.count("\n") == 1


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with a name here")
def test_a_pipe_in_place_of_a_config_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "config.yaml")
    with pytest.raises(UserError, match="is no regular file"):
        read_config(tmp_path)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "crossover: swap",
            r"evolution\.crossover = 'swap': must be one of mean, .* \(swap is now called uniform_layers\)",
        ),
        ("mutation_rate: 1", r"evolution\.mutation_rate: is now called evolution\.mutation_std"),
    ],
)
def test_a_name_of_earlier_versions_in_a_file_is_refused_with_the_new_one(tmp_path, text, says):
    file = tmp_path / "config.yaml"
    file.write_text(f"evolution:\n  {text}\n")
    for read in (lambda: parse(["--config", str(file)]), lambda: config_from_file(file)):
        with pytest.raises(UserError, match=says + "$"):
            read()


def test_a_mistake_ends_with_exit_code_2_and_without_a_traceback():
    done = subprocess.run(
        [sys.executable, "-m", "trainers.train", "--learn.clip", "-1"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: learn.clip = -1.0")
    assert "Traceback" not in done.stderr


def shown(*words):
    """What a command line of the main program prints without importing torch."""
    code = """
import sys
from trainers.cli.parser import parse
try:
    parse(sys.argv[1:])
finally:
    print("torch" in sys.modules)
"""
    env = {**os.environ, "FORCE_COLOR": "1"}  # as in a terminal, where Python 3.14 colours help
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True, env=env)
    assert done.stdout.endswith("False\n")
    return done.stdout


def test_help_begins_with_what_most_people_change_and_explains_every_key_by_section():
    first = shown("--help")
    assert len(first.splitlines()) < 50
    assert "--resume RUN_DIR" in first
    assert "--dashboard" in first
    assert "Folder of the run" in first
    assert "--help run, env, model, adapter, learn, evolution, log" in first
    sections = {name: shown("--help", name) for name in SECTIONS}
    keys = [set(re.findall(r"^  --([a-z_.]+)", text, re.MULTILINE)) for text in sections.values()]
    *parts, everything = keys
    assert set.union(*parts) == everything - {"config", "print_config"}
    assert sum(map(len, parts)) == len(set.union(*parts))
    assert sections["run"].startswith("A whole run")
    assert "Share of cells drawn as rock" in sections["env"]
    assert "Steps of former rollouts that each agent keeps" in sections["replay"]
    assert "Gamma: the worth of a reward one step later" in sections["learn"]


def test_help_shows_the_defaults_of_the_preset_that_is_asked_for():
    assert "default: 14)" in shown("--env.preset", "night", "--help", "env").split("--env.width")[1].split("--")[0]


def test_a_config_that_comes_along_is_found_by_name_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for words in (["--config", "quick"], ["--config=quick"]):
        assert parse(words)[0].run_dir == "runs/quick"
    (tmp_path / "quick").write_text("seed: 8")  # the user's own comes first
    assert parse(["--config", "quick"])[0].seed == 8
    with pytest.raises(UserError, match=r"config = 'slow': must be a YAML file, or one of .*, quick, "):
        parse(["--config", "slow"])


@pytest.mark.parametrize("text", ["env:\n  codec:\n", "env:", "", "# nothing yet\n", "init_from: ~\nmodel: null\n"])
def test_what_a_file_leaves_empty_stays_as_it_is(tmp_path, text):
    file = tmp_path / "some.yaml"
    file.write_text(text)
    assert parse(["--config", str(file)])[0] == config_from_file(file) == FullConfig()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("run_dir: ~", "run_dir = None: must be a value, or be left out"),
        ("seed:", "seed = None: must be a value, or be left out"),
        ("learn:\n  clip:\n", "learn.clip = None: must be a value, or be left out"),
        ("- seed", "some.yaml: must hold keys and values, as `seed: 1`"),
    ],
)
def test_a_value_that_is_missing_in_a_file_is_named(tmp_path, text, says):
    file = tmp_path / "some.yaml"
    file.write_text(text)
    for read in (lambda: parse(["--config", str(file)]), lambda: config_from_file(file)):
        with pytest.raises(UserError, match=re.escape(says)):
            read()


def test_the_home_of_the_user_stands_for_a_tilde_in_every_path(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))  # Windows
    config, _ = parse(
        ["--run_dir=~/a", "--init_from=~/b", "--model.name=~/c", "--trainer=distil", "--distillation.teacher=~/d"]
    )
    paths = config.run_dir, config.init_from, config.model.name, config.distillation.teacher
    assert paths == tuple(str(tmp_path / name) for name in "abcd")
    with pytest.raises(UserError, match=r"run_dir = '~nobody-here/a': must be a path"):
        FullConfig(run_dir="~nobody-here/a")


@pytest.mark.parametrize("asks", ["--help", "--print_config"])
def test_that_nobody_reads_what_is_printed_is_no_mistake_in_the_command(asks, monkeypatch):
    class Closed(io.StringIO):
        def write(self, text):
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stdout", Closed())
    with pytest.raises(BrokenPipeError):
        parse([asks])
