"""Mistakes in a codec of one's own are told in one sentence."""

import numpy as np
import pytest

from agents.codecs import PlainCodec
from agents.policy_network import PolicyNetwork
from agents.types import UserError

SEEN = np.array([0.5, None], object)


class Two(PlainCodec):
    action_words = ("left", "right")

    def describe(self, observation):
        return f" {observation} "


def test_texts_begin_with_one_space_and_nobody_is_forbidden_anything():
    codec = Two(None)
    assert codec.encode(SEEN[:1], None) == [" 0.5"]
    assert codec.legal(SEEN).tolist() == [[True, True], [True, True]]


def test_a_codec_must_describe():
    with pytest.raises(UserError, match="PlainCodec has no describe: a codec must write it, or encode"):
        PlainCodec(None).encode(SEEN, None)


def test_a_description_must_be_text():
    codec = Two(None)
    codec.describe = lambda observation: 3
    with pytest.raises(UserError, match=r"Two\.describe gave 3: must be text"):
        codec.encode(SEEN, None)


def test_what_is_allowed_must_have_one_flag_for_each_action():
    codec = Two(None)
    codec.allowed = lambda observation: [True]
    with pytest.raises(UserError, match=r"Two.allowed gave \[True\]: must be 2, one for each action word"):
        codec.legal(SEEN)


def test_action_words_must_differ(tiny_policy):
    codec = Two(None)
    codec.action_words = ("north", "north")
    with pytest.raises(UserError, match="must all be different tokens"):
        PolicyNetwork(tiny_policy.network.base, tiny_policy.network.bank, codec)


def test_somebody_with_nothing_to_do_is_an_error(tiny_policy):
    with pytest.raises(UserError, match="no action is legal after text ' no food'"):
        tiny_policy.act([" no food"], np.array([0]), np.zeros((1, 5), bool), np.random.default_rng(0))
