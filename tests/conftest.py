"""What all tests share: a tiny random Llama made on the spot, and the real model for tests marked `real`.

Makes `pretend_device` importable from all tests.
"""

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from agents import device as device_module
from agents import policy as policy_module
from agents.codecs.forage import ForageCodec
from agents.device import CPU, chosen_device
from agents.policy import Policy, make_policy
from agents.types import AdapterConfig, Device, ModelConfig
from agents.weights import products
from benchmarks.tiny_llama import write_tiny_llama
from envs.worlds.foreign import ForeignWorld

sys.path.append(str(Path(__file__).parent))  # at the end: here are folders of the packages' names
TINY_ADAPTER = AdapterConfig(rank=2, alpha=4.0, top_layers=2)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder with a tiny random Llama."""
    return write_tiny_llama(tmp_path_factory.mktemp("model") / "tiny-llama")


@pytest.fixture(scope="session")
def tiny_deep_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with as many layers as carry adapters unless told otherwise."""
    return write_tiny_llama(tmp_path_factory.mktemp("model") / "tiny-deep-llama", AdapterConfig().top_layers)


@pytest.fixture
def tokens() -> str:
    """On which tokens the adapters of `tiny_policy` act; a test that means both modes parametrises this."""
    return "answer"


@pytest.fixture
def tiny_policy(tiny_model: Path, tokens: str) -> Policy:
    """Six agents on a tiny random Llama, each with another adapter."""
    model, adapter = ModelConfig(name=str(tiny_model), dtype="float32"), replace(TINY_ADAPTER, tokens=tokens)
    policy = make_policy(model, adapter, ForageCodec(view_radius=3), agents=6, seed=0)
    generator = torch.Generator().manual_seed(1)
    bank = policy.network.bank
    bank.values += 0.3 * torch.randn(bank.values.shape, generator=generator)
    return policy


@pytest.fixture(autouse=True)
def closing_worlds(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Foreign worlds that a test makes are closed when it ends."""
    made, begin = [], ForeignWorld.__init__

    def note(self: ForeignWorld, *args: object, **kwargs: object) -> None:
        begin(self, *args, **kwargs)
        made.append(self)

    monkeypatch.setattr(ForeignWorld, "__init__", note)
    yield
    for world in made:
        world.close()


@pytest.fixture(params=["cpu", "pretended", "cuda", "mps"])
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Device]:
    """A value of model.device, for each device that is here; one is pretended, to which `cuda` then leads."""
    if request.param != "pretended":
        if request.param not in device_module.present():
            pytest.skip(f"this torch has no {request.param} here")
        yield request.param
        return
    from pretend_device import pretending  # here, where its folder has become known

    with pretending() as pretended:
        monkeypatch.setattr(device_module, "present", lambda: ["cpu", "cuda"])
        monkeypatch.setattr(
            policy_module, "device_of", lambda model: pretended if chosen_device(model) == "cuda" else CPU
        )
        yield "cuda"


def _absent(weight: torch.Tensor) -> torch.Tensor:
    raise AttributeError("'_OpNamespace' 'mkldnn' object has no attribute '_reorder_linear_weight'")


def _refuse(weight: torch.Tensor) -> torch.Tensor:
    raise RuntimeError("mkldnn_reorder_linear_weight: not on this processor")


def _refuse_bfloat16(weight: torch.Tensor) -> torch.Tensor:
    return _refuse(weight) if weight.dtype == torch.bfloat16 else torch.ops.mkldnn._reorder_linear_weight(weight)


PROCESSORS = {
    "as it is": None,
    "no bfloat16": _refuse_bfloat16,  # AVX2 alone
    "no oneDNN": _absent,  # as in torch for a Mac
    "no packed products": _refuse,
    "wrong packed products": lambda weight: weight.mul(2.0).to_mkldnn(),
}
"""What packs a weight for oneDNN on processors that can do less than this one."""


@pytest.fixture(params=PROCESSORS)
def processor(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A processor from which operations were taken away, by its name in PROCESSORS."""
    if PROCESSORS[request.param]:
        monkeypatch.setattr(products, "_reorder", PROCESSORS[request.param])
    products.has_packed.cache_clear()
    products.fastest_dtype.cache_clear()
    yield request.param
    products.has_packed.cache_clear()
    products.fastest_dtype.cache_clear()
