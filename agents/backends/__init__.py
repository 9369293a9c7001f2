"""Who computes the answers of agents: torch, which also learns, or another runtime with the same adapters."""

import signal
import subprocess
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Protocol

import numpy as np

from agents.types import UserError, require

if TYPE_CHECKING:
    from agents.policy_network import PolicyNetwork


class Backend(Protocol):
    """What answers: `agents.policy_network.PolicyNetwork`, with which tests/agents/test_backends.py compares others."""

    is_batched: bool
    """Whether many rows cost little more than one, so that it pays to ask for what will be asked soon."""

    def answer(self, texts: Sequence[str], adapters: np.ndarray) -> np.ndarray:
        """Logits (B, A), float32, of the action words after B texts; adapters (B,): rows of the bank, -1: bare base."""


BACKENDS = {
    "llama_cpp": ("agents.backends.llama_cpp", "LlamaCpp", "llama-cpp"),
    "onnx": ("agents.backends.onnx", "Onnx", "onnx"),
    "mlx": ("agents.backends.mlx", "Mlx", "mlx"),
}
"""Module, class and extra of each backend but torch."""


def open_backend(name: str, network: "PolicyNetwork") -> Backend:
    """A backend that answers as `network` does, with the adapters that its bank has now.

    UserError for an unknown name, for a package that is not installed, or for a model or adapters that the backend
    cannot run.
    """
    if name == "torch":
        return network
    if name not in BACKENDS:
        raise UserError(f"backend = {name!r}: must be one of torch, {', '.join(BACKENDS)}")
    require_answer_token(network, f"backend {name}")
    require_cpu(network, f"backend {name}")
    module, class_name, extra = BACKENDS[name]
    try:
        loaded = import_module(module)
    except ImportError as error:
        raise UserError(f"backend = {name!r}: needs `pip install -e '.[{extra}]'` ({error})") from error
    return getattr(loaded, class_name)(network)


def require_installed(user: str, extra: str, *packages: str) -> None:
    """UserError, naming the `user` and the extra that brings them, where one of some packages is not installed."""
    for package in packages:
        if find_spec(package) is None:
            raise UserError(f"{user}: needs `pip install -e '.[{extra}]'` ({package} is not installed)")


def require_alive(user: str, program: str, *arguments: str, hint: str) -> None:
    """UserError, naming the `user`, where a Python program is killed by a signal, such as for a forbidden instruction.

    It runs in a process of its own, since such an end cannot be caught. What else may go wrong in it is not looked at.
    """
    code = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True).returncode
    if code < 0:
        raise UserError(f"{user}: was killed by {signal.Signals(-code).name} in a trial on this machine; {hint}")


def require_answer_token(network: "PolicyNetwork", user: str) -> None:
    """UserError, naming the `user`, where adapters act on more than the answer token, or texts are read in parts.

    As yet torch alone does that.
    """
    if network.part_end:
        raise UserError(f"{user}: its codec's texts are read in parts; only torch does that")
    tokens = network.bank.config.tokens
    require(tokens == "answer", "adapter.tokens", tokens, f"'answer' for {user}; only torch computes the other")


def require_cpu(network: "PolicyNetwork", user: str) -> None:
    """UserError, naming the `user`, where the model is on another device: only torch computes there."""
    device = network.device.type
    require(device == "cpu", "model.device", device, f"cpu for {user}; only torch computes elsewhere")
