"""A student learns what its teacher would do where the student itself went: with adapters, or with all its weights."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from agents.sums import write_sums
from agents.types import UserError
from envs.bots import Planner
from trainers import stages
from trainers.cli.parser import parse, read_config
from trainers.evaluate import main as evaluate
from trainers.learning.config import LearnConfig
from trainers.learning.distil import distil_loss
from trainers.records.checkpoint import load_checkpoint
from trainers.records.manifest import checkpoints
from trainers.records.opening import open_fittest
from trainers.rollout import Rollout, Trajectory
from trainers.train import train
from trainers.variants.distillation_model import WholeModel
from trainers.variants.distillation_teacher import RunTeacher

DISTIL = ["--learn.algorithm", "distil", "--evolution.enabled", "false", "--learn.max_kl", "10", "--learn.epochs", "6"]


def metrics(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def teacher_run(tiny_arguments, tmp_path_factory):
    """A run whose agent 2 is the fittest."""
    folder = tmp_path_factory.mktemp("teacher") / "run"
    train(parse([*tiny_arguments, "--generations", "1", "--run_dir", str(folder)])[0])
    return folder


def test_the_loss_is_zero_where_student_and_teacher_agree_and_kl_elsewhere():
    logits = torch.tensor([[1.0, 2.0, 0.0], [3.0, 0.0, 0.0]])
    assert distil_loss(logits, (logits / 2).softmax(1), 2.0).tolist() == pytest.approx([0, 0], abs=1e-6)
    sure = torch.tensor([[0.0, 1.0, 0.0], [0.0, 1.0, 0.0]])
    assert distil_loss(logits, sure, 1.0).tolist() == pytest.approx((-logits.log_softmax(1)[:, 1]).tolist())
    soft = torch.tensor([[0.5, 0.25, 0.25]])
    expected = (soft * (soft.log() - (logits[:1] / 3).log_softmax(1))).sum() * 9
    assert float(distil_loss(logits[:1], soft, 3.0)) == pytest.approx(float(expected), rel=1e-5)


def test_a_gradient_keeps_its_size_when_all_is_softened():
    sizes = []
    for temperature in (4.0, 8.0):
        logits = torch.tensor([[0.3, -0.2, 0.1]], requires_grad=True)
        distil_loss(logits, (torch.tensor([[0.9, 0.1, 0.0]]) / temperature).softmax(1), temperature).sum().backward()
        sizes.append(float(logits.grad.norm()))
    assert sizes[0] == pytest.approx(sizes[1], rel=0.05)


def test_the_planners_target_is_how_often_it_did_what_after_a_text(begun):
    run = begun(*DISTIL, "--distillation.teacher", "planner")
    generation = stages.Generation(0)
    rollout = stages.collect(run, generation)
    t, planner = rollout.trajectory, Planner(run.config.env)
    probabilities, temperature = run.population.variants["distillation"].targets(run, rollout)
    assert temperature == 1
    targets = probabilities.view(t.legal.shape).numpy()
    assert targets.sum(axis=2) == pytest.approx(np.ones(t.text.shape))
    assert (targets[~t.legal] == 0).all()
    did = planner(generation.states[0])[0]
    assert (targets[0, np.arange(6), did] > 0).all()
    of_one_network = targets[t.is_alive].max(axis=1) == 1
    assert 0 < of_one_network.mean() < 1, "it knows more than a text says"


def rollout_of(texts, text, legal) -> Rollout:
    """A rollout of which only what was read and allowed matters."""
    return Rollout(Trajectory(texts, text, legal, *[None] * 9), None, None, None)


def test_a_run_teaches_by_its_fittest_agent(teacher_run):
    population, agent = open_fittest(teacher_run)
    _, state = load_checkpoint(checkpoints(teacher_run)[0])
    ranked = sorted(state["population"]["genomes"], key=lambda person: person["fitness"])
    assert population.genomes[agent].id == ranked[-1]["id"]
    texts, legal = [" food north", " food south"], np.ones((3, 1, 5), bool)
    legal[2, 0, 1] = False
    rollout = rollout_of(texts, np.array([[0], [1], [0]]), legal)
    hot, cold = (RunTeacher(population.policy, agent, t).targets(rollout) for t in (10.0, 1.0))
    expected = torch.from_numpy(population.policy.logits(texts, np.full(2, agent))).softmax(1).numpy()
    np.testing.assert_allclose(cold[:2, 0], expected, rtol=1e-5)
    assert hot.std() < cold.std()
    assert cold[2, 0, 1] == 0
    assert cold[2, 0].sum() == pytest.approx(1)


def test_what_is_not_allowed_has_no_part_in_the_loss():
    logits = torch.tensor([[1.0, 2.0, 9.0]], requires_grad=True)
    target, legal = torch.tensor([[0.25, 0.75, 0.0]]), torch.tensor([[True, True, False]])
    loss = distil_loss(logits, target, 2.0, legal)
    loss.sum().backward()
    assert float(loss.detach()) == pytest.approx(float(distil_loss(logits.detach()[:, :2], target[:, :2], 2.0)))
    assert logits.grad[0, 2] == 0
    assert logits.grad.isfinite().all()


def test_a_resumed_student_is_taught_the_same(tiny_arguments, teacher_run, tmp_path):
    keys = [*tiny_arguments, *DISTIL, "--distillation.teacher", str(teacher_run)]
    train(parse([*keys, "--generations", "3", "--run_dir", str(tmp_path / "whole")])[0])
    train(parse([*keys, "--generations", "1", "--run_dir", str(tmp_path / "parts")])[0])
    train(*parse(["--resume", str(tmp_path / "parts"), "--generations", "3"]))
    whole, parts = (load_checkpoint(checkpoints(tmp_path / name)[2])[0] for name in ("whole", "parts"))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_a_teacher_that_has_learned_since_is_refused_and_nothing_is_lost(tiny_arguments, tmp_path):
    teacher, student = tmp_path / "teacher", tmp_path / "student"
    train(parse([*tiny_arguments, "--generations", "1", "--run_dir", str(teacher)])[0])
    keys = [*tiny_arguments, *DISTIL, "--distillation.teacher", str(teacher), "--generations", "1"]
    train(parse([*keys, "--run_dir", str(student)])[0])
    train(*parse(["--resume", str(teacher), "--generations", "2"]))
    with pytest.raises(UserError, match="must be as it was when this run began"):
        train(*parse(["--resume", str(student), "--generations", "2"]))
    assert (student / "results.json").is_file()


def test_a_teacher_is_softened_as_asked_for(begun, teacher_run):
    run = begun(*DISTIL, "--distillation.teacher", str(teacher_run), "--distillation.temperature", "3")
    variant = run.population.variants["distillation"]
    rollout = rollout_of([" food"], np.zeros((1, 1), int), np.ones((1, 1, 5), bool))
    targets = variant.targets(run, rollout)
    expected = torch.from_numpy(variant.teacher.policy.logits([" food"], np.array([variant.teacher.agent]))) / 3
    torch.testing.assert_close(targets.probabilities, expected.softmax(1))
    assert targets.temperature == 3


def closeness(folder, key="policy_loss"):
    return [line[key] for line in metrics(folder)]


def test_adapters_come_nearer_to_their_teacher(tiny_arguments, teacher_run, tmp_path):
    folder = tmp_path / "student"
    more = [*DISTIL, "--distillation.teacher", str(teacher_run), "--learn.learning_rate", "0.01", "--generations", "4"]
    train(parse([*tiny_arguments, *more, "--adapter.top_layers", "4", "--run_dir", str(folder)])[0])
    losses = closeness(folder)
    assert losses[-1] < 0.5 * losses[0]


def test_a_student_of_the_planner_forages_better_than_before(tiny_arguments, tmp_path):
    folder = tmp_path / "student"
    more = [*DISTIL, "--distillation.teacher", "planner", "--learn.learning_rate", "0.01", "--generations", "5"]
    train(parse([*tiny_arguments, *more, "--run_dir", str(folder)])[0])
    results = json.loads((folder / "results.json").read_text())
    first, last = (results[when]["food_eaten"]["agents"]["mean"] for when in ("first", "last"))
    assert last > first + 0.5
    assert last > results["last"]["food_eaten"]["random"]["mean"] + 1


WHOLE = [
    *DISTIL,
    "--distillation.trains",
    "model",
    "--distillation.teacher",
    "planner",
    "--learn.learning_rate",
    "0.003",
]


@pytest.fixture(scope="module")
def whole_run(tiny_arguments, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "run"
    train(parse([*tiny_arguments, *WHOLE, "--generations", "4", "--run_dir", str(folder)])[0])
    return folder


def test_a_whole_model_learns_from_its_teacher(whole_run):
    losses = closeness(whole_run)
    assert losses[-1] < 0.7 * losses[0]
    taught = closeness(whole_run, "texts_taught")
    assert taught[-1] > taught[0], "what was met in former rollouts is not forgotten"
    results = json.loads((whole_run / "results.json").read_text())
    assert results["last"]["food_eaten"]["agents"]["mean"] > results["last"]["food_eaten"]["random"]["mean"] + 1


def test_what_learned_is_what_acts_and_what_is_kept(whole_run, capsys):
    population, agent = open_fittest(whole_run)
    policy = population.policy
    tensors, state = load_checkpoint(checkpoints(whole_run)[3])
    name = "model.layers.1.mlp.up_proj.weight"
    kept = tensors[f"distillation.{name}"]
    assert (kept != kept.bfloat16().float()).any(), "what learns is not rounded, only what acts"
    student = WholeModel(policy.network, read_config(whole_run).learn, temperature=1.0)
    assert torch.equal(dict(student.causal_lm.named_parameters())[name].detach(), kept.bfloat16().float())
    parameters = sum(parameter.numel() for parameter in student.causal_lm.parameters())
    assert (whole_run / "model" / "gen_0003" / "model.safetensors").stat().st_size < 2 * parameters + 10_000, (
        "tied weights once"
    )
    texts = state["population"]["variants"]["distillation"]["texts"][:20]
    mine, theirs = student.logits(texts).detach().numpy(), policy.logits(texts, np.full(len(texts), agent))
    np.testing.assert_allclose(mine, theirs, atol=0.02 * np.abs(theirs).max())
    evaluate([str(whole_run), "--episodes", "2", "--json"])
    assert json.loads(capsys.readouterr().out)["food_eaten"]["agents"]["mean"] > 2


def test_a_teacher_whose_whole_model_has_learned_since_is_another(whole_run, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(whole_run, copy)
    before = RunTeacher(open_fittest(copy)[0].policy, 0, 1.0).name
    assert RunTeacher(open_fittest(copy)[0].policy, 0, 1.0).name == before
    file = copy / "model" / "gen_0003" / "model.safetensors"
    tensors = load_file(file)
    tensors["model.norm.weight"][0] += 1
    save_file(tensors, file, {"format": "pt"})
    write_sums(file.parent)
    assert RunTeacher(open_fittest(copy)[0].policy, 0, 1.0).name != before


def test_a_resumed_student_is_the_same(tiny_arguments, whole_run, tmp_path):
    folder = tmp_path / "run"
    train(parse([*tiny_arguments, *WHOLE, "--generations", "2", "--run_dir", str(folder)])[0])
    config = folder / "model" / "gen_0001" / "config.json"
    before = config.stat().st_ino
    train(*parse(["--resume", str(folder), "--generations", "3"]))
    assert config.stat().st_ino == before, "another version of transformers would write another file"
    train(*parse(["--resume", str(folder), "--generations", "4"]))
    ours, theirs = (load_checkpoint(checkpoints(one)[3])[0] for one in (folder, whole_run))
    for name, tensor in theirs.items():
        assert torch.equal(tensor, ours[name]), name
    assert closeness(folder) == closeness(whole_run)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--learn.algorithm", "distil"], "distillation.teacher = '': must be planner, expert or the folder of a run"),
        (["--distillation.teacher", "planner"], "must be left out unless learn.algorithm = distil"),
        (["--distillation.temperature", "2"], "temperature = 2.0: must be left out unless"),
        (
            [
                *DISTIL,
                "--distillation.teacher",
                "x",
                "--distillation.trains",
                "model",
                "--model.weight_storage",
                "compact",
            ],
            "must be full with",
        ),
        (["--distillation.trains", "model"], "must be adapters, or left out unless learn.algorithm = distil"),
        (
            [*DISTIL, "--distillation.teacher", "planner", "--distillation.temperature", "2"],
            "must be 1 with the planner",
        ),
        ([*DISTIL[:2], "--distillation.teacher", "planner", "--distillation.trains", "model"], "must be false with"),
        (
            [*DISTIL, "--distillation.teacher", "planner", "--distillation.trains", "model", "--learn.pool", "true"],
            "learn.pool = True: must be false with distillation.trains = model",
        ),
        (
            [
                *DISTIL,
                "--distillation.teacher",
                "planner",
                "--distillation.trains",
                "model",
                "--learn.anneal_to",
                "0.5",
            ],
            "learn.anneal_to = 0.5: must be 1 with distillation.trains = model",
        ),
        (
            [*DISTIL, "--distillation.teacher", "planner", "--env.also", "[maze]", "--worlds", "2"],
            "env.also = .*: must be empty",
        ),
    ],
)
def test_what_cannot_be_is_refused(arguments, said):
    with pytest.raises(UserError, match=said):
        parse(arguments)


def test_a_teacher_that_is_no_run_is_named(tiny_arguments, tmp_path):
    more = [*DISTIL, "--distillation.teacher", str(tmp_path / "nobody"), "--run_dir", str(tmp_path / "run")]
    with pytest.raises(UserError, match="nobody: no such folder"):
        train(parse([*tiny_arguments, *more])[0])
    assert not (tmp_path / "run").exists(), "nothing is left behind"


def test_a_whole_model_learns_from_each_text_as_often_as_it_was_met(tiny_policy):
    """It agrees with its teacher on the text that was met 99 times in 100, and not on the other."""
    texts, text = [" food north", " no food"], np.zeros((100, 1), int)
    text[0] = 1
    learn = LearnConfig(algorithm="distil", epochs=1, learning_rate=1e-9)
    student = WholeModel(tiny_policy.network, learn, temperature=1.0)
    targets = student.logits(texts).detach().softmax(1).numpy()
    targets[1] = np.eye(5)[targets[1].argmin()]
    t = rollout_of(texts, text, None).trajectory._replace(is_alive=np.ones(text.shape, bool))
    student.remember(t, targets[text])
    wrong = float(distil_loss(student.logits(texts[1:]).detach(), torch.from_numpy(targets[1:]), 1.0))
    assert student.learn(np.random.default_rng(0))["policy_loss"] < 0.1 * wrong
