"""A world that gives no finite numbers is reported at once: which agent, which step, and what is kept of the run."""

import json

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Discrete

from agents.codecs import PlainCodec
from agents.codecs.others import SpreadCodec
from agents.types import UserError
from trainers.records import report
from trainers.records.checkpoint import save_checkpoint
from trainers.records.manifest import checkpoints
from trainers.records.run_log import RunLog
from trainers.rollout import _check_rewards
from trainers.train import main


class Slot(gymnasium.Env):
    """One number and two levers; a reward of one until `broken` steps were done in the whole process, `fault` then."""

    observation_space, action_space = Discrete(2), Discrete(2)
    steps, broken, fault = 0, 0, float("nan")

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return 0, {}

    def step(self, action):
        Slot.steps += 1
        return 0, 1.0 if Slot.steps <= Slot.broken else Slot.fault, False, False, {}


class SlotCodec(PlainCodec):
    action_words = ("north", "south")

    def describe(self, observation):
        return "food"


@pytest.fixture(autouse=True)
def world(monkeypatch):
    if "Slot-v0" not in gymnasium.registry:
        gymnasium.register("Slot-v0", Slot)
    monkeypatch.setattr(Slot, "steps", 0)


@pytest.fixture
def arguments(tiny_model, tmp_path) -> list[str]:
    """A run in which a generation has 2 * 6 steps to learn from, 2 * 6 to evaluate, and the first some to compare."""
    return [
        *("--model.name", str(tiny_model), "--model.dtype", "float32", "--env.agents", "2", "--generations", "2"),
        *("--adapter.top_layers", "2", "--adapter.rank", "2", "--env.id", "Slot-v0", "--env.max_steps", "6"),
        *("--env.codec", f"{__name__}:SlotCodec", "--evolution.parents", "2", "--evolution.elites", "1"),
        *("--worlds", "1", "--evolution.episodes", "1", "--held_out_episodes", "1", "--run_dir", str(tmp_path / "run")),
    ]


@pytest.mark.parametrize(
    ("fault", "named"),
    [
        (float("nan"), "nan"),
        (-float("inf"), "-inf"),
        (1e39, "1e+39"),
        (2e38, "2e+38"),
        (-1.1e15, "-1100000000000000.0"),
    ],
)
def test_it_is_reported_at_once_and_that_nothing_is_kept(fault, named, arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(Slot, "broken", 7)  # of two agents: three steps, and the first agent's fourth
    monkeypatch.setattr(Slot, "fault", fault)
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("error: Slot-v0, copy 1 (world 0 of seed ")
    assert f", agent 1), in step 4: the reward is {named}: must be finite, and at most 1e+15 in absolute value" in said
    assert said.endswith(f"no generation was complete, so nothing is kept, and {tmp_path / 'run'} can be deleted")
    assert not checkpoints(tmp_path / "run")


def test_what_was_lived_before_is_kept_and_goes_on(arguments, tmp_path, monkeypatch, capsys):
    run_dir = tmp_path / "run"
    monkeypatch.setattr(Slot, "broken", 10**9)

    def save(*given):
        Slot.broken = Slot.steps  # the next generation breaks, in its rollout
        return save_checkpoint(*given)

    monkeypatch.setattr(report, "save_checkpoint", save)
    with pytest.raises(SystemExit):
        main(arguments)
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert "generation 0 and those before are kept, and --resume" in said
    monkeypatch.setattr(report, "save_checkpoint", save_checkpoint)
    monkeypatch.setattr(Slot, "broken", 10**9)
    main(["--resume", str(run_dir)])
    assert [json.loads(line)["generation"] for line in (run_dir / "metrics.jsonl").read_text().splitlines()] == [0, 1]


def test_a_figure_that_is_not_finite_is_named_and_nothing_is_written(tmp_path):
    log = RunLog(tmp_path)
    with pytest.raises(
        UserError, match=r"metrics\.jsonl: value_loss = inf of generation 3: must be finite; rewards may"
    ):
        log.metrics({"generation": 3, "value_loss": float("inf")})
    assert not (tmp_path / "metrics.jsonl").exists()


def test_an_observation_that_is_not_finite_is_not_put_into_words():
    observation = np.zeros(18, np.float32)
    assert SpreadCodec(None).describe(observation) == "spot here"
    observation[5] = np.nan
    with pytest.raises(UserError, match=r"the world gave the observation \[.*nan.*\]: must be finite numbers"):
        SpreadCodec(None).describe(observation)


def test_those_who_do_not_play_may_get_anything():
    reward, seeds = np.array([[np.nan, 1.0]], np.float32), np.array([5])
    _check_rewards(reward, np.array([[False, True]]), seeds, 1)
    with pytest.raises(UserError, match=r"agent 0 in world 0 \(seed 5\) is nan in step 1"):
        _check_rewards(reward, np.array([[True, True]]), seeds, 1)


@pytest.mark.parametrize("large", [1.1e15, -2e38])
def test_a_reward_too_large_to_learn_from_is_named_in_any_world(large):
    everyone = np.ones((1, 2), bool)
    _check_rewards(np.array([[1e15, -1e15]], np.float32), everyone, np.array([5]), 1)
    with pytest.raises(UserError, match=r"agent 1 in world 0 .*: must be finite, and at most 1e\+15 in absolute value"):
        _check_rewards(np.array([[1.0, large]], np.float32), everyone, np.array([5]), 1)
