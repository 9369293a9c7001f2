"""Heredity: who breeds, and what becomes of their adapters. A leaf: knows no model, no world and no trainer."""

from evolution.generation import breed, next_generation
from evolution.genome import Genome
from evolution.selection import select_top_k

__all__ = ["Genome", "breed", "next_generation", "select_top_k"]
