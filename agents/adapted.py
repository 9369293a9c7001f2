"""Linear modules with many LoRA adapters: one forward serves all of them, one backward gathers the gradients of all.

G groups of rows each carry an adapter of their own, applied by batched products. For these alone, groups are filled up
to the rows of the largest. A backward adds the gradients of A and B straight into one array, (G, F) for the G rows of
the bank that are learning: autograd itself would first make one array for each A and B, of all P adapters.

Symbols: P adapters, F numbers in an adapter, B rows in a batch, G groups of them, R rows in the largest group, r rank,
D width.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from agents.weights.frozen import Columns, FrozenLinear

if TYPE_CHECKING:
    from agents.lora import AdapterBank

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
        """Map (B, S, D_in) to (B, S, D_out); group g carries the g-th adapter in use."""
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
    place: Tensor | None = None  # (B,) of each row among G * R; None where all groups have as many rows
    places: int = 0  # G * R, where they have not

    def at(self, place: Place) -> Tensor:
        """The A or B of each group, (G, rows, columns)."""
        view = self.views[place.number]
        is_all = isinstance(self.rows, slice) and self.rows.stop - self.rows.start == len(view)
        return view if is_all else view[self.rows]

    def by_group(self, x: Tensor) -> Tensor:
        """Rows (B, S, D) by group, (G, R * S, D): zeros where a group has fewer."""
        if self.place is not None:
            x = x.new_zeros(self.places, *x.shape[1:]).index_copy_(0, self.place, x)
        return x.reshape(self.groups, -1, x.shape[-1])

    def add_by_row(self, total: Tensor, of_groups: Tensor, factor: float = 1.0) -> None:
        """Add what groups (G, R * S, D) come to, times a factor, to their rows in `total` (B, S, D)."""
        if self.place is None:
            total.add_(of_groups.view(total.shape), alpha=factor)
        else:
            by_place = of_groups.view(self.places, *total.shape[1:])
            total.add_(by_place.index_select(0, self.place), alpha=factor)


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
            total[rows.start - self.rows.start : rows.stop - self.rows.start].add_(one @ other)
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
    """What a frozen module makes of x (B, S, D_in), and to some of its outputs what the adapters in use add."""
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
    rows, inner = use.by_group(x), []
    for bank, start, end, a, b in adapted:
        inner.append(rows @ use.at(a).mT)
        if use.place is None:  # faster in one operation
            y.view(use.groups, -1, y.shape[-1])[..., start:end].baddbmm_(inner[-1], use.at(b).mT, alpha=bank.scaling)
        else:
            use.add_by_row(y[..., start:end], inner[-1] @ use.at(b).mT, bank.scaling)
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
        of_rows = use.by_group(gradient)
        for (bank, start, end, a, b), inner in zip(adapted, inners, strict=True):
            gathering, part = bank.gathering_of(use.rows), of_rows[..., start:end]
            to_inner = (part @ use.at(b)).mul_(bank.scaling)  # (G, R * S, r)
            gathering.add(use.rows, b, part.mT, inner * bank.scaling)
            gathering.add(use.rows, a, to_inner.mT, rows)
            if to_input is not None:
                use.add_by_row(to_input, to_inner @ use.at(a))
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
