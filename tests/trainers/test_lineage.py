"""From a run's events to its family tree and the health of evolution."""

import json
import sys
from math import isnan

import pytest

from trainers.lineage import champion_of, draw, family_tree, health, line_of, main, report
from trainers.records.reading import read_log


def birth(one: int, generation: int, parents: tuple[int, ...] = (), slot: int = 0) -> dict:
    operator = "uniform_layers" if parents else "founder"
    about = dict(slot=slot, parents=list(parents), operator=operator, in_rollout=False, seed=0, hyperparameters={})
    return dict(event="birth", generation=generation, id=one, **about)


def life(one: int, generation: int, fitness: float) -> dict:
    return dict(event="evaluation", generation=generation, id=one, fitness=fitness, **{"return": fitness - 0.5})


EVENTS = [
    *(birth(one, 0, slot=one) for one in range(4)),
    *(life(one, 0, fitness) for one, fitness in enumerate((1, 2, 3, 4))),
    *(birth(4, 1, (3, 2)), birth(5, 1, (1, 0), slot=1)),
    *(life(one, 1, fitness) for one, fitness in ((2, 5), (3, 6), (4, 9), (5, 4))),
    birth(6, 2, (3, 4)),
    *(life(one, 2, fitness) for one, fitness in ((6, 20), (3, 10))),
    {"event": "starved", "generation": 2, "id": 3, "world": 0, "step": 5},
]


@pytest.fixture
def run_dir(tmp_path):
    (tmp_path / "lineage.jsonl").write_text("".join(json.dumps(event) + "\n" for event in EVENTS))
    (tmp_path / "metrics.jsonl").write_text(json.dumps({"generation": 2, "diversity": 1.25}) + "\n")
    return tmp_path


def test_the_tree_has_everyone_with_parents_and_scores():
    tree = family_tree(EVENTS)
    assert sorted(tree.edges) == [(0, 5), (1, 5), (2, 4), (3, 4), (3, 6), (4, 6)]
    assert tree.nodes[3]["fitness"] == {0: 4, 1: 6, 2: 10}
    assert tree.nodes[3]["score"][0] == pytest.approx(1.5 / 1.25**0.5)  # of 1, 2, 3, 4


def test_the_line_goes_back_by_the_fitter_parent():
    tree = family_tree(EVENTS)
    assert champion_of(tree) == 6
    assert line_of(tree, 6) == [3, 4, 6]  # 4 was fitter than 3 in generation 1, 3 fitter than 2 in generation 0


def test_who_was_born_in_the_middle_of_a_life_does_not_count_for_what_a_whole_one_brings():
    late = [birth(7, 2, (3, 4)) | {"in_rollout": True}, life(7, 2, 30) | {"return": -1.0}]
    tree = family_tree(EVENTS + late)
    assert health(tree, EVENTS + late).learning_gain == pytest.approx(0.5)
    next_life = [life(7, 3, 30) | {"return": 10.0}]
    tree = family_tree(EVENTS + late + next_life)
    assert health(tree, EVENTS + late + next_life).learning_gain > 0.5


def test_health_is_what_one_finds_by_hand():
    tree = family_tree(EVENTS)
    score = {one: about["score"] for one, about in tree.nodes(data=True)}
    parents = [(score[3][0] + score[2][0]) / 2, (score[1][0] + score[0][0]) / 2, (score[3][1] + score[4][1]) / 2]
    children = [score[4][1], score[5][1], score[6][2]]
    figures = health(tree, EVENTS, diversity=1.25)
    assert figures.selection_differential == pytest.approx(sum(parents) / 3)
    assert figures.better_than_parents == pytest.approx(sum(c > p for c, p in zip(children, parents, strict=True)) / 3)
    mean_p, mean_c = sum(parents) / 3, sum(children) / 3
    slope = sum((p - mean_p) * (c - mean_c) for p, c in zip(parents, children, strict=True))
    assert figures.heritability == pytest.approx(slope / sum((p - mean_p) ** 2 for p in parents))
    assert figures.learning_gain == pytest.approx(0.5)
    assert (figures.diversity, figures.living_founders) == (1.25, 2)  # 2 and 3 are in 6 or alive


def test_a_run_that_has_just_begun_is_no_error():
    figures = health(family_tree(EVENTS[:8]), EVENTS[:8])
    assert isnan(figures.heritability)
    assert figures.living_founders == 4
    with pytest.raises(ValueError, match="no individual's fitness has been measured yet"):
        champion_of(family_tree(EVENTS[:4]))


def test_the_command_tells_and_draws(run_dir, capsys):
    main([str(run_dir), "--draw", str(run_dir / "tree.png")])
    out = capsys.readouterr().out
    assert "generation   1:   2 born, best 4 with fitness 9.00" in out
    assert "3 (founder, 0) > 4 (uniform_layers, 1) > 6 (uniform_layers, 2)" in out
    assert "diversity                    1.25" in out
    assert (run_dir / "tree.png").read_bytes().startswith(b"\x89PNG")


def test_a_line_that_is_being_written_is_left_out_and_damage_is_named(run_dir, capsys):
    file = run_dir / "lineage.jsonl"
    whole = file.read_text()
    file.write_text(whole + '{"event": "bi')
    assert read_log(run_dir, "lineage.jsonl") == EVENTS
    file.write_text("{nonsense\n" + whole)
    with pytest.raises(SystemExit) as exit_:
        main([str(run_dir)])
    assert exit_.value.code == 2
    assert "lineage.jsonl, line 1: damaged" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("number", "harm", "says"),
    [
        (1, {"parents": [0]}, "parent 0 of 0: must be an id below it, of one born before"),
        (9, {"parents": [6]}, "parent 6 of 4: must be"),
        (9, {"parents": [-1]}, "Expected `int` >= 0"),
        (9, {"id": 3}, "parent 3 of 3: must be"),
        (2, {"id": 0}, "id = 0: must be of one not yet born"),
        (5, {"id": 99}, "id = 99: must be of one born before"),
        (9, {"parents": ["3"]}, "Expected `int`"),
        (9, {"id": "4"}, "Expected `int`"),
        (1, {"slot": None}, "Expected `int`"),
        (5, {"fitness": "1"}, "Expected `int | float`"),
        (5, {"event": ["life"]}, "Expected `str`"),
        (5, {"event": "contest"}, "Invalid value 'contest'"),
    ],
)
def test_an_event_that_cannot_have_been_is_named_with_its_line(run_dir, capsys, number, harm, says):
    events = [dict(event) for event in EVENTS]
    events[number - 1] |= harm
    (run_dir / "lineage.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    with pytest.raises(SystemExit) as end:
        main([str(run_dir)])
    said = capsys.readouterr().err
    assert end.value.code == 2
    assert f"lineage.jsonl, line {number}: damaged" in said
    assert says in said
    assert said.count("\n") == 1


def test_two_who_descend_from_each_other_are_refused_instead_of_followed_for_ever(run_dir, capsys):
    events = [birth(0, 0, (1,)), birth(1, 0, (0,)), life(1, 0, 2.0)]
    (run_dir / "lineage.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    with pytest.raises(SystemExit):
        main([str(run_dir)])
    assert "lineage.jsonl, line 1: damaged (parent 1 of 0: must be an id below it" in capsys.readouterr().err


def test_a_run_of_an_earlier_version_is_refused_as_such(run_dir, capsys):
    (run_dir / "checkpoints" / "gen_0002").mkdir(parents=True)
    with pytest.raises(SystemExit) as end:
        main([str(run_dir)])
    assert end.value.code == 2
    assert "manifest.jsonl: missing, or of a run by an earlier version" in capsys.readouterr().err


def test_a_folder_that_is_no_run_is_named(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main([str(tmp_path)])
    assert str(tmp_path / "lineage.jsonl") in capsys.readouterr().err


def test_without_matplotlib_a_picture_is_refused_before_anything_is_told(run_dir, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    main([str(run_dir)])
    assert "best 4" in capsys.readouterr().out
    with pytest.raises(SystemExit) as end:
        main([str(run_dir), "--draw", str(run_dir / "tree.png")])
    said = capsys.readouterr()
    assert (end.value.code, said.out) == (2, "")
    assert said.err.endswith("tree.png: needs `pip install -e '.[draw]'` (matplotlib is not installed)\n")


def test_a_large_family_can_be_drawn(tmp_path):
    events = [birth(one, 0, slot=one) for one in range(20)] + [life(one, 0, one) for one in range(20)]
    for generation in range(1, 50):
        first = 20 * generation
        events += [birth(first + i, generation, (first - 20 + i, first - 1), slot=i) for i in range(20)]
        events += [life(first + i, generation, i) for i in range(20)]
    tree = family_tree(events)
    draw(tree, tmp_path / "tree.png")
    assert len(line_of(tree, champion_of(tree))) == 50
    assert "generation  49:  20 born" in report(tree, health(tree, events))
