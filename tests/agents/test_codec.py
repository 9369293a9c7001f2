"""What an agent is told: short, in words that the tokenizer knows, and true."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from agents.codec import NUMBERS, way
from agents.forage_codec import ForageCodec
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
        ({}, " no food"),
        ({"home": (5, 9)}, " no food, home north east"),
        ({"home": (7, 7)}, " no food, home here"),
        ({"home": (7, 5), "rock": [(7, 6), (6, 7)]}, " no food, home west"),
        ({"food": [(5, 8)]}, " food two north one east"),
        ({"food": [(7, 7)], "home": (7, 6)}, " food here"),
        ({"food": [(5, 8)], "rock": [(6, 7)]}, " food two north one east, rock north"),
        ({"food": [(9, 4)], "rock": [(8, 7), (7, 6)]}, " food two south three west, rock south, rock west"),
        ({"food": [(7, 10)], "rock": [(6, 7), (8, 7), (7, 6), (6, 8)]}, " food three east"),
        ({"food": [(10, 7)], "home": (7, 5), "rock": [(8, 7)]}, " food three south, rock south"),
        ({"food": [(1, 7), (9, 14)]}, " no food"),
        ({"food": [(7, 12)], "view_radius": 5}, " food five east"),
    ],
)
def test_texts_of_worlds_drawn_by_hand(walk, drawn, text):
    assert walk(**drawn).text == text


def test_food_out_of_sight_is_told_as_past_and_by_direction_only(walk):
    it = walk(food=[(7, 4)], rock=[(8, 7)])
    assert it.text == " food three west"
    assert it.go(EAST).text == " food was west"
    assert it.go(SOUTH).text == " food was north west, rock west"
    assert it.go(*[EAST] * 5, SOUTH).text == " food was north west"
    assert it.go(NORTH, NORTH).text == " food was west"


def test_home_is_told_only_where_no_food_is_known(walk):
    it = walk(food=[(7, 8)], home=(7, 6))
    assert it.text == " food one east"
    assert it.go(EAST, SOUTH).text == " no food, going south, home north west"


def test_without_food_an_agent_knows_where_it_was_going_even_after_a_rest(walk):
    it = walk(rock=[(7, 9)])
    assert it.text == " no food"
    assert it.go(EAST).text == " no food, going east, rock east"
    assert it.go(EAST, STAY).text == " no food, going east, rock east"
    assert it.go(NORTH).text == " no food, going north"


def test_the_border_is_told_as_rock(walk):
    assert walk(position=(0, 0), home=(2, 2)).text == " no food, home south east"
    it = walk(position=(3, 0), food=[(0, 0)], view_radius=3).vanish_food()
    assert it.text == " food three north"
    assert not it.codec.legal(it.observation)[0, WEST]


def test_a_world_without_nights_knows_no_dusk(walk):
    assert {walk().go(*[STAY] * steps).text for steps in range(25)} == {" no food"}


def test_dusk_night_and_the_way_home_come_first(walk):
    it = walk(home=(7, 6), food=[(7, 9)], night_length=4)
    assert it.go(*[STAY] * 6).text == " food two east"
    assert it.go(STAY).text == " dusk, home west, food two east"
    assert it.go(STAY, STAY).text == " dusk, home west, food two east"
    assert it.go(STAY).text == " night, home west, food two east"
    assert it.go(WEST, STAY, STAY).text == " night, home here, food three east"
    assert it.go(STAY).text == " food three east", "the day breaks"


def test_at_night_rock_on_the_way_home_is_told_before_rock_on_the_way_to_food(walk):
    it = walk(home=(7, 5), food=[(5, 7)], rock=[(7, 6), (6, 7)], night_length=4)
    assert it.text == " food two north, rock north"
    assert it.go(*[STAY] * 10).text == " night, home west, rock west, food two north, rock north"
    assert walk(night_length=4).go(*[STAY] * 10).text == " night, no food"


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
    assert len(texts) > 100
    for kind in (" food was", " no food, going", ", home", ", rock", " dusk,", " night,"):
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
