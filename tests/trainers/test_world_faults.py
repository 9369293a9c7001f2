"""Worlds that misbehave in the middle of a run: the run names copy, agent and step and ends, or makes them anew."""

import json
import sys
import threading
import time
from contextlib import nullcontext
from types import ModuleType

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiDiscrete, Sequence, Tuple
from pettingzoo import ParallelEnv

from agents.codecs import PlainCodec
from agents.types import UserError
from envs import HELD_OUT
from envs.worlds import faults, foreign, time_limit
from envs.worlds.faults import is_sound
from envs.worlds.foreign import MOST_IN_A_ROW, Conduct
from envs.worlds.gym_world import GymWorld
from envs.worlds.team_world import TeamWorld
from trainers.cli.parser import parse
from trainers.comparison import Chance
from trainers.env_config import EnvConfig
from trainers.records.checkpoint import checkpoints
from trainers.rollout import collect_rollout, gae
from trainers.train import main, train
from trainers.worlds import make_codec, make_world

GOOD = np.zeros(2, np.float32)


def fail():
    raise RuntimeError("out of\norder")


GYM_FAULTS = {
    "raises": (fail, "step raised RuntimeError: out of order (test_world_faults.py, line "),
    "exits": (lambda: sys.exit(3), "step raised SystemExit: 3"),
    "hangs": (lambda: time.sleep(60), "step took longer than env.step_timeout = 0.2 s"),
    "gives a NaN reward": (lambda: (GOOD, np.nan, False, False, {}), "the reward is nan: must be finite"),
    "gives an infinite observation": (
        lambda: (np.array([0, np.inf], np.float32), 1.0, False, False, {}),
        "the observation is array([ 0., inf], dtype=float32): must hold no NaN, and no infinity where its space has a "
        "bound",
    ),
    "gives a wrong shape": (
        lambda: (np.zeros(3), 1.0, False, False, {}),
        "the observation is numbers of shape (3,): must be numbers of shape (2,), as it was at first",
    ),
    "gives a wrong type": (lambda: (GOOD, "1", False, False, {}), "the reward is '1': must be one number"),
    "gives None": (lambda: None, "step gave None: must be observation, reward, terminated, truncated, info"),
    "does not say whether it is over": (
        lambda: (GOOD, 1.0, None, False, {}),
        "terminated is None: must be true or false",
    ),
}
TEAM_FAULTS = {
    "goes on after its end": (
        "the episode of two has ended, and it is still among the agents: take it off `agents` in the step in which "
        "it ends"
    ),
    "has an agent more": "there is an agent 'ghost': must be one of possible_agents, ['one', 'two']",
    "gives None to one": "the observation of two is None: must be numbers of shape (2,), as it was at first",
}


class Mischief(gymnasium.Env):
    """Gives a reward of one a step; but one in so many seeds does in step `at` what GYM_FAULTS have."""

    observation_space, action_space = Box(-1, 9, (2,)), Discrete(2)

    def __init__(self, fault="", at=3, one_in=1):
        self.fault, self.at, self.one_in = fault, at, one_in
        self.steps, self.is_broken = 0, False

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if seed is not None:
            self.steps, self.is_broken = 0, seed % self.one_in == 0
        return GOOD, {}

    def step(self, action):
        self.steps += 1
        if self.fault and self.is_broken and self.steps == self.at:
            return GYM_FAULTS[self.fault][0]()
        return GOOD, 1.0, False, False, {}


class Couple(ParallelEnv):
    """Two agents, of whom the second misbehaves in the third step of a copy."""

    metadata = {"name": "couple"}  # noqa: RUF012
    possible_agents = ["one", "two"]  # noqa: RUF012
    broken = 0  # how many copies misbehave from now on

    def __init__(self, fault=""):
        self.fault, self.steps = fault, 0

    def action_space(self, agent):
        return Discrete(2)

    def observation_space(self, agent):
        return Box(-1, 9, (2,))

    def reset(self, seed=None, options=None):
        self.agents, self.steps, self.is_broken = ["one", "two"], 0, Couple.broken > 0
        Couple.broken -= 1
        return dict.fromkeys(self.agents, GOOD), {}

    def step(self, actions):
        self.steps += 1
        rows, over = dict.fromkeys(self.agents, GOOD), dict.fromkeys(self.agents, False)
        if self.is_broken and self.steps == 3:
            over["two"] = self.fault == "goes on after its end"
            rows |= {"ghost": GOOD} if self.fault == "has an agent more" else {}
            rows |= {"two": None} if self.fault == "gives None to one" else {}
        return rows, dict.fromkeys(self.agents, 1.0), over, dict.fromkeys(self.agents, False), {}

    def close(self):
        pass


class Codec(PlainCodec):
    action_words = ("north", "south")

    def describe(self, observation):
        return "food"


MISCHIEF, COUPLE = "TerrariumTest/Mischief-v0", "terrarium_test.couple_v0"
gymnasium.register(MISCHIEF, Mischief, disable_env_checker=True)


@pytest.fixture(autouse=True)
def worlds(monkeypatch):
    module = ModuleType(COUPLE)
    module.parallel_env = Couple
    monkeypatch.setitem(sys.modules, "terrarium_test", ModuleType("terrarium_test"))
    monkeypatch.setitem(sys.modules, COUPLE, module)
    monkeypatch.setattr(foreign, "_NOTED", set())
    monkeypatch.setattr(Couple, "broken", 0)


@pytest.fixture
def arguments(tiny_model, tmp_path) -> list[str]:
    """A run of two agents; add the world and what is to be done about it."""
    return [
        *("--model.name", str(tiny_model), "--model.dtype", "float32", "--env.agents", "2", "--generations", "1"),
        *("--adapter.top_layers", "2", "--adapter.rank", "2", "--env.max_steps", "6", "--log.recordings_mb", "0"),
        *("--env.codec", f"{__name__}:Codec", "--evolution.parents", "2", "--evolution.elites", "1"),
        *("--evolution.episodes", "1", "--held_out_episodes", "1", "--run_dir", str(tmp_path / "run")),
    ]


def ways(fault, **options):
    limit = ["--env.step_timeout", "0.2"] if fault == "hangs" else []
    return ["--env.id", MISCHIEF, "--env.options", json.dumps({"fault": fault, **options}), *limit]


def metrics(run_dir):
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("fault", GYM_FAULTS)
def test_a_run_says_which_copy_agent_and_step_and_ends(fault, arguments, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main([*arguments, *ways(fault)])
    assert ended.value.code == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith(f"error: {MISCHIEF}, copy 0 (world 0 of seed ")
    assert f", agent 0), in step 3: {GYM_FAULTS[fault][1]}" in said
    assert said.endswith(f"no generation was complete, so nothing is kept, and {tmp_path / 'run'} can be deleted")


@pytest.mark.parametrize("fault", GYM_FAULTS)
def test_or_that_copy_is_made_anew_and_its_episode_counts_until_then(fault, arguments, tmp_path, capsys):
    result = train(parse([*arguments, *ways(fault, at=4), "--env.on_error", "restart"])[0])
    (line,) = metrics(tmp_path / "run")
    assert (line["env_restarts"], line["env_steps"], line["fitness_mean"]) == (4, 10, 3), "each once, then once more"
    assert result["lifetime"]["agents"]["mean"] == result["lifetime"]["random"]["mean"] == 3
    (noted,) = [row for row in capsys.readouterr().err.splitlines() if "made anew" in row]
    assert GYM_FAULTS[fault][1] in noted


def by_chance(world, seeds):
    return collect_rollout(Chance(), Codec(None), world, np.array(seeds), np.random.default_rng(0))


def test_the_episode_is_cut_off_at_the_last_good_step_and_valued_by_what_was_seen_then():
    class Values(Chance):
        def values(self, texts):
            return np.full(len(texts), 7, np.float32)

    world = GymWorld(MISCHIEF, {"fault": "raises", "one_in": 7}, 2, 6, renews=True, conduct=Conduct(restarts=True))
    rollout = collect_rollout(Values(), Codec(None), world, np.array([14, 15]), np.random.default_rng(0))
    t = rollout.trajectory
    assert t.is_lived.T.tolist() == [[True, True, False, True, True, True]] * 2 + [[True] * 6] * 2
    assert t.is_truncated.T.tolist() == [[False, True, False, False, False, True]] * 2 + [[False] * 5 + [True]] * 2
    assert t.bootstrap_value[:, 0].tolist() == [0, 7, 0, 0, 0, 7]
    assert not t.is_terminal.any()
    assert rollout.outcome.lifetime.tolist() == [[5, 5], [6, 6]]
    assert rollout.outcome.episode_return.tolist() == [[5, 5], [6, 6]]
    advantage = gae(t, 0.5, 0.0)
    assert advantage[:, 0][t.is_lived[:, 0]].tolist() == pytest.approx([1 + 3.5 - 7] * 5)
    assert world.restarts == 2


def test_who_is_evaluated_has_no_second_try():
    world = GymWorld(MISCHIEF, {"fault": "raises", "one_in": 7}, 1, 6, renews=False, conduct=Conduct(restarts=True))
    assert by_chance(world, [14, 15]).outcome.lifetime.tolist() == [[2], [6]]
    assert by_chance(world, [15, 16]).outcome.lifetime.tolist() == [[6], [6]], "it was made anew"


def test_a_copy_that_fails_again_and_again_ends_the_run():
    world = GymWorld(MISCHIEF, {"fault": "raises", "at": 1}, 1, 9, renews=True, conduct=Conduct(restarts=True))
    with pytest.raises(UserError, match=rf"out of order .*; it was made anew {MOST_IN_A_ROW} times in a row$"):
        by_chance(world, [1])


def test_a_copy_made_anew_has_a_codec_of_its_own_and_a_seed_that_is_held_out_where_the_others_is():
    asked = []

    class Own(Codec):
        def describe(self, observation):
            asked.append(self.world)
            return "food"

    world = GymWorld(MISCHIEF, {"fault": "raises"}, 1, 4, renews=True, conduct=Conduct(restarts=True))
    world.reset([HELD_OUT + 7])
    before = world.copies()[0]
    collect_rollout(Chance(), Own(None), world, np.array([HELD_OUT + 7]), np.random.default_rng(0))
    assert asked == [before] * 3 + [world.copies()[0]] * 2
    assert world.copies()[0] is not before
    assert world.copies()[0].unwrapped.np_random_seed >= HELD_OUT


@pytest.mark.parametrize("fault", TEAM_FAULTS)
def test_a_team_is_named_or_made_anew(fault, monkeypatch):
    monkeypatch.setattr(Couple, "broken", 1)
    with pytest.raises(UserError) as raised:
        by_chance(TeamWorld(COUPLE, {"fault": fault}, 3, 5, renews=True), [1])
    assert str(raised.value).startswith(f"{COUPLE}, copy 0 (world 0 of seed 1, agents 0 to 1), in step 3: ")
    assert TEAM_FAULTS[fault] in str(raised.value)
    for renews, lived in ((True, [1, 1, 0, 1, 1]), (False, [1, 1, 0, 0, 0])):
        monkeypatch.setattr(Couple, "broken", 1)
        world = TeamWorld(COUPLE, {"fault": fault}, 3, 5, renews=renews, conduct=Conduct(restarts=True))
        rollout = by_chance(world, [1])
        assert rollout.trajectory.is_lived.T.astype(int).tolist() == [lived, lived, [1] * 5]
        assert rollout.trajectory.is_truncated.T.astype(int).tolist()[0] == [0, 1, 0, 0, int(renews)]
        assert world.restarts == 1


def of(fault="", **options):
    """The config of a Gymnasium world of these options."""
    return EnvConfig(id=MISCHIEF, codec=f"{__name__}:Codec", agents=1, max_steps=6, options={"fault": fault, **options})


OPEN, HALF = Box(-np.inf, np.inf, (2,)), Box(np.array([-1, 0], np.float32), np.array([np.inf, 1], np.float32))
FAR, BELOW = np.array([np.inf, 0], np.float32), np.array([-np.inf, 0], np.float32)


@pytest.mark.parametrize(
    ("observation", "space", "sound"),
    [
        (FAR, OPEN, True),
        (FAR.astype(float), OPEN, True),
        (np.array([np.nan, 0]), OPEN, False),
        (FAR, HALF, True),
        (BELOW, HALF, False),
        (FAR[::-1], HALF, False),
        ([np.inf, 0.0], HALF, True),
        ([np.inf, 0.0], Box(-1, 9, (2,)), False),
        (np.array([np.inf, 0, 0]), HALF, True),
        (np.array([np.inf, 0, 0]), Box(-1, 9, (2,)), False),
        (np.array([9.0, 0]), Box(-1, 1, (2,)), True),
        (np.inf, Discrete(3), False),
        (FAR, MultiDiscrete([3, 3]), False),
        ({"far": FAR, "near": GOOD}, Dict(far=OPEN, near=Box(-1, 9, (2,))), True),
        ({"far": FAR, "near": FAR}, Dict(far=OPEN, near=Box(-1, 9, (2,))), False),
        ({"far": FAR, "more": (np.nan,)}, Dict(far=OPEN), False),
        ((FAR, 1), Tuple((OPEN, Discrete(3))), True),
        ((1, FAR), Tuple((Discrete(3), HALF)), True),
        ((1, BELOW), Tuple((Discrete(3), HALF)), False),
        ((FAR, FAR), Sequence(OPEN), True),
        ((FAR, {"x": np.float32("nan")}), Sequence(OPEN), False),
        (np.inf, None, True),
        (float("nan"), None, False),
        ("food", None, True),
    ],
)
def test_an_infinity_is_fine_where_no_bound_forbids_it_and_nan_is_not(observation, space, sound):
    assert is_sound(observation, space) is sound


def test_a_world_may_give_infinities_that_its_space_has(monkeypatch):
    monkeypatch.setattr(Mischief, "observation_space", OPEN)
    fault = "gives an infinite observation"
    assert by_chance(GymWorld(MISCHIEF, {"fault": fault}, 1, 6, renews=True), [1]).outcome.lifetime.tolist() == [[6]]


def test_the_shape_of_what_is_seen_may_change_from_episode_to_episode(monkeypatch):
    def reset(self, *, seed=None, options=None):
        self.steps, self.size = 0, getattr(self, "size", 1) + 1
        return np.zeros(self.size), {}

    def step(self, action):
        self.steps += 1
        return np.zeros(self.size + (self.fault == "grows")), 1.0, self.steps == 2, False, {}

    monkeypatch.setattr(Mischief, "reset", reset)
    monkeypatch.setattr(Mischief, "step", step)
    world = GymWorld(MISCHIEF, {}, 1, 6, renews=True)
    for seed in (1, 2):
        assert by_chance(world, [seed]).trajectory.is_terminal[:, 0].sum() == 3
    assert world.copies()[0].unwrapped.size == 9, "it is the same copy, in its eighth episode"
    with pytest.raises(UserError, match=r"the observation is numbers of shape \(3,\): must be numbers of shape \(2,\)"):
        by_chance(GymWorld(MISCHIEF, {"fault": "grows"}, 1, 6, renews=True), [1])


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (fail, "making it raised RuntimeError: out of order (test_world_faults.py, line "),
        (lambda: sys.exit("bye"), "making it raised SystemExit: bye (test_world_faults.py, line "),
        (lambda: int("x"), "making it raised ValueError: invalid literal"),
    ],
)
def test_a_team_that_cannot_be_made_is_named(fault, says, monkeypatch):
    monkeypatch.setattr(sys.modules[COUPLE], "parallel_env", fault)
    env = EnvConfig(id=COUPLE, codec=f"{__name__}:Codec")
    for make in (lambda: make_codec(env), lambda: make_world(env, renews=True)):
        with pytest.raises(UserError) as raised:
            make()
        assert str(raised.value).startswith(f"{COUPLE}: {says}")


@pytest.mark.parametrize("line", ["raise RuntimeError('no licence')", "raise SystemExit('no licence')"])
@pytest.mark.parametrize("env_id", ["terrarium_broken.one_v0", "terrarium_broken.one_v0:Some-v0"])
def test_a_package_that_fails_while_it_is_imported_is_named(env_id, line, monkeypatch, tmp_path):
    (tmp_path / "terrarium_broken").mkdir()
    (tmp_path / "terrarium_broken" / "one_v0.py").write_text(line)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError) as raised:
        make_codec(EnvConfig(id=env_id, agents=1))
    assert str(raised.value).startswith(env_id)
    assert "making it raised " in str(raised.value)
    assert "no licence (one_v0.py, line 1)" in str(raised.value)


def test_a_team_whose_sample_cannot_be_closed_is_used_all_the_same(monkeypatch, caplog):
    monkeypatch.setattr(Couple, "close", lambda self: fail())
    TeamWorld(COUPLE, {}, 2, 5, renews=True)
    assert f"note: {COUPLE}: close raised RuntimeError: out of order (" in caplog.text


@pytest.mark.parametrize("kind", [GymWorld, TeamWorld])
def test_steps_resets_and_closing_have_a_limit_and_making_a_copy_has_none(kind, monkeypatch):
    limits = {}

    def note(seconds, sentence):
        limits[next(what for what in ("making it", "reset took", "step took", "close") if what in sentence)] = seconds
        return nullcontext()

    monkeypatch.setattr(faults, "time_limit", note)
    monkeypatch.setattr(foreign, "time_limit", note)
    name = MISCHIEF if kind is GymWorld else COUPLE
    world = kind(name, {}, 2, 5, renews=True, conduct=Conduct(step_timeout=9))
    world.reset([1])
    world.step(np.zeros((1, 2), int))
    world.close()
    assert limits == {"making it": 0, "reset took": 9, "step took": 9, "close": 9}


def test_a_copy_that_closes_too_slowly_is_reported_as_that(monkeypatch, caplog):
    world = GymWorld(MISCHIEF, {}, 1, 5, renews=True, conduct=Conduct(step_timeout=0.2))
    world.reset([1])
    monkeypatch.setattr(Mischief, "close", lambda self: time.sleep(60), raising=False)
    world.close()
    assert caplog.messages == [f"note: {MISCHIEF}: close took longer than env.step_timeout = 0.2 s"]


def test_what_fails_in_the_first_reset_is_said_as_it_is(monkeypatch):
    def reset(self, *, seed=None, options=None):
        raise TypeError("no seed")

    monkeypatch.setattr(Mischief, "reset", reset)
    with pytest.raises(UserError) as raised:
        make_codec(of())
    where = f"{MISCHIEF}, copy 0 (world 0 of seed 0, agent 0), in the reset before step 1"
    assert str(raised.value).startswith(f"{where}: reset raised TypeError: no seed (test_world_faults.py, line ")


def test_that_there_is_no_such_world_is_said_also_where_copies_are_made_anew():
    with pytest.raises(UserError, match=r"^env\.id = 'Nowhere-v0': must be forage, .* `Nowhere` doesn't exist"):
        make_codec(EnvConfig(id="Nowhere-v0", agents=1, on_error="restart"))


def test_an_observation_that_cannot_be_copied_is_named(monkeypatch):
    monkeypatch.setattr(Mischief, "observation_space", Dict(lock=OPEN))
    monkeypatch.setattr(Mischief, "reset", lambda self, **given: ({"lock": threading.Lock()}, {}))
    with pytest.raises(UserError, match=r"the observation cannot be copied: its copy raised TypeError: cannot pickle"):
        make_codec(of())


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (([[0.0], [1.0, 2.0]], 1.0, False, False, {}), "the observation is of type object: must be numbers of shape"),
        ((GOOD, [[0.0], [1.0, 2.0]], False, False, {}), r"the reward is \[\[0.0\], \[1.0, 2.0\]\]: must be one number"),
    ],
)
def test_rows_of_different_lengths_are_named(given, says, monkeypatch):
    monkeypatch.setattr(Mischief, "step", lambda self, action: given)
    with pytest.raises(UserError, match=says):
        by_chance(GymWorld(MISCHIEF, {}, 1, 6, renews=True), [1])


def test_a_run_with_worlds_made_anew_goes_on_as_if_it_had_never_stopped(arguments, tmp_path):
    keys = [*arguments, *ways("raises", one_in=2, at=4), "--env.on_error", "restart", "--worlds", "2"]
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    train(parse([*keys, "--run_dir", str(whole), "--generations", "3"])[0])
    train(parse([*keys, "--run_dir", str(halves), "--generations", "1"])[0])
    train(*parse(["--resume", str(halves), "--generations", "3"]))
    assert sum(line["env_restarts"] for line in metrics(whole)) > 3
    times = ("wall_s", "decide_ms", "learn_s", "texts_known", "texts_read", "text_hit_rate", "prefix_cache_mb")
    one, other = ([{k: v for k, v in line.items() if k not in times} for line in metrics(d)] for d in (whole, halves))
    assert one == other
    assert (whole / "lineage.jsonl").read_text() == (halves / "lineage.jsonl").read_text()


def test_what_was_lived_before_the_fault_is_kept(arguments, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(Mischief, "step", lambda self, action: (GOOD, 1.0, False, False, {}))
    train(parse([*arguments, *ways("raises")])[0])
    monkeypatch.undo()
    with pytest.raises(SystemExit):
        main(["--resume", str(tmp_path / "run"), "--generations", "2"])
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert "in step 3: step raised RuntimeError" in said
    assert "generation 0 and those before are kept, and --resume" in said
    assert list(checkpoints(tmp_path / "run")) == [0]


def test_what_a_signal_cannot_end_ends_with_the_process(tmp_path):
    import subprocess

    program = (
        "import time\nfrom envs.worlds import time_limit\ntime_limit.GRACE = 0.1\n"
        "with time_limit.time_limit(0.1, 'copy 3 took longer'):\n"
        "    while True:\n        try:\n            time.sleep(9)\n        except BaseException:\n            pass\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (2, "error: copy 3 took longer\n")


def test_what_comes_back_in_time_is_left_alone():
    for _ in range(3):
        with time_limit.time_limit(0.05, "late"):
            pass
    time.sleep(0.1)
    assert time_limit._WATCHDOG._watched is None


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"on_error": "restart"}, "env.on_error = 'restart': must be left out: forage is our own"),
        ({"step_timeout": 1.0}, "env.step_timeout = 1.0: must be left out"),
        ({"step_timeout": -1.0, "id": MISCHIEF}, "env.step_timeout = -1.0: must be 0 for no limit, or at most"),
        ({"step_timeout": float("nan"), "id": MISCHIEF}, "env.step_timeout = nan: must be 0"),
        ({"on_error": "ignore", "id": MISCHIEF}, "env.on_error = 'ignore': must be one of stop, restart"),
    ],
)
def test_settings_that_mean_nothing_are_refused(keys, says):
    with pytest.raises(UserError) as raised:
        EnvConfig(**keys)
    assert says in str(raised.value)
