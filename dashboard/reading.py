"""What a run folder holds, as plain values fit for JSON. Reads a running, a finished and an interrupted run alike.

Never imports torch and never writes. A line that is still being written is left out; files that are missing are as
good as empty; Damaged for those that cannot be read, and what else there is of the run is read all the same. No path
comes from outside: the names of files are made here of known words and whole numbers. Only plain files of moderate
size are opened: no links, pipes or devices.
"""

import base64
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

import numpy as np

from agents.codecs.forage import ForageCodec
from agents.codecs.forage_map import NEVER, ForageMap
from envs.observe import observe
from envs.rendering.terminal import is_fertile, one_world
from envs.types import is_night
from trainers.cli.parser import read_config
from trainers.config import TrainConfig
from trainers.lineage import champion_of, family_tree, generations, line_of
from trainers.records.episode import KINDS, Recording, name_of, read_recording, recordings_in, states
from trainers.records.reading import check_written, read_log, vouching
from trainers.records.sealed import read_document

PATIENCE = 3.0
"""A run that has been silent for so many of its longest generations counts as interrupted."""
LEAST_PATIENCE_S = 60.0
MIB = 2**20
MOST_BYTES = 64 * MIB
"""A file larger than this is not read."""
MOST_OF_EPISODE = 16 * MIB
"""Nor is a recording larger than this: in memory, and on its way to a page, it takes ten times as much."""
MOST_LETTERS = 300
"""Of a sentence that says what is damaged."""
TROUBLE = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError, OSError)
"""What reading can end with where a file may hold anything."""

Stamp = tuple[int, int, int]
"""When a file was last written, its length and its number."""
Stamps = tuple[Stamp | None, ...]
"""Of several files; None for one that is missing."""


class Damaged(ValueError):
    """A part of a run that cannot be read; its one sentence says which file, and why."""


class Finding(NamedTuple):
    """That a file could not be read when it, and what the run says of it elsewhere, had these stamps."""

    stamps: Stamps
    sentence: str
    is_lasting: bool  # until one of them changes; the system's own errors may pass


class Run:
    """A run folder. Raises UserError where it is none; one that is damaged is read as far as that goes."""

    def __init__(self, folder: Path):
        self.folder = folder.resolve()
        self.name = _plain_text(folder.name or self.folder.name)
        self.found: dict[str, Finding] = {}
        self._known: dict[str, tuple[Stamp | None, Any]] = {}
        if not self.folder.is_dir() or all(self.stamp(name) is None for name in ("config.yaml", "run.json")):
            read_config(self.folder)  # says that this is no run

    def config(self) -> TrainConfig:
        """As it is now, read anew when the file has changed: a resumed run can have got more generations."""
        config: TrainConfig = self._read("config.yaml", lambda file: read_config(file.parent))
        return config

    def overview(self) -> dict[str, Any]:
        """What the run is, how far it has come, whether it goes on, and what of it is damaged.

        What a damaged file would have said is left out.
        """
        about: dict[str, Any] = {"name": self.name, "done": 0, "baselines": {}, "is_forage": True, "records": True}
        for part in (self._settings, self._progress, self._baselines):
            with suppress(Damaged):  # `damage` says so
                about |= part()
        self._check_rest()
        return about | {"status": self._status(), "damage": damage(self)}

    def _settings(self) -> dict[str, Any]:
        config = self.config()
        world = config.env
        return {
            "seed": config.seed,
            "preset": " + ".join([world.preset, *world.also]) if world.is_forage else world.id,
            "model": config.model.name,
            "algorithm": config.learn.algorithm,
            "evolves": config.evolution.enabled,
            "agents": world.agents,
            "generations": config.generations,
            "is_forage": world.is_forage,
            "records": config.log.recordings_mb > 0,
        }

    def _progress(self) -> dict[str, Any]:
        return {"done": len(self.lines("metrics"))}

    def _status(self) -> str:
        """running, finished or interrupted."""
        if self.stamp("results.json"):
            return "finished"
        longest, stamps = 0.0, [self.stamp("metrics.jsonl"), self.stamp("run.json")]
        with suppress(Damaged):
            seconds = [line.get("wall_s") for line in self.lines("metrics")]
            longest = max((one for one in seconds if _is_number(one)), default=0.0)
        silence = time.time() - max((stamp[0] for stamp in stamps if stamp), default=0) / 1e9
        return "running" if silence < max(LEAST_PATIENCE_S, PATIENCE * longest) else "interrupted"

    def _baselines(self) -> dict[str, Any]:
        """By figure and by who, the mean in held-out worlds, known from the first generation on."""
        first = self._json("first.json")
        if not first:
            return {}
        with self._noting("first.json"):
            return {"baselines": _means(first)}

    def _check_rest(self) -> None:
        """Read what is of no use here, only to find whether it is damaged."""
        for name in ("run.json", "results.json"):
            with suppress(Damaged):
                self._json(name)
        with suppress(Damaged), self._noting("config.yaml") as file:  # `config` is content with a checkpoint's copy
            read_document(file, str)

    def lines(self, name: str) -> list[dict[str, Any]]:
        """The whole lines of metrics.jsonl, lineage.jsonl or adapters.jsonl; read anew when the file has changed."""
        lines: list[dict[str, Any]] = self._read(f"{name}.jsonl", _lines, missing=[])
        return lines

    def lineage(self) -> dict[str, Any]:
        """Everybody who lived, with parents and fitness by generation, and the champion's line."""
        events = self.lines("lineage")
        if not events:
            return {"nodes": [], "champion": []}
        with self._noting("lineage.jsonl"):
            return _family(events)

    def recordings(self) -> list[dict[str, Any]]:
        """Kind and generation of each recording, by generation."""
        found = sorted((generation, kind) for kind, generation in recordings_in(self.folder / "recordings"))
        return [{"kind": kind, "generation": generation} for generation, kind in found]

    def recording(self, kind: str, generation: int) -> Recording:
        """A recorded episode; FileNotFoundError if there is none, Damaged if it cannot be read."""
        name = f"recordings/{name_of(kind, generation)}"
        if kind not in KINDS or not self.stamp(name):
            raise FileNotFoundError(f"{self.name} has no recording of that kind and generation")
        with self._noting(name, MOST_OF_EPISODE) as file:
            check_written(self.folder, file)
            return read_recording(file)

    def stamps(self) -> dict[str, Stamp]:
        """When each part was last written, and how long it is, for whoever waits for news."""
        names = {name: f"{name}.jsonl" for name in ("metrics", "lineage", "adapters")}
        names |= {"recordings": "recordings", "results": "results.json", "first": "first.json"}
        stamps = {part: self.stamp(name) for part, name in names.items()}
        return {part: stamp for part, stamp in stamps.items() if stamp}

    def stamp(self, name: str | Path) -> Stamp | None:
        """Of a file in the run folder; None where there is none, or none any more."""
        with suppress(OSError):
            status = (self.folder / name).lstat()
            return status.st_mtime_ns, status.st_size, status.st_ino
        return None

    def stamps_behind(self, name: str) -> Stamps:
        """Of a file, and of what tells whether it is as the run wrote it: the manifest and the newest checkpoint."""
        with suppress(OSError):
            return self.stamp(name), *(self.stamp(file) for file in vouching(self.folder))
        return (self.stamp(name),)

    def _json(self, name: str) -> dict[str, Any]:
        content: dict[str, Any] = self._read(name, _json, missing={})
        return content

    def _read(self, name: str, read: Callable[[Path], Any], missing: Any = None) -> Any:
        """What `read` makes of a file, anew when it has changed; `missing`, unless None, where there is none."""
        stamp = self.stamp(name)
        if not stamp and missing is not None:
            return missing
        if name not in self._known or self._known[name][0] != stamp:
            with self._noting(name) as file:
                self._known[name] = stamp, read(file)
        return self._known[name][1]

    @contextmanager
    def _noting(self, name: str, most: int = MOST_BYTES) -> Iterator[Path]:
        """Within the block a file is read; what goes wrong is Damaged, and found."""
        stamps, finding = self.stamps_behind(name), self.found.get(name)
        if finding and finding.is_lasting and finding.stamps == stamps:
            raise Damaged(finding.sentence)
        try:
            yield self._plain_file(name, most)
        except TROUBLE as error:
            sentence = self._sentence(name, error)
            self.found[name] = Finding(stamps, sentence, not _is_of_system(error))
            raise Damaged(sentence) from error
        self.found.pop(name, None)

    def _plain_file(self, name: str, most: int) -> Path:
        """Its path; ValueError where it is no plain file in this folder, or too large; OSError where it is missing."""
        file = self.folder / name
        status = file.lstat()
        if not stat.S_ISREG(status.st_mode) or file.resolve() != file:
            raise ValueError("must be a plain file, no link, pipe or device")
        if status.st_size > most:
            raise ValueError(f"{status.st_size / MIB:.0f} MiB; the page reads at most {most // MIB}")
        return file

    def _sentence(self, name: str, error: Exception) -> str:
        """What is wrong with a file, without saying where on this machine it is."""
        text = " ".join(str(error).split()).replace(f"{self.folder}/", "").replace(str(self.folder), self.name)
        if isinstance(error, OSError):
            text = "missing" if isinstance(error, FileNotFoundError) else f"cannot be read ({error.strerror})"
        elif isinstance(error, KeyError):
            text = f"lacks {text}"
        elif not isinstance(error, ValueError):
            text = f"does not hold what it should ({text})"
        return _plain_text(text if text.startswith(name) else f"{name}: {text}")[:MOST_LETTERS]


def damage(run: Run) -> list[str]:
    """What of a run is damaged, each a sentence that names the file: as far as it was read and is unchanged since."""
    found = sorted(run.found.items())
    return [finding.sentence for name, finding in found if finding.stamps == run.stamps_behind(name)]


def _is_of_system(error: BaseException | None) -> bool:
    """Whether the system could not read a file, whatever was made of its error on the way."""
    return error is not None and (isinstance(error, OSError) or _is_of_system(error.__cause__))


def _plain_text(text: str) -> str:
    """Without halves of characters, as names of files may have them, and which no answer can hold."""
    return text.encode("utf-8", "replace").decode()


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)


def _json(file: Path) -> dict[str, Any]:
    return read_document(file, dict[str, Any])


def _lines(file: Path) -> list[dict[str, Any]]:
    return read_log(file.parent, file.name)


def _family(events: Iterable[dict[str, Any]]) -> dict[str, Any]:
    tree = family_tree(events)
    nodes = [{"id": one, **about, "parents": list(tree.predecessors(one))} for one, about in tree.nodes(data=True)]
    champion = line_of(tree, champion_of(tree)) if generations(tree) else []
    return {"nodes": nodes, "champion": champion}


def _means(first: dict[str, Any]) -> dict[str, dict[str, float]]:
    """By figure and by who else than the agents, the means of a comparison."""
    means: dict[str, dict[str, float]] = {}
    for key in [key for key in ("fitness", "food_eaten", "success", "lifetime") if first.get(key)]:
        means[key] = {who: row["mean"] for who, row in first[key].items() if who != "agents"}
        for who, mean in means[key].items():
            if not _is_number(mean):
                raise ValueError(f"{key} of {who} = {mean!r}: must be a finite number")
    return means


def film(recording: Recording) -> dict[str, Any]:
    """A recording for a page: what is needed to draw it, with arrays as base64 of whole bytes, row by row."""
    world = recording.world
    steps = np.arange(len(recording.position))
    arrays = {
        "rock": recording.rock,
        "fertile": is_fertile(world, one_world(states(recording), 0)) & ~recording.rock,
        "food": recording.food,
        "position": recording.position,
        "energy": np.rint(255 * recording.energy.astype(np.float32) / world.energy_max).clip(0, 255),
        "is_alive": recording.is_alive,
        "food_eaten": recording.food_eaten.clip(0, 255),
        "action": recording.action,
        "probability": recording.probability,
        "night": is_night(world, steps) if world.night_length else np.zeros(len(steps), bool),
    }
    bytes_of = {name: base64.b64encode(array.astype(np.uint8).tobytes()).decode() for name, array in arrays.items()}
    wide = {"text": recording.text.astype("<u4"), "value": recording.value.astype("<f4")}
    bytes_of |= {name: base64.b64encode(array.tobytes()).decode() for name, array in wide.items()}
    return {
        "generation": recording.generation,
        "height": world.height,
        "width": world.width,
        "agents": world.agents,
        "populations": world.populations,
        "energy_max": world.energy_max,
        "view_radius": world.view_radius,
        "steps": len(recording.text),
        "ids": recording.ids,
        "texts": recording.texts,
        "home": recording.home.tolist(),
        "actions": list(ForageCodec.action_words),
        "instructions": ForageCodec.instructions,
        "arrays": bytes_of,
    }


def remembered(recording: Recording, agent: int) -> dict[str, Any]:
    """The map that an agent keeps when it reads, for each step as rows of letters: it follows from what it saw and did.

    # rock, f food, g bare where food grew, h home, . free, a space for what was never seen. Raises ValueError where
    there is no such agent.
    """
    world = recording.world
    if not 0 <= agent < world.agents:
        raise ValueError(f"agent {agent}: must be below {world.agents}")
    codec, memory, maps = ForageCodec(world.view_radius), None, []
    seen = observe(world, states(recording))[:, agent : agent + 1]  # (T + 1, 1, O)
    action, is_born = np.append(-1, recording.action[:, agent].astype(int)), recording.lifetime[:, agent] == 0
    for t in range(len(seen)):
        memory = codec.remember(memory, seen[t], np.where(is_born[t], -1, action[t : t + 1]))
        maps.append(_letters(memory))
    return {"maps": maps}


def _letters(memory: ForageMap) -> list[str]:
    letters = np.full(memory.age.shape[1:], ".")
    letters[memory.age[0] == NEVER] = " "
    for plane, letter in ((memory.grew, "g"), (memory.food, "f"), (memory.home, "h"), (memory.rock, "#")):
        letters[plane[0]] = letter
    return ["".join(row) for row in letters]
