"""Who computes the answers of agents: torch, which also learns, or another runtime with the same adapters."""

import os
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

_FORBIDDEN = {
    -signal.Signals[name]: name for name in ("SIGILL", "SIGSEGV", "SIGBUS") if name in signal.Signals.__members__
}
_WINDOWS_FAULTS = 0xC0000000
"""Exit codes of processes that an instruction has killed; on Windows from the second on."""


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


def require_alive(user: str, program: str, *arguments: str, hint: str, seconds: float = 300) -> None:
    """UserError, naming the `user`, unless a Python program ends well in a process of its own, which has our path.

    An instruction that the machine forbids kills a process, which it cannot catch itself; then `hint` says what to do.
    Of other failures the last line on standard error is told. seconds: how long it may take.
    """
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", program, *arguments]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=environment, timeout=seconds
        )
    except subprocess.TimeoutExpired as error:
        raise UserError(f"{user}: a trial on this machine did not end within {seconds:g} seconds") from error
    code = done.returncode
    if code in _FORBIDDEN or code >= _WINDOWS_FAULTS:
        raise UserError(f"{user}: a trial on this machine was killed by {_FORBIDDEN.get(code, hex(code))}; {hint}")
    if code:
        said = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise UserError(f"{user}: a trial on this machine ended with code {code} ({said})")


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
