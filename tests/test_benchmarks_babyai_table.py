"""What the table of texts knows, and how it acts."""

import json

import gymnasium
import numpy as np
import pytest

pytest.importorskip("minigrid")

from benchmarks import babyai_table, babyai_words
from benchmarks.babyai_table import Table, demonstrations
from envs.babyai import ACTIONS, TASKS

ANY = np.ones((1, ACTIONS), bool)


def test_it_does_what_was_shown_most_often_and_else_anything():
    table, rng = Table(), np.random.default_rng(0)
    table.counts[" a"] += np.array([0, 3, 2, 0, 0, 0])
    table.counts[" b"] += np.array([0, 0, 0, 1, 0, 1])
    does = lambda text: {int(table.act([text], np.zeros(1, int), ANY, rng).action[0]) for _ in range(200)}  # noqa: E731
    assert does(" a") == {1}
    assert does(" b") == {3, 5}
    assert (table.asked, table.known) == (400, 400)
    assert does(" c") == set(range(ACTIONS))
    assert (table.asked, table.known, set(table.counts)) == (600, 400, {" a", " b"})


def test_what_is_shown_are_the_agents_texts_and_the_experts_actions():
    shown = list(demonstrations(120, 8, 0))
    env = gymnasium.make(babyai_words.TRAIN, num_dists=8, max_steps=64, expert=True)
    codec, rng = babyai_words.BabyAITextCodec(env.unwrapped), np.random.default_rng(0)
    memory, did, info, over = None, -1, {}, True
    for text, action in shown:
        if over or "expert_action" not in info:
            observation, info = env.reset(seed=int(rng.integers(2**31)))
            did = -1
        seen = np.fromiter([observation], object, 1)
        memory = codec.remember(memory, seen, np.array([did]))
        assert [text] == codec.encode(seen, memory)
        assert action == info["expert_action"]
        observation, _, is_done, is_late, info = env.step(did := action)
        over = is_done or is_late
    assert len({action for _, action in shown}) > 3
    assert any(" saw " in text for text, _ in shown)


def test_it_is_judged_and_written(tmp_path, capsys):
    file = tmp_path / "found.json"
    babyai_table.main(["--demonstrations", "50", "--episodes", "1", "--json", str(file)])
    found = json.loads(file.read_text())
    assert found["found"].keys() == set(TASKS)
    assert 0 < found["texts"] <= 50
    assert found["known"] <= found["asked"]
    assert len(capsys.readouterr().out.splitlines()) == 3


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--demonstrations", "0"], "--demonstrations 0: must be 1 to 10,000,000"),
        (["--num-dists", "13"], "--num-dists 13: must be 0 to 12"),
        (["--seed", "-1"], "--seed -1: must be 0 to 4,294,967,295"),
    ],
)
def test_bad_options_are_named(arguments, says, capsys):
    with pytest.raises(SystemExit):
        babyai_table.main(arguments)
    assert says in capsys.readouterr().err
