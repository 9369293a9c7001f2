"""An episode as it happened in one world: small enough to keep one of every generation, complete enough to look at.

What agents remembered is not in it, because it follows from what they saw and did (`ForageCodec.remember`). Never
imports torch: whoever only looks at a run should not wait for it.

Symbols: T steps, N agents, H rows, B columns, Q populations, K patches, A actions.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from agents.files import whole_file
from envs.types import WorldConfig, WorldState

if TYPE_CHECKING:
    from trainers.rollout import Rollout

FORMAT = "1"
MIB = 2**20


class Recording(NamedTuple):
    """An episode in one world. Row t of what has T + 1 rows is before step t, the last one is the end."""

    world: WorldConfig
    generation: int
    ids: list[int]  # who has the slots 0 to N - 1
    texts: list[str]  # the distinct ones, by number
    seed: np.ndarray  # () uint64, of the world
    rock: np.ndarray  # (H, B) bool
    home: np.ndarray  # (Q, 2)
    patch: np.ndarray  # (K, 2)
    food: np.ndarray  # (T + 1, H, B) bool
    position: np.ndarray  # (T + 1, N, 2)
    energy: np.ndarray  # (T + 1, N) float16
    is_alive: np.ndarray  # (T + 1, N) bool
    food_eaten: np.ndarray  # (T + 1, N) items since birth
    lifetime: np.ndarray  # (T + 1, N) steps since birth; 0 also in the middle, where somebody was born then
    text: np.ndarray  # (T, N) the number of what each read; of the dead it means nothing, as all below
    action: np.ndarray  # (T, N)
    probability: np.ndarray  # (T, N, A) uint8, of each action when it was chosen, in 1 / 255
    value: np.ndarray  # (T, N) float16, the critic's estimate


_ARRAYS = Recording._fields[Recording._fields.index("seed") :]
_SMALL = {"home": np.int16, "patch": np.int16, "position": np.uint8, "action": np.uint8}


def recorded(
    rollout: "Rollout", states: Sequence[WorldState], config: WorldConfig, ids: Sequence[int], generation: int
) -> Recording:
    """What happened in the first world of a rollout; states: before each step and at the end; ids: of its N agents."""
    first = [WorldState(*(field[0] for field in state)) for state in states]
    columns = {name: np.stack([getattr(s, name) for s in first]) for name in _OF_STATE}
    t, agents = rollout.trajectory, len(ids)
    wide = np.uint16 if max(len(t.texts), len(first)) <= np.iinfo(np.uint16).max else np.uint32
    columns |= {name: columns[name].astype(wide) for name in ("food_eaten", "lifetime")}
    columns |= {
        "text": t.text[:, :agents].astype(wide),
        "action": t.action[:, :agents],
        "probability": np.rint(255 * np.exp(rollout.log_probs[:, :agents])).astype(np.uint8),
        "value": t.value[:, :agents].astype(np.float16),
        "energy": columns["energy"].astype(np.float16),
    }
    start = {name: getattr(first[0], name) for name in ("seed", "rock", "home", "patch")}
    small = {name: array.astype(_SMALL.get(name, array.dtype)) for name, array in (columns | start).items()}
    world = WorldConfig(**{key: getattr(config, key) for key in asdict(WorldConfig())})
    return Recording(world, generation, list(ids), t.texts, **small)


_OF_STATE = ("food", "position", "energy", "is_alive", "food_eaten", "lifetime")


def states(recording: Recording) -> WorldState:
    """The states before each step and at the end, as if they were T + 1 worlds; energies have half precision."""
    rows = len(recording.position)

    def everywhere(array: np.ndarray) -> np.ndarray:
        return np.broadcast_to(array, (rows, *array.shape))

    return WorldState(
        seed=everywhere(recording.seed),
        step=np.arange(rows, dtype=np.int32),
        rock=everywhere(recording.rock),
        food=recording.food,
        patch=everywhere(recording.patch.astype(np.int64)),
        home=everywhere(recording.home.astype(np.int64)),
        position=recording.position.astype(np.int64),
        energy=recording.energy.astype(np.float32),
        is_alive=recording.is_alive,
        food_eaten=recording.food_eaten.astype(np.int32),
        lifetime=recording.lifetime.astype(np.int32),
    )


def write_recording(recording: Recording, file: Path) -> None:
    """Write a recording: it is there whole, or not at all."""
    arrays = {name: np.asarray(getattr(recording, name), order="C") for name in _ARRAYS}
    arrays["food"] = np.packbits(recording.food, axis=-1)
    about = {"world": asdict(recording.world), "generation": recording.generation}
    about |= {"ids": recording.ids, "texts": recording.texts}
    with whole_file(file) as partial:
        partial.write_bytes(save(arrays, {"format": FORMAT, "about": json.dumps(about)}))


def read_recording(file: Path) -> Recording:
    """Read a recording; ValueError, naming the file, if it is none or of another version."""
    try:
        with safe_open(file, "numpy") as tensors:
            metadata = tensors.metadata()
            arrays = {name: tensors.get_tensor(name) for name in _ARRAYS}
        if metadata["format"] != FORMAT:
            raise ValueError(f"format {metadata['format']}: must be {FORMAT}")
        about = json.loads(metadata["about"])
        world = WorldConfig(**about.pop("world"))
    except (SafetensorError, KeyError, TypeError, ValueError, OSError) as error:
        raise ValueError(f"{file}: no recording that can be read ({error})") from error
    arrays["food"] = np.unpackbits(arrays["food"], axis=-1, count=world.width).astype(bool)
    return Recording(world, **about, **arrays)


def prune_recordings(folder: Path, megabytes: float) -> None:
    """Delete the oldest recordings, those of the lowest generations, until the rest takes no more than so much."""
    files = sorted(folder.glob("*.safetensors"), key=lambda file: (generation_of(file), file.name), reverse=True)
    total = 0.0
    for file in files:
        total += file.stat().st_size / MIB
        if total > megabytes:
            file.unlink()


def generation_of(file: Path) -> int:
    """The generation in a recording's name, kind_0003.safetensors."""
    return int(file.stem.rpartition("_")[2])
