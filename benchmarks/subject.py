"""What the benchmarks of decisions measure, how they time it, and the other runtimes that they compare with."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from gguf import GGMLQuantizationType

from agents.backends import BACKENDS, Backend, open_backend
from agents.codecs.forage import ForageCodec
from agents.device import CPU, synchronize
from agents.formats.gguf import recode_gguf
from agents.policy import Policy, make_policy
from agents.policy_network import PolicyNetwork
from agents.types import AdapterConfig, Device, Dtype, ModelConfig, UserError
from envs import WorldConfig


def mature_policy(agents: int, dtype: Dtype = "auto", device: Device = "cpu") -> Policy:
    """The real model with adapters that all differ and are as large as after some generations."""
    codec = ForageCodec(WorldConfig().view_radius)
    policy = make_policy(ModelConfig(dtype=dtype, device=device), AdapterConfig(), codec, agents, seed=0)
    generator = torch.Generator().manual_seed(0)
    for row in policy.network.bank.values:
        row += 0.06 * torch.randn(row.shape, generator=generator).to(row.device)
    return policy


def milliseconds(work: Callable[[], object], repeats: int, device: torch.device = CPU) -> float:
    """Median time of `work` until the device has done it, after one run that is not counted."""
    times = []
    for _ in range(repeats + 1):
        synchronize(device)
        start = perf_counter()
        work()
        synchronize(device)
        times.append(perf_counter() - start)
    return 1000 * float(np.median(times[1:]))


def runtimes(
    network: PolicyNetwork, formats: Sequence[str], box: Path, without: Sequence[str] = ()
) -> Iterator[tuple[str, Backend]]:
    """Every other runtime that is installed, one after the other; llama.cpp also in some number `formats`."""
    for name in (name for name in BACKENDS if name not in without):
        try:
            yield name, open_backend(name, network)
        except UserError as error:
            print(f"left out: {error}")
            continue
        for number_format in formats if name == "llama_cpp" else ():
            from agents.backends.llama_cpp import LlamaCpp

            kind = GGMLQuantizationType[number_format]
            file = recode_gguf(network.base.gguf, box / f"{number_format}.gguf", kind)
            try:
                yield f"llama_cpp {number_format}", LlamaCpp(network, file)
            except UserError as error:
                print(f"left out: {number_format}: {error}")


def forget_texts(backend: object) -> None:
    """Clear the texts that a backend has cached, if it caches any."""
    cache = getattr(backend, "cache", None)
    if cache is not None:
        cache.clear()
