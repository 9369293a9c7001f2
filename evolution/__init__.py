"""Evolution: selection, crossover and mutation of LoRA adapters. Part of Terrarium.

A leaf: it knows no model, no world and no trainer.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from evolution.config import EvolutionConfig

if TYPE_CHECKING:
    from evolution.generation import breed, next_generation
    from evolution.genome import Genome
    from evolution.selection import select_top_k

__all__ = ["EvolutionConfig", "Genome", "breed", "next_generation", "select_top_k"]

_PLACES = {"Genome": "genome", "breed": "generation", "next_generation": "generation", "select_top_k": "selection"}


def __getattr__(name: str) -> object:
    """Import what is asked for, and torch with it, only then: settings and command lines can do without."""
    if name in _PLACES:
        return getattr(import_module(f"evolution.{_PLACES[name]}"), name)
    raise AttributeError(f"module 'evolution' has no attribute {name!r}")
