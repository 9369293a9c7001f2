"""Many LoRA adapters on one frozen model: one forward serves all of them, one backward trains all.

LoRA is Hu et al. 2021 (arXiv:2106.09685): y = W x + (alpha / r) B A x with A ~ N(0, 1/D_in), B = 0. Departures:
1. A and B of all P adapters are stacked, A: (P, r, D_in) and B: (P, D_out, r), and applied by batched products.
2. All adapters lie in one (P, F) array, of which every A and B is a view. A row is one agent's whole adapter, so
   copying, comparing, clipping or stepping an adapter is an operation on a row.
3. A backward adds the gradients of A and B straight into another array, (G, F) for the G rows that are learning, within
   `AdapterBank.gathering`. Autograd itself would first make one array for each A and B, of all P adapters.
4. A starts the same for all agents: they differ by what they learn and inherit.
5. Which adapters are in use is known to each thread apart, so that agents can act by a copy while others learn.

Symbols: P adapters, F numbers in an adapter, G groups of rows in a batch, R rows in a group, r rank, D width.
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from agents.adapted import BatchedLoRALinear, Gathering, InUse, Place, Rows
from agents.device import CPU
from agents.types import AdapterConfig, UserError, require
from agents.write_count import writes
from evolution.genome import Adapter


class AdapterBank:
    """The adapters of P agents on the last layers of one model.

    `values` is (P, F) float32, on `device`; `shapes` tells, in order, how a row is laid out. It may be written in any
    way that `agents.write_count` counts: `version` grows with every change, so that whoever remembers an answer knows
    when it has become stale. Agents act by `acting`, of `acting_version`: `values` itself, or a published copy.
    """

    def __init__(self, causal_lm: Any, config: AdapterConfig, adapters: int, seed: int = 0, device: torch.device = CPU):
        if adapters < 1:
            raise ValueError(f"adapters = {adapters}: must be 1 or more")
        targets = adapted_modules(causal_lm, config)
        narrowest = min(min(linear.in_features, linear.out_features) for linear in targets.values())
        allowed = f"at most {narrowest}, the width of the narrowest module that is adapted"
        require(config.rank <= narrowest, "adapter.rank", config.rank, allowed)
        self.config = replace(config, modules=list(dict.fromkeys(path.rpartition(".")[2] for path in targets)))
        self.scaling = config.scaling
        self._gathering: Gathering | None = None
        self._gradients = torch.zeros(0)  # kept from one gathering to the next
        self._thread = threading.local()
        self._published: tuple[Tensor, int] | None = None
        self.anchor = torch.zeros((), requires_grad=True)  # for its sake autograd goes through the adapters
        self.shapes: dict[str, tuple[int, int]] = {}
        for path, linear in targets.items():
            self.shapes[f"{path}.lora_A.weight"] = (config.rank, linear.in_features)
            self.shapes[f"{path}.lora_B.weight"] = (linear.out_features, config.rank)
        self.size = sum(rows * columns for rows, columns in self.shapes.values())
        self._values = torch.zeros(adapters, self.size, device=device)
        self._places = [self.place(name) for name in self.shapes]
        self._views = self._views_of(self._values)
        self.reset(seed)
        for path, linear in targets.items():
            causal_lm.set_submodule(path, BatchedLoRALinear(linear, self, path))

    def __len__(self) -> int:
        return self.values.shape[0]

    @property
    def values(self) -> Tensor:
        """All adapters (P, F). What is assigned is copied into it, since there are views of its rows elsewhere."""
        return self._values

    @values.setter
    def values(self, values: Tensor) -> None:
        if values is not self._values:  # it is after `values += x`
            self._values[:] = values

    @property
    def version(self) -> int:
        """A number that grows with every change of `values`."""
        return writes(self._values)

    @property
    def acting(self) -> Tensor:
        """(P, F), the adapters by which agents act."""
        return self._published[0] if self._published else self.values

    @property
    def acting_version(self) -> int:
        """The version of `acting`."""
        return self._published[1] if self._published else self.version

    def publish(self) -> None:
        """Let agents act by the adapters as they are now: a copy, put in the old one's place in one assignment."""
        self._published = self.values.clone(), self.version

    def withdraw(self) -> None:
        """Let agents act by `values` again."""
        self._published = None

    @property
    def in_use(self) -> InUse | None:
        """What this thread computes with; None for the bare base."""
        return getattr(self._thread, "in_use", None)

    @contextmanager
    def gathering(self, rows: slice) -> Iterator[Tensor]:
        """Within the block, each backward adds the gradients of a run of G rows to the array (G, F) that this yields.

        It is zero at first, and holds them until the next block. RuntimeError for a block within another, and for a
        backward that is in no block or reaches other rows.
        """
        if self._gathering:
            raise RuntimeError("gradients of the bank are being gathered already: must be one block after the other")
        size = rows.stop - rows.start
        if len(self._gradients) == size:
            self._gradients.zero_()
        else:
            self._gradients = self._values.new_zeros(size, self.size)
        self._gathering = Gathering(rows, self._gradients)
        try:
            yield self._gradients
        finally:
            self._gathering = None

    def gathering_of(self, rows: Rows) -> Gathering:
        """Where a backward is to add the gradients of these rows; RuntimeError where there is no place for them."""
        if self._gathering is None:
            raise RuntimeError("a backward through adapters must be within a block of AdapterBank.gathering(rows)")
        if not self._gathering.holds(rows):
            raise RuntimeError(f"a backward reached adapters outside {self._gathering.rows}, which are gathered for")
        return self._gathering

    def place(self, name: str) -> Place:
        """Where the tensor `name` lies in each row."""
        sizes = [rows * columns for rows, columns in self.shapes.values()]
        index = list(self.shapes).index(name)
        return Place(index, sum(sizes[:index]), sum(sizes[: index + 1]), self.shapes[name])

    def _views_of(self, values: Tensor) -> list[Tensor]:
        """Every A and B of (P, F) adapters, in order."""
        return [place.of(values) for place in self._places]

    def flatten(self, adapter: Adapter) -> Tensor:
        """An adapter as a row (F,) of its own."""
        return torch.cat([adapter[name].flatten().float() for name in self.shapes])

    def unflatten(self, row: Tensor) -> dict[str, Tensor]:
        """A row (F,) as an adapter: views by name."""
        sizes = [rows * columns for rows, columns in self.shapes.values()]
        parts = zip(self.shapes.items(), row.split(sizes), strict=True)
        return {name: part.view(shape) for (name, shape), part in parts}

    def reset(self, seed: int) -> None:
        """Give every agent the same newborn adapter: A ~ N(0, 1/D_in) from `seed`, B zero."""
        generator = torch.Generator().manual_seed(seed)
        newborn = self.unflatten(torch.zeros(self.size))
        for name, tensor in newborn.items():
            if "lora_A" in name:
                tensor.normal_(0.0, tensor.shape[1] ** -0.5, generator=generator)
        self.values[:] = self.flatten(newborn)

    def read(self, index: int) -> dict[str, Tensor]:
        """A copy, on the CPU, of agent `index`'s adapter; IndexError if there is no such agent."""
        self._check_index(index)
        return self.unflatten(self.values[index].to(CPU, copy=True))

    def write(self, index: int, adapter: Adapter) -> None:
        """Make `adapter` agent `index`'s; ValueError if a tensor is missing, unknown, misshapen or not finite."""
        self._check_index(index)
        check_adapter(adapter, self.shapes)
        self.values[index] = self.flatten(adapter)

    def _check_index(self, index: int) -> None:
        if not 0 <= index < len(self):  # -1 would be the last row to torch, and is the bare base elsewhere
            raise IndexError(f"adapter {index}: must be between 0 and {len(self) - 1}")

    @contextmanager
    def using(
        self, groups: Tensor | None, values: Tensor | None = None, counts: Sequence[int] | None = None
    ) -> Iterator[None]:
        """Within the block, rows of a batch carry adapters `groups` (G,); None: the bare base.

        groups: on the CPU. values: (P, F), other ones than the bank's. counts: how many rows each group has, one group
        after the other; None: as many each. For this thread alone.
        """
        before, device = self.in_use, self._values.device
        views = self._views if values is None or values is self._values else self._views_of(values.to(device))
        in_use = None if groups is None else InUse(_rows(groups, device), len(groups), views, *_places(counts, device))
        self._thread.in_use = in_use
        try:
            yield
        finally:
            self._thread.in_use = before


def _rows(groups: Tensor, device: torch.device) -> Rows:
    """A run of rows as a slice, which copies nothing; others as numbers on the device."""
    first = int(groups[0])
    is_run = torch.equal(groups, torch.arange(first, first + len(groups)))
    return slice(first, first + len(groups)) if is_run else groups.to(device)


def _places(counts: Sequence[int] | None, device: torch.device) -> tuple[Tensor | None, int]:
    """Where rows stand if each group has as many places as the largest has rows, (B,); how many places these are."""
    if counts is None:
        return None, 0
    most, number = max(counts), torch.tensor(counts)
    first = torch.arange(len(counts)) * most - (number.cumsum(0) - number)  # less the rows before the group's
    return (torch.arange(int(number.sum())) + first.repeat_interleave(number)).to(device), len(counts) * most


USUAL_MODULES = ("q_proj", "v_proj", "o_proj", "down_proj")
"""What carries adapters where a model has modules of these names, as Llama and its relatives do."""

FUSED_MODULES = ("qkv_proj", "o_proj", "down_proj")
"""The same where q, k and v are one module, as in Phi-3, which PEFT does not know."""


def adapted_modules(causal_lm: Any, config: AdapterConfig) -> dict[str, nn.Linear]:
    """Path -> linear module that gets an adapter, in the model's order; UserError where the model has none such."""
    layers = causal_lm.config.num_hidden_layers
    if config.top_layers > layers:
        raise UserError(f"adapter.top_layers = {config.top_layers}: must be at most the model's {layers} layers")
    first = layers - config.top_layers
    layered = ((path, module) for path, module in causal_lm.named_modules() if _layer(path) >= first)
    linear = {path: module for path, module in layered if isinstance(module, nn.Linear)}
    names = {path.rpartition(".")[2] for path in linear}
    architecture = causal_lm.config.model_type
    wanted = config.modules or default_modules(architecture, names)
    if not wanted:
        raise UserError(f"adapter.modules = []: must be some of {sorted(names)}; PEFT does not know {architecture}")
    absent = set(wanted) - names
    if absent:
        raise UserError(f"adapter.modules: {sorted(absent)} not in the model, which has {sorted(names)}")
    return {path: module for path, module in linear.items() if path.rpartition(".")[2] in wanted}


def default_modules(architecture: str, names: set[str]) -> list[str]:
    """Which of a model's linear modules, by their names, carry adapters where the config names none."""
    for usual in (USUAL_MODULES, FUSED_MODULES):
        if names.issuperset(usual):
            return list(usual)
    try:
        from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as PEFT_ADAPTS  # slow to import
    except ImportError:  # no function of PEFT's, so it may move; then the user is asked
        return []
    return [name for name in PEFT_ADAPTS.get(architecture, ()) if name in names]


def _layer(path: str) -> int:
    return next((int(piece) for piece in path.split(".") if piece.isdigit()), -1)


def check_adapter(adapter: Adapter, shapes: dict[str, tuple[int, int]]) -> None:
    """Raise ValueError unless `adapter` has exactly the tensors of `shapes`, each of its shape and finite."""
    if adapter.keys() != shapes.keys():
        missing, unknown = sorted(shapes.keys() - adapter.keys()), sorted(adapter.keys() - shapes.keys())
        raise ValueError(f"adapter does not fit the model: missing {missing[:3]}, unknown {unknown[:3]}")
    for name, shape in shapes.items():
        if tuple(adapter[name].shape) != shape:
            raise ValueError(f"adapter tensor {name} has shape {tuple(adapter[name].shape)}: must be {shape}")
        if not torch.isfinite(adapter[name]).all():
            raise ValueError(f"adapter tensor {name} holds NaN or infinity")
