"""One seed fixes everything, and streams do not disturb each other."""

import json

import pytest

from envs import HELD_OUT
from trainers.seeding import STREAMS, named_streams, restore_streams, stream_states, world_seeds


def test_streams_follow_from_the_seed_and_differ_by_name():
    one, same, other = named_streams(5), named_streams(5), named_streams(6)
    first = {name: one[name].random() for name in STREAMS}
    assert first == {name: same[name].random() for name in STREAMS}
    assert len(set(first.values())) == len(STREAMS)
    assert all(first[name] != other[name].random() for name in STREAMS)


def test_a_population_that_is_older_meets_other_worlds():
    drawn = {age: world_seeds(named_streams(5, age)["world"], 20).tolist() for age in (0, 1, 2)}
    assert len({seed for seeds in drawn.values() for seed in seeds}) == 60
    assert drawn[1] == world_seeds(named_streams(5, 1)["world"], 20).tolist()
    assert drawn[1] != world_seeds(named_streams(6, 1)["world"], 20).tolist()


def test_a_restored_stream_goes_on_where_it_was_even_through_json():
    streams = named_streams(3)
    streams["policy"].random(17)
    states = json.loads(json.dumps(stream_states(streams)))
    restored = restore_streams(states)
    assert streams["policy"].random() == restored["policy"].random()
    assert streams["world"].random() == restored["world"].random()


def test_a_missing_stream_is_an_error():
    states = stream_states(named_streams(0))
    del states["policy"]
    with pytest.raises(ValueError, match="random streams"):
        restore_streams(states)


def test_training_never_gets_a_held_out_layout():
    assert world_seeds(named_streams(0)["world"], 10_000).max() < HELD_OUT
