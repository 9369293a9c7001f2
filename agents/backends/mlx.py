"""Answers by MLX, Apple's array library: meant for the graphics unit of a Mac, right but slow on other processors.

The layers are those of mlx-lm, which reads the same model folder; nothing of an architecture is written again here.
As in `agents.policy_network`, instructions and texts are read by the bare base, and only the answer token meets
adapters: the stacked A and B of all agents are multiplied by `gather_mm`, which picks for each row those of its agent.

Run and tested with `mlx[cpu]` on Linux, where torch is many times faster. It was never run on a Mac, nor timed there.
To import mlx-lm lowers the process's limit of open files to 2048.
"""

import json
from collections.abc import Sequence
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import torch
from mlx_lm.models.cache import KVCache
from mlx_lm.utils import load_model

from agents.backends import require_answer_token
from agents.policy_network import PolicyNetwork
from agents.types import UserError, require
from agents.weights.frozen import product_dtype

DTYPES = ("float32", "float16", "bfloat16")
PROBE = " one two three"


class Mlx:
    """An `agents.backends.Backend` on the model folder and the adapters of a network.

    dtype: of the frozen weights; adapters and the last step are float32. UserError for a model that mlx-lm does not
    know, or understands otherwise than transformers does.
    """

    is_batched = True

    def __init__(self, network: PolicyNetwork, dtype: str = "float32"):
        require(dtype in DTYPES, "dtype", dtype, f"one of {', '.join(DTYPES)}")
        require_answer_token(network, "MLX")
        self._network = network
        self._decoder, layers, self._head = _load(network, getattr(mx, dtype))
        self._choice = _Choice()
        self._adapted = {path: self._adapt(layers, path) for path in _paths(network)}
        self._version = -1
        caches: list[Any] = [KVCache() for _ in layers]
        self._decoder(mx.array([network.instruction_ids]), caches)
        self._instructions = [(c.keys[..., : c.offset, :], c.values[..., : c.offset, :]) for c in caches]
        mx.eval(self._instructions)
        self._check(0.01 if dtype == "float32" and product_dtype(network.base.decoder) == "float32" else 0.1)

    def answer(self, texts: Sequence[str], adapters: np.ndarray) -> np.ndarray:
        """Logits (B, A), float32, of the action words after B texts; adapters (B,): rows of the bank, -1: bare base."""
        if not len(texts):
            return np.empty((0, len(self._network.action_ids)), np.float32)
        if max(adapters) >= len(self._network.bank):
            raise IndexError(f"adapter {max(adapters)}: must be at most {len(self._network.bank) - 1}")
        self._refresh()
        place = {text: i for i, text in enumerate(dict.fromkeys(texts))}
        caches = self._read(list(place), mx.array([place[text] for text in texts]))
        self._choice.rows = mx.array(np.asarray(adapters) % (len(self._network.bank) + 1))  # the bare base is the last
        hidden = self._decoder(mx.full((len(texts), 1), self._network.answer_id), caches)
        self._choice.rows = None
        return np.array(hidden[:, 0].astype(mx.float32) @ self._head.T) + self._network.head_bias.numpy()

    def _read(self, texts: list[str], rows: mx.array) -> list["_Continuation"]:
        """Read T texts with the bare base. Returns each layer's cache for B rows, which go on from the texts `rows`."""
        tokens = [self._network.base.tokens(text) for text in texts]
        longest = max(1, *map(len, tokens))
        self._network.reader.check_length(longest + 1)
        ids = mx.array([row + [0] * (longest - len(row)) for row in tokens])  # filled up behind, where nobody looks
        first = mx.zeros(len(texts), mx.int32)
        before = mx.array([len(self._network.instruction_ids)])
        reading = [_Continuation(k, v, before, first) for k, v in self._instructions]
        self._decoder(ids, reading)
        lengths = before + mx.array([len(row) for row in tokens])
        return [_Continuation(*layer.joined(*layer.new), lengths, rows) for layer in reading]

    def _adapt(self, layers: list[nn.Module], path: str) -> "_AdaptedLinear":
        """Wrap the linear module at transformers' `path`; mlx-lm has the same names within a layer."""
        number, *parents, name = path.partition(".layers.")[2].split(".")
        parent: Any = layers[int(number)]
        for step in parents:
            parent = parent.get(step, {})
        if not isinstance(parent.get(name), nn.Linear):
            raise UserError(f"model.name = {self._network.base.name!r}: in mlx-lm it has no linear module {path}")
        parent[name] = _AdaptedLinear(parent[name], self._choice, self._network.bank.scaling)
        return parent[name]

    def _refresh(self) -> None:
        """Take over the bank's adapters if they have changed; behind them comes the bare base's, which is zero."""
        bank = self._network.bank
        if self._version == bank.version:
            return
        rows = [bank.unflatten(row) for row in (*bank.values, torch.zeros(bank.size))]
        for path, module in self._adapted.items():
            a, b = (np.stack([row[f"{path}.lora_{x}.weight"].mT.numpy() for row in rows]) for x in "AB")
            module.lora_a, module.lora_b = mx.array(a), mx.array(b)
        self._version = bank.version

    def _check(self, tolerance: float) -> None:
        """UserError if the bare base answers otherwise than torch's: mlx-lm passes over settings it does not know."""
        ours = self.answer([PROBE], np.array([-1]))[0]
        theirs = self._network.plain_logits(PROBE, None).numpy()
        difference = np.abs(ours - theirs).max() / np.abs(theirs).max()
        if not difference <= tolerance:
            raise UserError(
                f"model.name = {self._network.base.name!r}: mlx-lm understands this model otherwise than transformers, "
                f"logits differ by {difference:.1%}: must be at most {tolerance:.0%}"
            )


class _Choice:
    """Which adapter each row of a batch carries (B,); None while the bare base reads."""

    rows: mx.array | None = None


class _AdaptedLinear(nn.Module):
    """A frozen linear module plus the low-rank products of each row's adapter."""

    def __init__(self, base: nn.Linear, choice: _Choice, scaling: float):
        super().__init__()
        self.base, self.choice, self.scaling = base, choice, scaling
        self.lora_a = self.lora_b = mx.zeros(0)  # (P + 1, D_in, r), (P + 1, r, D_out): filled by `Mlx._refresh`

    def __call__(self, x: mx.array) -> mx.array:
        """Map (B, S, D_in) to (B, S, D_out)."""
        y = self.base(x)
        rows = self.choice.rows
        if rows is None:
            return y
        inner = mx.gather_mm(x.astype(mx.float32), self.lora_a, rhs_indices=rows)  # (B, S, r)
        return y + (self.scaling * mx.gather_mm(inner, self.lora_b, rhs_indices=rows)).astype(y.dtype)


class _Continuation:
    """One layer's cache, as mlx-lm's models ask for it: B rows go on from what T texts left.

    keys, values: (T, V, L, d), filled up behind. lengths: (T,), how much of L is a text. rows: (B,), whose text a row
    continues. What rows have read stays as it is, so they can be many: only one layer's copies exist at a time.
    """

    def __init__(self, keys: mx.array, values: mx.array, lengths: mx.array, rows: mx.array):
        self.keys, self.values, self.rows = keys, values, rows
        self.offset = lengths[rows]  # (B,) the position of a row's next token
        self.new: tuple[mx.array, mx.array] = (keys, values)

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        """All keys and values (B, V, L + N, d) that the N new tokens may see."""
        self.new = keys, values
        return self.joined(keys, values)

    def joined(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        """What was read before, and these (B, V, N, d) behind it."""
        return (
            mx.concatenate([self.keys[self.rows], keys], axis=2),
            mx.concatenate([self.values[self.rows], values], axis=2),
        )

    def make_mask(self, tokens: int, return_array: bool = False, window_size: int | None = None) -> mx.array:
        """Who sees whom (B, 1, N, L + N): all that was read, and new tokens up to oneself.

        No window shortens it: `PolicyNetwork.check_length` refuses what is longer than a window.
        """
        was_read = mx.arange(self.keys.shape[2]) < self.offset[:, None]  # (B, L)
        old = mx.broadcast_to(was_read[:, None, None], (len(self.rows), 1, tokens, self.keys.shape[2]))
        new = mx.broadcast_to(mx.tri(tokens, dtype=mx.bool_), (len(self.rows), 1, tokens, tokens))
        return mx.concatenate([old, new], axis=3)


def _load(network: PolicyNetwork, dtype: mx.Dtype) -> tuple[Any, list[nn.Module], mx.array]:
    """mlx-lm's model without its output head, its layers, and the head's rows (A, D) of the action words."""
    folder = network.base.folder
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    try:
        # model_file would be a module of the folder, which mlx-lm runs
        model, _ = load_model(folder, model_config=_older_names(config) | {"model_file": None})
    except (ValueError, TypeError, KeyError, OSError) as error:
        raise UserError(f"model.name = {network.base.name!r}: mlx-lm cannot load it: {error}") from error
    decoder = model.get("model", {})
    head = model.get("lm_head") or decoder.get("embed_tokens")
    if head is None:
        raise UserError(
            f"model.name = {network.base.name!r}: mlx-lm builds {config['model_type']} in a way of its own; "
            "must be an architecture like Llama, Qwen, Gemma or Phi"
        )
    weight = head.weight[mx.array(network.action_ids)].astype(mx.float32)
    model.set_dtype(dtype)
    return decoder, model.layers, weight


def _older_names(config: dict[str, Any]) -> dict[str, Any]:
    """The settings of rotary positions by the names they had before transformers 5, which are those mlx-lm knows."""
    rope = config.get("rope_parameters") or {}
    usual, near = rope.get("full_attention", rope), rope.get("sliding_attention", {})
    settings = {
        "rope_theta": usual.get("rope_theta"),
        "rotary_emb_base": usual.get("rope_theta"),
        "rope_local_base_freq": near.get("rope_theta"),
        "partial_rotary_factor": usual.get("partial_rotary_factor"),
        "rotary_pct": usual.get("partial_rotary_factor"),
        "rope_scaling": usual if usual.get("rope_type", "default") != "default" else None,
    }
    return {name: value for name, value in settings.items() if value is not None}


def _paths(network: PolicyNetwork) -> list[str]:
    """Paths of the adapted modules, by transformers' names."""
    return [name.removesuffix(".lora_A.weight") for name in network.bank.shapes if name.endswith(".lora_A.weight")]
