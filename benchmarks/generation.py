"""Where the seconds of a generation go, and how far that is from what its products alone must take.

    python -m benchmarks.generation [--generations N] [--json FILE] [any key of trainers.train]

The floor: every row that went through the adapted layers, times the operations of their frozen weights, at the speed of
one large product on the model's device; rows with gradients go twice, forth and back. Generations from the fourth on
count, as by then most texts have been read.
"""

import argparse
import json
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor

from agents.device import device_name, synchronize
from agents.policy_network import PolicyNetwork
from agents.weights.frozen import FrozenLinear, product_dtype
from agents.weights.products import pack, product
from benchmarks.subject import milliseconds
from trainers import stages
from trainers.begin import begin
from trainers.cli.command_line import run_command
from trainers.cli.parser import parse
from trainers.records.report import record
from trainers.records.run_folder import machine

FIRST = 3
"""The generation from which on they count."""


class Rows:
    """Counts what goes through the adapted layers of a network."""

    def __init__(self, network: PolicyNetwork):
        self.counts: Counter[str] = Counter()
        self._compute = network.action_logits
        network.action_logits = self._counted  # type: ignore[method-assign]

    def _counted(self, texts: Sequence[str], *others: Any, **named: Any) -> Tensor:
        kind = "rows with gradients" if torch.is_grad_enabled() else "rows"
        self.counts[kind] += len(texts)
        self.counts[kind.replace("rows", "passes", 1)] += 1
        return self._compute(texts, *others, **named)


def peak_gflops(network: PolicyNetwork) -> float:
    """Thousand million floating-point operations per second of one large product, in the format of the weights."""
    dtype, device = getattr(torch, product_dtype(network.base.decoder)), network.device
    weight, x = (torch.ones(rows, 1536, dtype=dtype, device=device) for rows in (1536, 2048))
    packed = pack(weight)
    return 2 * 1536 * 1536 * 2048 / milliseconds(lambda: product(x, packed, None), 20, device) / 1e6


def flop_of_row(network: PolicyNetwork) -> int:
    """Floating-point operations of the frozen weights of the adapted layers for one token."""
    layers = network.base.decoder.layers[network.first_layer :]
    frozen = {module for layer in layers for module in layer.modules() if isinstance(module, FrozenLinear)}
    return 2 * sum(module.weight().numel() for module in frozen)


@contextmanager
def timed(seconds: dict[str, float], name: str, device: torch.device) -> Iterator[None]:
    """Note the time of the block, until the device has done what the block told it."""
    start = perf_counter()
    yield
    synchronize(device)
    seconds[name] = perf_counter() - start


def lived(run: stages.Run) -> list[dict[str, float]]:
    """The generations of a run, as `trainers.train` has them: the seconds of their stages, and what was counted."""
    rows, found, device = Rows(run.population.policy.network), [], run.population.policy.network.device
    for generation in stages.generations(run):
        seconds: dict[str, float] = {}
        figures: dict[str, float] = {}
        rows.counts.clear()
        with timed(seconds, "generation", device):
            with timed(seconds, "evolve", device):
                figures |= stages.evolve(run, generation) if generation.number else {}
            with timed(seconds, "collect", device):
                rollout = stages.collect(run, generation)
            with timed(seconds, "learn", device):
                figures |= stages.learn(run, rollout)
            with timed(seconds, "evaluate", device):
                outcome, evaluated = stages.evaluate(run, generation)
            with timed(seconds, "record", device):
                record(run, generation, rollout, figures | evaluated, outcome)
        found.append({**seconds, **rows.counts})
    return found


def main(argv: list[str] | None = None) -> None:
    """Measure, print a table, and write it to a file if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--generations", type=int, default=6)
    parser.add_argument("--json", type=Path, metavar="FILE")
    options, keys = parser.parse_known_args(argv)
    if options.generations <= FIRST:
        parser.error(f"--generations {options.generations}: must be above {FIRST}")
    with tempfile.TemporaryDirectory() as folder:
        settings = ["--run_dir", f"{folder}/run", "--generations", str(options.generations)]
        run = begin(parse([*settings, *keys])[0], None)
        generations = lived(run)
        network = run.population.policy.network
        peak, flop = peak_gflops(network), flop_of_row(network)
        run.close()
    names = list(dict.fromkeys(name for one in generations[FIRST:] for name in one))
    table = {name: float(np.mean([one.get(name, 0) for one in generations[FIRST:]])) for name in names}
    table["floor"] = (table["rows"] + 2 * table["rows with gradients"]) * flop / peak / 1e9
    here = machine() | {"dtype": product_dtype(network.base.decoder), "device": device_name(network.device)}
    print(f"{here['cpu']} ({here['capability']}), {here['threads']} threads, {here['dtype']}, {peak:.0f} GFLOP/s")
    print(f"model.device: {here['device']}")
    for name, value in table.items():
        print(f"{name:24s} {value:10.2f}" + ("" if "rows" in name or "passes" in name else " s"))
    print(f"a generation takes {table['generation'] / table['floor']:.1f} times its floor")
    if options.json:
        result = {"machine": here, "peak_gflops": peak, "flop_of_row": flop, "generations": generations, "mean": table}
        options.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    run_command(main)
