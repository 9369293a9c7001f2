"""What a run writes while it goes on: its logs, and TensorBoard."""

import io
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import numpy as np
from PIL import Image
from tensorboard.compat.proto import summary_pb2
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from torch.utils.tensorboard import FileWriter, SummaryWriter
from torch.utils.tensorboard.summary import hparams

from agents.files import sync
from evolution.crossover import layer_of
from evolution.genome import Adapter, Genome, distances, product_norms
from trainers.records.heatmap import heatmap
from trainers.records.logs import Logs
from trainers.records.tags import BASELINES, EPISODE, HEATMAP, HELD_OUT, LAYOUT, PARTS, TAGS, Tag

DIMENSIONS = 8
"""Of the space in which TensorBoard's projector shows adapters."""


class RunLog:
    """The files of one run, opened new or for going on after `last_generation`."""

    def __init__(self, run_dir: Path, last_generation: int = -1, tags: Mapping[str, Tag] | None = None):
        """tags: those of the run's variants."""
        self._tags = TAGS | dict(tags or {})
        self.logs, self._next = Logs(run_dir, last_generation), last_generation + 1
        self._folder = run_dir / "tb"
        self._tensorboard = _writer(self._folder, self._next)
        self._baselines: dict[str, SummaryWriter] = {}
        try:
            if last_generation < 0:
                self._tensorboard.add_custom_scalars(LAYOUT)
        except OSError:
            self.let_go()
            raise

    def events(self, events: Sequence[dict[str, Any]]) -> None:
        """Append births and deaths to the lineage."""
        self.logs.append("lineage.jsonl", events)

    def metrics(self, values: dict[str, Any]) -> None:
        """Append one generation's figures, to the file and to TensorBoard."""
        self.logs.append("metrics.jsonl", [values])
        for tag, (key, meaning) in self._tags.items():
            if key in values:
                _add_scalar(self._tensorboard, tag, values[key], values["generation"], meaning)
        for begins, (tag, meaning) in PARTS.items():
            for key in (key for key in values if key.startswith(begins)):
                name = key.removeprefix(begins).removesuffix("_mean")
                _add_scalar(self._tensorboard, tag + name, values[key], values["generation"], meaning)
        self._tensorboard.flush()

    def baselines(self, compared: dict[str, Any], generation: int) -> None:
        """Draw what others came to as constant curves beside the agents', each a run of its own in TensorBoard.

        compared: the comparison in held-out worlds, as `trainers.evaluate.compare` has it.
        """
        for tag, figure in BASELINES.items():
            for who, found in compared.get(figure, {}).items():
                if who == "agents":
                    continue
                if who not in self._baselines:
                    self._baselines[who] = _writer(self._folder / who, self._next)
                _add_scalar(self._baselines[who], tag, found["mean"], generation, TAGS[tag].meaning)
        for writer in self._baselines.values():
            writer.flush()

    def adapters(self, population: Sequence[Genome], generation: int) -> None:
        """Log how far each agent's adapter has come from zero in each module of each layer, and how far from others'.

        To adapters.jsonl, with four digits, and to TensorBoard as a picture of agents by layers.
        """
        adapters = [genome.adapter for genome in population]
        layers, modules, norms = norms_by_layer(adapters)
        digits = 4 - int(np.ceil(np.log10(max(norms.max(), 1e-12))))
        between = distances(adapters).numpy()
        about = {"generation": generation, "ids": [genome.id for genome in population]}
        about |= {"layers": layers, "modules": modules}
        about |= {"norms": norms.round(digits).tolist(), "distances": between.round(3).tolist()}
        self.logs.append("adapters.jsonl", [about])
        picture = heatmap(np.sqrt((norms**2).sum(axis=2)), layers)
        self._add_picture("adapters/norm_by_agent_and_layer", picture, _png_bytes(picture), generation, HEATMAP)

    def episode(self, frames: Sequence[np.ndarray], generation: int) -> None:
        """Log an episode as an animated picture; frames (H, W, 3) uint8."""
        self._add_picture("episode/picture", frames[0], gif_bytes(frames), generation, EPISODE)
        self._tensorboard.flush()

    def _add_picture(self, tag: str, pixels: np.ndarray, encoded: bytes, generation: int, meaning: str) -> None:
        """pixels: (H, W, 3), for the size."""
        height, width, _ = pixels.shape
        image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=encoded)
        about = _about("images", summary_pb2.DATA_CLASS_BLOB_SEQUENCE, meaning)
        _add(self._tensorboard, Summary.Value(tag=tag, image=image, metadata=about), generation)

    def outcome(
        self, settings: dict[str, Any], results: dict[str, float], population: Sequence[Genome], generation: int
    ) -> None:
        """Log what a run with these settings came to by its last generation, for TensorBoard's hparams, and its
        adapters for the projector.

        Adapters are placed so that their distances are kept as well as `DIMENSIONS` dimensions allow.
        """
        for summary in hparams(settings, results):
            _file_of(self._tensorboard).add_summary(summary)
        for name, value in results.items():
            _add_scalar(self._tensorboard, name, value, generation, HELD_OUT)
        places = classical_scaling(distances([genome.adapter for genome in population]).numpy(), DIMENSIONS)
        about = [[str(g.id), str(g.generation), g.operator, f"{g.fitness:.2f}"] for g in population]
        header = ["individual", "born", "operator", "fitness"]
        self._tensorboard.add_embedding(places, about, None, generation, "adapters", header)

    def seal(self, generation: int) -> dict[str, bytes]:
        """Have the disk hold all that was written so far, and account for it; return the generation's lines by log."""
        for writer in (self._tensorboard, *self._baselines.values()):
            writer.flush()
        for file in self._folder.rglob("events.*"):
            sync(file)
        return self.logs.seal(generation)

    def let_go(self) -> None:
        """End what writes to TensorBoard's files; a disk that failed has been spoken of."""
        for writer in (self._tensorboard, *self._baselines.values()):
            with suppress(OSError):
                writer.close()

    def close(self) -> None:
        """Finish the TensorBoard files."""
        for writer in (self._tensorboard, *self._baselines.values()):
            writer.close()


def _writer(folder: Path, next_step: int) -> SummaryWriter:
    """A writer to a new file in `folder`, which takes the place of what the files there say of `next_step` and later.

    TensorBoard reads a folder's files in the order of their names, and a name begins with the second in which its
    file was opened. So this waits for the next second where a file was opened in this one.
    """
    while any(folder.glob(f"events.out.tfevents.{int(time.time()):010d}.*")):
        time.sleep(0.05)
    return SummaryWriter(str(folder), purge_step=next_step)


def _about(plugin: str, data_class: "summary_pb2.DataClass", meaning: str) -> SummaryMetadata:
    """What TensorBoard shows of a tag; torch's writer has no way to pass a description."""
    plugin_data = SummaryMetadata.PluginData(plugin_name=plugin)
    return SummaryMetadata(summary_description=meaning, data_class=data_class, plugin_data=plugin_data)


def _file_of(writer: SummaryWriter) -> FileWriter:
    """What `writer` writes to; there until it is closed."""
    return cast(FileWriter, writer.file_writer)


def _add(writer: SummaryWriter, value: Summary.Value, generation: int) -> None:
    _file_of(writer).add_summary(Summary(value=[value]), generation)


def _add_scalar(writer: SummaryWriter, tag: str, value: float, generation: int, meaning: str) -> None:
    about = _about("scalars", summary_pb2.DATA_CLASS_SCALAR, meaning)
    _add(writer, Summary.Value(tag=tag, simple_value=value, metadata=about), generation)


def classical_scaling(distances: np.ndarray, dimensions: int) -> np.ndarray:
    """Points (P, dimensions) whose distances come as near to `distances` (P, P) as they can.

    Torgerson 1952, "Multidimensional scaling: I. Theory and method".
    """
    centred = np.eye(len(distances)) - 1 / len(distances)
    values, vectors = np.linalg.eigh(-0.5 * centred @ distances.astype(float) ** 2 @ centred)
    points = vectors[:, ::-1] * np.sqrt(values[::-1].clip(min=0))
    return np.pad(points, ((0, 0), (0, dimensions)))[:, :dimensions]


def norms_by_layer(adapters: Sequence[Adapter]) -> tuple[list[int], list[str], np.ndarray]:
    """K layers, M kinds of modules, as q_proj, and the norms (P, K, M) of B A of P adapters; 0 where there is none."""
    norms = [product_norms(adapter) for adapter in adapters]
    places = [(layer_of(path + "."), path.rpartition(".")[2]) for path in norms[0]]
    layers, modules = sorted({layer for layer, _ in places}), list(dict.fromkeys(module for _, module in places))
    grid = np.zeros((len(adapters), len(layers), len(modules)))
    for (layer, module), column in zip(places, zip(*(row.values() for row in norms), strict=True), strict=True):
        grid[:, layers.index(layer), modules.index(module)] = column
    return layers, modules, grid


def _png_bytes(pixels: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def gif_bytes(frames: Sequence[np.ndarray], milliseconds: int = 120) -> bytes:
    """Frames (H, W, 3) uint8 as an animated GIF that loops."""
    pictures = [Image.fromarray(frame).convert("P", palette=Image.Palette.ADAPTIVE, colors=64) for frame in frames]
    out = io.BytesIO()
    pictures[0].save(
        out, "GIF", save_all=True, append_images=pictures[1:], duration=milliseconds, loop=0, optimize=False
    )
    return out.getvalue()
