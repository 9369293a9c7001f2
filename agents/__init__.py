"""The network: language model agents with LoRA adapters, many on one frozen base. Part of Terrarium."""

from typing import TYPE_CHECKING

from evolution.own import require_own

if TYPE_CHECKING:
    from agents.agent import TinyLLMAgent

__all__ = ["TinyLLMAgent"]

require_own("envs", "evolution")


def __getattr__(name: str) -> object:
    """Import the agent, and with it torch, only when it is asked for."""
    if name == "TinyLLMAgent":
        from agents.agent import TinyLLMAgent

        return TinyLLMAgent
    raise AttributeError(f"module 'agents' has no attribute {name!r}")
