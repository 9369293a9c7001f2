"""What is measured in rooms and words that training never had: who plays, what is said, and the intervals."""

import json

import gymnasium
import pytest

pytest.importorskip("minigrid")

from agents.codecs.babyai import BabyAITextCodec
from benchmarks import babyai_words
from benchmarks.babyai_words import CONDITIONS, TRAIN, saying, wilson
from envs.babyai import TASKS
from tests.trainers.test_worlds import Tiny
from trainers.train import main as train


def missions(name: str, task: str, seeds: int = 40) -> set[str]:
    codec, env = saying(BabyAITextCodec, CONDITIONS[name]), gymnasium.make(TRAIN, task=task)
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
    codec, env = saying(BabyAITextCodec, CONDITIONS["invented nouns"]), gymnasium.make(TRAIN, task="goto")
    texts = [codec.describe(env.reset(seed=seed)[0]) for seed in range(40)]
    assert not any(noun in text.split() for text in texts for noun in ("ball", "box", "key"))
    assert sum(text.split()[-1] in text.split()[:-1] for text in texts) > 10


def test_renamed_actions_are_all_renamed_but_the_sides_and_the_instructions_say_so():
    codec = saying(BabyAITextCodec, CONDITIONS["actions renamed"])
    assert codec.action_words == ["left", "right", "ahead", "take", "release", "switch"]
    assert all(f" {word}" in codec.instructions for word in codec.action_words)
    assert not any(word in codec.instructions for word in ("forward", "pick", "drop", "toggle"))


def test_wilsons_interval_is_that_of_the_published_example():
    """Newcombe 1998 (Statistics in Medicine 17, 857-872), table I, method 3: 81 of 263, and 0 of 20."""
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert wilson(0, 20) == pytest.approx((0, 0.1611), abs=1e-4)


def test_agents_the_bare_model_and_chance_play_each_task(tiny_model, tmp_path, capsys):
    run, file = tmp_path / "run", tmp_path / "found.json"
    train(
        [
            *("--model.name", str(tiny_model), "--model.dtype", "float32", "--run_dir", str(run)),
            *("--env.id", TRAIN, "--env.codec", f"{Tiny.__module__}:Tiny", "--env.agents", "4", "--generations", "1"),
            *("--env.max_steps", "8", "--env.shared_layouts", "false", "--env.options", "{fewest_dists: 0}"),
            *("--adapter.top_layers", "2", "--adapter.rank", "2", "--evolution.episodes", "2"),
            *("--evolution.parents", "2", "--evolution.elites", "2", "--held_out_episodes", "1"),
        ]
    )
    capsys.readouterr()
    words = [str(run), "--episodes", "6", "--only", "as trained", "held-out words", "--json", str(file)]
    babyai_words.main(words)
    found = json.loads(file.read_text())["found"]
    assert list(found) == [
        *("as trained, agents", "as trained, frozen", "as trained, random"),
        *("held-out words, agents", "held-out words, frozen"),
    ]
    for tasks in found.values():
        assert list(tasks) == list(TASKS)
        assert all(0 <= one["won"] <= one["episodes"] == 8 for one in tasks.values())
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["all", "goto", "pickup", "open", "putnext", "pick,", "go"]
    assert len(lines) == 7


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "--episodes", "0"], "--episodes 0: must be 1 or more"),
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
