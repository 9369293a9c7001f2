"""What is wrong with a codec, a number of a config or a policy is found before a run begins, or named at once."""

import sys
from dataclasses import fields, is_dataclass, replace
from types import ModuleType

import numpy as np
import pytest

from agents.codecs import PlainCodec
from agents.codecs.forage import ForageCodec
from agents.types import UserError
from envs import WorldConfig
from envs.bots import by_sight, play
from envs.types import Action
from trainers import comparison
from trainers.comparison import Chance, compare
from trainers.env_config import EnvConfig
from trainers.rollout import Outcome
from trainers.variants import FullConfig
from trainers.worlds import make_codec


class Words(PlainCodec):
    """Of FrozenLake."""

    action_words = ("left", "down", "right", "up")

    def describe(self, observation):
        return "goal"


class Whole(ForageCodec):
    """Of the forage world, made with its config."""

    def __init__(self, env):
        super().__init__(env.view_radius)


WRONG = {
    "describe gives nothing": (Words, {"describe": lambda *_: None}, "Wrong.describe gave None: must be text"),
    "describe gives bytes": (Words, {"describe": lambda *_: b"goal"}, "Wrong.describe gave b'goal': must be text"),
    "encode gives nothing": (Words, {"encode": lambda *_: None}, "Wrong.encode = None: must be a list of 1 texts"),
    "encode gives too few": (Words, {"encode": lambda *_: []}, "Wrong.encode = []: must be a list of 1 texts"),
    "legal has another shape": (
        Words,
        {"legal": lambda *_: np.ones(4)},
        "the shape of Wrong.legal = (4,): must be (1, 4), for each observation one for each action word",
    ),
    "encode of our world gives nothing": (
        Whole,
        {"encode": lambda *_: [None] * 20},
        "must be a list of 20 texts, one for each observation",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_codec_is_tried_before_a_run_begins(case, monkeypatch):
    base, methods, says = WRONG[case]
    module = ModuleType("terrarium_wrong")
    module.Wrong, module.Right = type("Wrong", (base,), methods), base
    monkeypatch.setitem(sys.modules, "terrarium_wrong", module)
    world = "forage" if base is Whole else "FrozenLake-v1"
    with pytest.raises(UserError) as raised:
        make_codec(EnvConfig(id=world, codec="terrarium_wrong:Wrong"))
    assert says in str(raised.value)
    make_codec(EnvConfig(id=world, codec="terrarium_wrong:Right"))


def numbers():
    """Section and name of every number of a config, but for the world's."""
    config = FullConfig()
    sections = {"": config} | {f.name: getattr(config, f.name) for f in fields(config)}
    for section, own in sections.items():
        if is_dataclass(own) and section != "env":
            yield from ((section, f.name) for f in fields(own) if type(getattr(own, f.name)) in (int, float))


@pytest.mark.parametrize(("section", "name"), list(numbers()))
def test_every_number_has_bounds(section, name):
    config = FullConfig()
    own = getattr(config, section) if section else config
    for value in (-1e30, 1e30, 10**400, -(10**400), float("nan"), float("inf")):
        with pytest.raises(ValueError, match=rf"{name} = .*: must be "):  # noqa: PT012 # some need the whole config
            replaced = replace(own, **{name: value})
            if section:
                replace(config, **{section: replaced})


def test_a_mean_that_is_not_finite_ends_a_comparison_and_names_whose(monkeypatch):
    def play_one(population, env, seeds, seed, *, bare=False, actor=None):
        reward = np.full((len(seeds), 2), np.inf if isinstance(actor, Chance) else 1, np.float32)
        return Outcome(reward, np.ones_like(reward), reward > 0, {})

    monkeypatch.setattr(comparison, "play", play_one)
    with pytest.raises(UserError, match="fitness of random in held-out worlds = inf: must be finite; rewards may be"):
        compare(None, EnvConfig(id="FrozenLake-v1"), 2, 0)


def test_chance_does_not_act_where_nothing_is_legal():
    legal = np.array([[True, False], [False, False]])
    with pytest.raises(UserError, match="no action is legal after text ' b'"):
        Chance().act([" a", " b"], np.zeros(2), legal, np.random.default_rng(0))


POLICIES = {
    "an action that there is not": (lambda rows: np.full(rows, 7), r"actions\[0, 0\] = 7: must be between 0 and 4"),
    "a negative one": (lambda rows: np.full(rows, -1), r"actions\[0, 0\] = -1: must be between 0 and 4"),
    "no whole numbers": (lambda rows: np.zeros(rows), r"the policy gave float64 \(3,\): must be \(3,\) integers"),
    "too few": (
        lambda rows: np.zeros(1, int),
        r"the policy gave int64 \(1,\): must be \(3,\) integers between 0 and 4",
    ),
    "nothing": (lambda rows: None, r"the policy gave object \(\): must be \(3,\) integers"),
}


@pytest.mark.parametrize("case", POLICIES)
def test_a_policy_of_an_example_that_gives_something_else_than_actions_is_named(case):
    gives, says = POLICIES[case]
    config = WorldConfig(agents=3, max_steps=2)
    with pytest.raises(ValueError, match=says):
        play(by_sight(config, lambda seen, legal: gives(len(seen))), config, [0])
    play(by_sight(config, lambda seen, legal: np.full(len(seen), int(Action.STAY))), config, [0])
