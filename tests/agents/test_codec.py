"""What an agent is told: short, in words that the tokenizer knows, and true."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from agents.codecs.codec import NUMBERS, way
from agents.codecs.forage import ForageCodec
from envs import Action, ForageBatch, WorldConfig

STAY, NORTH, SOUTH, EAST, WEST = Action


def test_the_words_are_the_actions_of_the_world_in_their_order():
    assert [action.name.lower() for action in Action] == list(ForageCodec.action_words)


@pytest.mark.parametrize(
    ("offset", "exact", "rough"),
    [
        ((0, 0), " here", " here"),
        ((-2, 0), " two north", " north"),
        ((1, 0), " one south", " south"),
        ((0, 3), " three east", " east"),
        ((5, -4), " five south four west", " south west"),
    ],
)
def test_a_way_in_words(offset, exact, rough):
    assert way(offset, exact=True) == exact
    assert way(offset, exact=False) == rough


@given(st.tuples(st.integers(-5, 5), st.integers(-5, 5)))
def test_an_exact_way_can_be_walked_back_from_its_words(offset):
    steps = {"north": (-1, 0), "south": (1, 0), "east": (0, 1), "west": (0, -1)}
    words = [w for w in way(offset, exact=True).split() if w != "here"]
    walked = sum(
        (
            NUMBERS.index(count) * np.array(steps[direction])
            for count, direction in zip(*[iter(words)] * 2, strict=True)
        ),
        np.zeros(2, int),
    )
    assert tuple(walked) == offset


@pytest.mark.parametrize(
    ("drawn", "text"),
    [
        ({"food": [(7, 7)], "home": (7, 6)}, " food here"),
        ({"food": [(7, 8)]}, " food east one"),
        ({"food": [(5, 8)]}, " food north three, east three"),
        ({"food": [(5, 8)], "rock": [(6, 7)]}, " food east three"),
        ({"food": [(6, 7), (7, 9)]}, " food north one, east two"),
        ({"food": [(6, 7), (7, 10)]}, " food north one"),
        ({"food": [(6, 7), (8, 7), (7, 6)]}, " food north one, south one"),
        ({"food": [(9, 4)]}, " food south far, west far"),
        ({"food": [(7, 12)], "view_radius": 5}, " food east far"),
        ({"food": [(1, 7), (9, 14)]}, " no food, new north"),
        ({"rock": [(6, 7), (7, 6), (8, 7), (7, 8)]}, " no food"),
    ],
)
def test_texts_of_worlds_drawn_by_hand(walk, drawn, text):
    assert walk(**drawn).text == text


def test_food_out_of_sight_is_told_as_food_in_sight(walk):
    it = walk(food=[(7, 4)])
    assert it.text == " food west three"
    assert it.go(EAST).text == " food west far"
    assert it.go(SOUTH).text == " food north far, west far"


def test_where_food_was_is_told_only_where_there_is_none(walk):
    it = walk(food=[(7, 8), (7, 5)]).go(EAST)
    assert it.text == " food west three"
    it.go(*[EAST] * 10)
    assert it.text == " food west far"
    it.vanish_food().go(*[WEST] * 7)
    assert it.text == " no food, new north"
    assert it.go(*[EAST] * 7, *[STAY] * 6).text == " no food, grown west, new north"


def test_the_border_is_no_way(walk):
    it = walk(position=(0, 0), home=(2, 2))
    assert it.text == " no food, new south"
    assert not it.codec.legal(it.observation)[0, [NORTH, WEST]].any()


def test_a_world_without_nights_knows_no_dusk(walk):
    assert {walk().go(*[STAY] * steps).text for steps in range(25)} == {" no food, new north"}


def test_dusk_tells_the_way_home_first_and_night_nothing_else(walk):
    it = walk(home=(7, 6), food=[(7, 9)], night_length=4)
    assert it.go(*[STAY] * 6).text == " food east two"
    assert it.go(STAY).text == " dusk, home west, food east two"
    assert it.go(STAY, STAY).text == " dusk, home west, food east two"
    assert it.go(STAY).text == " night, home west"
    assert it.go(WEST, STAY, STAY).text == " night, home here"
    assert it.go(STAY).text == " food east three", "the day breaks"


def test_the_way_home_goes_around_rock(walk):
    it = walk(home=(7, 5), rock=[(7, 6), (6, 6), (8, 7)], night_length=4).go(*[STAY] * 10)
    assert it.text == " night, home north"
    assert walk(night_length=4).go(*[STAY] * 10).text == " night"


def random_texts(agents: int, steps: int) -> set[str]:
    codec = ForageCodec(view_radius=3)
    nights = {"day_length": 10, "night_length": 5}
    world = ForageBatch(WorldConfig(agents=agents, rocks=0.3, food=8, cost_step=0.0, food_regrow=0.02, **nights))
    generator = np.random.default_rng(0)
    seen = world.reset([0, 1, 2]).reshape(3 * agents, -1)
    memory, texts = codec.remember(None, seen, np.full(len(seen), -1)), set()
    for _ in range(steps):
        texts.update(codec.encode(seen, memory))
        actions = generator.integers(0, 5, 3 * agents)
        seen = world.step(actions.reshape(3, agents))[0].reshape(3 * agents, -1)
        memory = codec.remember(memory, seen, actions)
    return texts


def test_all_texts_begin_with_a_space_and_use_words_that_the_tokenizer_knows(tiny_model):
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    texts = random_texts(agents=20, steps=60)
    texts |= {way((south, east), exact=exact) for south in range(-5, 6) for east in (-5, 0, 3) for exact in (0, 1)}
    assert 100 < len(texts) < 400
    for kind in (" food", " no food, ", ", grown", ", new", " dusk,", " night,", ", home", " far", " here"):
        assert any(kind in text for text in texts)
    for text in texts:
        assert text[0] == " "
        assert tokenizer.unk_token_id not in tokenizer.encode(text), text


def test_rows_are_encoded_each_on_its_own():
    codec, world = ForageCodec(3), ForageBatch(WorldConfig(agents=30))
    seen = world.reset([4])[0]
    born = np.full(30, -1)
    together = codec.encode(seen, codec.remember(None, seen, born))
    alone = [codec.encode(row[None], codec.remember(None, row[None], born[:1]))[0] for row in seen]
    assert together == alone
    assert len(set(together)) > 5
