"""What a run writes while it lives: metrics.jsonl, lineage.jsonl, adapters.jsonl, matches.jsonl and TensorBoard."""

import io
import json
from collections.abc import Sequence
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tensorboard.compat.proto.summary_pb2 import Summary
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from agents.types import UserError
from evolution.crossover import layer_of
from evolution.genome import Adapter, Genome, distances, product_norms
from trainers.run_folder import lines_until, replace_text

TAGS = {
    "fitness/mean": "fitness_mean",
    "fitness/max": "fitness_max",
    "life/food_eaten": "food_eaten_mean",
    "life/lifetime": "lifetime_mean",
    "life/reward": "reward_mean",
    "life/energy": "energy_mean",
    "learn/approx_kl": "approx_kl",
    "learn/teacher_kl": "teacher_kl",
    "learn/entropy": "entropy",
    "learn/mutual_information": "mutual_information",
    "learn/kl_to_base": "kl_to_base",
    "learn/strayed": "strayed",
    "learn/not_finite": "not_finite",
    "learn/value_loss": "value_loss",
    "learn/explained_variance": "explained_variance",
    "learn/clip_fraction": "clip_fraction",
    "learn/grad_norm": "grad_norm",
    "evolve/diversity": "diversity",
    "evolve/kl_to_parent": "kl_to_parent",
    "social/examples": "examples_mean",
    "time/decide_ms": "decide_ms",
    "time/learn_s": "learn_s",
    "time/update_ms": "update_ms",
    **{f"rivals/{name}_{q}": f"{name}_{q}" for name in ("fitness", "rating", "won") for q in range(4)},
}
"""TensorBoard tag -> key of metrics.jsonl; a world that knows no food or energy leaves those out."""


LAYOUT = {
    "Evolution": {
        "fitness": ["Multiline", ["fitness/mean", "fitness/max"]],
        "food eaten": ["Multiline", ["life/food_eaten"]],
        "diversity": ["Multiline", ["evolve/diversity"]],
    },
    "Learning": {
        "KL": ["Multiline", ["learn/approx_kl", "learn/kl_to_base", "evolve/kl_to_parent"]],
        "entropy and information": ["Multiline", ["learn/entropy", "learn/mutual_information"]],
        "explained variance": ["Multiline", ["learn/explained_variance"]],
    },
    "Time": {"decisions, ms": ["Multiline", ["time/decide_ms"]], "learning, s": ["Multiline", ["time/learn_s"]]},
}
"""TensorBoard's page of custom scalars: what belongs together in one chart."""

DIMENSIONS = 8
"""Of the space in which TensorBoard's projector shows adapters."""


class RunLog:
    """The files of one run, opened new or for going on after `last_generation`."""

    def __init__(self, run_dir: Path, last_generation: int = -1):
        names = ("metrics", "lineage", "adapters", "matches")
        self._metrics, self._lineage, self._adapters, self._matches = (run_dir / f"{name}.jsonl" for name in names)
        files = (self._metrics, self._lineage, self._adapters, self._matches)
        kept = {file: lines_until(file, last_generation) for file in files}
        for file, lines in kept.items():
            if file.is_file():
                replace_text(file, "".join(line + "\n" for line in lines))
        self.played = [json.loads(line) for line in kept[self._matches]]
        self._tensorboard = SummaryWriter(str(run_dir / "tb"), purge_step=last_generation + 1)
        if last_generation < 0:
            self._tensorboard.add_custom_scalars(LAYOUT)

    def events(self, events: Sequence[dict[str, Any]]) -> None:
        """Append births and deaths to the lineage."""
        _append(self._lineage, events)

    def metrics(self, values: dict[str, Any]) -> None:
        """Append one generation's figures, to the file and to TensorBoard."""
        _append(self._metrics, [values])
        for tag, key in ((tag, key) for tag, key in TAGS.items() if key in values):
            self._tensorboard.add_scalar(tag, values[key], values["generation"])
        self._tensorboard.flush()

    def matches(self, matches: Sequence[dict[str, Any]]) -> None:
        """Append matches of champions; `played` has all so far."""
        _append(self._matches, matches)
        self.played += matches

    def adapters(self, population: Sequence[Genome], generation: int) -> None:
        """Log how far each agent's adapter has come from zero in each module of each layer, and how far from others'.

        To adapters.jsonl, with four digits, and to TensorBoard as a picture of agents by layers.
        """
        adapters = [genome.adapter for genome in population]
        layers, modules, norms = norms_by_layer(adapters)
        digits = 4 - int(np.ceil(np.log10(max(norms.max(), 1e-12))))
        apart = distances(adapters).numpy()
        about = {"generation": generation, "ids": [genome.id for genome in population]}
        about |= {"layers": layers, "modules": modules}
        _append(self._adapters, [about | {"norms": norms.round(digits).tolist(), "distances": apart.round(3).tolist()}])
        picture = heatmap(np.sqrt((norms**2).sum(axis=2)))
        self._tensorboard.add_image("adapters/norm_by_agent_and_layer", picture, generation, dataformats="HWC")

    def episode(self, frames: Sequence[np.ndarray], generation: int) -> None:
        """Log an episode as an animated picture; frames (H, W, 3) uint8."""
        height, width, _ = frames[0].shape
        picture = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=gif_bytes(frames))
        writer = self._tensorboard._get_file_writer()
        writer.add_summary(Summary(value=[Summary.Value(tag="life/episode", image=picture)]), generation)
        self._tensorboard.flush()

    def outcome(self, settings: dict[str, Any], results: dict[str, float], population: Sequence[Genome]) -> None:
        """Log what a run with these settings came to, for TensorBoard's hparams, and its adapters for the projector.

        Adapters are placed so that their distances are kept as well as `DIMENSIONS` dimensions allow.
        """
        for summary in hparams(settings, results):
            self._tensorboard._get_file_writer().add_summary(summary)
        for name, value in results.items():
            self._tensorboard.add_scalar(name, value)
        places = scaled(distances([genome.adapter for genome in population]).numpy(), DIMENSIONS)
        about = [[str(g.id), str(g.generation), g.operator, f"{g.fitness:.2f}"] for g in population]
        header = ["individual", "born", "operator", "fitness"]
        self._tensorboard.add_embedding(places, about, tag="adapters", metadata_header=header)

    def close(self) -> None:
        """Finish the TensorBoard file."""
        self._tensorboard.close()


def scaled(apart: np.ndarray, dimensions: int) -> np.ndarray:
    """Points (P, dimensions) whose distances come as near to `apart` (P, P) as they can: classical scaling.

    Torgerson 1952, "Multidimensional scaling: I. Theory and method".
    """
    centred = np.eye(len(apart)) - 1 / len(apart)
    values, vectors = np.linalg.eigh(-0.5 * centred @ apart.astype(float) ** 2 @ centred)
    points = vectors[:, ::-1] * np.sqrt(values[::-1].clip(min=0))
    return np.pad(points, ((0, 0), (0, dimensions)))[:, :dimensions]


def _append(file: Path, records: Sequence[dict[str, Any]]) -> None:
    """Add lines to a file; UserError, before anything is written, for a number that JSON has no word for."""
    for record in records:
        for key, value in record.items():
            if isinstance(value, float) and not isfinite(value):
                told = f"{key} = {value} of generation {record.get('generation')}: must be finite"
                raise UserError(f"{file.name}: {told}; rewards may be too large, or learn.learning_rate")
    with file.open("a") as f:
        f.writelines(json.dumps(record, allow_nan=False) + "\n" for record in records)


def norms_by_layer(adapters: Sequence[Adapter]) -> tuple[list[int], list[str], np.ndarray]:
    """K layers, M kinds of modules, as q_proj, and the norms (P, K, M) of B A of P adapters; 0 where there is none."""
    norms = [product_norms(adapter) for adapter in adapters]
    places = [(layer_of(path + "."), path.rpartition(".")[2]) for path in norms[0]]
    layers, modules = sorted({layer for layer, _ in places}), list(dict.fromkeys(module for _, module in places))
    grid = np.zeros((len(adapters), len(layers), len(modules)))
    for (layer, module), column in zip(places, zip(*(row.values() for row in norms), strict=True), strict=True):
        grid[:, layers.index(layer), modules.index(module)] = column
    return layers, modules, grid


def heatmap(norms: np.ndarray, cell: int = 16) -> np.ndarray:
    """Picture (P * cell, K * cell, 3) uint8 of norms (P, K) of P agents (down) by layer (across); bright is large."""
    share = (norms / max(norms.max(), 1e-12))[..., None]
    dark, bright = np.array([20, 24, 60]), np.array([255, 214, 90])
    return np.kron(dark + share * (bright - dark), np.ones((cell, cell, 1))).astype(np.uint8)


def gif_bytes(frames: Sequence[np.ndarray], milliseconds: int = 120) -> bytes:
    """Frames (H, W, 3) uint8 as an animated GIF that loops."""
    pictures = [Image.fromarray(frame).convert("P", palette=Image.Palette.ADAPTIVE, colors=64) for frame in frames]
    out = io.BytesIO()
    pictures[0].save(
        out, "GIF", save_all=True, append_images=pictures[1:], duration=milliseconds, loop=0, optimize=False
    )
    return out.getvalue()
