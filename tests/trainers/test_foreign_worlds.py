"""Rollouts in foreign worlds: each codec is asked about its own copy, masks hold, and all is closed in the end."""

import json
import sys
from types import ModuleType

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Discrete
from pettingzoo import ParallelEnv

from agents.codecs import PlainCodec
from agents.codecs.others import FrozenLakeCodec
from agents.policy import make_policy
from agents.types import AdapterConfig, ModelConfig, UserError
from envs import HELD_OUT
from envs.worlds.gym_world import GymWorld
from envs.worlds.team_world import TeamWorld
from trainers.cli.parser import parse
from trainers.comparison import Chance, held_out_seeds
from trainers.env_config import EnvConfig
from trainers.evaluate import main as evaluate
from trainers.learning.config import LearnConfig
from trainers.learning.learner import make_learner
from trainers.rollout import collect_rollout
from trainers.train import main, train
from trainers.worlds import make_codec


class Corridor(gymnasium.Env):
    """Counts its steps in an array that it gives again and again; is truncated after four; not all actions are open.

    Talks, and seeds NumPy's old generator.
    """

    action_space, observation_space = Discrete(3, start=1), Discrete(9)
    made, closed = 0, 0

    def __init__(self, fails_at=0):
        Corridor.made += 1
        self.fails_at, self.seen, self.mask = fails_at, np.zeros(1), np.zeros(3, np.int8)

    def info(self):
        self.mask[:] = np.arange(3) == self.seen[0] % 3
        self.mask[2] |= self.seen[0] % 2 == 0
        return {"action_mask": self.mask}

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.np_random_old = np.random.RandomState(seed)
        print("a new episode")
        self.seen[:] = 0
        return self.seen, self.info()

    def step(self, action):
        assert self.mask[action - 1], "closed"
        self.seen += 1
        if self.seen[0] == self.fails_at:
            raise RuntimeError("out of order")
        return self.seen, 1.0, False, self.seen[0] == 4, self.info()

    def close(self):
        Corridor.closed += 1


class CorridorCodec(PlainCodec):
    action_words = ("left", "down", "right")

    def describe(self, observation):
        return ("no", "one", "two", "three", "four")[int(observation[0])]


class Guests(ParallelEnv):
    """Two; the second comes at step 2 and leaves at step 4, and all is over at step 6."""

    metadata = {"name": "guests"}  # noqa: RUF012
    possible_agents = ["host", "guest"]  # noqa: RUF012

    def action_space(self, agent):
        return Discrete(3)

    observation_space = action_space

    def reset(self, seed=None, options=None):
        self.agents, self.t = ["host"], 0
        return {"host": np.zeros(1)}, {"host": {}}

    def step(self, actions):
        assert set(actions) == set(self.agents)
        self.t += 1
        there = self.agents + ["guest"] * (self.t == 2)
        over = {name: name == "guest" and self.t == 4 for name in there}
        cut = dict.fromkeys(there, self.t == 6)
        self.agents = [name for name in there if not over[name] and not cut[name]]
        seen = {name: np.full(1, self.t % 5) for name in there}
        return seen, dict.fromkeys(actions, 1.0), over, cut, {name: {} for name in there}

    def close(self):
        pass


CORRIDOR, GUESTS = "TerrariumTest/Corridor-v0", "terrarium_test.guests_v0"
gymnasium.register(CORRIDOR, Corridor, disable_env_checker=True)


@pytest.fixture(autouse=True)
def worlds(monkeypatch):
    module = ModuleType(GUESTS)
    module.parallel_env = Guests
    monkeypatch.setitem(sys.modules, "terrarium_test", ModuleType("terrarium_test"))
    monkeypatch.setitem(sys.modules, GUESTS, module)
    monkeypatch.setitem(sys.modules, "terrarium_codecs", ModuleType("terrarium_codecs"))
    sys.modules["terrarium_codecs"].Corridor = CorridorCodec
    monkeypatch.setattr(Corridor, "made", 0)
    monkeypatch.setattr(Corridor, "closed", 0)


class SaysMap(FrozenLakeCodec):
    """Says of which map each text is."""

    def describe(self, observation):
        return json.dumps(self.world.unwrapped.desc.tolist(), default=bytes.decode) + super().describe(observation)


def by_chance(codec, world, seeds, seed=0):
    return collect_rollout(Chance(), codec, world, np.array(seeds), np.random.default_rng(seed))


@pytest.mark.parametrize("renews", [True, False])
def test_a_codec_is_asked_about_the_very_map_in_which_its_agent_is(renews):
    world = GymWorld("FrozenLake-v1", {"map_name": None}, 3, 8, renews=renews)
    codec = make_codec(EnvConfig(id="FrozenLake-v1", options={"map_name": None}, agents=3))
    t = by_chance(SaysMap(codec.world), world, [1, 2]).trajectory
    maps = [json.dumps(copy.unwrapped.desc.tolist(), default=bytes.decode) for copy in world.copies()]
    assert len(set(maps)) == 2
    for agent, own in enumerate(maps):
        read = {t.texts[number] for number in t.text[t.is_alive[:, agent], agent]}
        assert all(text.startswith(f" {own}") for text in read)
    again = by_chance(codec, GymWorld("FrozenLake-v1", {"map_name": None}, 3, 8, renews=renews), [1, 2])
    once = by_chance(codec, world, [1, 2])
    assert again.trajectory.texts == once.trajectory.texts
    np.testing.assert_array_equal(again.trajectory.text, once.trajectory.text)
    world.close()


class Values(Chance):
    """Values a text by its number."""

    def values(self, texts):
        return np.array([("no", "one", "two", "three", "four").index(text.strip()) for text in texts], np.float32)


def test_a_truncation_is_valued_by_what_was_seen_then():
    world = GymWorld(CORRIDOR, {}, 1, 10, renews=True)
    t = collect_rollout(Values(), CorridorCodec(None), world, np.array([0]), np.random.default_rng(0)).trajectory
    assert t.bootstrap_value[:, 0].tolist() == [0, 0, 0, 4, 0, 0, 0, 4, 0, 2]
    assert t.value[:, 0].tolist() == [0, 1, 2, 3, 0, 1, 2, 3, 0, 1]


@pytest.mark.parametrize("renews", [True, False])
def test_who_comes_later_is_not_alive_before_and_costs_nothing(renews):
    world = TeamWorld(GUESTS, {}, 4, 12, renews=renews)
    rollout = by_chance(CorridorCodec(None), world, [0])
    t, steps = rollout.trajectory, 12 if renews else 6
    guest = [step % 6 in (2, 3) for step in range(steps)]
    assert t.is_alive.T.tolist() == [[True] * steps, guest] * 2
    assert (t.is_lived == t.is_alive).all()
    assert t.reward.T.tolist() == t.is_alive.T.astype(float).tolist()
    assert np.argwhere(t.is_terminal[:, 1])[:, 0].tolist() == [3, 9][: steps // 6]
    assert rollout.outcome.lifetime.tolist() == [[steps, steps // 3] * 2]
    assert rollout.outcome.is_alive.tolist() == [[True, False] * 2]


def test_who_never_comes_has_not_lived():
    world = TeamWorld(GUESTS, {}, 2, 2, renews=True)
    rollout = by_chance(CorridorCodec(None), world, [0])
    assert rollout.outcome.is_alive.tolist() == [[True, False]]
    assert rollout.outcome.lifetime.tolist() == [[2, 0]]
    assert rollout.outcome.episode_return.tolist() == [[2, 0]]


@pytest.fixture
def policy(tiny_model):
    model, adapter = ModelConfig(name=str(tiny_model), dtype="float32"), AdapterConfig(rank=2, top_layers=2)
    return make_policy(model, adapter, CorridorCodec(None), agents=3, seed=0)


@pytest.mark.parametrize("keys", [{}, {"algorithm": "online"}, {"algorithm": "online", "background": True}])
def test_a_world_says_which_actions_are_open_and_learning_knows_it(policy, keys):
    world, learner = GymWorld(CORRIDOR, {}, 3, 10, renews=True), make_learner(policy, LearnConfig(**keys))
    settings, rng = (torch.full((3,), 1e-3), torch.zeros(3)), np.random.default_rng(0)
    observers = learner.start(*settings)
    rollout = collect_rollout(policy, CorridorCodec(None), world, np.array([0]), rng, observers=observers)
    t = rollout.trajectory
    step = np.arange(10) % 4
    is_open = np.arange(3) == step[:, None] % 3
    is_open[step % 2 == 0, 2] = True
    assert t.legal.tolist() == np.repeat(is_open[:, None], 3, axis=1).tolist()
    assert np.take_along_axis(t.legal, t.action[..., None], axis=2).all()
    assert np.exp(rollout.log_probs).sum(axis=2) == pytest.approx(1)
    assert (rollout.log_probs[~t.legal] == -np.inf).all()
    assert (t.log_prob[step == 1] == 0).all(), "where one action is open its probability is 1"
    figures = learner.learn(learner.experience(t, *settings), rng)
    if not keys:
        assert figures["ratio_error"] < 1e-5, "before the first update what learns is what acted"
        unmasked = learner.experience(t._replace(legal=np.ones_like(t.legal)), *settings)
        figures = make_learner(policy, LearnConfig()).learn(unmasked, rng)
        assert figures["ratio_error"] > 0.1, "this would show a mask that was lost"


def test_taxi_says_which_moves_are_open():
    class Number(PlainCodec):
        action_words = ("down", "up", "right", "left", "pick", "drop")

        def describe(self, observation):
            return str(observation)

    world = GymWorld("Taxi", {}, 2, 20, renews=True)
    t = by_chance(Number(None), world, [3]).trajectory
    assert not t.legal.all()
    for agent in range(2):
        for number, legal in zip(t.text[:, agent], t.legal[:, agent], strict=True):
            assert legal.tolist() == world.copies()[0].unwrapped.action_mask(int(t.texts[number])).astype(bool).tolist()
    world.close()


FAULTS = {
    "describe": "Broken.describe raised KeyError: 'image'",
    "allowed": "Broken.allowed raised KeyError: 'image'",
    "encode": "Broken.encode raised KeyError: 'image'",
    "remember": "Broken.remember raised KeyError: 'image'",
    "legal": "Broken.legal raised KeyError: 'image'",
}


@pytest.mark.parametrize("method", FAULTS)
def test_what_fails_in_a_codec_is_reported_in_one_sentence(method):
    def fail(*given):
        raise KeyError("image")

    broken = type("Broken", (CorridorCodec,), {method: fail})
    with pytest.raises(UserError) as raised:
        by_chance(broken(None), GymWorld(CORRIDOR, {}, 1, 4, renews=True), [0])
    assert str(raised.value) == FAULTS[method]
    assert isinstance(raised.value.__cause__, KeyError)


@pytest.fixture
def arguments(tiny_model, tmp_path):
    """Command line of a run of two generations of three agents in the corridor."""
    return [
        *("--model.name", str(tiny_model), "--model.dtype", "float32", "--adapter.top_layers", "2"),
        *("--env.id", CORRIDOR, "--env.codec", "terrarium_codecs:Corridor"),
        *("--env.agents", "3", "--env.max_steps", "6"),
        *("--evolution.parents", "2", "--evolution.elites", "1", "--evolution.episodes", "2"),
        *("--held_out_episodes", "1", "--generations", "2", "--run_dir", str(tmp_path / "run")),
    ]


def test_every_copy_is_closed_and_standard_output_is_the_programs_own(arguments, tmp_path, capfd):
    train(parse(arguments)[0])
    assert "a new episode" not in capfd.readouterr().out
    assert Corridor.made == Corridor.closed > 9
    evaluate([str(tmp_path / "run"), "--episodes", "2", "--json"])
    printed = capfd.readouterr()
    assert json.loads(printed.out)["fitness"]["agents"]["mean"] == 4
    assert "a new episode" in printed.err
    assert Corridor.made == Corridor.closed


def test_every_copy_is_closed_where_an_error_ends_it(arguments):
    with pytest.raises(UserError, match="RuntimeError: out of order"):
        train(parse([*arguments, "--env.options", "{fails_at: 3}"])[0])
    assert Corridor.made == Corridor.closed > 3


@pytest.mark.parametrize("seed", [2_147_484, 2**32 - 1])
def test_a_large_seed_is_no_trouble_for_numpys_old_generator(seed):
    seeds = held_out_seeds(1000, seed)
    assert seeds.max() >= 2**32
    world = GymWorld(CORRIDOR, {}, 1, 2, renews=False)
    world.reset(seeds[:2])
    given = [copy.unwrapped.np_random_seed for copy in world.copies()]
    assert all(HELD_OUT <= one < 2**32 for one in given)
    assert len(set(given)) == 2


def test_one_seed_gives_one_run_where_maps_are_drawn_when_they_are_made(arguments, tmp_path):
    lake = [*arguments, "--env.id", "FrozenLake-v1", "--env.codec", "", "--env.options", "{map_name: null}"]
    results = [train(parse([*lake, "--run_dir", str(tmp_path / name)])[0]) for name in ("one", "two")]
    assert results[0] == results[1]
    lineages = [(tmp_path / name / "lineage.jsonl").read_text() for name in ("one", "two")]
    assert lineages[0] == lineages[1]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "class Own:\n    def __init__(self, world):\n        self.map = world.no_such",
            "Own.__init__ raised Attribute",
        ),
        ("raise SystemExit(3)", "terrarium_broken raised SystemExit: 3"),
        ("Own = 1 / 0", "terrarium_broken raised ZeroDivisionError: division by zero"),
        ("class Own(:", "terrarium_broken raised SyntaxError: "),
        ("Own = print", "Own is <built-in function print>"),
    ],
)
def test_a_codec_that_cannot_be_made_is_reported_in_one_sentence(text, says, arguments, tmp_path, monkeypatch, capsys):
    (tmp_path / "terrarium_broken.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "terrarium_broken", raising=False)
    with pytest.raises(SystemExit) as end:
        main([*arguments, "--env.codec", "terrarium_broken:Own"])
    assert end.value.code == 2
    printed = capsys.readouterr().err
    begins = "error: env.codec = 'terrarium_broken:Own': must be package.module:Class, a class of one argument ("
    assert begins + says in printed
    assert "Traceback" not in printed
    assert Corridor.made == Corridor.closed
