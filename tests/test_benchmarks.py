"""Benchmarks run, in a tiny form, and write what they say they write."""

import json

import numpy as np
import pytest

from benchmarks import bots, crowd, generation, online, reader, worlds
from benchmarks.contestants import CONTESTANTS, INTERFACE, TWO_CORES, TWO_INTERFACES
from envs.presets import PRESETS
from trainers.comparison import held_out_seeds, play_baseline
from trainers.env_config import EnvConfig


def test_bots_writes_both_tables(tmp_path, capsys):
    file = tmp_path / "bots.json"
    bots.main(["--worlds", "2", "--presets", "night", "--markdown", "--json", str(file)])
    result = json.loads(file.read_text())
    assert result["worlds"] == 2
    assert [row["bot"] for row in result["bots"]] == ["random", "greedy", "forager", "planner"]
    for row in result["bots"]:
        assert row["preset"] == "night"
        for key in ("return", "food eaten", "died %", "steps lived"):
            assert row[key]["low"] <= row[key]["mean"] <= row[key]["high"]
    assert [row["rule"] for row in result["rules"]] == ["memory", "rocks", "night", "home"]
    assert all(row["matters"] == (row["loss %"]["mean"] >= bots.MATTERS) for row in result["rules"])
    out = capsys.readouterr().out
    assert "| preset | bot " in out
    assert "| preset | rule " in out


def test_who_goes_where_the_texts_say_eats_more_than_the_forager(capsys):
    reader.main(["--presets", "meadow", "--episodes", "2"])
    name, _, food, *_ = capsys.readouterr().out.split()
    forager = play_baseline("forager", EnvConfig(), held_out_seeds(2, 0), 0).figures["food_eaten"].mean()
    assert name == "meadow"
    assert float(food.rstrip(",")) > forager


@pytest.mark.parametrize(
    ("name", "rules"),
    [
        ("meadow", ["memory", "rocks"]),
        ("maze", ["memory", "rocks"]),
        ("famine", ["memory"]),
        ("night", ["memory", "rocks", "night", "home"]),
    ],
)
def test_a_world_is_asked_only_for_the_rules_it_has(name, rules):
    assert bots.rules_of(PRESETS[name]) == rules


def test_a_loss_is_that_of_the_means():
    heeding, ignoring = np.array([10.0, 20.0, 30.0]), np.array([9.0, 18.0, 27.0])
    loss = bots.loss_percent(heeding, ignoring)
    assert list(loss.values()) == pytest.approx([10.0, 10.0, 10.0])  # of each world, so of every draw


def test_worlds_writes_speeds_aims_and_memory(tmp_path, capsys):
    file = tmp_path / "worlds.json"
    worlds.main(["--seconds", "0.01", "--rounds", "1", "--memory", "2", "--json", str(file)])
    result = json.loads(file.read_text())
    assert {"cpu", "cores", "load_average"} == set(result["machine"])
    rows = {row["name"]: row for row in result["rows"]}
    assert list(rows) == list(CONTESTANTS)
    assert rows[INTERFACE]["agents"] == 20
    assert rows[INTERFACE]["ratio"] == 1
    for row in rows.values():
        assert set(row) == {"name", "agents", "per_s", "per_cpu_s", "ratio"}
        assert row["per_s"] is None or row["per_s"] > 0
    assert [aim["name"] for aim in result["aims"]] == [TWO_INTERFACES, TWO_CORES]
    assert all(aim["reached"] == (aim["per_s"] >= aim["aim"]) for aim in result["aims"])
    (memory,) = result["memory"]
    assert memory["worlds"] == 2
    assert memory["observations_bytes"] == 20 * 249 * 4
    assert memory["state_bytes"] > 0
    assert "PettingZoo interface, 1 world" in capsys.readouterr().out


def test_a_missing_package_is_reported(monkeypatch, capsys):
    def absent():
        raise ImportError("No module named 'peer'")

    monkeypatch.setattr(worlds, "CONTESTANTS", {INTERFACE: CONTESTANTS[INTERFACE], "a peer": absent})
    ours, peer = worlds.measure(seconds=0.01, rounds=1)
    assert ours["ratio"] == 1
    assert peer == {"name": "a peer", "agents": None, "per_s": None, "per_cpu_s": None, "ratio": None}
    assert "a peer is not installed: No module named 'peer'" in capsys.readouterr().err


@pytest.mark.parametrize("agents", [20, 100, 1000])
def test_a_larger_crowd_has_as_much_room_and_food_each(agents):
    meadow, grown = PRESETS["meadow"], crowd.meadow_for(agents)
    assert grown.agents == agents
    for per_agent in (lambda w: w.width * w.height / w.agents, lambda w: w.food / w.agents):
        assert per_agent(grown) == pytest.approx(per_agent(meadow), rel=0.02)
    area = [w.patches * (2 * w.patch_radius + 1) ** 2 / w.agents for w in (meadow, grown)]
    assert 1 <= area[1] / area[0] < 1.6  # patches have whole cells


def test_crowd_draws_what_it_measured(tmp_path):
    rows = [dict.fromkeys(crowd.COLUMNS, 10.0 / n) | {"agents": n} for n in (1, 10)]
    crowd.draw_plot(rows, tmp_path / "crowd.png")
    assert (tmp_path / "crowd.png").read_bytes().startswith(b"\x89PNG")


def test_online_measures_each_way_of_learning(tiny_policy, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(online, "mature_policy", lambda agents: tiny_policy)
    file = tmp_path / "online.json"
    online.main(["--rollouts", "1", "--json", str(file)])
    ways = json.loads(file.read_text())["ways"]
    assert list(ways) == ["no learning", "online", "online, in the background"]
    assert all(way["steps_per_second"] > 0 for way in ways.values())
    assert "update_ms" not in ways["no learning"]
    assert ways["online"]["update_ms"] > 0
    assert 0 <= ways["online, in the background"]["staleness_mean"] <= 9
    assert "agent-steps/s" in capsys.readouterr().out


def test_generation_counts_what_goes_through_the_layers_and_sets_it_beside_its_floor(tiny_model, tmp_path, capsys):
    file = tmp_path / "generation.json"
    keys = ["--model.name", str(tiny_model), "--adapter.top_layers", "2", "--adapter.rank", "2"]
    keys += ["--env.agents", "4", "--env.max_steps", "12", "--evolution.parents", "2", "--evolution.elites", "1"]
    generation.main(["--generations", "5", "--json", str(file), *keys, "--evolution.episodes", "1"])
    found = json.loads(file.read_text())
    first, later = found["generations"][0], found["generations"][3:]
    assert "generation takes" in capsys.readouterr().out
    assert first["rows"] > 0
    assert first["rows with gradients"] > 0
    mean = found["mean"]
    assert mean["rows"] == sum(one["rows"] for one in later) / 2
    operations = (mean["rows"] + 2 * mean["rows with gradients"]) * found["flop_of_row"]
    assert mean["floor"] == pytest.approx(operations / found["peak_gflops"] / 1e9)
    assert mean["generation"] > mean["collect"] + mean["learn"] + mean["evaluate"] > 0
    c = json.loads((tiny_model / "config.json").read_text())
    heads = c["hidden_size"] * (1 + c["num_key_value_heads"] / c["num_attention_heads"])
    weights = c["hidden_size"] * (2 * heads + 3 * c["intermediate_size"])
    assert found["flop_of_row"] == 2 * 2 * weights, "of two layers"
