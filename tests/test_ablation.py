"""The ablation makes the runs that are missing and reads them; its statistics are those of the textbooks."""

import json

import numpy as np
import pytest

from benchmarks import ablation, report
from benchmarks.statistics import bootstrap, format_interval, interquartile_mean, interval, probability_of_improvement
from benchmarks.words import SYNONYMS, Examples, Mirrored, Renamed, Reordered
from envs import WorldConfig
from trainers.cli.parser import parse


def test_the_interquartile_mean_leaves_out_a_quarter_at_either_end():
    assert interquartile_mean(np.array([[0.0], [1.0], [3.0], [100.0]])) == 2
    assert interquartile_mean(np.arange(8.0).reshape(4, 2)) == 3.5
    # Of five, one and a quarter goes at either end: (0.75 * 1 + 2 + 0.75 * 6) / 2.5
    assert interquartile_mean(np.array([[0.0], [1.0], [2.0], [6.0], [50.0]])) == pytest.approx(2.9)


def test_improvement_is_the_share_of_pairs():
    first, second = np.array([[1.0], [2.0], [3.0]]), np.array([[2.0], [0.0]])
    assert probability_of_improvement(first, second) == pytest.approx((1 + 1.5 + 2) / 6)
    assert probability_of_improvement(second, first) == pytest.approx(1 - 4.5 / 6)


def test_an_interval_holds_the_statistic_and_grows_with_the_spread():
    rng = np.random.default_rng(0)
    narrow, wide = (rng.normal(5, spread, (5, 2)) for spread in (0.1, 1.0))
    for scores in (narrow, wide):
        low, high = bootstrap([scores], interquartile_mean)
        assert low < interquartile_mean(scores) < high
    spans = [np.subtract(*bootstrap([scores], interquartile_mean)[::-1]) for scores in (narrow, wide)]
    assert spans[1] > 3 * spans[0]


def test_runs_are_resampled_within_their_task():
    scores = np.array([[0.0, 10.0], [0.0, 10.0]])  # tasks differ, runs do not
    assert bootstrap([scores], interquartile_mean) == (5, 5)


def test_an_interval_is_of_the_middle_half():
    figure = interval([0.1, 0.2, 0.3, 0.9])
    assert figure["iqm"] == pytest.approx(0.25)
    assert format_interval(figure) == "25% [10%, 90%]", "of few, the lowest and highest"
    many = interval([0.1, 0.2, 0.3, 0.3, 0.4, 0.9])
    assert 0.1 < many["low"] < many["iqm"] < many["high"] < 0.9
    assert many["runs"] == 6
    tasks = interval(np.array([[0.0, 0.2], [0.3, 0.5], [0.1, 0.1]]))
    assert (tasks["low"], tasks["high"], tasks["runs"]) == pytest.approx((0.1, 0.4, 6)), (
        "runs by their means over tasks"
    )


@pytest.mark.parametrize("name", [name for name in ablation.CONDITIONS if not name.startswith(report.MLP)])
def test_each_condition_is_a_config(name):
    words = [word.format(random_weights="smollm2-135m") for word in ablation.CONDITIONS[name]]
    assert parse([*words, "--run_dir", "runs/none"])[0]


def result(condition: str, seed: int, score: float, preset: str = "meadow") -> dict:
    curve = [{"learning": 10, "all": 90, "seconds": 1.0, "share": score / 2}]
    curve.append({"learning": 20, "all": 180, "seconds": 2.0, "share": score})
    about = {"preset": preset, "condition": condition, "seed": seed, "score": score, "curve": curve}
    return about | {"baselines": {"random": 0.05, "planner": 1.0}}


def test_the_summary_has_scores_baselines_and_improvement():
    results = [result("both", seed, 0.7 + seed / 100) for seed in range(5)]
    results += [result("learning only", seed, 0.5 + seed / 100) for seed in range(5)]
    table = report.summary(results)
    assert table["both"]["iqm"] == pytest.approx(0.72)
    assert table["learning only"]["whole_is_better"] == 1
    assert table["random"]["iqm"] == pytest.approx(0.05)
    assert table["planner"]["whole_is_better"] == 0
    text = report.summary_table(table)
    order = [line.split("|")[1].strip() for line in text.splitlines()[2:]]
    assert order == ["planner", "both", "learning only", "random"]
    assert "| learning only | 52.0% [" in text
    assert "| 5 | 100% |" in text, "no interval where all are on one side"
    one, three = (report.summary_table(report.summary([r for r in results if r["seed"] < seeds])) for seeds in (1, 3))
    assert "| learning only | 50.0% | 1 | 100% |" in one
    assert "| learning only | 51.0% [50.0%, 52.0%] | 3 | 100% |" in three, "the lowest and the highest run"


def test_runs_of_one_seed_in_several_presets_have_no_interval():
    results = [result("both", seed, 0.7, preset) for seed in range(3) for preset in ("maze", "night")]
    results += [result("replay", 0, score, preset) for score, preset in ((0.5, "maze"), (0.6, "night"))]
    results += [result("mean", seed, 0.69 + seed / 50, preset) for seed in range(3) for preset in ("maze", "night")]
    text = report.summary_table(report.summary(results))
    assert "| replay | 55.0% | 2 | 100% |" in text
    assert "| mean | 71.0% [69.0%, 73.0%] | 6 | 33% |" in text, "six runs, but three seeds"


def test_baselines_are_compared_with_the_run_in_whose_worlds_they_play():
    results = [result("both", seed, score) for seed, score in enumerate((0.5, 0.6, 0.7, 0.8, 0.9))]
    for r in results:
        r["baselines"] |= {"agents, renamed": r["score"] + (0.01 if r["seed"] else -0.01)}
    renamed = report.summary(results)["agents, renamed"]
    assert renamed["whole_is_better"] == pytest.approx(0.2), "better in one run of five, by however little"
    assert (renamed["from"], renamed["to"]) == (0, pytest.approx(0.6))
    del results[3]["baselines"]["agents, renamed"]
    assert "agents, renamed" not in report.summary(results)


def curve(*points: tuple[int, float]) -> list[dict]:
    return [{"learning": steps // 2, "all": steps, "seconds": steps / 1000, "share": share} for steps, share in points]


def test_the_early_table_has_heights_on_each_axis_and_the_area():
    runs = [result("both", seed, 0.6) | {"curve": curve((0, 0.0), (100_000, 0.6))} for seed in range(2)]
    row = report.early(runs, "meadow").splitlines()[-1]
    assert [cell.strip() for cell in row.split("|")[1:-1]] == ["both", "12%", "48%", "60%", "36%", "", "30%"]


def test_an_mlp_catches_up_where_it_stays_level():
    runs = [result("both", 0, 0.6) | {"curve": curve((0, 0.0), (20_000, 0.5), (100_000, 0.5))}]
    runs += [result("MLP", 0, 0.6) | {"curve": curve((0, 0.0), (80_000, 0.5), (200_000, 0.7))}]
    runs += [result("MLP, slow", 0, 0.6) | {"curve": curve((0, 0.0), (200_000, 0.1))}]
    lines = report.catching_up(runs, "meadow")
    assert "MLP: level with `both` after 76,000 steps in all." in lines, "three points below are level"
    assert "MLP: level with `both` after 38,000 steps learned from." in lines
    assert any(line.startswith("MLP, slow: behind `both` to the end, by steps in all") for line in lines)


def test_results_are_written_with_pictures(tmp_path):
    results = [
        result(name, seed, 0.5, preset) for name in ("both", "MLP") for seed in (0, 1) for preset in ("maze", "night")
    ]
    report.report(results, tmp_path, ["maze", "night"], generations=20, changes={"both": [], "MLP": ["--sees", "map"]})
    assert {file.name for file in tmp_path.iterdir()} == {
        *("results.md", "results.json", "results_maze.png", "results_night.png")
    }
    text = (tmp_path / "results.md").read_text()
    assert "## All presets" in text
    assert "- both: the default\n- MLP: `--sees map`" in text
    assert len(json.loads((tmp_path / "results.json").read_text())["runs"]) == 8


@pytest.mark.long
def test_a_comparison_runs_what_is_missing_and_nothing_twice(tiny_model, tmp_path, monkeypatch, capsys):
    small = ["--model.name", str(tiny_model), "--env.agents", "6", "--env.max_steps", "12", "--evolution.episodes", "2"]
    small += ["--adapter.top_layers", "2", "--evolution.parents", "3", "--evolution.elites", "2"]
    monkeypatch.setattr(ablation, "HELD_OUT_EPISODES", 2)
    monkeypatch.setattr(
        ablation, "CONDITIONS", {"both": small, "learning only": [*small, "--evolution.enabled", "false"]}
    )
    arguments = ["--seeds", "1", "--generations", "2", "--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "out")]
    ablation.main([*arguments, "--conditions", "both", "learning only"])
    written = json.loads((tmp_path / "out" / "results.json").read_text())
    assert {run["condition"] for run in written["runs"]} == {"both", "learning only"}
    assert {"random", "frozen", "agents, renamed", "agents, reordered", "frozen, with examples"} <= set(
        written["summary"]["meadow"]
    )
    stamps = {file: file.stat().st_mtime_ns for file in (tmp_path / "runs").rglob("results.json")}
    ablation.main([*arguments, "--conditions", "both", "learning only"])
    assert stamps == {file: file.stat().st_mtime_ns for file in (tmp_path / "runs").rglob("results.json")}


def test_only_finished_runs_are_read_if_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(ablation, "run", lambda *arguments: pytest.fail("nothing is to be run"))
    options = ablation.parse(["--seeds", "2", "--runs", str(tmp_path), "--conditions", "MLP", "both"])
    done = next(job for job in ablation.jobs(options) if (job.condition, job.seed) == ("MLP", 1))
    done.run_dir.mkdir(parents=True)
    point = {"steps": 10, "seconds": 1.0, "share_of_planner": 0.4}
    (done.run_dir / "mlp.json").write_text(json.dumps({"curve": [point, point | {"steps": 20}]}))
    ablation.main(["--finished", "--seeds", "2", "--runs", str(tmp_path), "--out", str(tmp_path / "out")])
    (read,) = json.loads((tmp_path / "out" / "results.json").read_text())["runs"]
    assert (read["condition"], read["seed"], read["score"]) == ("MLP", 1, 0.4)


def test_the_summary_of_all_presets_has_the_conditions_that_have_runs_in_all():
    results = [result("both", 0, 0.7, "maze"), result("both", 0, 0.7, "night"), result("replay", 0, 0.6, "night")]
    assert {r["condition"] for r in report.in_all(results, ["maze", "night"])} == {"both"}


def test_a_run_that_fails_says_why(tmp_path, monkeypatch):
    monkeypatch.setattr(ablation, "CONDITIONS", {"both": ["--env.agents", "0"]})
    with pytest.raises(RuntimeError, match=r"env.agents|agents = 0"):
        ablation.main(["--seeds", "1", "--conditions", "both", "--runs", str(tmp_path), "--out", str(tmp_path)])


@pytest.mark.parametrize(
    ("codec", "text", "reworded"),
    [
        (Renamed, " no food, grown west, new east", " without bread, harvested west, unexplored east"),
        (Renamed, " food north two, east far", " bread north two, east distant"),
        (Reordered, " no food, grown west, new east", " new east, grown west, no food"),
        (Reordered, " food here", " food here"),
        (Mirrored, " food north two, east far", " food south two, west far"),
        (Examples, " food north two", " food north two"),
    ],
)
def test_worlds_are_described_in_other_words(codec, text, reworded):
    assert codec(WorldConfig()).reword(text) == reworded


def test_synonyms_are_other_words_and_differ():
    assert not set(SYNONYMS) & set(SYNONYMS.values())
    assert len(set(SYNONYMS.values())) == len(SYNONYMS)
