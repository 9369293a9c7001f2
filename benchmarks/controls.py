"""Controls for what the model learned in pretraining, and for what agents remember: runs without either."""

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from agents.codecs.forage import ForageCodec
from agents.codecs.forage_map import ForageMap
from agents.weights.cache import cache_dir, kept_folder
from agents.weights.fetch import model_folder
from envs import WorldConfig


class Forgetful(ForageCodec):
    """A codec for --env.codec: texts of what is in view now, and of nothing that was seen before."""

    def __init__(self, config: WorldConfig):
        super().__init__(config.view_radius)

    def remember(self, memory: ForageMap | None, observation: np.ndarray, action: np.ndarray) -> ForageMap:
        """A map of what is in view at this step."""
        return super().remember(None, observation, np.full_like(action, -1))


def random_weights_folder(name: str = "smollm2-135m") -> Path:
    """A model folder like that of `name`, in the cache, whose matrices are shuffled: made once, always the same.

    Each matrix keeps its numbers and loses their order, so only its scale is left. Norms stay as they are.
    """
    source = model_folder(name)

    def shuffle(box: Path) -> None:
        generator = torch.Generator().manual_seed(0)
        for file in sorted(source.iterdir()):
            if file.suffix == ".safetensors":
                tensors = {k: _shuffled(t, generator) for k, t in sorted(load_file(file).items())}
                save_file(tensors, box / file.name, {"format": "pt"})
            elif file.suffix == ".json":
                text = file.read_text(encoding="utf-8")
                (box / file.name).write_text(json.dumps(json.loads(text)) if file.name == "config.json" else text)

    return kept_folder(cache_dir() / f"{name}-shuffled", shuffle, f"shuffling {name} (once)")


def _shuffled(tensor: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    if tensor.ndim < 2:
        return tensor
    return tensor.flatten()[torch.randperm(tensor.numel(), generator=generator)].view(tensor.shape)
