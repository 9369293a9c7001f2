"""The network: language model agents with LoRA adapters, many on one frozen base. Part of Terrarium."""

import os
from typing import TYPE_CHECKING

from evolution.own import require_own

if TYPE_CHECKING:
    from agents.agent import TinyLLMAgent

__all__ = ["TinyLLMAgent"]

require_own("envs", "evolution")
# Before MKL multiplies for the first time: else last digits depend on where in memory arrays lie, and a resumed run
# differs from one that was never stopped. It costs nothing measurable. Without MKL it means nothing.
os.environ.setdefault("MKL_CBWR", "AUTO")


def __getattr__(name: str) -> object:
    """Import the agent, and with it torch, only when it is asked for."""
    if name == "TinyLLMAgent":
        from agents.agent import TinyLLMAgent

        return TinyLLMAgent
    raise AttributeError(f"module 'agents' has no attribute {name!r}")
