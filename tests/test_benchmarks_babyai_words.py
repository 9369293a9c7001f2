"""What is measured in rooms and words that training never had: who plays, what is said, and the intervals."""

import json
import re
from pathlib import Path

import gymnasium
import pytest
import torch

pytest.importorskip("minigrid")

from agents.codecs.babyai import BabyAITextCodec
from agents.codecs.codec import PlainCodec
from agents.types import ModelConfig, UserError
from agents.weights.base_model import load_base_model
from benchmarks import babyai_words
from benchmarks.babyai_words import CONDITIONS, TEST, TRAIN, saying, wilson
from envs.babyai import TASKS
from envs.generator import HELD_OUT
from tests.trainers.test_worlds import Tiny
from trainers.comparison import Chance
from trainers.records.opening import open_run
from trainers.train import main as train


def missions(name: str, task: str, seeds: int = 40) -> set[str]:
    env = gymnasium.make(TRAIN, task=task)
    codec = saying(BabyAITextCodec(env), CONDITIONS[name])
    return {codec.describe(env.reset(seed=seed)[0]).split(",")[-1].strip() for seed in range(seeds)}


@pytest.mark.parametrize(
    ("name", "task", "begin", "gone"),
    [
        ("missions reworded", "goto", ("bring yourself to",), "go "),
        ("missions reworded", "pickup", ("fetch",), "pick"),
        ("missions reworded", "open", ("unlock",), "open"),
        ("missions reworded", "putnext", ("place",), "next to"),
        ("missions reworded", "pickup_then_goto", ("fetch", "bring yourself to"), "go to"),
        ("new nouns", "goto", ("go to",), "ball"),
        ("invented nouns and colours", "pickup", ("pick up",), "red"),
    ],
)
def test_missions_are_said_in_other_words(name, task, begin, gone):
    found, trained = missions(name, task), missions("as trained", task)
    assert all(mission.startswith(begin) and gone not in f" {mission} " for mission in found)
    assert len(found) == len(trained)
    assert not found & trained


def test_things_have_the_same_new_name_in_view_and_in_the_mission():
    env = gymnasium.make(TRAIN, task="goto")
    codec = saying(BabyAITextCodec(env), CONDITIONS["invented nouns"])
    texts = [codec.describe(env.reset(seed=seed)[0]) for seed in range(40)]
    assert not any(noun in text.split() for text in texts for noun in ("ball", "box", "key"))
    assert sum(text.split()[-1] in text.split()[:-1] for text in texts) > 10


class Own(BabyAITextCodec):
    """A user's codec, with instructions and an action of its own."""

    instructions = "Turn left or right, move forward or pick.\n"
    action_words = ("left", "right", "forward", "pick", "drop", "open")


def test_renamed_actions_are_those_of_the_runs_own_codec_and_its_instructions_say_so():
    codec = saying(Own(gymnasium.make(TRAIN)), CONDITIONS["actions renamed"])
    assert isinstance(codec, Own)
    assert list(codec.action_words) == ["left", "right", "ahead", "take", "release", "open"]
    assert codec.instructions == "Turn left or right, move ahead or take.\n"


@pytest.mark.real
def test_renamed_actions_are_one_token_each():
    codec, base = (
        saying(BabyAITextCodec(gymnasium.make(TRAIN)), CONDITIONS["actions renamed"]),
        load_base_model(ModelConfig()),
    )
    for word in codec.action_words:
        base.one_token(word)


def test_wilsons_interval_is_that_of_the_published_example():
    """Newcombe 1998 (Statistics in Medicine 17, 857-872), table I, method 3: 81 of 263, and 0 of 20."""
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert wilson(0, 20) == pytest.approx((0, 0.1611), abs=1e-4)


def trained(tiny_model, folder, *more: str) -> str:
    """The folder of a tiny run of four agents."""
    train(
        [
            *("--model.name", str(tiny_model), "--model.dtype", "float32", "--run_dir", str(folder)),
            *("--env.agents", "4", "--generations", "1", "--env.max_steps", "8", "--held_out_episodes", "1"),
            *("--adapter.top_layers", "2", "--adapter.rank", "2", "--evolution.episodes", "2"),
            *("--evolution.parents", "2", "--evolution.elites", "2", *more),
        ]
    )
    return str(folder)


@pytest.fixture(scope="module")
def run(tiny_model, tmp_path_factory) -> str:
    more = ["--env.codec", f"{Tiny.__module__}:Tiny", "--env.shared_layouts", "false"]
    options = "{num_dists: 4, fewest_dists: 1, task: goto}"
    return trained(tiny_model, tmp_path_factory.mktemp("words") / "run", *BABYAI, *more, "--env.options", options)


BABYAI = ("--env.id", TRAIN)


def test_agents_the_bare_model_and_chance_play_each_task(run, tmp_path, capsys, monkeypatch):
    file, played, rooms = tmp_path / "found.json", [], []
    collect, world = babyai_words.collect_rollout, babyai_words.GymWorld

    def noted(actor, codec, world, seeds, rng, *, adapter_ids):
        played.append((actor, codec, seeds, adapter_ids))
        return collect(actor, codec, world, seeds, rng, adapter_ids=adapter_ids)

    def made(*arguments, **settings):
        rooms.append((arguments, settings))
        return world(*arguments, **settings)

    monkeypatch.setattr(babyai_words, "collect_rollout", noted)
    monkeypatch.setattr(babyai_words, "GymWorld", made)
    only = ["as trained", "held-out words", "no distractors", "steps aside first"]
    babyai_words.main([run, "--episodes", "6", "--only", *only, "--json", str(file)])
    found = json.loads(file.read_text())["found"]
    who = ["agents", "frozen"]
    assert list(found) == [f"{name}, {one}" for name in only for one in (*who, *["random"] * (name == "as trained"))]
    for tasks in found.values():
        assert list(tasks) == list(TASKS)
        assert all(0 <= one["won"] <= one["episodes"] == 8 for one in tasks.values())
    lines = [line for line in capsys.readouterr().out.splitlines() if "[" in line or "goto" in line]
    assert lines[1].split() == ["all", "goto", "pickup", "open", "putnext", "pick,", "go"]
    assert len(lines) == 11
    assert {len(line) for line in lines[2:]} == {babyai_words.WIDTH + 6 * 15}
    conditions = [name.rpartition(", ") for name in found for _ in TASKS]
    learned = open_run(Path(run))[0].policy.network.bank.values
    for (name, _, one), (actor, codec, seeds, ids), (place, settings) in zip(conditions, played, rooms, strict=True):
        assert isinstance(actor, Chance) if one == "random" else torch.equal(actor.network.bank.values, learned)
        assert (ids == -1).all() if one == "frozen" else ids is None
        assert (seeds >= HELD_OUT).all()
        assert codec.ahead_first == (name != "steps aside first")
        assert place[0] == (TEST if name == "held-out words" else TRAIN)
        assert place[1]["num_dists"] == (0 if name == "no distractors" else 4)
        assert (place[1]["fewest_dists"], place[2:]) == (None, (4, 8))
        assert settings == {"renews": False, "is_shared": False}
    assert [place[1]["task"] for place, _ in rooms] == [*TASKS] * len(found)


def test_episodes_last_as_long_as_asked_for(run, tmp_path, monkeypatch):
    world, lasting = babyai_words.GymWorld, []
    monkeypatch.setattr(
        babyai_words, "GymWorld", lambda *place, **more: lasting.append(place[3]) or world(*place, **more)
    )
    file = tmp_path / "found.json"
    babyai_words.main([run, "--episodes", "1", "--only", "as trained", "--max-steps", "11", "--json", str(file)])
    assert set(lasting) == {11}
    assert json.loads(file.read_text())["max_steps"] == 11


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ([], "must be a run in envs:BabyAI-MixedTrainLocal-v0 without the option held_out, not in forage"),
        (["--env.id", TEST], f"not in {TEST}"),
        ([*BABYAI, "--env.options", "{held_out: true}"], "without the option held_out"),
        ([*BABYAI, "--env.codec", f"{__name__}:Strange"], f"or a subclass, not {__name__}:Strange"),
    ],
)
def test_a_run_that_learned_elsewhere_is_refused_before_anybody_plays(tiny_model, tmp_path, capsys, more, said):
    codec = ["--env.codec", f"{Tiny.__module__}:Tiny"] if more and "--env.codec" not in more else []
    folder = trained(tiny_model, tmp_path / "run", *more, *codec)
    capsys.readouterr()
    with pytest.raises(UserError, match=re.escape(said)):
        babyai_words.main([folder])
    assert "success" not in capsys.readouterr().out


class Strange(PlainCodec):
    """Says nothing of what it sees."""

    action_words, answer = Tiny.action_words, Tiny.answer

    def describe(self, observation):
        return "food"


def test_more_episodes_than_there_are_held_out_rooms_are_refused(run):
    with pytest.raises(UserError, match="--episodes = 4001: must be at most 4000 with 4 agents"):
        babyai_words.main([run, "--episodes", "4001"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "--episodes", "0"], "--episodes 0: must be 1 or more"),
        (["run", "--max-steps", "0"], "--max-steps 0: must be between 1 and 128"),
        (["run", "--max-steps", "129"], "--max-steps 129: must be between 1 and 128"),
        (["run", "--only", "trained"], "argument --only: invalid choice: 'trained'"),
        (["run", "--json", "nowhere/found.json"], "--json nowhere/found.json: must be in a folder that exists"),
        ([], "the following arguments are required: run_dir"),
    ],
)
def test_a_mistake_is_found_before_anything_is_measured(words, said, capsys):
    with pytest.raises(SystemExit) as end:
        babyai_words.main(words)
    assert end.value.code == 2
    assert said in capsys.readouterr().err
