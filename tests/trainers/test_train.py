"""Whole runs on a tiny model: what they leave behind, and that a killed run goes on as if nothing had happened."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.summary.writer import event_file_writer

from trainers import comparison, stages
from trainers.cli.parser import parse, read_config
from trainers.records import opening, report
from trainers.records.heatmap import BOTTOM, BRIGHT, CELL, DARK, LEFT, PAPER, RIGHT, TOP, heatmap
from trainers.records.opening import open_run
from trainers.records.run_folder import export_adapters, require_free
from trainers.records.run_log import RunLog, classical_scaling
from trainers.records.tags import BASELINES, LAYOUT, TAGS
from trainers.stages import Generation
from trainers.train import main, train

STABLE_KEYS = {
    *("generation", "env_steps", "wall_s", "fitness_mean", "fitness_max", "food_eaten_mean", "lifetime_mean"),
    *("diversity", "entropy", "approx_kl", "clip_fraction", "explained_variance", "decide_ms", "learn_s"),
}
OF_A_PROCESS = {
    *("wall_s", "decide_ms", "learn_s", "update_ms"),
    *("texts_known", "texts_read", "text_hit_rate", "prefix_cache_mb"),
}
"""Figures of the process and not of the run: a resumed run has read no text yet."""


def lines(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


def without_timings(records):
    return [{k: v for k, v in record.items() if k not in OF_A_PROCESS} for record in records]


OF_THE_CACHE = {"texts_known", "texts_read", "text_hit_rate", "prefix_cache_mb"}


def figures(records):
    """What a resumed run must repeat; it begins with an empty cache of texts."""
    return [{k: v for k, v in record.items() if k not in OF_THE_CACHE} for record in without_timings(records)]


def test_metrics_have_a_line_a_generation_with_the_stable_keys(finished):
    metrics = lines(finished[0] / "metrics.jsonl")
    assert [line["generation"] for line in metrics] == [0, 1, 2]
    assert all(line.keys() >= STABLE_KEYS for line in metrics)
    steps = [line["env_steps"] for line in metrics]
    assert steps == sorted(steps)


def test_lineage_accounts_for_everybody(finished):
    events = lines(finished[0] / "lineage.jsonl")
    births = {e["id"]: e for e in events if e["event"] == "birth"}
    deaths = {e["id"]: e for e in events if e["event"] == "death"}
    assert [births[i]["parents"] for i in range(6)] == [[]] * 6
    assert len(births) - len(deaths) == 6
    assert len(births) == 6 + 2 * 4  # two elites live on in each of two later generations
    for event in births.values():
        assert all(births[parent]["generation"] < event["generation"] for parent in event["parents"])
        assert len(event["parents"]) in (0, 2)


def test_run_json_tells_where_the_figures_came_from(finished):
    record = json.loads((finished[0] / "run.json").read_text())
    assert record["seed"] == 0
    assert record["versions"].keys() >= {"torch", "transformers", "python"}
    assert all(len(digest) == 64 for digest in record["model_sha256"].values())
    assert record["machine"]["threads"] >= 1


def test_the_number_format_that_was_chosen_is_written_down(tiny_arguments, tmp_path, monkeypatch):
    monkeypatch.setattr("agents.policy.fastest_dtype", lambda device: "bfloat16")
    arguments = [*tiny_arguments, "--model.dtype", "auto", "--generations", "1", "--run_dir", str(tmp_path / "run")]
    train(parse(arguments)[0])
    assert read_config(tmp_path / "run").model.dtype == "bfloat16"


def test_the_exported_adapters_are_those_of_the_checkpoint(finished):
    run_dir = finished[0]
    bank = load_file(run_dir / "checkpoints" / "gen_0002" / "tensors.safetensors")["bank"]
    saved = load_file(run_dir / "adapters" / "gen_0002" / "agent_03" / "adapter_model.safetensors")
    assert sum(t.numel() for t in saved.values()) == bank.shape[1]
    assert sum(float(t.double().sum()) for t in saved.values()) == pytest.approx(
        float(bank[3].double().sum()), abs=1e-4
    )


def test_tensorboard_has_the_curves_the_heatmap_and_an_episode_that_moves(finished):
    import io

    from PIL import Image

    events = EventAccumulator(str(finished[0] / "tb"), size_guidance={"images": 0})
    events.Reload()
    tags = events.Tags()
    wanted = {f"episode/{figure}" for figure in ("reward", "energy", "lifetime")}
    wanted |= {f"learn/{figure}" for figure in ("approx_kl", "entropy", "value_loss")}
    assert wanted | {"evolve/diversity", "fitness/mean"} <= set(tags["scalars"])
    assert [e.step for e in events.Scalars("fitness/mean")] == [0, 1, 2]
    for tag in (*tags["scalars"], "adapters/norm_by_agent_and_layer", "episode/picture"):
        assert events.SummaryMetadata(tag).summary_description, f"{tag} is explained"
    heatmap = Image.open(io.BytesIO(events.Images("adapters/norm_by_agent_and_layer")[-1].encoded_image_string))
    assert heatmap.size == (2 * CELL + LEFT + RIGHT, 6 * CELL + TOP + BOTTOM)  # two layers, six agents
    episode = Image.open(io.BytesIO(events.Images("episode/picture")[0].encoded_image_string))
    assert episode.format == "GIF"
    assert episode.n_frames > 5


def test_tensorboard_lays_out_charts_and_has_settings_with_results_and_the_projector(finished):
    from tensorboard.plugins.custom_scalar.metadata import CONFIG_SUMMARY_TAG
    from tensorboard.plugins.hparams.metadata import SESSION_START_INFO_TAG, parse_session_start_info_plugin_data

    run_dir, result = finished
    events = EventAccumulator(str(run_dir / "tb"))
    events.Reload()
    assert CONFIG_SUMMARY_TAG in events.Tags()["tensors"]
    charts = {tag for category in LAYOUT.values() for _, tags in category.values() for tag in tags}
    assert charts <= set(TAGS), "every chart shows what is logged"
    assert events.Scalars("held_out/share_of_planner")[0].value == pytest.approx(result["share_of_planner"])
    content = events.SummaryMetadata(SESSION_START_INFO_TAG).plugin_data.content
    settings = parse_session_start_info_plugin_data(content).hparams
    assert settings["learn.algorithm"].string_value == "ppo"
    assert settings["evolution.parents"].number_value == 3
    places = next((run_dir / "tb").rglob("tensors.tsv")).read_text().splitlines()
    assert len(places) == 6
    assert (run_dir / "tb" / "projector_config.pbtxt").is_file()


def test_the_heatmap_has_axes_and_a_scale():
    norms = np.array([[0.0, 1.0], [2.0, 0.5], [0.0, 0.25]])
    picture = heatmap(norms, [22, 23])
    middles = picture[TOP + CELL // 2 :: CELL, LEFT + CELL // 2 :: CELL][:3, :2]
    assert middles[1, 0].tolist() == BRIGHT.tolist()
    assert middles[0, 0].tolist() == middles[2, 0].tolist() == DARK.tolist()
    assert (middles[..., 0].ravel().argsort(kind="stable") == norms.ravel().argsort(kind="stable")).all()
    below = slice(TOP + 3 * CELL, None)
    for labels in (picture[TOP : TOP + CELL, :LEFT], picture[below, LEFT : LEFT + CELL], picture[:TOP, -RIGHT:]):
        assert (labels != PAPER).any(), "agents, layers and the scale are named"
    larger = heatmap(10 * norms, [22, 23])
    differs = (larger != picture).any(axis=(0, 2))
    assert not differs[:-RIGHT].any(), "the brightest is the largest"
    assert differs[-RIGHT:].any(), "the scale shows how large that is"


def test_tensorboard_draws_baselines_beside_the_agents_curves(finished):
    run_dir, _ = finished
    first = json.loads((run_dir / "first.json").read_text())
    measured = {
        tag: figure for tag, figure in BASELINES.items() if figure != "success"
    }  # of which this world is silent
    for who in ("frozen", "random", "greedy", "forager", "planner"):
        events = EventAccumulator(str(run_dir / "tb" / who))
        events.Reload()
        assert "episode/success" not in events.Tags()["scalars"]
        for tag, figure in measured.items():
            points = events.Scalars(tag)
            assert [point.step for point in points] == [0, 1, 2]
            assert [point.value for point in points] == [pytest.approx(first[figure][who]["mean"])] * 3
    assert not (run_dir / "tb" / "agents").exists()


def test_a_longer_run_adds_one_point_to_what_it_came_to(tiny_config, capsys):
    config = replace(tiny_config, generations=1)
    results = [train(config), train(replace(config, generations=2), resume=Path(config.run_dir))]
    events = EventAccumulator(str(Path(config.run_dir) / "tb"))
    events.Reload()
    expected = [(step, pytest.approx(result["fitness"]["agents"]["mean"])) for step, result in enumerate(results)]
    assert [(point.step, point.value) for point in events.Scalars("held_out/fitness")] == expected
    assert [point.step for point in events.Scalars("fitness/mean")] == [0, 1]
    assert "warning" not in capsys.readouterr().out.lower(), "the projector has a folder for each"


def test_what_was_gone_on_with_in_the_same_second_is_drawn_after_what_was_there(tmp_path, monkeypatch):
    """TensorBoard reads files by name, where a tenth file of one process stands before its ninth."""
    monkeypatch.setattr(event_file_writer, "_global_uid", event_file_writer.AtomicCounter(9))
    (tmp_path / "tb").mkdir()
    for generation in (0, 1):
        log = RunLog(tmp_path, generation - 1)
        log.metrics({"generation": generation, "fitness_mean": generation / 2})
        log.baselines({"fitness": {"frozen": {"mean": 0.25}}}, generation)
        log.close()
    for folder, tag, values in (("tb", "fitness/mean", [0, 0.5]), ("tb/frozen", "fitness/mean", [0.25, 0.25])):
        events = EventAccumulator(str(tmp_path / folder))
        events.Reload()
        assert [(point.step, point.value) for point in events.Scalars(tag)] == list(enumerate(values))


def test_points_are_placed_so_that_their_distances_are_kept():
    points = np.random.default_rng(0).normal(size=(6, 3))
    distances = np.linalg.norm(points[:, None] - points, axis=-1)
    placed = classical_scaling(distances, 8)
    assert placed.shape == (6, 8)
    np.testing.assert_allclose(np.linalg.norm(placed[:, None] - placed, axis=-1), distances, atol=1e-6)


def test_the_result_compares_with_the_baselines(finished):
    run_dir, result = finished
    assert json.loads((run_dir / "results.json").read_text())["last"] == result
    for figure in ("food_eaten", "fitness"):
        assert list(result[figure]) == ["agents", "frozen", "random", "greedy", "forager", "planner"]
        assert all(x["low"] <= x["mean"] <= x["high"] for x in result[figure].values())
    assert result["food_eaten"]["planner"]["mean"] > result["food_eaten"]["random"]["mean"]


def test_the_same_seed_gives_the_same_run_and_another_seed_another(finished, tiny_config, tmp_path):
    runs = []
    for name, seed in (("once", 0), ("again", 0), ("other", 1)):
        train(replace(tiny_config, run_dir=str(tmp_path / name), generations=2, seed=seed))
        runs.append(without_timings(lines(tmp_path / name / "metrics.jsonl")))
    assert runs[0] == runs[1] != runs[2]


@pytest.mark.parametrize("evolution", ["true", "false"])
def test_a_run_killed_in_the_fourth_generation_goes_on_as_if_nothing_had_happened(tiny_arguments, tmp_path, evolution):
    alone, killed = tmp_path / "alone", tmp_path / "killed"
    arguments = [*tiny_arguments, "--generations", "5", "--evolution.enabled", evolution]
    train(*parse([*arguments, "--run_dir", str(alone)]))
    command = [sys.executable, "-m", "trainers.train", *arguments, "--run_dir", str(killed)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 120
    while not (killed / "checkpoints" / "gen_0002").is_dir() and time.monotonic() < deadline:
        time.sleep(0.005)
    time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (killed / "checkpoints" / "gen_0004").is_dir(), "it was to be killed before its end"
    with (killed / "metrics.jsonl").open("a") as file:
        file.write('{"generation": 3, "env_st')  # as a kill in the middle of a write leaves it
    train(*parse(["--resume", str(killed)]))
    for file in ("metrics.jsonl", "lineage.jsonl"):
        assert figures(lines(killed / file)) == figures(lines(alone / file))
    ends = [json.loads((d / "results.json").read_text()) for d in (alone, killed)]
    assert ends[0] == ends[1]


def test_a_finished_run_can_be_continued(finished, tmp_path, tiny_arguments):
    longer, copy = tmp_path / "longer", tmp_path / "copy"
    shutil.copytree(finished[0], copy)
    with pytest.raises(ValueError, match="generations = 3: must be above the 3 already done"):
        train(*_resume(copy))
    train(*_resume(copy, "--generations", "4"))
    config = replace(_resume(finished[0])[0], run_dir=str(longer), generations=4)
    train(config)
    assert figures(lines(copy / "metrics.jsonl")) == figures(lines(longer / "metrics.jsonl"))


@pytest.mark.parametrize(
    "settings",
    [
        "--adapter.tokens text",
        "--inheritance.kind baldwinian --evolution.mutation safe --evolution.selection tournament",
        "--evolution.crossover merge --evolution.selection rank",
        "--learn.algorithm online --learn.learning_rate 0.001",
        "--replay.steps 30",
        "--steady_state.enabled true",
        "--evolution.strategy es --learn.algorithm none --es.hold 1 --es.warm_up 1",
        "--inheritance.kind reptile --inheritance.reptile_weights fitness",
        "--learn.pool true --learn.advantage group",
    ],
)
def test_a_run_stopped_between_generations_goes_on_as_if_it_had_never_stopped(tiny_arguments, tmp_path, settings):
    alone, stopped = tmp_path / "alone", tmp_path / "stopped"
    arguments = [*tiny_arguments, *settings.split()]
    result = train(parse([*arguments, "--generations", "2", "--run_dir", str(alone)])[0])
    train(parse([*arguments, "--generations", "1", "--run_dir", str(stopped)])[0])
    assert train(*_resume(stopped, "--generations", "2")) == result
    assert figures(lines(stopped / "metrics.jsonl")) == figures(lines(alone / "metrics.jsonl"))
    ends = [load_file(d / "checkpoints" / "gen_0001" / "tensors.safetensors")["bank"] for d in (alone, stopped)]
    assert torch.equal(*ends)
    assert not torch.equal(ends[0], load_file(alone / "checkpoints" / "gen_0000" / "tensors.safetensors")["bank"])


def _resume(run_dir, *more):
    return parse(["--resume", str(run_dir), *more])


def test_a_run_killed_before_its_results_still_gets_them(finished, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(finished[0], copy)
    (copy / "results.json").unlink()
    assert train(*_resume(copy)) == finished[1]
    assert (copy / "results.json").read_text() == (finished[0] / "results.json").read_text()


def test_a_run_is_not_continued_on_other_weights(finished, tmp_path, monkeypatch):
    copy = tmp_path / "copy"
    shutil.copytree(finished[0], copy)
    monkeypatch.setattr(opening, "weights_sha256", lambda policy: {"model.safetensors": "0" * 64})
    for use in (lambda: train(*_resume(copy, "--generations", "5")), lambda: open_run(copy)):
        with pytest.raises(ValueError, match="not those that the run began with"):
            use()


def test_adapters_half_exported_by_a_killed_run_are_not_taken_for_its_newest(finished, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(finished[0], copy)
    newest = open_run(copy)[2]
    population, config, _ = open_run(copy)
    saved = []

    def dies(slot, folder, card):
        if slot == 2:
            raise KeyboardInterrupt
        saved.append(save(slot, folder, card))

    save = population.policy.network.save_adapter
    population.policy.network.save_adapter = dies
    with pytest.raises(KeyboardInterrupt):
        export_adapters(copy, newest + 1, config, population)
    assert len(saved) == 2
    assert open_run(copy)[2] == newest


def test_the_seconds_of_a_generation_are_without_the_comparison(tiny_config, tmp_path, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(report, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(stages, "Generation", lambda number: Generation(number, started=clock[0]))

    def compare(*arguments):
        clock[0] += 1000
        return comparison.compare(*arguments)

    monkeypatch.setattr(report, "compare", compare)
    config = replace(tiny_config, generations=2, run_dir=str(tmp_path / "run"))
    train(config)
    assert clock == [2000], "the first generation and the last"
    assert [line["wall_s"] for line in lines(tmp_path / "run" / "metrics.jsonl")] == [0, 0]


def test_a_folder_that_holds_something_is_left_alone(tiny_config, tmp_path):
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    (run_dir / "thesis.txt").write_text("all my work")
    with pytest.raises(ValueError, match=r"run_dir = .*must be empty or not exist$"):
        train(tiny_config)
    assert [f.name for f in run_dir.iterdir()] == ["thesis.txt"]
    (run_dir / "run.json").write_text("{}")
    with pytest.raises(ValueError, match="ended before its first generation did, so it can be deleted"):
        train(tiny_config)


def test_a_folder_with_a_run_says_how_to_go_on(finished):
    with pytest.raises(ValueError, match=r"must be empty or not exist; to go on with its run, use --resume"):
        require_free(finished[0])


def test_a_model_that_is_not_there_is_said_before_anything_is_written(tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        main(["--model.name", "gpt-17", "--run_dir", str(tmp_path / "run")])
    assert end.value.code == 2
    said = capsys.readouterr().err
    assert "model.name = 'gpt-17'" in said
    assert "smollm2-135m" in said
    assert not (tmp_path / "run").exists()


def test_ctrl_c_says_what_is_kept_and_how_to_go_on(tiny_arguments, tmp_path, monkeypatch, capsys):
    run_dir, evaluate, calls = tmp_path / "my run", stages.evaluate, []

    def interrupted(run, generation):
        calls.append(generation.number)
        if len(calls) in (1, 3):
            raise KeyboardInterrupt
        return evaluate(run, generation)

    monkeypatch.setattr(stages, "evaluate", interrupted)
    for arguments, kept in (
        (["--run_dir", str(tmp_path / "first")], "no generation was complete, so nothing is kept"),
        (["--run_dir", str(run_dir)], f"generation 0 and those before are kept, and --resume '{run_dir}' goes on"),
    ):
        with pytest.raises(SystemExit) as ended:
            main([*tiny_arguments, *arguments])
        *_, said, last = capsys.readouterr().err.splitlines()
        assert ended.value.code == 130
        assert said.startswith(kept)
        assert last == "interrupted"
