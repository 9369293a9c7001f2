"""How closely other runtimes agree with torch, for the same texts and adapters of the real model.

    python -m benchmarks.conformance [--texts N] [--adapters N] [--agents N] [--gguf FORMAT ...] [--json FILE]

The texts are distinct ones from forage worlds in which agents act at random, by day and by night. The adapters are
random ones, as large as after some generations of learning, and the bare base. Each runtime is compared with torch in
float32 over the action words: the largest difference of a probability, the mean Kullback-Leibler divergence in nats,
and how often the likeliest word is the same. Then the milliseconds of one step are measured, in which each agent has a
text that is new. With --gguf llama.cpp also answers from the base's GGUF file written in other number formats (F32,
BF16, Q8_0). Backends whose package is not installed are named and left out.
"""

import argparse
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np

from agents.backends import Backend
from agents.codecs.forage import ForageCodec
from agents.policy import log_softmax
from agents.policy_network import PolicyNetwork
from agents.types import UserError
from benchmarks.subject import forget_texts, mature_policy, milliseconds, runtimes
from envs.presets import PRESETS
from envs.worlds.world import ForageWorld
from trainers.cli.command_line import run_command
from trainers.comparison import Chance
from trainers.records.run_folder import machine
from trainers.rollout import collect_rollout


class Agreement(NamedTuple):
    """How closely answers agree with those of torch, over B rows of A action words."""

    largest_difference: float  # of a probability
    mean_kl: float  # of torch's distribution from theirs, nats
    equal_choices: float  # share of rows whose likeliest word is the same


def agreement(exact: np.ndarray, logits: np.ndarray) -> Agreement:
    """Compare action logits (B, A) with torch's."""
    everything = np.ones(exact.shape, bool)
    p, q = (log_softmax(x, everything).astype(np.float64) for x in (exact, logits))
    difference = np.abs(np.exp(p) - np.exp(q)).max()
    kl = (np.exp(p) * (p - q)).sum(axis=1).mean()
    return Agreement(float(difference), float(kl), float((exact.argmax(1) == logits.argmax(1)).mean()))


def forage_texts(count: int) -> list[str]:
    """Distinct texts of forage worlds in which agents act at random, alternately with and without nights.

    UserError where a thousand worlds have fewer.
    """
    texts: dict[str, None] = {}
    for seed in range(1000):
        config = PRESETS[("meadow", "night")[seed % 2]]
        codec, rng = ForageCodec(config.view_radius), np.random.default_rng(seed)
        collected = collect_rollout(Chance(), codec, ForageWorld(config), np.array([seed]), rng)
        texts |= dict.fromkeys(collected.trajectory.texts)
        if len(texts) >= count:
            return list(texts)[:count]
    raise UserError(f"texts = {count}: must be at most {len(texts)}, as many as there are")


def answers(backend: Backend, texts: Sequence[str], agents: int) -> np.ndarray:
    """Action logits (B, A) of every text to every agent and to the bare base."""
    owners = np.repeat(np.arange(-1, agents), len(texts))
    return backend.answer(list(texts) * (agents + 1), owners)


def step_milliseconds(backend: Backend, texts: Sequence[str], agents: int) -> float:
    """Median time of a step in which each of `agents` has another text, none of them cached."""

    def step() -> None:
        forget_texts(backend)
        backend.answer(texts[:agents], np.arange(agents))

    return milliseconds(step, repeats=7)


def measure(
    network: PolicyNetwork, texts: Sequence[str], adapters: int, formats: Sequence[str]
) -> Iterator[tuple[str, Agreement | None, float]]:
    """Each backend's name, its agreement over all texts and the first few adapters, and milliseconds of a step."""
    exact, agents = answers(network, texts, adapters), len(network.bank)
    yield "torch float32", None, step_milliseconds(network, texts, agents)
    half: tuple[str, Backend] = "torch bfloat16", mature_policy(agents, "bfloat16").network
    with tempfile.TemporaryDirectory() as box:
        for name, backend in chain([half], runtimes(network, formats, Path(box))):
            near = agreement(exact, answers(backend, texts, adapters))
            yield name, near, step_milliseconds(backend, texts, agents)


def main(argv: list[str] | None = None) -> None:
    """Measure, print a table, and write the rows to a file if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=200)
    parser.add_argument("--adapters", type=int, default=4, help="of how many agents all answers are compared")
    parser.add_argument("--agents", type=int, default=20, help="how many a step has")
    parser.add_argument("--gguf", nargs="*", default=[], choices=["F32", "BF16", "Q8_0"], metavar="FORMAT")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args(argv)
    if not 1 <= options.adapters <= options.agents <= options.texts:
        parser.error("must be: 1 <= --adapters <= --agents <= --texts")

    here, rows = machine(), []
    print(f"{options.texts} texts, {options.adapters} adapters and the bare base")
    print(f"{here['cpu']}, {here['threads']} threads, load average {os.getloadavg()[0]:.1f}")
    print(f"{'backend':20s} {'largest difference':>19s} {'mean KL':>9s} {'equal choices':>14s} {'step':>9s}")
    network = mature_policy(options.agents, "float32").network
    for name, near, ms in measure(network, forage_texts(options.texts), options.adapters, options.gguf):
        figures = f"{near[0]:19.1e} {near[1]:9.1e} {near[2]:13.1%}" if near else f"{'the baseline':>44s}"
        print(f"{name:20s} {figures} {ms:7.0f} ms", flush=True)
        rows.append({"backend": name, **(near._asdict() if near else {}), "step_ms": ms})
    if options.json:
        options.json.write_text(
            json.dumps({"machine": here, **vars(options), "rows": rows}, indent=2, default=str) + "\n"
        )


if __name__ == "__main__":
    run_command(main)
