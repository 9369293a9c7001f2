"""What a run folder holds, as plain values fit for JSON. Reads a running, a finished and an interrupted run alike.

Never imports torch and never writes. A line that is still being written is left out; files that are missing are as
good as empty; ValueError for those that are damaged. No path comes from outside: the names of files are made here of
known words and whole numbers.
"""

import base64
import json
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from agents.codecs.forage import ForageCodec
from agents.codecs.forage_map import NEVER, ForageMap
from envs.observe import observe
from envs.rendering.terminal import is_fertile, one_world
from envs.types import is_night
from trainers.cli.parser import read_config
from trainers.config import TrainConfig
from trainers.lineage import champion_of, family_tree, generations, line_of, read_events
from trainers.records.episode import Recording, generation_of, read_recording, states

KINDS = ("rollout", "held_out")
"""What is recorded: a rollout from which agents learned, and an episode in a held-out world, the same for all runs."""
PATIENCE = 3.0
"""A run that has been silent for so many of its longest generations counts as interrupted."""
LEAST_PATIENCE_S = 60.0
MOST_BYTES = 64 << 20
"""A file larger than this is not one of ours."""


class Run:
    """A run folder. Raises UserError where it is none."""

    def __init__(self, folder: Path):
        self.folder = folder.resolve()
        self.name = folder.name or self.folder.name
        self._config = (self._config_stamp(), read_config(self.folder))
        self._lines: dict[str, tuple[float, int, list[dict[str, Any]]]] = {}

    def config(self) -> TrainConfig:
        """As it is now, read anew when the file has changed: a resumed run can have got more generations."""
        stamp = self._config_stamp()
        if stamp != self._config[0]:
            self._config = (stamp, read_config(self.folder))
        return self._config[1]

    def _config_stamp(self) -> float:
        file = self.folder / "config.yaml"
        return file.stat().st_mtime if file.is_file() else 0.0

    def overview(self) -> dict[str, Any]:
        """What the run is, how far it has come, and whether it goes on."""
        config, metrics = self.config(), self.lines("metrics")
        world = config.env
        return {
            "name": self.name,
            "seed": config.seed,
            "preset": " + ".join([world.preset, *world.also]) if world.is_forage else world.id,
            "model": config.model.name,
            "algorithm": config.learn.algorithm,
            "evolves": config.evolution.enabled,
            "agents": world.agents,
            "generations": config.generations,
            "done": len(metrics),
            "status": self._status(metrics),
            "is_forage": world.is_forage,
            "records": config.log.recordings_mb > 0,
            "baselines": self._baselines(),
        }

    def _status(self, metrics: list[dict[str, Any]]) -> str:
        """running, finished or interrupted."""
        if (self.folder / "results.json").is_file():
            return "finished"
        stamps = [file.stat().st_mtime for file in (self._file("metrics"), self.folder / "run.json") if file.is_file()]
        longest = max((line["wall_s"] for line in metrics), default=0.0)
        silence = time.time() - max(stamps, default=0.0)
        return "running" if silence < max(LEAST_PATIENCE_S, PATIENCE * longest) else "interrupted"

    def _baselines(self) -> dict[str, dict[str, float]]:
        """By figure and by who, the mean in held-out worlds, known from the first generation on."""
        first = self._json("first.json")
        keys = ("fitness", "food_eaten", "lifetime")
        means = {key: {who: row["mean"] for who, row in first.get(key, {}).items()} for key in keys}
        return {key: {who: mean for who, mean in row.items() if who != "agents"} for key, row in means.items() if row}

    def lines(self, name: str) -> list[dict[str, Any]]:
        """The whole lines of metrics.jsonl, lineage.jsonl or adapters.jsonl; read anew when the file has changed."""
        file = self._file(name)
        if not self._is_readable(file):
            return []
        status = file.stat()
        known = self._lines.get(name)
        if not known or known[:2] != (status.st_mtime, status.st_size):
            known = self._lines[name] = (status.st_mtime, status.st_size, read_events(file))
        return known[2]

    def lineage(self) -> dict[str, Any]:
        """Everybody who lived, with parents and fitness by generation, and the champion's line."""
        tree = family_tree(self.lines("lineage"))
        nodes = [{"id": one, **about, "parents": list(tree.predecessors(one))} for one, about in tree.nodes(data=True)]
        champion = line_of(tree, champion_of(tree)) if generations(tree) else []
        return {"nodes": nodes, "champion": champion}

    def recordings(self) -> list[dict[str, Any]]:
        """Kind and generation of each recording, by generation."""
        files = (self.folder / "recordings").glob("*.safetensors")
        found = [(generation_of(file), file.stem.rpartition("_")[0]) for file in files]
        return [{"kind": kind, "generation": generation} for generation, kind in sorted(found) if kind in KINDS]

    def recording(self, kind: str, generation: int) -> Recording:
        """A recorded episode; FileNotFoundError if there is none, ValueError if it is damaged."""
        file = self.folder / "recordings" / f"{kind}_{generation:04d}.safetensors"
        if kind not in KINDS or not self._is_readable(file):
            raise FileNotFoundError(f"{self.name} has no recording of that kind and generation")
        return read_recording(file)

    def stamps(self) -> dict[str, tuple[int, int]]:
        """When each part was last written, and how long it is, for whoever waits for news."""
        parts = {name: self._file(name) for name in ("metrics", "lineage", "adapters")}
        parts |= {"recordings": self.folder / "recordings", "results": self.folder / "results.json"}
        parts |= {"first": self.folder / "first.json"}
        stamps = {}
        for name, file in parts.items():
            with suppress(OSError):  # not there, or not there any more
                status = file.stat()
                stamps[name] = (status.st_mtime_ns, status.st_size)
        return stamps

    def _file(self, name: str) -> Path:
        return self.folder / f"{name}.jsonl"

    def _json(self, name: str) -> dict[str, Any]:
        file = self.folder / name
        try:
            return json.loads(file.read_text(encoding="utf-8")) if self._is_readable(file) else {}
        except ValueError:
            return {}

    def _is_readable(self, file: Path) -> bool:
        """Whether it is a file of moderate size in the run folder, and no link that leads out of it."""
        inside = file.resolve().is_relative_to(self.folder)
        return inside and file.is_file() and file.stat().st_size <= MOST_BYTES


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
