"""Runs in other worlds are evaluated and resumed as in our own; and mistakes about them are one sentence."""

import json
import re
import shlex
import sys
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from agents.codecs.babyai import BabyAITextCodec
from agents.codecs.forage import ForageCodec
from agents.types import UserError
from envs.presets import PRESETS, preset
from envs.worlds.world import ForageWorld
from trainers import stages
from trainers.begin import begin
from trainers.cli.parser import config_from_file, config_to_yaml, parse, read_config
from trainers.env_config import EnvConfig
from trainers.evaluate import main as evaluate
from trainers.stages import Generation
from trainers.train import main, train
from trainers.watch import main as watch
from trainers.worlds import make_codec, make_world

DOC = Path(__file__).parents[2] / "docs" / "worlds.md"
BABYAI = "envs:BabyAI-MixedTrainLocal-v0"
WORLDS = ["FrozenLake-v1", "MiniGrid-Empty-5x5-v0", "mpe2.simple_spread_v3", BABYAI]
MORE = {BABYAI: ["--env.codec", f"{__name__}:Tiny", "--learn.pool", "true", "--env.shared_layouts", "false"]}
NOT_REPEATED = {"wall_s", "decide_ms", "learn_s", "texts_known", "texts_read", "text_hit_rate", "prefix_cache_mb"}
"""Timings, and what the cache of texts holds, with which a resumed run begins empty."""


class Tiny(BabyAITextCodec):
    """In words that the tiny model knows."""

    action_words, answer = ("left", "right", "forward", "pick", "drop", "open"), "go"


def lines(file):
    records = map(json.loads, file.read_text().splitlines())
    return [{k: v for k, v in record.items() if k not in NOT_REPEATED} for record in records]


@pytest.fixture(scope="module", params=WORLDS)
def finished(request, arguments, tmp_path_factory):
    """A run of two generations in each world: its folder, its config and its result."""
    run_dir = tmp_path_factory.mktemp("worlds") / "run"
    more = MORE.get(request.param, [])
    config, _ = parse([*arguments, *more, "--env.id", request.param, "--generations", "2", "--run_dir", str(run_dir)])
    return run_dir, config, train(config)


def test_a_run_in_another_world_writes_what_it_knows_and_nothing_of_food(finished):
    run_dir, config, result = finished
    metrics = lines(run_dir / "metrics.jsonl")
    assert [line["generation"] for line in metrics] == [0, 1]
    assert metrics[0].keys() >= {"fitness_mean", "lifetime_mean", "env_steps", "entropy", "diversity"}
    assert not {"food_eaten_mean", "energy_mean"} & metrics[0].keys()
    assert metrics[1]["env_steps"] == 2 * 5 * 12, "where episodes follow each other, everybody acts in every step"
    assert 0 < metrics[0]["lifetime_mean"] <= 12
    assert {event["event"] for event in lines(run_dir / "lineage.jsonl")} == {"birth", "evaluation", "death"}
    assert result["fitness"].keys() == {"agents", "frozen", "random"}
    assert not {"food_eaten", "share_of_planner"} & result.keys()
    assert read_config(run_dir) == config


def test_success_is_shown_where_a_world_says_so(finished):
    run_dir, config, result = finished
    metrics = lines(run_dir / "metrics.jsonl")
    assert all(("success_mean" in line) == ("BabyAI" in config.env.id) for line in metrics)
    assert ("success" in result) == ("BabyAI" in config.env.id)
    if "success" in result:
        assert all(0 <= line[name] <= 1 for name in ("success_mean", "rollout_success_mean") for line in metrics)
        assert any(key.startswith("success_of_") for key in metrics[0])
        assert any(key.startswith("rollout_success_of_") for key in metrics[0])
        assert result["success"].keys() == result["success_by_task"].keys() == {"agents", "frozen", "random"}
        events = EventAccumulator(str(run_dir / "tb"))
        events.Reload()
        for tag, name in (("episode/success", "success_mean"), ("learn/success", "rollout_success_mean")):
            assert [event.value for event in events.Scalars(tag)] == pytest.approx([line[name] for line in metrics])


def test_agents_of_another_world_are_not_judged_in_a_preset(finished, capsys):
    with pytest.raises(SystemExit):
        evaluate([str(finished[0]), "--preset", "maze"])
    assert "preset = 'maze': must be left out: these agents live in" in capsys.readouterr().err


def test_it_is_evaluated_in_a_table_and_as_json(finished, capsys):
    run_dir, _, result = finished
    evaluate([str(run_dir), "--episodes", "2", "--json"])
    assert json.loads(capsys.readouterr().out) == result
    evaluate([str(run_dir), "--episodes", "2"])
    table = capsys.readouterr().out.splitlines()
    success = ["success"] if "success" in result else []
    assert table[1].split() == ["fitness", *success, "steps", "lived"]
    assert [line.split("  ")[0] for line in table[2:5]] == ["generation 1", "frozen", "random"]
    assert [line.split()[0] for line in table[6 + len(success) :]] == ["frozen", "random"], "who they are"
    assert not success or table[5].startswith("success by task: ")


def test_a_resumed_run_equals_one_that_was_never_stopped(finished, arguments, tmp_path):
    run_dir, config, result = finished
    stopped = tmp_path / "stopped"
    train(replace(config, run_dir=str(stopped), generations=1))
    assert train(*parse(["--resume", str(stopped), "--generations", "2"])) == result
    for file in ("metrics.jsonl", "lineage.jsonl"):
        assert lines(stopped / file) == lines(run_dir / file)
    assert (stopped / "results.json").read_text() == (run_dir / "results.json").read_text()


def test_there_is_nothing_to_watch(finished, capsys):
    with pytest.raises(SystemExit):
        watch([str(finished[0])])
    assert "must be forage: of other worlds there is no picture" in capsys.readouterr().err


@pytest.fixture
def own_codecs(tmp_path, monkeypatch):
    """A module of codecs that a user might have written."""
    (tmp_path / "users_own.py").write_text(
        "from agents.codecs import PlainCodec\n\n\n"
        "class Two(PlainCodec):\n    action_words = ('left', 'right')\n\n"
        "    def describe(self, observation):\n        return 'near' if observation[0] > 0 else 'far'\n\n\n"
        "class Lake(Two):\n    action_words = ('left', 'down', 'right', 'up')\n\n"
        "    def describe(self, observation):\n        return 'near'\n\n\n"
        "class Moody:\n    def __init__(self):\n        pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "users_own", raising=False)


def test_a_users_own_codec_goes_before_the_one_that_comes_with_a_world(own_codecs):
    codec = make_codec(EnvConfig(id="FrozenLake-v1", codec="users_own:Lake"))
    assert type(codec).__name__ == "Lake"
    assert codec.world.unwrapped.desc.shape == (4, 4)
    assert make_codec(EnvConfig(view_radius=2)).view_radius == 2
    assert isinstance(make_codec(EnvConfig()), ForageCodec)
    assert isinstance(make_world(EnvConfig(), renews=True), ForageWorld)


@pytest.mark.parametrize(("shared", "renews", "layouts"), [(True, True, 1), (False, True, 4), (False, False, 1)])
def test_agents_may_learn_in_layouts_of_their_own_and_are_judged_in_the_same(shared, renews, layouts):
    env = EnvConfig(id="BabyAI-GoToObj-v0", agents=4, shared_layouts=shared)
    with closing(make_world(env, renews=renews)) as world:
        seen = world.reset([5])[0]
    assert len({one["image"].tobytes() + one["mission"].encode() for one in seen}) == layouts


@pytest.mark.parametrize("env", [{}, {"id": "mpe2.simple_spread_v3"}])
def test_layouts_of_their_own_are_for_gymnasium_worlds(env):
    with pytest.raises(ValueError, match=r"env.shared_layouts = False: must be true except in a Gymnasium world"):
        EnvConfig(shared_layouts=False, **env)


def test_the_codec_of_the_documentation_is_complete_and_trains(arguments, tmp_path, monkeypatch):
    text = DOC.read_text()
    code = next(block for block in re.findall(r"```python\n(.*?)```", text, re.S) if "CartPoleCodec" in block)
    command = next(line for line in text.splitlines() if line.startswith("    python -m") and "CartPoleCodec" in line)
    assert len(code.splitlines()) < 30
    (tmp_path / "cartpole.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "cartpole", raising=False)
    run_dir = tmp_path / "run"
    *given, _, _ = shlex.split(command)[3:]
    main([*given, *arguments, "--run_dir", str(run_dir), "--generations", "1"])
    (figures,) = lines(run_dir / "metrics.jsonl")
    assert figures["lifetime_mean"] == figures["fitness_mean"], "CartPole pays one for each step"


def test_the_documentation_names_every_preset_and_its_commands_parse():
    text = DOC.read_text()
    assert all(f"| `{name}` |" in text for name in PRESETS)
    commands = [line for line in text.splitlines() if line.startswith("    python -m trainers.train")]
    assert len(commands) >= 5
    for command in commands:
        parse(shlex.split(command, comments=True)[3:])


LAKE = ["--env.id", "FrozenLake-v1"]
KINDS = (
    "must be forage, a Gymnasium id (FrozenLake-v1) or a PettingZoo module (mpe2.simple_spread_v3) "
    "with Discrete actions: "
)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (
            ["--env.id", "CartPole-v1"],
            "env.id = 'CartPole-v1': has no codec, which says in words what is seen; write a class (docs/worlds.md "
            "shows one in 30 lines) and name it with --env.codec package.module:Class",
        ),
        (
            [*LAKE, "--env.codec", "users_own:Two"],
            "Two.action_words = ('left', 'right'): must be 4, one for each action",
        ),
        (
            ["--env.codec", "users_own:Two"],
            "Two.action_words = ('left', 'right'): must be 5, one for each action",
        ),
        (
            ["--env.id", "FrozenLake-v9"],
            f"env.id = 'FrozenLake-v9': {KINDS}Environment version `v9` for environment `FrozenLake` doesn't exist. "
            "It provides versioned environments: [ `v1` ].",
        ),
        (
            ["--env.id", "mpe2.nowhere_v0"],
            f"env.id = 'mpe2.nowhere_v0': {KINDS}there is no module mpe2.nowhere_v0",
        ),
        (
            ["--env.id", "Pendulum-v1"],
            f"env.id = 'Pendulum-v1': {KINDS}its actions are Box(-2.0, 2.0, (1,), float32): must be Discrete",
        ),
        (
            [*LAKE, "--env.options", "{map_name: 9x9}"],
            f"env.id = 'FrozenLake-v1': {KINDS}it cannot be made with options {{'map_name': '9x9'}}: KeyError('9x9')",
        ),
        (["--env.id", ""], "env.id = '': must be forage, a Gymnasium id or a PettingZoo module"),
        (
            [*LAKE, "--env.codec", "nowhere:Some"],
            "env.codec = 'nowhere:Some': must be package.module:Class, a class of one argument "
            "(No module named 'nowhere')",
        ),
        (
            [*LAKE, "--env.codec", "users_own:Three"],
            "env.codec = 'users_own:Three': must be package.module:Class, a class of one argument "
            "(module 'users_own' has no attribute 'Three')",
        ),
        (
            [*LAKE, "--env.codec", "users_own:Moody"],
            "env.codec = 'users_own:Moody': must be package.module:Class, a class of one argument "
            "(Moody.__init__ raised TypeError: Moody.__init__() takes 1 positional argument but 2 were given)",
        ),
        (
            [*LAKE, "--env.codec", "builtins:str"],
            "env.codec = 'builtins:str': must be package.module:Class, a class of one argument, and a codec "
            "(it has no instructions)",
        ),
        ([*LAKE, "--env.codec", "users_own"], "env.codec = 'users_own': must be empty or package.module:Class"),
        ([*LAKE, "--env.food", "33"], "env.food = 33: must be left out: FrozenLake-v1 has env.options instead"),
        (
            [*LAKE, "--env.view_radius", "2"],
            "env.view_radius = 2: must be left out: FrozenLake-v1 has env.options instead",
        ),
        (
            ["--env.options", "{is_slippery: false}"],
            "env.options = {'is_slippery': False}: must be empty; the forage world has keys of its own",
        ),
        (
            ["--env.preset", "desert"],
            "env.preset = 'desert': must be one of meadow, maze, famine, night, rivals",
        ),
        ([*LAKE, "--env.preset", "night"], "env.preset = 'night': must be left out: it is no preset of FrozenLake-v1"),
        ([*LAKE, "--env.agents", "0"], "env.agents = 0: must be between 1 and 1024"),
        ([*LAKE, "--env.agents", "1025"], "env.agents = 1025: must be between 1 and 1024"),
        ([*LAKE, "--env.max_steps", "0"], "env.max_steps = 0: must be between 1 and 1000000"),
    ],
)
def test_a_mistake_about_the_world_is_one_sentence_and_nothing_is_written(own_codecs, given, says, tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        main([*given, "--run_dir", str(tmp_path / "run")])
    assert end.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1] == f"error: {says}"
    assert not (tmp_path / "run").exists()


def test_a_preset_is_the_ground_for_what_else_is_given_on_the_command_line_or_in_a_file(tmp_path):
    file = tmp_path / "night.yaml"
    file.write_text("env:\n  food: 33\n  preset: night\n")
    from_file, from_line = parse(["--config", str(file)])[0], parse(["--env.preset", "night", "--env.food", "33"])[0]
    assert from_file == from_line == config_from_file(file)
    world = asdict(replace(preset("night"), food=33))
    assert {key: value for key, value in asdict(from_file.env).items() if key in world} == world
    assert parse(["--config", str(file), "--env.food=34"])[0].env.food == 34
    assert parse(["--config", str(file), "--env.preset=maze"])[0].env == EnvConfig(
        **asdict(replace(preset("maze"), food=33)), preset="maze"
    )


@pytest.mark.parametrize("name", ["night", "rivals"])
def test_a_printed_config_is_spelled_out_and_reads_back_as_the_same(name, tmp_path, capsys):
    with pytest.raises(SystemExit):
        parse(["--env.preset", name, "--seed", "3", "--print_config"])
    printed = capsys.readouterr().out
    values = yaml.safe_load(printed)
    assert asdict(preset(name)).items() <= values["env"].items()
    file = tmp_path / "printed.yaml"
    file.write_text(printed)
    assert parse(["--config", str(file)])[0] == parse(["--env.preset", name, "--seed", "3"])[0]
    assert config_from_file(file).env.preset == name


def test_options_may_be_given_at_once_or_one_by_one_and_read_back(tmp_path):
    at_once, _ = parse([*LAKE, "--env.options", "{is_slippery: false, desc: [SF, FG]}"])
    assert at_once.env.options == {"is_slippery": False, "desc": ["SF", "FG"]}
    one_by_one, _ = parse([*LAKE, "--env.options.is_slippery", "false"])
    assert one_by_one.env.options == {"is_slippery": False}
    file = tmp_path / "config.yaml"
    file.write_text(config_to_yaml(at_once))
    assert config_from_file(file) == at_once


def test_the_default_world_is_the_meadow():
    assert asdict(preset("meadow")).items() <= asdict(parse([])[0].env).items()


MIXED = ["--env.also", "[maze, rivals]", "--env.agents", "6", "--worlds", "3"]
MIXED += ["--evolution.episodes", "3", "--held_out_episodes", "3"]


def test_one_population_lives_in_several_presets_and_is_judged_in_others(arguments, tmp_path, capsys):
    run_dir = tmp_path / "run"
    config = parse([*arguments, *MIXED, "--generations", "2", "--run_dir", str(run_dir)])[0]
    train(replace(config, generations=1))
    result = train(*parse(["--resume", str(run_dir), "--generations", "2"]))
    assert result["share_by_preset"].keys() == {"meadow", "maze", "rivals"}
    assert read_config(run_dir) == config
    kinds = config.env.kinds
    assert kinds["meadow"] == replace(config.env, also=[])
    ours = {"agents": 6, "max_steps": 12}
    assert kinds["maze"] == EnvConfig(**asdict(replace(PRESETS["maze"], **ours)), preset="maze")
    assert lines(run_dir / "metrics.jsonl")[0]["env_steps"] <= 3 * 6 * 12
    assert "by preset: meadow" in capsys.readouterr().out
    evaluate([str(run_dir), "--episodes", "3", "--json"])
    assert json.loads(capsys.readouterr().out) == result
    evaluate([str(run_dir), "--episodes", "2", "--preset", "famine", "--json"])
    elsewhere = json.loads(capsys.readouterr().out)
    assert elsewhere["share_by_preset"] == {"famine": elsewhere["share_of_planner"]}


@pytest.mark.parametrize(
    ("program", "given", "says"),
    [
        (main, ["--env.also", "[desert]"], "env.also = ['desert']: must be a list of some of meadow, maze, famine"),
        (main, [*LAKE, "--env.also", "[maze]"], "env.also = ['maze']: must be left out: they are no presets of Frozen"),
        (main, ["--env.also", "[maze, night]"], "worlds = 1: must be a multiple of 3, the presets of env"),
        (main, [*MIXED[:-1], "8"], "held_out_episodes = 8: must be a multiple of 3, the presets of env"),
    ],
)
def test_a_mistake_about_a_mixture_is_one_sentence(program, given, says, tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        program([*given, "--run_dir", str(tmp_path / "run")])
    assert end.value.code == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize("more", [[], ["--env.id", "FrozenLake-v1"], ["--inheritance.kind", "baldwinian"]])
def test_one_agent_alone_needs_no_other_settings_and_says_that_it_only_learns(more, tiny_model, tmp_path, capsys):
    small = ["--model.name", str(tiny_model), "--model.dtype", "float32", "--adapter.top_layers", "2"]
    small += ["--env.max_steps", "8", "--evolution.episodes", "1", "--held_out_episodes", "1", "--generations", "2"]
    run_dir = tmp_path / "run"
    train(parse(["--env.agents", "1", *small, *more, "--run_dir", str(run_dir)])[0])
    assert "note: one agent has nobody to breed with; it lives on and only learns\n" in capsys.readouterr().err
    events = [event["event"] for event in lines(run_dir / "lineage.jsonl") if event["event"] != "starved"]
    assert events == ["birth", "evaluation", "evaluation"]
    assert lines(run_dir / "metrics.jsonl")[1]["clip_fraction"] is not None
    train(*parse(["--resume", str(run_dir), "--generations", "3"]))


def test_populations_of_one_live_on_beside_others_that_breed():
    given = ["--env.preset", "rivals", "--env.agents", "3", "--coevolution.enabled", "true", "--evolution.elites", "1"]
    with pytest.raises(UserError, match=r"evolution\.parents = 5: must be at most the 2 agents that breed together"):
        parse(given)
    assert parse([*given, "--evolution.parents", "2"])


def test_the_return_of_a_rollout_of_many_episodes_is_their_mean_and_not_their_sum(arguments, tmp_path):
    more = ["--env.id", "mpe2.simple_spread_v3", "--env.options", "{max_cycles: 5}"]
    run = begin(parse([*arguments, *more, "--run_dir", str(tmp_path / "run")])[0], None)
    generation = Generation(0)
    reward = stages.collect(run, generation).trajectory.reward
    assert reward.shape == (12, 5)
    np.testing.assert_allclose(generation.first_return[0], reward[:10].sum(axis=0) / 2, rtol=1e-5)
