"""An episode as it happened in one world: small enough to keep one of every generation, complete enough to look at.

What agents remembered is not in it, because it follows from what they saw and did (`ForageCodec.remember`). Never
imports torch: whoever only looks at a run should not wait for it.

Symbols: T steps, N agents, H rows, B columns, Q populations, K patches, A actions.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from agents.files import whole_file
from envs.types import Action, WorldConfig, WorldState

if TYPE_CHECKING:
    from trainers.rollout import Rollout

FORMAT = "1"
MIB = 2**20
KINDS = ("rollout", "held_out")
"""What is recorded: a rollout from which agents learned, and an episode in a held-out world, the same for all runs."""
_NAME = re.compile(rf"({'|'.join(KINDS)})_([0-9]{{4,9}})\.safetensors")


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
    """Read a recording; ValueError, naming the file, if it is none, of another version, or does not fit together."""
    try:
        with safe_open(file, "numpy") as tensors:
            metadata = tensors.metadata()
            arrays = {name: tensors.get_tensor(name) for name in _ARRAYS}
        if metadata["format"] != FORMAT:
            raise ValueError(f"format {metadata['format']}: must be {FORMAT}")
        about = json.loads(metadata["about"])
        world = WorldConfig(**about.pop("world"))
        recording = Recording(world, **about, **arrays)
        _require_shapes(recording)
        food = np.unpackbits(recording.food, axis=-1, count=world.width).astype(bool)
        recording = recording._replace(food=food)
        _require_ranges(recording)
        if file.name not in [name_of(kind, recording.generation) for kind in KINDS]:
            raise ValueError(f"generation = {recording.generation!r}: must be that of its name")
    except (SafetensorError, KeyError, TypeError, ValueError, AttributeError, RecursionError, OSError) as error:
        raise ValueError(f"{file}: no recording that can be read ({error})") from error
    return recording


def _require_shapes(recording: Recording) -> None:
    """ValueError where an array, as it is stored, is not of the numbers and axes that this world makes.

    A small file cannot claim to be a large episode: no array becomes more than eight times as large as it is stored.
    """
    world, steps = recording.world, len(recording.text) if recording.text.ndim else 0
    each, after, wide = (steps, world.agents), (steps + 1, world.agents), "uint16 uint32"
    expected: dict[str, tuple[str, tuple[int, ...]]] = {
        "seed": ("uint64", ()),
        "rock": ("bool", (world.height, world.width)),
        "home": ("int16", (world.populations, 2)),
        "patch": ("int16", (world.patches, 2)),
        "food": ("uint8", (steps + 1, world.height, -(-world.width // 8))),  # eight cells in a byte
        "position": ("uint8", (*after, 2)),
        "energy": ("float16", after),
        "is_alive": ("bool", after),
        "food_eaten": (wide, after),
        "lifetime": (wide, after),
        "text": (wide, each),
        "action": ("uint8", each),
        "probability": ("uint8", (*each, len(Action))),
        "value": ("float16", each),
    }
    for name, (kinds, shape) in expected.items():
        array = getattr(recording, name)
        if array.dtype.name not in kinds.split() or array.shape != shape:
            allowed = f"{' or '.join(kinds.split())} of shape {shape}"
            raise ValueError(f"{name} is {array.dtype.name} of shape {array.shape}: must be {allowed}")


def _require_ranges(recording: Recording) -> None:
    """ValueError where a number means nothing: a place outside the world, a text or an action that there is not."""
    world, places = recording.world, (recording.world.height, recording.world.width)
    for name, kind, length in (("ids", int, world.agents), ("texts", str, len(recording.texts))):
        values = getattr(recording, name)
        if not (isinstance(values, list) and len(values) == length and all(type(one) is kind for one in values)):
            raise ValueError(f"{name}: must be a list of {length} {kind.__name__}")
    bounds = {"position": places, "home": places, "text": len(recording.texts), "action": len(Action)}
    for name, bound in bounds.items():
        array = getattr(recording, name)
        if (array < 0).any() or (array >= np.array(bound)).any():
            raise ValueError(f"{name} is between {array.min()} and {array.max()}: must be from 0 to below {bound}")
    for name in ("energy", "value"):
        if np.isnan(getattr(recording, name)).any():
            raise ValueError(f"{name}: must not be NaN")


def prune_recordings(folder: Path, megabytes: float) -> None:
    """Delete the oldest recordings, those of the lowest generations, until the rest takes no more than so much.

    What is not named as a recording is not ours, and is left alone.
    """
    files = {folder / name_of(*one): one for one in recordings_in(folder)}
    total = 0.0
    for file in sorted(files, key=lambda file: (files[file][1], file.name), reverse=True):
        total += file.stat().st_size / MIB
        if total > megabytes:
            file.unlink()


def recordings_in(folder: Path) -> list[tuple[str, int]]:
    """Kind and generation of each recording in a folder, in no order; none where there is no such folder."""
    names = [_NAME.fullmatch(file.name) for file in folder.glob("*.safetensors") if file.is_file()]
    return [(name[1], int(name[2])) for name in names if name and name[0] == name_of(name[1], int(name[2]))]


def name_of(kind: str, generation: int) -> str:
    """The file name of a recording, as rollout_0003.safetensors."""
    return f"{kind}_{generation:04d}.safetensors"
