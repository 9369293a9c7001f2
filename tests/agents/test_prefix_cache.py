"""What is recalled is what was read, and the memory keeps to its bound. A fake `read` stands for the model."""

import zlib
from itertools import pairwise
from math import prod

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.prefix_cache import FEWEST_ROWS, MOST_BLOCKS, PrefixCache, ReadText

KEYS_VALUES = (2, 2, 3, 4)  # layers, two, heads, width: what is kept of a token
STATE = (6,)  # width: the same where adapters act on the whole text
TOKEN = 2 * 2 * 3 * 4 * 4  # bytes of the former
PLACES = 8


class Reader:
    """Reads a text of n letters as n tokens, and remembers what it read."""

    def __init__(self, shape):
        self.shape = shape
        self.asked: list[str] = []
        self.truth: dict[str, ReadText] = {}

    def __call__(self, texts):
        return [self.read(text) for text in texts]

    def read(self, text):
        self.asked.append(text)
        generator = torch.Generator().manual_seed(zlib.crc32(text.encode()))
        numbers = torch.randn(*self.shape[:-1], len(text), self.shape[-1], generator=generator)
        self.truth[text] = ReadText(numbers, torch.randn(5, generator=generator))
        return self.truth[text]


def memory_of(places: int, shape: tuple[int, ...] = KEYS_VALUES) -> tuple[PrefixCache, Reader]:
    reader, token = Reader(shape), 4 * prod(shape)
    return PrefixCache(reader, shape, places * token + token - 1), reader


def check_recalled(memory: PrefixCache, reader: Reader, texts: list[str]) -> None:
    recalled = memory.recall(texts)
    *others, width = reader.shape
    asked = torch.cat([block.rows for block in recalled.blocks])
    assert sorted(asked.tolist()) == list(range(len(texts)))
    for block in recalled.blocks:
        own = [texts[i] for i in block.rows.tolist()]
        assert block.lengths.tolist() == [len(text) for text in own]
        assert block.tokens.shape == (*others, len(own), max(map(len, own)), width)
        for row, text in enumerate(own):
            assert torch.equal(block.tokens[..., row, : len(text), :], reader.truth[text].tokens)
    for row, text in enumerate(texts):
        assert torch.equal(recalled.entering[row], reader.truth[text].entering)


def held(memory: PrefixCache) -> list[str]:
    """Texts in memory, the least recently used first."""
    return memory.latest(len(memory))


words = st.integers(0, 11).map(lambda i: "abcdefghijkl"[i] * (1 + i % 4))
calls = st.lists(words, min_size=1, max_size=6)
small_calls = st.lists(words, min_size=1, max_size=6).filter(lambda texts: sum(map(len, set(texts))) <= PLACES)


def test_only_new_texts_are_read_each_once():
    memory, reader = memory_of(50)
    memory.recall(["b", "aa", "b"])
    memory.recall(["b", "ccc", "aa", "d"])
    assert memory.take_counts() == (6, 4)
    memory.entering(["d", "e"])
    assert reader.asked == ["b", "aa", "ccc", "d", "e"]
    assert (memory.take_counts(), memory.take_counts()) == ((2, 1), (0, 0))
    assert len(memory) == 5
    assert memory.bytes_used == 8 * TOKEN


def test_the_least_recently_used_is_forgotten_first():
    memory, reader = memory_of(6)
    for text in ("aa", "bb", "cc"):
        memory.recall([text])
    memory.recall(["aa"])
    memory.entering(["bb"])
    memory.recall(["d"])
    assert held(memory) == ["aa", "bb", "d"]
    memory.recall(["ee"])
    assert held(memory) == ["bb", "d", "ee"]
    memory.recall(["aa"])
    assert reader.asked[-1] == "aa"


def test_no_more_is_forgotten_than_needs_to_be():
    memory, _ = memory_of(6)
    for text in ("a", "bbb", "cc"):
        memory.recall([text])
    memory.recall(["d"])
    assert held(memory) == ["bbb", "cc", "d"]
    memory.recall(["e"])
    assert held(memory) == ["cc", "d", "e"]
    memory.recall(["ff"])
    assert held(memory) == ["cc", "d", "e", "ff"]


@pytest.mark.parametrize("shape", [KEYS_VALUES, STATE])
@settings(max_examples=100, deadline=None)
@given(sequence=st.lists(calls, max_size=12))
def test_what_is_recalled_is_what_was_read_whatever_was_forgotten_between(shape, sequence):
    memory, reader = memory_of(PLACES, shape)
    for texts in sequence:
        check_recalled(memory, reader, texts)


@pytest.mark.parametrize("shape", [KEYS_VALUES, STATE])
@settings(max_examples=100, deadline=None)
@given(sequence=st.lists(small_calls, max_size=15))
def test_bytes_stay_within_the_bound(shape, sequence):
    memory, _ = memory_of(PLACES, shape)
    token = 4 * prod(shape)
    for texts in sequence:
        memory.recall(texts)
        assert memory.bytes_used == token * sum(map(len, held(memory)))
        assert memory.bytes_used <= PLACES * token
        assert set(texts) <= set(held(memory))


def test_many_texts_are_recalled_in_blocks_of_about_one_length():
    memory, reader = memory_of(500)
    texts = ["abcdefghijkl"[i % 12] * (1 + i % 12) for i in range(FEWEST_ROWS * 3)]
    check_recalled(memory, reader, texts)
    lengths = [block.lengths for block in memory.recall(texts).blocks]
    assert [len(some) for some in lengths] == [FEWEST_ROWS] * 3
    assert all(a.max() <= b.min() for a, b in pairwise(lengths))
    assert len(memory.recall(texts[: 2 * FEWEST_ROWS - 1]).blocks) == 1
    assert len(memory.recall(texts * 9).blocks) == MOST_BLOCKS
    alone = PrefixCache(reader, KEYS_VALUES, 500 * TOKEN, most_blocks=1)
    (block,) = alone.recall(texts).blocks
    assert block.rows.tolist() == list(range(len(texts))), "as they were asked for"


def test_a_call_that_alone_exceeds_the_bound_still_works():
    memory, reader = memory_of(4)
    memory.recall(["z", "yy"])
    check_recalled(memory, reader, ["yy", "aaaa", "bbb", "yy", "cc"])
    assert sorted(held(memory)) == ["aaaa", "bbb", "cc", "yy"]
    check_recalled(memory, reader, ["dddd"])
    assert torch.equal(memory.entering(["cc"])[0], reader.truth["cc"].entering)


def test_the_bound_holds_again_after_a_call_that_exceeded_it():
    memory, _ = memory_of(4)
    memory.recall(["aaaa", "bb", "cc"])
    memory.recall(["dd"])
    assert memory.bytes_used <= 4 * TOKEN


def test_a_bound_of_nothing_still_remembers_one_call():
    memory, reader = memory_of(0)
    for texts in (["a"], ["bb", "a"], ["ccc"], ["bb", "bb"]):
        check_recalled(memory, reader, texts)


def test_what_is_cleared_is_read_anew_and_its_places_are_free():
    memory, reader = memory_of(4)
    memory.recall(["aa", "bb"])
    memory.clear()
    assert (len(memory), memory.bytes_used) == (0, 0)
    check_recalled(memory, reader, ["bb", "cc"])
    assert reader.asked == ["aa", "bb", "bb", "cc"]
    assert memory.bytes_used == 4 * TOKEN
