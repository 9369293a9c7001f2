"""Carrying a `WorldState` around: checking it against a config, copying it, flattening it to one vector.

Every value of a state is a whole number below 2**53, a truth value or a float32, so a float64 vector holds
all of it exactly.
"""

import math

import numpy as np

from envs.types import WorldConfig, WorldState


def layout(config: WorldConfig, worlds: int) -> dict[str, tuple[np.dtype, tuple[int, ...]]]:
    """Return the dtype and shape of each field of the state of `worlds` worlds."""
    size = {"W": worlds, "N": config.agents, "H": config.height, "B": config.width, "2": 2}
    size |= {"K": config.patches, "Q": config.populations}
    return {
        name: (np.dtype(dtype), tuple(size[symbol] for symbol in shape.split()))
        for name, (dtype, shape) in ((n, a.__metadata__) for n, a in WorldState.__annotations__.items())
    }


def checked(config: WorldConfig, state: WorldState) -> WorldState:
    """Return a deep copy of a state that fits the config.

    Raises ValueError where a dtype or shape differs, or something stands outside the grid.
    """
    for name, (dtype, shape) in layout(config, len(state.seed)).items():
        array = getattr(state, name)
        if array.dtype != dtype or array.shape != shape:
            raise ValueError(f"state.{name} is {array.dtype} {array.shape}: must be {dtype} {shape}")
    for name in ("patch", "home", "position"):
        place = getattr(state, name)
        if (place < 0).any() or (place >= (config.height, config.width)).any():
            raise ValueError(f"state.{name} lies outside the {config.height} x {config.width} grid")
    return WorldState(*(array.copy() for array in state))


def flatten(state: WorldState) -> np.ndarray:
    """Return all fields of a state, one after the other, as one (S,) float64 vector."""
    return np.concatenate([array.ravel() for array in state], dtype=np.float64, casting="unsafe")


def unflatten(config: WorldConfig, vector: np.ndarray) -> WorldState:
    """Return the state of one world from its vector, exactly. Raises ValueError where the length differs."""
    parts = layout(config, worlds=1)
    lengths = [math.prod(shape) for _, shape in parts.values()]
    if np.shape(vector) != (sum(lengths),):
        raise ValueError(f"state has shape {np.shape(vector)}: must be {(sum(lengths),)}")
    pieces = np.split(np.asarray(vector), np.cumsum(lengths)[:-1])
    fields = (piece.astype(dtype).reshape(shape) for piece, (dtype, shape) in zip(pieces, parts.values(), strict=True))
    return WorldState(*fields)
