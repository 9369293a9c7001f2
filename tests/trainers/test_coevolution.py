"""Coevolution: who meets whom, whose food is whose, and champions of all generations."""

import json
import shutil

import numpy as np
import pytest
import torch

from agents.codecs.forage import ForageCodec
from agents.guests import with_guests
from agents.types import UserError
from envs.types import WorldConfig
from evolution.rating import bradley_terry
from trainers.cli.parser import parse
from trainers.records.checkpoint import load_checkpoint
from trainers.records.manifest import checkpoints
from trainers.records.repair import repair
from trainers.records.sealed import DamagedRun
from trainers.rollout import Outcome, collect_rollout
from trainers.train import train
from trainers.variants import coevolution
from trainers.variants.coevolution import line_up, of_themselves
from trainers.variants.coevolution_matches import (
    HallOfFame,
    Player,
    pairings,
    play_matches,
    ratings,
    share_won,
)

WORLD = WorldConfig(height=9, width=9, agents=6, populations=2, rocks=0.1, food=12, patches=0, max_steps=20)


@pytest.fixture(scope="module")
def rival_arguments(tiny_arguments):
    more = ["--env.populations", "2", "--coevolution.enabled", "true", "--evolution.parents", "2"]
    return [*tiny_arguments, *more, "--evolution.elites", "1", "--coevolution.hall_of_fame_episodes", "1"]


@pytest.fixture(scope="module")
def run_dir(rival_arguments, tmp_path_factory):
    folder = tmp_path_factory.mktemp("rivals") / "run"
    train(parse([*rival_arguments, "--generations", "4", "--run_dir", str(folder)])[0])
    return folder


def hall_of_fame(folder, last_generation):
    hall = HallOfFame(folder / "hall")
    hall.read(last_generation)
    return hall


def lines(folder, name):
    return [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]


def test_children_have_parents_of_their_own_population(run_dir):
    home = {}
    for event in lines(run_dir, "lineage"):
        if event["event"] == "birth":
            home[event["id"]] = event["slot"] // 3
            assert all(home[parent] == home[event["id"]] for parent in event["parents"])
    assert len(home) == 6 + 3 * 4, "each population replaces two of three in each of three generations"


def test_each_generation_is_rated_and_its_champions_are_kept(run_dir):
    metrics = lines(run_dir, "metrics")
    assert [len(hall_of_fame(run_dir, g).champions) for g in range(4)] == [1, 2, 3, 4]
    assert all({"rating_0", "rating_1", "fitness_0", "fitness_1"} <= line.keys() for line in metrics)
    assert "won_0" not in metrics[0]
    assert metrics[0]["rating_0"] + metrics[0]["rating_1"] == pytest.approx(0), "counted from the first champions"
    assert all(0 <= line["won_1"] <= 1 for line in metrics[1:])
    champions = [match["sides"] for match in lines(run_dir, "matches") if match["generation"] == 1]
    assert champions == [[[0, 1], [1, 1]], [[0, 1], [1, 0]], [[1, 1], [0, 0]]]


def test_fitness_is_measured_beside_champions_of_the_past(rival_arguments, tmp_path, monkeypatch):
    seen = []

    def noted(outcome, adapter_ids):
        seen.append(adapter_ids)
        return of_themselves(outcome, adapter_ids)

    monkeypatch.setattr(coevolution, "of_themselves", noted)
    train(parse([*rival_arguments, "--generations", "3", "--run_dir", str(tmp_path / "run")])[0])
    assert len(seen) == 2, "in all generations but the first, which has no past"
    assert all(adapter_ids.shape == (4, 6) for adapter_ids in seen), "two worlds of all, and one for each population"
    assert all((adapter_ids[2:] >= 6).sum(axis=1).tolist() == [3, 3] for adapter_ids in seen)


def test_a_resumed_run_is_the_same(rival_arguments, run_dir, tmp_path):
    train(parse([*rival_arguments, "--generations", "2", "--run_dir", str(tmp_path / "run")])[0])
    without_matches = shutil.copytree(tmp_path / "run", tmp_path / "without")
    train(*parse(["--resume", str(tmp_path / "run"), "--generations", "4"]))
    for name in ("matches", "lineage"):
        assert lines(tmp_path / "run", name) == lines(run_dir, name)
    (without_matches / "matches.jsonl").unlink()
    train(*parse(["--resume", str(without_matches), "--generations", "3"]))
    assert lines(without_matches, "metrics")[2]["rating_0"] == lines(run_dir, "metrics")[2]["rating_0"]
    for generation in range(4):
        one, other = (hall_of_fame(folder, generation).champions[-1] for folder in (tmp_path / "run", run_dir))
        assert torch.equal(one, other)


@pytest.mark.parametrize("is_missing", [True, False])
def test_the_newest_champions_are_made_anew_where_a_checkpoint_before_them_is_left(
    rival_arguments, run_dir, tmp_path, caplog, is_missing
):
    keys = [*rival_arguments, "--generations", "3", "--log.checkpoints", "2", "--run_dir", str(tmp_path / "run")]
    train(*parse(keys))
    newest = tmp_path / "run" / "hall" / "gen_0002.safetensors"
    newest.unlink() if is_missing else newest.write_bytes(newest.read_bytes()[:-1] + b"x")
    refused = shutil.copytree(tmp_path / "run", tmp_path / "refused")
    with pytest.raises(DamagedRun, match="hall/gen_0002"):
        repair(refused, strict=True)
    train(*parse(["--resume", str(tmp_path / "run"), "--generations", "4"]))
    assert "1 later ones are done again" in caplog.text
    for name in ("matches", "lineage"):
        assert lines(tmp_path / "run", name) == lines(run_dir, name)


def test_a_missing_champion_is_named(run_dir):
    with pytest.raises(DamagedRun, match="gen_0004"):
        hall_of_fame(run_dir, 4)


def test_the_hall_of_fame_gives_champions_of_the_others_only(tmp_path):
    hall = HallOfFame(tmp_path / "hall")
    for generation in range(3):
        hall.add(torch.tensor([[0.0, generation], [1.0, generation], [2.0, generation]]))
    drawn = hall.draw(1, 200, np.random.default_rng(0))
    assert set(map(tuple, drawn.tolist())) == {(q, g) for q in (0.0, 2.0) for g in (0.0, 1.0, 2.0)}
    assert hall.of(Player(2, 1)).tolist() == [2, 1]


def test_everyone_is_judged_in_as_many_worlds_as_itself():
    adapter_ids = line_up(WORLD, 2, [[0], [1]])
    assert adapter_ids.tolist() == [[0, 1, 2, 3, 4, 5]] * 2 + [[0, 1, 2, 6, 6, 6], [7, 7, 7, 3, 4, 5]]
    values = np.arange(24.0).reshape(4, 6)
    own = of_themselves(Outcome(values, values, values > 0, {"food": values}), adapter_ids)
    assert own.episode_return.tolist() == [[0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 10, 11], [12, 13, 14, 21, 22, 23]]
    assert own.figures["food"].tolist() == own.episode_return.tolist()


def test_guests_answer_by_their_own_adapters(tiny_policy):
    bank = tiny_policy.network.bank
    text = [" food north" * 6]
    guests = with_guests(tiny_policy, bank.values[[4, 2]])
    for row, adapter in ((0, 4), (1, 2)):
        mine, theirs = guests.logits(text, np.array([row])), tiny_policy.logits(text, np.array([adapter]))
        np.testing.assert_allclose(mine, theirs, atol=1e-5)


def test_new_champions_meet_each_other_and_the_past_back_to_the_first():
    assert pairings(0, 2) == [(Player(0, 0), Player(1, 0))]
    met = pairings(9, 2)
    assert met[0] == (Player(0, 9), Player(1, 9))
    assert {other.generation for one, other in met[1:] if one == Player(0, 9)} == {0, 4, 8}
    assert all(one.population != other.population for one, other in met)
    assert len(pairings(5, 3)) == 3 + 6 * 3


def test_who_walks_to_food_beats_who_does_not(tiny_policy, monkeypatch):
    """A match counts each side's food as its own, wherever it lives: here one adapter goes the way that it reads."""
    bank = tiny_policy.network.bank
    good, bad = bank.values[0].clone(), bank.values[1].clone()
    words = ForageCodec.action_words

    def answer(self, texts, adapters):
        logits = np.zeros((len(texts), len(words)), np.float32)
        for row, (text, adapter) in enumerate(zip(texts, adapters, strict=True)):
            way = next((w.strip(",") for w in text.split() if w.strip(",") in words[1:]), "stay")
            is_good = torch.equal(self.values[adapter], good)
            logits[row, words.index(way) if is_good else 0] = 20.0
        return logits

    monkeypatch.setattr("agents.guests.Guests.answer", answer)
    matches = play_matches(tiny_policy, ForageCodec(WORLD.view_radius), WORLD, [(good, bad), (bad, good), (bad, bad)])
    one, other, even = np.array(matches)
    assert (one[:, 0] > one[:, 1]).all()
    assert (other[:, 0] < other[:, 1]).all()
    assert one.shape == (4, 2)
    assert even.sum() < one.sum()


def test_ratings_come_from_who_ate_more():
    matches = [
        {"sides": [[0, 1], [1, 0]], "food": [[3.0, 1.0], [2.0, 2.0]]},
        {"sides": [[1, 1], [0, 1]], "food": [[0.5, 4.0]]},
    ]
    rated = ratings(matches)
    wins = np.array([[0, 1.5, 1], [0.5, 0, 0], [0, 0, 0]])  # of (0, 1), (1, 0), (1, 1)
    assert list(rated.values()) == pytest.approx(bradley_terry(wins).tolist())
    assert list(rated) == [Player(0, 1), Player(1, 0), Player(1, 1)]
    assert share_won(matches[:1]) == 0.75


ENABLED = ["--coevolution.enabled", "true"]
RIVALS = ["--env.preset", "rivals", *ENABLED]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (ENABLED, "env.populations = 1: must be 2 or more with coevolution.enabled"),
        (["--coevolution.hall_of_fame_episodes", "2"], "must be 0 without coevolution.enabled"),
        ([*ENABLED, "--coevolution.hall_of_fame_episodes", "9"], "between 0 and evolution.episodes = 8"),
        ([*RIVALS, "--evolution.elites", "11"], "must be at most the 10 agents that breed together"),
        ([*RIVALS, "--social.imitate", "best"], "must be nobody with"),
        ([*RIVALS, "--evolution.enabled", "false"], "must be true with"),
    ],
)
def test_what_cannot_be_is_refused(arguments, said):
    with pytest.raises(UserError, match=said):
        parse(arguments)


def test_the_champion_of_a_population_is_its_fittest(run_dir):
    tensors, state = load_checkpoint(checkpoints(run_dir)[3])
    fitness = np.reshape([person["fitness"] for person in state["population"]["genomes"]], (2, 3))
    assert len(set(fitness[0])) == len(set(fitness[1])) == 3, "a tie would prove nothing"
    fittest = fitness.argmax(axis=1) + np.array([0, 3])
    assert torch.equal(hall_of_fame(run_dir, 3).champions[3], tensors["bank"][fittest])


def test_in_half_of_the_worlds_of_a_match_they_change_homes(tiny_policy, monkeypatch):
    seats = []

    def noted(*arguments, adapter_ids):
        seats.extend(adapter_ids.tolist())
        return collect_rollout(*arguments, adapter_ids=adapter_ids)

    monkeypatch.setattr("trainers.variants.coevolution_matches.collect_rollout", noted)
    play_matches(tiny_policy, ForageCodec(WORLD.view_radius), WORLD, [tuple(tiny_policy.network.bank.values[:2])])
    assert seats == [[0, 0, 0, 1, 1, 1], [1, 1, 1, 0, 0, 0]] * 2
