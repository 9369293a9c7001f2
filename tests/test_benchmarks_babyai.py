"""BabyAI-Text's benchmark: what the bot does is recorded, and a frozen model and a clone of the bot are measured."""

import json

import numpy as np
import pytest

pytest.importorskip("minigrid")

from benchmarks import babyai


def test_the_bots_examples_are_the_same_for_a_seed_and_others_for_another():
    examples = babyai.bot_examples(60, seed=3)
    assert len(examples) == 60
    assert {example.action for example in examples} >= {0, 1, 2}
    again = babyai.bot_examples(60, seed=3)
    for one, other in zip(examples, again, strict=True):
        assert one.action == other.action
        np.testing.assert_array_equal(one.observation["image"], other.observation["image"])
    assert not np.array_equal(examples[0].observation["image"], examples[1].observation["image"])
    other = babyai.bot_examples(60, seed=4)
    assert [one.observation["mission"] for one in other] != [one.observation["mission"] for one in examples]


@pytest.mark.parametrize(
    ("mission", "cells", "found"),
    [
        ("go to the red ball", {(1, 6): (6, 0, 0)}, True),
        ("pick up a red ball", {(5, 6): (6, 0, 0)}, True),
        ("go to the red ball", {(1, 5): (6, 0, 0)}, False),  # ahead, too
        ("go to the red ball", {(1, 6): (6, 1, 0)}, False),  # another colour
        ("go to the red ball", {(1, 6): (7, 0, 0)}, False),  # another kind
        ("go to the red ball", {(3, 6): (6, 0, 0)}, False),  # carried
        ("go to the red ball", {(0, 6): (6, 0, 0), (3, 5): (6, 0, 0)}, False),  # a nearer one is ahead
        ("go to the red ball after you pick up the blue box", {(1, 6): (7, 2, 0)}, False),
        ("open the red door", {(1, 6): (4, 0, 1)}, False),
    ],
)
def test_where_the_named_thing_is_beside_the_agent(mission, cells, found):
    image = np.ones((7, 7, 3), np.uint8)
    for place, cell in cells.items():
        image[place] = cell
    assert babyai.is_beside({"image": image, "mission": mission}) == found


def test_random_actions_seldom_succeed():
    assert 0.05 < babyai.random_success(256) < 0.25


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["clone", "--top-layers", "8", "31"], "--top-layers 31: must be between 1 and 30"),
        (["clone", "--passes", "0"], "--passes 0: must be 1 or more"),
        (["clone", "--examples", "63"], "--examples 63: must be 64 or more"),
        (["frozen", "--episodes", "0"], "--episodes 0: must be 1 or more"),
        (["frozen", "--once"], "unrecognized arguments: --once"),
        (["frozen", "--json", "nowhere/found.json"], "--json nowhere/found.json: must be in a folder that exists"),
        ([], "the following arguments are required: what"),
    ],
)
def test_a_mistake_is_found_before_anything_is_measured(words, said, capsys):
    with pytest.raises(SystemExit) as end:
        babyai.main(words)
    assert end.value.code == 2
    assert said in capsys.readouterr().err


@pytest.mark.long
@pytest.mark.real
def test_both_tables_are_measured_on_the_real_model(tmp_path, capsys):
    file = tmp_path / "found.json"
    babyai.main(["frozen", "--episodes", "4", "--json", str(file)])
    found = json.loads(file.read_text())
    assert found["options"]["dtype"] == "bfloat16"
    assert list(found["found"]) == ["random actions", *babyai.WAYS]
    assert all(0 <= share <= 1 for share in found["found"].values())
    babyai.main(["clone", "--examples", "1280", "--passes", "4", "--top-layers", "8", "--json", str(file)])
    found = json.loads(file.read_text())["found"]["8 layers"]
    assert found["all"] > max(found["before"], found["always forward"]) + 0.05
    assert "8 layers" in capsys.readouterr().out
