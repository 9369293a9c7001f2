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
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from agents.types import AdapterConfig, UserError, require
from agents.weights.frozen import Columns, FrozenLinear
from agents.write_count import writes
from evolution.genome import Adapter

Rows = slice | Tensor
"""Which adapters groups carry: a run of the bank's rows, of which views can be taken, or (G,) numbers."""


class BatchedLoRALinear(nn.Module):
    """A frozen linear module plus the low-rank products of the adapters that the bank has switched on."""

    def __init__(self, base: nn.Linear, bank: "AdapterBank", name: str):
        super().__init__()
        self.base = base
        self._bank = [bank]  # in a list, so that torch does not look for parameters in it
        self._a, self._b = (bank.place(f"{name}.lora_{x}.weight") for x in "AB")

    def forward(self, x: Tensor) -> Tensor:
        """Map (G * R, S, D_in) to (G * R, S, D_out); group g carries the g-th adapter in use."""
        return adapted_product(x, self.base, columns_of([self]))

    @property
    def out_features(self) -> int:
        """D_out."""
        return self.base.out_features

    @property
    def columns(self) -> "AdaptedColumns":
        """Where its adapter acts."""
        return AdaptedColumns(self._bank[0], 0, self._b.shape[0], self._a, self._b)


class Place(NamedTuple):
    """Where one A or B lies in a row of the bank."""

    number: int  # of all A and B, in order
    start: int
    end: int
    shape: tuple[int, int]

    def of(self, array: Tensor) -> Tensor:
        """It in each row of (G, F): a view (G, rows, columns)."""
        return array[:, self.start : self.end].view(-1, *self.shape)


class InUse(NamedTuple):
    """What a thread computes with."""

    rows: Rows
    groups: int
    views: Sequence[Tensor]  # of every A and B, in order: (P, rows, columns)

    def at(self, place: Place) -> Tensor:
        """The A or B of each group, (G, rows, columns)."""
        view = self.views[place.number]
        is_all = isinstance(self.rows, slice) and self.rows.stop - self.rows.start == len(view)
        return view if is_all else view[self.rows]


class Gathering(NamedTuple):
    """Where a backward adds gradients: those of a run of the bank's rows."""

    rows: slice
    gradients: Tensor  # (G, F)

    def add(self, rows: Rows, place: Place, one: Tensor, other: Tensor) -> None:
        """Add the gradient of one A or B of some of these rows, the products of (G, rows, R) and (G, R, columns).

        Groups may share an adapter.
        """
        total = place.of(self.gradients)
        if isinstance(rows, slice):
            total[rows.start - self.rows.start : rows.stop - self.rows.start].baddbmm_(one, other)
        else:
            total.index_add_(0, rows - self.rows.start, one @ other)

    def holds(self, rows: Rows) -> bool:
        """Whether these rows are all among those whose gradients are gathered."""
        first, end = (rows.start, rows.stop) if isinstance(rows, slice) else (int(rows.min()), int(rows.max()) + 1)
        return self.rows.start <= first and end <= self.rows.stop


class AdaptedColumns(NamedTuple):
    """Some of a module's outputs, to which adapters add."""

    bank: "AdapterBank"
    start: int
    end: int
    a: Place
    b: Place


def columns_of(modules: Sequence[Any]) -> list[AdaptedColumns]:
    """Where adapters act on the outputs of modules, one beside the other."""
    found, start = [], 0
    for module in modules:
        end = start + module.out_features
        if isinstance(module, BatchedLoRALinear):
            found.append(module.columns._replace(start=start, end=end))
        start = end
    return found


def adapted_product(x: Tensor, base: Any, adapted: Sequence[AdaptedColumns]) -> Tensor:
    """What a frozen module makes of x (G * R, S, D_in), and to some of its outputs what the adapters in use add."""
    use = adapted[0].bank.in_use if adapted else None
    if use is None:
        y: Tensor = base(x)
        return y
    if not torch.is_grad_enabled():
        return _forth_adapted(x, base, use, adapted)[0]
    out: Tensor = _Adapted.apply(x, adapted[0].bank.anchor, base, use, adapted)
    return out


def _forth_adapted(
    x: Tensor, base: Any, use: InUse, adapted: Sequence[AdaptedColumns]
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """The same, with x as rows (G, R * S, D_in) and what A makes of them, (G, R * S, r) for each adapter."""
    y = _forth(base, x)
    rows, out = x.reshape(use.groups, -1, x.shape[-1]), y.view(use.groups, -1, y.shape[-1])
    inner = []
    for bank, start, end, a, b in adapted:
        inner.append(rows @ use.at(a).mT)
        out[..., start:end].baddbmm_(inner[-1], use.at(b).mT, alpha=bank.scaling)
    return y, rows, inner


class _Adapted(torch.autograd.Function):
    """W x + b, and scaling * x Aᵀ Bᵀ added to some columns, for G groups of rows, each with its own A and B."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, anchor: Tensor, base: Any, use: InUse, adapted: Sequence[AdaptedColumns]
    ) -> Tensor:
        y, rows, inner = _forth_adapted(x, base, use, adapted)
        ctx.save_for_backward(rows, *inner)
        ctx.rest = base, use, adapted
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, *tuple[None, ...]]:  # type: ignore[override]
        rows, *inners = ctx.saved_tensors
        base, use, adapted = ctx.rest
        needs_input = ctx.needs_input_grad[0]
        to_input = _back(base, gradient) if needs_input else None
        of_rows = gradient.reshape(use.groups, -1, gradient.shape[-1])
        for (bank, start, end, a, b), inner in zip(adapted, inners, strict=True):
            gathering, part = bank.gathering_of(use.rows), of_rows[..., start:end]
            to_inner = (part @ use.at(b)).mul_(bank.scaling)  # (G, R * S, r)
            gathering.add(use.rows, b, part.mT, inner * bank.scaling)
            gathering.add(use.rows, a, to_inner.mT, rows)
            if to_input is not None:
                to_input.view(rows.shape).baddbmm_(to_inner, use.at(a))
        return to_input, *[None] * 4


def _forth(base: Any, x: Tensor) -> Tensor:
    """What a module makes of x (..., D_in), where its place may be written to."""
    y: Tensor = base.forth(x.to(base.dtype)).float() if isinstance(base, FrozenLinear) else base(x).clone()
    return y


def _back(base: Any, gradient: Tensor) -> Tensor:
    """A gradient with respect to its outputs as one with respect to its inputs."""
    if isinstance(base, FrozenLinear):
        return base.back(gradient.to(base.dtype)).float()
    to_input: Tensor = base.back(gradient) if isinstance(base, Columns) else gradient @ base.weight
    return to_input


class AdapterBank:
    """The adapters of P agents on the last layers of one model.

    `values` is (P, F) float32; `shapes` tells, in order, how a row is laid out. It may be written in any way that
    `agents.write_count` counts: `version` grows with every change, so that whoever remembers an answer knows when it
    has become stale. Agents act by `acting`, of `acting_version`: `values` itself, or a published copy.
    """

    def __init__(self, causal_lm: Any, config: AdapterConfig, adapters: int, seed: int = 0):
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
        self._views: tuple[Tensor, list[Tensor]] | None = None
        self.anchor = torch.zeros((), requires_grad=True)  # for its sake autograd goes through the adapters
        self.shapes: dict[str, tuple[int, int]] = {}
        for path, linear in targets.items():
            self.shapes[f"{path}.lora_A.weight"] = (config.rank, linear.in_features)
            self.shapes[f"{path}.lora_B.weight"] = (linear.out_features, config.rank)
        self.size = sum(rows * columns for rows, columns in self.shapes.values())
        self._values = torch.zeros(adapters, self.size)
        self._views = self._values, self._views_of(self._values)
        self._other_views = self._views
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
            self._gradients = torch.zeros(size, self.size)
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
        """Every A and B of (P, F) adapters, in order; those last asked for are kept."""
        for viewed, views in (self._views, self._other_views) if self._views else ():
            if viewed is values:
                return views
        views = [self.place(name).of(values) for name in self.shapes]
        self._other_views = values, views
        return views

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

    def row(self, index: int) -> dict[str, Tensor]:
        """Agent `index`'s adapter as it is now and will be: views; IndexError if there is no such agent."""
        self._check_index(index)
        return self.unflatten(self.values[index])

    def read(self, index: int) -> dict[str, Tensor]:
        """A copy of agent `index`'s adapter; IndexError if there is no such agent."""
        self._check_index(index)
        return self.unflatten(self.values[index].clone())

    def write(self, index: int, adapter: Adapter) -> None:
        """Make `adapter` agent `index`'s; ValueError if a tensor is missing, unknown, misshapen or not finite."""
        self._check_index(index)
        check_adapter(adapter, self.shapes)
        self.values[index] = self.flatten(adapter)

    def _check_index(self, index: int) -> None:
        if not 0 <= index < len(self):  # -1 would be the last row to torch, and is the bare base elsewhere
            raise IndexError(f"adapter {index}: must be between 0 and {len(self) - 1}")

    @contextmanager
    def using(self, groups: Tensor | None, values: Tensor | None = None) -> Iterator[None]:
        """Within the block, rows of a batch carry adapters `groups` (G,), R = B / G rows each; None: the bare base.

        values: (P, F), other ones than the bank's. For this thread alone.
        """
        before = self.in_use
        views = self._views_of(self.values if values is None else values)
        self._thread.in_use = None if groups is None else InUse(_rows(groups), len(groups), views)
        try:
            yield
        finally:
            self._thread.in_use = before


def _rows(groups: Tensor) -> Rows:
    """A run of rows as a slice, which copies nothing."""
    first = int(groups[0])
    is_run = torch.equal(groups, torch.arange(first, first + len(groups)))
    return slice(first, first + len(groups)) if is_run else groups


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
