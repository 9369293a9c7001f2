"""The expert that a world brings with it teaches, and acts for students that know nothing yet."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from agents.policy import Decision
from agents.types import UserError
from tests.trainers.test_worlds import BABYAI, MORE, WORLDS, lines
from trainers import stages
from trainers.begin import begin
from trainers.cli.parser import parse
from trainers.rollout import Observer
from trainers.stages import Generation
from trainers.train import train
from trainers.variants.distillation_expert import Advice, Led

SHOWN = ["--distillation.led_generations", "1", "--learn.max_kl", "1e9"]


class Watched(Observer):
    """What the world's expert would do before each step."""

    def start(self, world):
        self.told = [world.advice().reshape(-1)]

    def step(self, seen):
        self.told.append(seen.world.advice().reshape(-1))


def taught(arguments, world, folder, *more, **options):
    """A config of agents who learn from the expert of a world."""
    keys = [*arguments, *MORE.get(world, []), "--env.id", world, "--run_dir", str(folder), "--generations", "2"]
    keys += ["--learn.algorithm", "distil", "--distillation.teacher", "expert", *more]
    return replace(config := parse(keys)[0], env=replace(config.env, options=options))


@pytest.mark.parametrize(("keys", "generation", "is_led"), [([], 0, False), (SHOWN, 0, True), (SHOWN, 1, False)])
def test_an_expert_teaches_what_it_advised_and_acts_itself_at_first(
    arguments, tmp_path, keys, generation, is_led, monkeypatch
):
    run, watched = begin(taught(arguments, BABYAI, tmp_path / "run", *keys, expert=True), None), Watched()
    run.history = replace(run.history, generation=generation - 1)
    policy, variant = run.population.policy, run.population.variants["distillation"]
    monkeypatch.setattr(variant, "observers", lambda *_: [*variant.teacher.observers, watched])
    rollout = stages.collect(run, Generation(generation))
    t = rollout.trajectory
    targets = variant.targets(run, rollout).probabilities.view(t.legal.shape).numpy()
    told = np.array(watched.told[:-1])
    assert len(np.unique(told)) > 3
    assert (targets == (told[..., None] == np.arange(6))).all()
    assert (t.action == told)[told >= 0].all() == is_led
    logits = policy.logits(t.texts, np.zeros(len(t.texts), int))
    log_prob = torch.from_numpy(logits).log_softmax(1).numpy()[t.text, t.action]
    if is_led:
        log_prob[told >= 0] = 0  # the expert is sure
    np.testing.assert_allclose(t.log_prob, log_prob, rtol=1e-4)


def test_a_teacher_does_not_act_where_fitness_is_measured(arguments, tmp_path):
    options = {"expert": True, "num_dists": 0, "task": "goto"}
    run = begin(taught(arguments, BABYAI, tmp_path / "run", *SHOWN, "--env.max_steps", "40", **options), None)
    shown = stages.collect(run, Generation(0)).outcome.figures["success"].mean()
    outcome, _ = stages.evaluate(run, Generation(0))
    assert outcome.figures["success"].mean() < 0.8 < shown


def test_who_is_taught_by_an_expert_goes_on_as_if_never_stopped(arguments, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(taught(arguments, BABYAI, whole, *SHOWN, expert=True))
    train(replace(taught(arguments, BABYAI, parts, *SHOWN, expert=True), generations=1))
    train(*parse(["--resume", str(parts), "--generations", "2"]))
    assert lines(parts / "metrics.jsonl") == lines(whole / "metrics.jsonl")


def test_what_the_expert_says_nothing_of_teaches_nothing(arguments, tmp_path):
    def learned(untaught):
        run = begin(taught(arguments, BABYAI, tmp_path / str(untaught), *SHOWN, expert=True), None)
        rollout = stages.collect(run, Generation(0))
        variant = run.population.variants["distillation"]
        targets = variant.targets(run, rollout)
        told = targets.probabilities.view(rollout.trajectory.legal.shape)
        told[6:] = 0
        t = rollout.trajectory
        if untaught == "gone":
            is_early = np.broadcast_to(np.arange(len(t.is_alive))[:, None] < 6, t.is_alive.shape)
            t = t._replace(is_alive=t.is_alive & is_early)
        learner = run.population.learner
        experience = learner.experience(t, torch.full((5,), 0.01), torch.full((5,), 0.1))
        learner.learn(experience._replace(targets=targets), np.random.default_rng(0))
        return run.population.policy.network.bank.values.clone()

    torch.testing.assert_close(learned("silent"), learned("gone"))


def test_who_learns_from_an_expert_comes_nearer_to_it(arguments, tmp_path):
    more = [*SHOWN, "--evolution.enabled", "false", "--worlds", "4"]
    more += ["--learn.learning_rate", "0.01", "--learn.epochs", "4"]
    config = taught(arguments, BABYAI, tmp_path / "run", *more, expert=True, num_dists=0, task="goto")
    train(replace(config, generations=4))
    distance = [line["teacher_kl"] for line in lines(tmp_path / "run" / "metrics.jsonl")]
    assert distance[-1] < 0.9 * distance[0]


class Fixed:
    """Acts as if by a policy; notes what it is asked."""

    def __init__(self):
        self.asked = []

    def act(self, texts, adapters, legal, rng):
        self.asked += zip(texts, adapters.tolist(), strict=True)
        log_probs = np.log(np.array([[0.5, 0.3, 0.2]] * len(texts), np.float32))
        return Decision(np.zeros(len(texts), int), log_probs[:, 0], self.values(texts), log_probs)

    def values(self, texts):
        return np.array([ord(text) for text in texts], np.float32)


def test_where_the_expert_has_no_advice_the_policy_acts():
    policy, advice = Fixed(), Advice()
    advice.now = np.array([2, -1, 1])
    legal = np.array([[True, True, True], [True, True, True], [True, False, True]])
    decision = Led(policy, advice).act(["a", "b", "c"], np.arange(3), legal, None)
    assert decision.action.tolist() == [2, 0, 0], "nor where its advice is not allowed"
    assert policy.asked == [("b", 1), ("c", 2)], "a forward pass is saved where the expert acts"
    assert decision.value.tolist() == [97, 98, 99]
    np.testing.assert_allclose(np.exp(decision.log_prob), [1, 0.5, 0.5], rtol=1e-6)
    np.testing.assert_allclose(np.exp(decision.log_probs), [[0, 0, 1], [0.5, 0.3, 0.2], [0.5, 0.3, 0.2]], rtol=1e-6)


def test_where_the_teacher_acts_there_is_no_trust_region(arguments):
    keys = ["--learn.algorithm", "distil", "--distillation.teacher", "expert", "--env.id", BABYAI]
    says = r"learn.max_kl = 0.15: must be 1e\+09 with distillation.led_generations above 0, as KL from who acted says"
    with pytest.raises(UserError, match=says):
        parse([*arguments, *keys, "--distillation.led_generations", "1"])


@pytest.mark.parametrize("teacher", ["planner", "some/run"])
def test_other_teachers_do_not_act(arguments, teacher):
    keys = ["--learn.algorithm", "distil", "--distillation.teacher", teacher, "--distillation.led_generations", "1"]
    says = "distillation.led_generations = 1: must be 0, unless distillation.teacher = expert"
    with pytest.raises(UserError, match=says):
        parse([*arguments, *keys])


@pytest.mark.parametrize("world", WORLDS)
def test_a_world_without_an_expert_is_refused_before_anything_is_learned(arguments, tmp_path, world):
    with pytest.raises(UserError, match=r"^(distillation\.teacher|env.id) = .*: must be .* infos have expert_action"):
        train(taught(arguments, world, tmp_path / "run"))
    assert not [*tmp_path.rglob("*.*")], "nothing is left of it"


def test_the_world_of_foraging_has_no_expert(arguments):
    says = "env.id = 'forage': must be a Gymnasium world whose infos have expert_action"
    with pytest.raises(UserError, match=says):
        parse([*arguments, "--learn.algorithm", "distil", "--distillation.teacher", "expert"])
