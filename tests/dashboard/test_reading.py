"""What is said of a run is what is in its folder, whole or half-written, and nothing from beside it."""

import base64
import errno
import json
import os
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agents.types import UserError
from dashboard.reading import Damaged, Run, film, remembered
from dashboard.server import encoded


@pytest.fixture
def copied(two_runs, tmp_path):
    """A copy of a finished run, to be damaged."""
    return shutil.copytree(two_runs[0], tmp_path / "copy")


def test_an_overview_tells_what_the_run_is(two_runs):
    overview = Run(two_runs[0]).overview()
    assert (overview["name"], overview["seed"], overview["preset"], overview["agents"]) == ("first", 0, "meadow", 6)
    assert (overview["generations"], overview["done"], overview["status"]) == (3, 3, "finished")
    first = json.loads((two_runs[0] / "first.json").read_text())
    assert overview["baselines"]["food_eaten"]["planner"] == first["food_eaten"]["planner"]["mean"]
    assert overview["baselines"]["fitness"].keys() == {"frozen", "random", "greedy", "forager", "planner"}


def test_a_run_without_results_is_running_until_it_has_been_silent_for_long(copied):
    (copied / "results.json").unlink()
    (copied / "metrics.jsonl").touch()
    assert Run(copied).overview()["status"] == "running"
    for name in ("metrics.jsonl", "run.json"):
        os.utime(copied / name, (time.time() - 3600,) * 2)
    assert Run(copied).overview()["status"] == "interrupted"


def test_a_run_that_has_only_begun_is_no_mistake(copied):
    for name in ("metrics.jsonl", "lineage.jsonl", "adapters.jsonl", "first.json", "results.json"):
        (copied / name).unlink()
    shutil.rmtree(copied / "recordings")
    run = Run(copied)
    assert run.overview()["done"] == 0
    assert run.overview()["baselines"] == {}
    assert run.lines("metrics") == run.recordings() == []
    assert run.lineage() == {"nodes": [], "champion": []}


def test_a_line_that_is_being_written_is_left_out_and_then_read(copied):
    run = Run(copied)
    file = copied / "metrics.jsonl"
    whole = file.read_text()
    file.write_text(whole + '{"generation": 3, "fit')
    assert [line["generation"] for line in run.lines("metrics")] == [0, 1, 2]
    file.write_text(whole + '{"generation": 3}\n')
    assert [line["generation"] for line in run.lines("metrics")] == [0, 1, 2, 3]


def test_damage_elsewhere_is_not_passed_over(copied):
    file = copied / "metrics.jsonl"
    file.write_text("{nonsense\n" + file.read_text())
    with pytest.raises(ValueError, match=r"metrics\.jsonl, line 1: damaged"):
        Run(copied).lines("metrics")


def test_lineage_has_everybody_with_parents_and_the_champion_s_line(two_runs):
    lineage = Run(two_runs[0]).lineage()
    births = [e for e in map(json.loads, (two_runs[0] / "lineage.jsonl").open()) if e["event"] == "birth"]
    assert {node["id"] for node in lineage["nodes"]} == {birth["id"] for birth in births}
    assert {node["id"]: sorted(node["parents"]) for node in lineage["nodes"]} == {
        birth["id"]: sorted(set(birth["parents"])) for birth in births
    }
    last = {node["id"]: node["fitness"][2] for node in lineage["nodes"] if 2 in node["fitness"]}
    assert lineage["champion"][-1] == max(last, key=last.get)


def test_adapters_have_a_norm_for_each_module_and_a_distance_for_each_pair(two_runs):
    lines = Run(two_runs[0]).lines("adapters")
    assert [line["generation"] for line in lines] == [0, 1, 2]
    for line in lines:
        assert np.shape(line["norms"]) == (6, len(line["layers"]), len(line["modules"]))
        distances = np.array(line["distances"])
        assert np.allclose(distances, distances.T)
        assert (np.diag(distances) == 0).all()
        assert distances.max() > 0
    metrics = Run(two_runs[0]).lines("metrics")[-1]
    assert np.sum(lines[-1]["distances"]) / 30 == pytest.approx(metrics["diversity"], abs=2e-3)


def test_every_generation_is_recorded_and_some_in_a_world_that_all_runs_share(two_runs):
    first, second = map(Run, two_runs)
    kinds = [(r["kind"], r["generation"]) for r in first.recordings()]
    assert kinds == [("held_out", 0), ("rollout", 0), ("rollout", 1), ("held_out", 2), ("rollout", 2)]
    ours, theirs = (run.recording("held_out", 2) for run in (first, second))
    np.testing.assert_array_equal(ours.rock, theirs.rock)
    assert (first.recording("rollout", 2).rock != second.recording("rollout", 2).rock).any()


def test_a_film_has_all_that_is_drawn(two_runs):
    recording = Run(two_runs[0]).recording("rollout", 1)
    shown = film(recording)

    def array(name, kind=np.uint8):
        return np.frombuffer(base64.b64decode(shown["arrays"][name]), kind)

    assert (shown["steps"], shown["agents"], shown["height"], shown["width"]) == (len(recording.text), 6, 9, 9)
    np.testing.assert_array_equal(array("food").reshape(recording.food.shape), recording.food)
    np.testing.assert_array_equal(array("position").reshape(recording.position.shape), recording.position)
    np.testing.assert_array_equal(array("text", "<u4").reshape(recording.text.shape), recording.text)
    np.testing.assert_allclose(array("energy") / 255 * 100, recording.energy.ravel(), atol=0.3)
    assert shown["actions"] == ["stay", "north", "south", "east", "west"]
    json.dumps(shown, allow_nan=False)


def test_memory_begins_with_what_is_in_view_and_grows(two_runs):
    recording = Run(two_runs[0]).recording("rollout", 2)
    agent = int(recording.is_alive.sum(axis=0).argmax())
    maps = remembered(recording, agent)["maps"]
    assert len(maps) == len(recording.position)
    begun, later = maps[0], maps[10]
    known = [sum(letter != " " for row in rows for letter in row) for rows in (begun, later)]
    assert known[0] == 7 * 7
    assert known[1] > known[0]
    assert begun[15][15] in ".gh"
    with pytest.raises(ValueError, match="agent 6: must be below 6"):
        remembered(recording, 6)


def test_what_leads_out_of_the_folder_is_not_read(copied, tmp_path):
    secret = tmp_path / "secret.jsonl"
    secret.write_text('{"generation": 0, "wall_s": 1, "secret": true}\n')
    for name in ("metrics.jsonl", "first.json", "recordings/rollout_0001.safetensors"):
        (copied / name).unlink()
        (copied / name).symlink_to(secret)
    run = Run(copied)
    with pytest.raises(Damaged, match=r"metrics\.jsonl: must be a plain file, no link, pipe or device"):
        run.lines("metrics")
    with pytest.raises(Damaged, match=r"recordings/rollout_0001\.safetensors: must be a plain file"):
        run.recording("rollout", 1)
    for kind, generation in (("../rollout", 0), ("checkpoint", 0)):
        with pytest.raises(FileNotFoundError):
            run.recording(kind, generation)
    overview = run.overview()
    assert overview["baselines"] == {}
    assert [sentence.partition(":")[0] for sentence in overview["damage"]] == [
        "first.json",
        "metrics.jsonl",
        "recordings/rollout_0001.safetensors",
    ]


def test_nothing_but_a_plain_file_is_opened(copied):
    makes = [Path.mkdir, lambda file: file.symlink_to("run.json"), *([os.mkfifo] if hasattr(os, "mkfifo") else [])]
    for make in makes:
        for name in ("config.yaml", "metrics.jsonl", "lineage.jsonl", "adapters.jsonl", "first.json", "results.json"):
            file = copied / name
            kept = file.read_bytes()
            file.unlink()
            make(file)
            run = Run(copied)
            for part in ("lineage", "adapters"):
                with suppress(Damaged):
                    run.lines(part)
            assert [sentence.partition(":")[0] for sentence in run.overview()["damage"]] == [name]
            file.rmdir() if make == Path.mkdir else file.unlink()
            file.write_bytes(kept)


def test_a_file_that_is_too_large_is_not_read_and_said_to_be(copied):
    with (copied / "metrics.jsonl").open("a") as file:
        file.truncate(200 << 20)
    run = Run(copied)
    assert run.overview()["damage"] == ["metrics.jsonl: 200 MiB; the page reads at most 64"]
    assert run.lines("adapters")


DAMAGE = {
    "metrics.jsonl": ["7", '"x"', "[]", "{}", '{"generation": "1"}', '{"generation": NaN}', 9_000 * "[", "\ud800", "{"],
    "lineage.jsonl": ["7", '{"generation": 0}', '{"generation": 0, "event": "birth"}', 5_000 * '{"a":', "null"],
    "first.json": ["7", "[]", "{", 20_000 * "[", '{"fitness": 3}', '{"fitness": {"x": 1}}']
    + [f'{{"fitness": {{"x": {{"mean": {mean}}}}}}}' for mean in ('"1"', "NaN", "1e999")],
    "config.yaml": ["7", "seed: x", "seed: &a 1", "seed: [", "env: {id: 3}", "agents: 3", 10_000 * "["],
    "results.json": ["7", "{", 20_000 * "["],
    "run.json": ["[]", "x"],
}


@pytest.mark.parametrize(("name", "content"), [(name, text) for name, texts in DAMAGE.items() for text in texts])
def test_damage_is_named_and_the_rest_is_shown(copied, name, content):
    file = copied / name
    rest = file.read_bytes() if file.suffix == ".jsonl" else b""
    file.write_bytes(content.encode("utf-8", "surrogatepass") + b"\n" + rest)
    run = Run(copied)
    with suppress(Damaged):
        run.lineage()
    overview = json.loads(encoded(run.overview()))
    (sentence,) = overview["damage"]
    assert sentence.startswith(name)
    assert str(copied) not in sentence
    assert overview["done"] == (0 if name == "metrics.jsonl" else 3)
    assert "seed" in overview, "if need be from the copy in a checkpoint"
    assert bool(overview["baselines"]) == (name != "first.json")
    assert run.recordings()
    assert run.recording("rollout", 1)
    assert run.lines("adapters")


def test_damage_that_is_mended_is_no_damage(copied):
    file, run = copied / "metrics.jsonl", Run(copied)
    whole = file.read_text()
    file.write_text("7\n" + whole)
    (sentence,) = run.overview()["damage"]
    assert sentence.startswith("metrics.jsonl, line 1: damaged")
    file.write_text(whole)
    assert run.overview()["damage"] == []
    assert run.overview()["done"] == 3


def test_where_on_this_machine_a_run_is_stays_untold(copied):
    (copied / "config.yaml").write_text("seed: [")
    shutil.rmtree(copied / "checkpoints")
    run = Run(copied)
    with pytest.raises(Damaged, match=r"^config\.yaml: damaged.*; copy must be the folder of a run$"):
        run.config()


def test_damage_elsewhere_that_is_mended_is_no_damage(copied):
    """The manifest and the newest checkpoint tell whether a log and a recording are what the run wrote."""
    newest = max((copied / "checkpoints").iterdir())
    for vouching in (copied / "manifest.jsonl", newest / "manifest.jsonl"):
        run, kept = Run(copied), vouching.read_bytes()
        vouching.write_bytes(b"7\n")
        for _ in range(2):
            with pytest.raises(Damaged, match=r"metrics\.jsonl: .*manifest\.jsonl"):
                run.lines("metrics")
            with pytest.raises(Damaged, match=r"rollout_0001\.safetensors: .*manifest\.jsonl"):
                run.recording("rollout", 1)
        names = [sentence.partition(":")[0] for sentence in run.overview()["damage"]]
        assert names == ["metrics.jsonl", "recordings/rollout_0001.safetensors"]
        vouching.write_bytes(kept)
        assert run.overview()["damage"] == []
        assert len(run.lines("metrics")) == 3
        assert run.recording("rollout", 1)


def test_a_checkpoint_that_is_set_aside_is_no_reason_for_damage_any_more(copied):
    newest, run = max((copied / "checkpoints").iterdir()), Run(copied)
    (newest / "manifest.jsonl").write_text("7\n")
    with pytest.raises(Damaged):
        run.lines("metrics")
    shutil.rmtree(newest)
    assert len(run.lines("metrics")) == 3
    assert run.overview()["damage"] == []


@pytest.mark.parametrize("part", ["metrics", "config"])
def test_what_the_system_could_not_read_once_is_read_again(copied, monkeypatch, part):
    """Whatever a reader makes of the system's error: it may pass without any file having changed."""

    def fail(*_: object) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    run = Run(copied)
    read: Callable[[], Any] = run.config if part == "config" else partial(run.lines, part)
    with monkeypatch.context() as broken:
        broken.setattr("trainers.records.manifest.read_bytes", fail)
        broken.setattr("trainers.records.sealed.read_bytes", fail)
        with pytest.raises(Damaged, match="Input/output error"):
            read()
    assert read()
    assert run.overview()["damage"] == []


def test_nobody_can_descend_from_itself(copied):
    file = copied / "lineage.jsonl"
    events = [json.loads(line) for line in file.read_text().splitlines()]
    first = next(event for event in events if event["event"] == "birth")
    first["parents"] = [first["id"]]
    file.write_text("".join(json.dumps(event) + "\n" for event in events))
    with pytest.raises(Damaged, match=r"lineage\.jsonl: lines of generation 0 are missing, or not those"):
        Run(copied).lineage()
    shutil.rmtree(copied / "checkpoints")  # so that nothing vouches for them
    with pytest.raises(Damaged, match=r"lineage\.jsonl, line 1: damaged \(parent 0 of 0: must be an id below it"):
        Run(copied).lineage()


def test_a_run_that_vanishes_is_said_to_be_missing(copied):
    run = Run(copied)
    assert run.overview()["damage"] == []
    shutil.rmtree(copied)
    assert run.overview()["damage"] == ["config.yaml: missing"]
    assert run.lines("metrics") == run.recordings() == []
    assert run.stamps() == {}
    with pytest.raises(FileNotFoundError):
        run.recording("rollout", 1)


def test_a_foreign_file_among_the_recordings_is_left_alone(copied):
    known = Run(copied).recordings()
    for name in ("notes", "held_out_x", "rollout_", "rollout_1", "rollout_00001", "other_0001", "rollout_-001", "é"):
        (copied / "recordings" / f"{name}.safetensors").write_text("foreign")
    assert Run(copied).recordings() == known


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(UserError, match="must be the folder of a run"):
        Run(tmp_path)
