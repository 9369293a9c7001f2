"""One seed for everything random in a run, split into named streams in one place."""

import zlib

import numpy as np

STREAMS = ("world", "fitness", "policy", "learner", "evolution")


def named_streams(seed: int, age: int = 0) -> dict[str, np.random.Generator]:
    """Independent generators by name. A stream follows from seed, age and its own name alone, not from the others.

    age: generations that a population lived in other runs. With the same seed it would meet their worlds again.
    """
    entropy = [seed, age] if age else [seed]
    return {name: np.random.default_rng([*entropy, zlib.crc32(name.encode())]) for name in STREAMS}


def stream_states(streams: dict[str, np.random.Generator]) -> dict[str, dict]:
    """The states of the streams, as plain numbers for JSON."""
    return {name: dict(stream.bit_generator.state) for name, stream in streams.items()}


def restore_streams(states: dict[str, dict]) -> dict[str, np.random.Generator]:
    """Streams that go on where `stream_states` was taken; ValueError if one is missing."""
    streams = named_streams(0)
    if states.keys() != streams.keys():
        raise ValueError(f"random streams are {sorted(states)}: must be {sorted(streams)}")
    for name, state in states.items():
        streams[name].bit_generator.state = state
    return streams


def world_seeds(stream: np.random.Generator, count: int) -> np.ndarray:
    """Seeds (count,) of new training worlds, from the range that training may use."""
    return stream.integers(2**31, size=count)
