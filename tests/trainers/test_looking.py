"""Programs that look at a finished run: `trainers.evaluate` and `trainers.watch`."""

import io
import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from agents.types import UserError
from dashboard.__main__ import main as dashboard
from envs import HELD_OUT
from trainers.comparison import held_out_seeds, interval
from trainers.evaluate import main as evaluate
from trainers.train import train
from trainers.watch import main as watch


def test_evaluate_gives_the_run_s_own_figures(finished, capsys):
    run_dir, result = finished
    evaluate([str(run_dir), "--episodes", "2", "--json"])
    assert json.loads(capsys.readouterr().out) == result
    evaluate([str(run_dir), "--generation", "0", "--episodes", "2", "--json"])
    first = json.loads((run_dir / "results.json").read_text())["first"]
    assert json.loads(capsys.readouterr().out) == first


def test_evaluate_lets_another_backend_answer(finished, monkeypatch, capsys):
    import agents.backends

    asked = []

    class Counting:
        is_batched = False

        def __init__(self, network):
            self.network = network

        def answer(self, texts, adapters):
            asked.extend(adapters.tolist())
            return self.network.answer(texts, adapters)

    monkeypatch.setattr(agents.backends, "open_backend", lambda name, network: {"llama_cpp": Counting}[name](network))
    run_dir, result = finished
    evaluate([str(run_dir), "--episodes", "2", "--backend", "llama_cpp", "--json"])
    theirs = json.loads(capsys.readouterr().out)
    assert theirs["lifetime"].keys() == result["lifetime"].keys()
    assert set(asked) == {-1, *range(6)}


def test_evaluate_refuses_a_backend_that_is_not_known(finished, capsys):
    with pytest.raises(SystemExit) as end:
        evaluate([str(finished[0]), "--backend", "jax"])
    assert end.value.code == 2
    assert "backend = 'jax': must be one of torch, llama_cpp" in capsys.readouterr().err


def test_evaluate_refuses_a_preset_that_there_is_not(finished, capsys):
    with pytest.raises(SystemExit):
        evaluate([str(finished[0]), "--preset", "desert"])
    assert "preset = 'desert': must be one of meadow, maze, famine, night, rivals" in capsys.readouterr().err


def test_evaluate_prints_a_table(finished, capsys):
    evaluate([str(finished[0]), "--episodes", "2"])
    table = capsys.readouterr().out
    who = ("generation 2", "frozen", "random", "greedy", "forager", "planner")
    assert all(word in table for word in (*who, "food eaten"))


def test_worlds_too_large_for_the_planner_are_compared_without_it(tiny_config, tmp_path, capsys):
    env = replace(tiny_config.env, height=65, width=65, max_steps=3)
    run_dir = tmp_path / "run"
    result = train(replace(tiny_config, env=env, generations=1, run_dir=str(run_dir)))
    assert "planner" not in result["food_eaten"]
    assert "forager" in result["food_eaten"]
    assert "share_of_planner" not in result
    assert "the planner is left out: it is for worlds of at most 4096 cells" in capsys.readouterr().out
    assert (run_dir / "results.json").is_file()


def test_watch_writes_films_and_plays_in_a_terminal(finished, tmp_path, capsys):
    from PIL import Image

    for wrong in (["--out", str(tmp_path / "episode.avi")], ["--out", str(tmp_path / "a.gif"), "--window"]):
        with pytest.raises(SystemExit):
            watch([str(finished[0]), *wrong])
    said = capsys.readouterr().err
    assert "a .gif or .mp4 file in a folder that exists" in said
    assert "must be left out with --window" in said
    watch([str(finished[0]), "--out", str(tmp_path / "episode.gif")])
    frames = Image.open(tmp_path / "episode.gif").n_frames
    assert frames > 5
    capsys.readouterr()
    watch([str(finished[0]), "--fps", "100"])
    shown = capsys.readouterr().out
    assert shown.count("food eaten") == frames - 1
    assert "●" in shown


def test_watch_plays_in_a_terminal_that_knows_ascii_alone(finished, monkeypatch):
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", terminal)
    watch([str(finished[0])])
    terminal.seek(0)
    shown = terminal.read()
    assert "o " in shown
    assert "?" not in shown


@pytest.mark.parametrize(
    ("program", "missing", "arguments", "advice"),
    [
        (watch, "av", ["--out", "episode.mp4"], "pip install -e '.[video]'"),
        (watch, "pygame", ["--window"], "pip install -e '.[render]'"),
        (dashboard, "uvicorn", [], "pip install -e '.[dashboard]'"),
        (dashboard, "starlette.applications", [], "pip install -e '.[dashboard]'"),
        (dashboard, "websockets", [], "pip install -e '.[dashboard]'"),
    ],
)
def test_a_missing_package_is_one_sentence_with_the_extra(
    finished, monkeypatch, capsys, program, missing, arguments, advice
):
    for module in ("envs.rendering.window", "dashboard.server"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(SystemExit) as end:
        program([str(finished[0]), *arguments])
    said = capsys.readouterr().err
    assert end.value.code == 2
    assert advice in said
    assert said.count("\n") == 1


def test_without_its_packages_a_page_is_refused_before_a_run_begins(tiny_config, monkeypatch):
    monkeypatch.setitem(sys.modules, "websockets", None)
    with pytest.raises(UserError, match=re.escape("needs `pip install -e '.[dashboard]'` (websockets not installed)")):
        train(tiny_config, dashboard=True)
    assert not Path(tiny_config.run_dir).exists()


def test_watch_writes_an_mp4_that_moves(finished, tmp_path):
    av = pytest.importorskip("av")
    watch([str(finished[0]), "--out", str(tmp_path / "episode.mp4"), "--fps", "5"])
    with av.open(str(tmp_path / "episode.mp4")) as film:
        stream = film.streams.video[0]
        frames = [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]
    assert (stream.codec_context.name, float(stream.average_rate)) == ("h264", 5.0)
    assert len(frames) > 5
    assert np.abs(frames[0].astype(int) - frames[-1]).max() > 100


def test_watch_opens_a_window_that_says_what_an_agent_read(finished, monkeypatch):
    pytest.importorskip("pygame")
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    shown = []

    def show(self, state, details):
        shown.append((int(state.step[0]), details(0)))
        if len(shown) == 3:
            self.close()

    monkeypatch.setattr("envs.rendering.window.Window.show", show)
    with pytest.raises(SystemExit) as closed:
        watch([str(finished[0]), "--window"])
    assert closed.value.code == 0
    assert [step for step, _ in shown] == [1, 2, 3]
    assert all(text.startswith("before, it read: ") and "%" in odds for _, (text, odds) in shown)


def test_without_a_display_the_window_says_so(finished, monkeypatch, capsys):
    pytest.importorskip("pygame")
    monkeypatch.setenv("SDL_VIDEODRIVER", "no-such-driver")
    with pytest.raises(SystemExit):
        watch([str(finished[0]), "--window"])
    said = capsys.readouterr().err
    assert said.startswith("error: --window: cannot open a window")
    assert "leave it out to watch in the terminal, or write a film with --out FILE.gif" in said


def test_worlds_of_comparisons_are_held_out_and_others_for_each_seed():
    seeds = np.concatenate([held_out_seeds(1000, 0), held_out_seeds(1000, 1)])
    assert seeds.min() >= HELD_OUT
    assert len(set(seeds.tolist())) == 2000


def test_an_interval_holds_the_mean_at_95_percent():
    values = np.random.default_rng(0).normal(3, 2, size=400)
    found = interval(values)
    assert found["mean"] == pytest.approx(values.mean())
    reach = 1.96 * values.std() / 20  # of a mean of 400
    assert [found["high"] - found["mean"], found["mean"] - found["low"]] == pytest.approx([reach] * 2, rel=0.1)


def test_the_share_is_of_what_the_planner_ate(finished):
    _, result = finished
    food = {who: figure["mean"] for who, figure in result["food_eaten"].items()}
    assert result["share_of_planner"] == pytest.approx(food["agents"] / food["planner"])
