"""Comparisons of runs: finished runs are kept, interrupted ones are resumed, tables go into their sections."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks import champions, compare, experiments, runs
from benchmarks.experiments import EXPERIMENTS
from benchmarks.results import Chart, Results, draw, markdown, write, write_section
from benchmarks.runs import Run, learning_curve
from trainers.cli.parser import read_config

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def tiny_keys(tiny_model):
    return [
        *("--model.name", str(tiny_model), "--model.dtype", "float32"),
        *("--adapter.top_layers", "2", "--adapter.rank", "2"),
        *("--env.agents", "6", "--env.width", "9", "--env.height", "9", "--env.food", "12", "--env.max_steps", "20"),
        *("--evolution.parents", "3", "--evolution.elites", "2", "--evolution.episodes", "2"),
    ]


def test_a_finished_run_is_not_made_again_and_an_interrupted_one_is_resumed(tiny_keys, tmp_path, monkeypatch):
    run = Run(tmp_path / "run", 3, [*tiny_keys, "--generations", "2", "--held_out_episodes", "2"])
    run.train()
    assert [line["generation"] for line in run.metrics] == [0, 1]
    points = learning_curve(run)
    assert [point["learning"] for point in points] == [line["env_steps"] for line in run.metrics]
    assert points[1]["seconds"] > points[0]["seconds"]
    asked = []
    monkeypatch.setattr(runs, "run_module", lambda module, *words: asked.append(words))
    run.train()
    assert asked == []
    (run.run_dir / "results.json").unlink()
    run.train()
    assert asked == [("--resume", run.run_dir)]


def test_a_run_with_other_settings_is_not_taken_for_this_one(tiny_keys, tmp_path):
    keys = [*tiny_keys, "--held_out_episodes", "2", "--generations", "1"]
    Run(tmp_path / "run", 3, keys).train()
    for other in (Run(tmp_path / "run", 4, keys), Run(tmp_path / "run", 3, [*keys, "--learn.epochs", "3"])):
        with pytest.raises(RuntimeError, match="made with other settings"):
            other.train()


def test_arguments_override_the_settings_that_keep_runs_quiet(tiny_keys, tmp_path):
    keys = [*tiny_keys, "--held_out_episodes", "2", "--generations", "1", "--log.recordings_mb", "3"]
    Run(tmp_path / "run", 3, keys).train()
    log = read_config(tmp_path / "run").log
    assert (log.recordings_mb, log.episode_every) == (3, 0)


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_a_key_of_the_main_program_is_not_taken_for_an_option(experiment):
    _, options = compare.parse([experiment, "--seed", "7", "--generations", "9", "--run_dir", "here", "--life", "3"])
    assert options.keys == ["--seed", "7", "--run_dir", "here", "--life", "3"]
    assert (options.seeds, options.generations) == (3, 9)


def test_each_experiment_has_its_own_options(capsys):
    _, options = compare.parse(["adaptation", "--rollouts", "2", "--unseen", "night", "rivals"])
    assert (options.rollouts, options.unseen) == (2, ["night", "rivals"])
    with pytest.raises(SystemExit):
        compare.parse(["adaptation", "--unseen", "day"])
    assert "'night', 'rivals', 'meadow, mirrored'" in capsys.readouterr().err


def test_a_run_without_learning_has_no_steps_learned_from(tiny_keys, tmp_path):
    run = Run(tmp_path / "run", 3, [*tiny_keys, "--held_out_episodes", "2", "--generations", "1", "--trainer", "none"])
    run.train()
    (point,) = learning_curve(run)
    assert point["learning"] == 0 < point["all"]


def test_the_error_of_a_run_that_fails_is_shown(tmp_path):
    with pytest.raises(RuntimeError, match=r"env.food|WorldConfig.food = 4000"):
        Run(tmp_path / "run", 0, ["--env.food", "4000"]).train()


def test_a_table_goes_into_its_section_and_nowhere_else(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- one -->\nold\n<!-- end -->\nbetween\n<!-- two -->\n<!-- end -->\nafter\n")
    write_section(page, "two", markdown([["a", "b"], ["1", r"\1"]]))
    write_section(page, "one", "new")
    assert page.read_text() == (
        "before\n<!-- one -->\n\nnew\n\n<!-- end -->\nbetween\n"
        "<!-- two -->\n\n| a | b |\n| --- | --- |\n| 1 | \\1 |\n\n<!-- end -->\nafter\n"
    )
    with pytest.raises(ValueError, match=r"page.md: must be a file with a place <!-- three -->"):
        write_section(page, "three", "")


def test_results_go_into_a_page_and_beside_it(tmp_path):
    page = page_with(tmp_path, "first", "last")
    chart = Chart(
        "A caption", {"left": {"a": [1.0, 2.0]}, "right": {"a": [2.0], "b": [0.5]}}, "generation", legend="who"
    )
    write(Results({"last": [["x"], ["1"]], "first": [["y"], ["2"]]}, {"found": [0.1]}, chart), page)
    assert page.read_text() == (
        "<!-- first -->\n\n| y |\n| --- |\n| 2 |\n\n![A caption](page.png)\n\n<!-- end -->\n"
        "<!-- last -->\n\n| x |\n| --- |\n| 1 |\n\n<!-- end -->\n"
    )
    numbers = json.loads(page.with_suffix(".json").read_text())
    assert list(numbers) == ["machine", "found"]
    plain = page.with_suffix(".png").read_bytes()
    assert plain.startswith(b"\x89PNG")
    draw(chart._replace(level=("level", 1.5)), page.with_suffix(".png"))
    assert page.with_suffix(".png").read_bytes() != plain


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_page_has_sections_for_its_tables(name):
    text = (ROOT / "docs" / f"{EXPERIMENTS[name].folder}.md").read_text()
    assert all(f"<!-- {section} -->" in text for section in EXPERIMENTS[name].sections)


def page_with(folder, *sections):
    """A page that has these sections, empty."""
    page = folder / "page.md"
    page.write_text("".join(f"<!-- {section} -->\n<!-- end -->\n" for section in sections))
    return page


def in_short(experiment, folder, generations):
    """A page for an experiment, and the arguments of a comparison that takes little time."""
    page = page_with(folder, *EXPERIMENTS[experiment].sections)
    options = ["--seeds", "1", "--generations", str(generations), "--runs", str(folder / "runs"), "--page", str(page)]
    return page, [experiment, *options]


@pytest.mark.long
def test_the_comparison_of_social_learning_in_short(tiny_keys, tmp_path, monkeypatch):
    for name in [name for name in experiments.IMITATION if name[1] not in ("nobody", "neighbour")]:
        monkeypatch.delitem(experiments.IMITATION, name)
    page, arguments = in_short("social", tmp_path, generations=2)
    compare.main([*arguments, *tiny_keys])
    assert page.read_text().count("| neighbour |") == 1
    found = json.loads(page.with_suffix(".json").read_text())["found"]
    assert {breeding: list(rules) for breeding, rules in found.items()} == {
        "with breeding": ["nobody", "neighbour"],
        "without breeding": ["nobody", "neighbour"],
    }
    assert page.with_suffix(".png").stat().st_size > 10_000
    monkeypatch.setattr(runs, "run_module", lambda *words: pytest.fail("a finished run is made again"))
    compare.main([*arguments, *tiny_keys])


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_a_page_without_its_section_is_refused_before_any_run_is_made(experiment, tmp_path, monkeypatch):
    monkeypatch.setattr(Run, "train", lambda run: pytest.fail("hours of work that would be lost"))
    for page in (tmp_path / "nowhere.md", ROOT / "README.md"):
        with pytest.raises(ValueError, match=r"must be a file with a place <!-- (table|champions) -->"):
            compare.main([experiment, "--page", str(page)])


@pytest.mark.long
def test_the_comparison_of_rivals_in_short(tiny_keys, tmp_path, monkeypatch, capsys):
    page, arguments = in_short("rivals", tmp_path, generations=3)
    for condition in ("one gene pool", "rivals without a hall of fame"):
        monkeypatch.delitem(experiments.RIVALS, (condition,))
    alone = experiments.RIVALS["no rivals",]
    monkeypatch.setitem(experiments.RIVALS, ("no rivals",), [*alone, "--env.agents", "3"])
    monkeypatch.setattr(champions, "STAGES", 3)
    monkeypatch.setattr(champions, "WORLDS", 4)
    monkeypatch.setitem(EXPERIMENTS, "rivals", EXPERIMENTS["rivals"]._replace(least_generations=3))
    breeding = ["--evolution.parents", "2", "--evolution.elites", "1", "--coevolution.hall_of_fame_episodes", "1"]
    threads = torch.get_num_threads()
    compare.main([*arguments, *tiny_keys, *breeding])
    assert torch.get_num_threads() == threads, "the settings of a run do not change those of its readers"
    numbers = json.loads(page.with_suffix(".json").read_text())
    assert set(numbers["finals"][0]) == {"rivals", "no rivals"}
    assert sum(numbers["finals"][0].values()) == pytest.approx(0, abs=1e-6)
    (race,) = numbers["races"]["rivals"]
    assert race["stages"] == [0, 1, 2]
    assert sum(race["rating"][1]) == pytest.approx(0), "counted from the second"
    assert 0 <= race["beats older rivals"] <= 1
    assert page.read_text().count("| no rivals |") == 1
    assert page.with_suffix(".png").stat().st_size > 10_000


def test_rivals_need_as_many_generations_as_there_are_stages(capsys):
    with pytest.raises(SystemExit):
        compare.parse(["rivals", "--generations", "4"])
    assert "--generations 4: must be 5 or more" in capsys.readouterr().err


@pytest.mark.long
def test_the_comparison_of_students_in_short(tiny_keys, tmp_path, monkeypatch):
    page, arguments = in_short("distillation", tmp_path, generations=2)
    monkeypatch.setattr(experiments, "model_folder", lambda name: None)
    own = ["--distillation.trains", "model", "--learn.epochs", "1"]
    students = {"50 MB": ("full model", own), "led": ("planner", experiments.PLANNER)}
    monkeypatch.setattr(experiments, "STUDENTS", students)
    compare.main([*arguments, "--lessons", "2", *tiny_keys])
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
    page, arguments = in_short("adaptation", tmp_path, generations=3)
    monkeypatch.delitem(experiments.BEGINNINGS, "Lamarckian")
    compare.main([*arguments, "--rollouts", "2", "--unseen", "night", *tiny_keys])
    found = json.loads(page.with_suffix(".json").read_text())["shares"]
    assert {name: len(line) for name, line in found.items()} == {
        f"night {name} 0": 3 for name in ("newborn", "Baldwinian", "Reptile")
    }
    assert len({line[0] for line in found.values()}) == 3, "each begins as something else"
