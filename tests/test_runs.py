"""Comparisons of runs: what is finished is not done again, what was interrupted goes on, tables find their place."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks import adaptation, distillation, rivals, runs, social
from benchmarks.runs import Run, curve, interval, put, table, told
from trainers.parser import read_config

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def tiny_keys(tiny_model):
    return [
        *("--model.name", str(tiny_model), "--model.dtype", "float32"),
        *("--adapter.top_layers", "2", "--adapter.rank", "2"),
        *("--env.agents", "6", "--env.width", "9", "--env.height", "9", "--env.food", "12", "--env.max_steps", "20"),
        *("--evolution.parents", "3", "--evolution.elites", "2", "--evolution.episodes", "2"),
    ]


def test_a_run_that_is_done_is_not_done_again_and_one_that_was_interrupted_goes_on(tiny_keys, tmp_path, monkeypatch):
    run = Run(tmp_path / "run", 3, [*tiny_keys, "--generations", "2", "--held_out_episodes", "2"])
    run.live()
    assert [line["generation"] for line in run.metrics] == [0, 1]
    points = curve(run)
    assert [point["learning"] for point in points] == [line["env_steps"] for line in run.metrics]
    assert points[1]["seconds"] > points[0]["seconds"]
    asked = []
    monkeypatch.setattr(runs, "command", lambda module, *words: asked.append(words))
    run.live()
    assert asked == []
    (run.run_dir / "results.json").unlink()
    run.live()
    assert asked == [("--resume", run.run_dir)]


def test_a_run_with_other_settings_is_not_taken_for_this_one(tiny_keys, tmp_path):
    keys = [*tiny_keys, "--held_out_episodes", "2", "--generations", "1"]
    Run(tmp_path / "run", 3, keys).live()
    for other in (Run(tmp_path / "run", 4, keys), Run(tmp_path / "run", 3, [*keys, "--learn.epochs", "3"])):
        with pytest.raises(RuntimeError, match="made with other settings"):
            other.live()


def test_what_is_asked_for_goes_before_what_is_usual(tiny_keys, tmp_path):
    keys = [*tiny_keys, "--held_out_episodes", "2", "--generations", "1", "--log.recordings_mb", "3"]
    Run(tmp_path / "run", 3, keys).live()
    log = read_config(tmp_path / "run").log
    assert (log.recordings_mb, log.episode_every) == (3, 0)


def test_a_key_of_the_main_program_is_not_taken_for_an_option():
    options, keys = runs.options_of("", "x", 3).parse_known_args(["--seed", "7", "--run_dir", "here"])
    assert (options.seeds, keys) == (3, ["--seed", "7", "--run_dir", "here"])


def test_steps_of_who_does_not_learn_are_no_steps_learned_from(tiny_keys, tmp_path):
    run = Run(tmp_path / "run", 3, [*tiny_keys, "--held_out_episodes", "2", "--generations", "1", "--trainer", "none"])
    run.live()
    (point,) = curve(run)
    assert point["learning"] == 0 < point["all"]


def test_what_a_run_says_when_it_fails_is_told(tmp_path):
    with pytest.raises(RuntimeError, match=r"env.food|WorldConfig.food = 4000"):
        Run(tmp_path / "run", 0, ["--env.food", "4000"]).live()


def test_a_table_goes_to_its_place_and_nowhere_else(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- one -->\nold\n<!-- end -->\nbetween\n<!-- two -->\n<!-- end -->\nafter\n")
    put(page, "two", table(["a", "b"], [["1", r"\1"]]))
    put(page, "one", "new")
    assert page.read_text() == (
        "before\n<!-- one -->\n\nnew\n\n<!-- end -->\nbetween\n"
        "<!-- two -->\n\n| a | b |\n| --- | --- |\n| 1 | \\1 |\n\n<!-- end -->\nafter\n"
    )
    with pytest.raises(ValueError, match=r"page.md: must be a file with a place <!-- three -->"):
        put(page, "three", "")


def test_an_interval_is_of_the_middle_half():
    figure = interval([0.1, 0.2, 0.3, 0.9])
    assert figure["iqm"] == pytest.approx(0.25)
    assert told(figure) == "25% [10%, 90%]", "of few, the lowest and highest"
    many = interval([0.1, 0.2, 0.3, 0.3, 0.4, 0.9])
    assert 0.1 < many["low"] < many["iqm"] < many["high"] < 0.9


def test_every_page_has_places_for_its_tables():
    for page, names in {
        "social": ["table"],
        "rivals": ["race", "champions"],
        "meta": ["table"],
        "distillation": ["table"],
    }.items():
        text = (ROOT / "docs" / f"{page}.md").read_text()
        assert all(f"<!-- {name} -->" in text for name in names)


def in_short(folder, *places, generations):
    """A page with places for tables, and the options of a comparison that is over soon."""
    page = folder / "page.md"
    page.write_text("".join(f"<!-- {place} -->\n<!-- end -->\n" for place in places))
    options = ["--seeds", "1", "--generations", str(generations), "--runs", str(folder / "runs"), "--page", str(page)]
    return page, options


@pytest.mark.long
def test_the_comparison_of_social_learning_in_short(tiny_keys, tmp_path, monkeypatch):
    monkeypatch.setattr(social, "RULES", ("nobody", "neighbour"))
    page, options = in_short(tmp_path, "table", generations=2)
    social.main([*options, *tiny_keys])
    assert page.read_text().count("| neighbour |") == 1
    found = json.loads(page.with_suffix(".json").read_text())["found"]
    assert set(found) == {"with breeding", "without breeding"}
    assert page.with_suffix(".png").stat().st_size > 10_000
    monkeypatch.setattr(runs, "command", lambda *words: pytest.fail("what is finished is done again"))
    social.main([*options, *tiny_keys])


def test_a_page_without_its_place_is_said_before_anything_is_run(tmp_path, monkeypatch):
    monkeypatch.setattr(Run, "live", lambda run: pytest.fail("hours of work that would be lost"))
    for comparison in (social, rivals, distillation, adaptation):
        for page in (tmp_path / "nowhere.md", ROOT / "README.md"):
            with pytest.raises(ValueError, match=r"must be a file with a place <!-- (table|champions) -->"):
                comparison.main(["--page", str(page)])


@pytest.mark.long
def test_the_comparison_of_rivals_in_short(tiny_keys, tmp_path, monkeypatch, capsys):
    page, options = in_short(tmp_path, "race", "champions", generations=3)
    for condition in ("one gene pool", "rivals without a hall of fame"):
        monkeypatch.delitem(rivals.CONDITIONS, condition)
    monkeypatch.setitem(rivals.CONDITIONS, "no rivals", [*rivals.ALONE, "--env.agents", "3"])
    monkeypatch.setattr(rivals, "STAGES", 3)
    monkeypatch.setattr(rivals, "WORLDS", 4)
    breeding = ["--evolution.parents", "2", "--evolution.elites", "1", "--evolution.hall_episodes", "1"]
    threads = torch.get_num_threads()
    rivals.main([*options, *tiny_keys, *breeding])
    assert torch.get_num_threads() == threads, "what its runs are told is not told to who looks at them"
    numbers = json.loads(page.with_suffix(".json").read_text())
    assert set(numbers["finals"][0]) == {"rivals", "no rivals"}
    assert sum(numbers["finals"][0].values()) == pytest.approx(0, abs=1e-6)
    (race,) = numbers["races"]["rivals"]
    assert race["stages"] == [0, 1, 2]
    assert sum(race["rating"][1]) == pytest.approx(0), "counted from the second"
    assert 0 <= race["beats older rivals"] <= 1
    assert page.read_text().count("| no rivals |") == 1
    monkeypatch.setattr(rivals, "STAGES", 4)
    with pytest.raises(SystemExit):
        rivals.main([*options, *tiny_keys, *breeding])
    assert "--generations 3: must be 4 or more" in capsys.readouterr().err


@pytest.mark.long
def test_the_comparison_of_students_in_short(tiny_keys, tmp_path, monkeypatch):
    page, options = in_short(tmp_path, "table", generations=2)
    monkeypatch.setattr(distillation, "model_folder", lambda name: None)
    own = ["--learn.trains", "model", "--learn.epochs", "1"]
    students = {"50 MB": ("full model", own), "led": ("planner", distillation.PLANNER)}
    monkeypatch.setattr(distillation, "STUDENTS", students)
    distillation.main([*options, "--lessons", "2", *tiny_keys])
    numbers = json.loads(page.with_suffix(".json").read_text())
    assert page.with_suffix(".png").stat().st_size > 10_000
    cost, small = numbers["50 MB"]["cost"], numbers["50 MB, then 8 bits"]
    assert small["megabytes"] < cost["megabytes"]
    assert small["share"] == pytest.approx(cost["share"], abs=0.3)
    assert numbers["led"]["cost"]["step_ms"] > 0
    assert [line.split("|")[2].strip() for line in page.read_text().splitlines() if line.startswith("| ")][2:] == [
        *("nobody", "full model", "full model", "planner", "nobody")
    ]


@pytest.mark.long
def test_the_comparison_of_beginnings_in_short(tiny_keys, tmp_path, monkeypatch):
    page, options = in_short(tmp_path, "table", generations=3)
    monkeypatch.delitem(adaptation.BEGINNINGS, "Lamarckian")
    adaptation.main([*options, "--lives", "2", "--unseen", "night", *tiny_keys])
    found = json.loads(page.with_suffix(".json").read_text())["shares"]
    assert {name: len(line) for name, line in found.items()} == {
        f"night {name} 0": 3 for name in ("newborn", "Baldwinian", "Reptile")
    }
    assert len({line[0] for line in found.values()}) == 3, "each begins as something else"
