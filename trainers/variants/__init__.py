"""Variants of the core, each in files of its own: a section of the config, and hooks that the stages of a run call.

To add a variant, write its section and its hooks (`trainers.variants.variant`) and name the section in `VARIANTS`. To
delete one, delete its files and its line in `VARIANTS`. The core imports no variant, and no variant imports another.
Imports no torch.
"""

from collections.abc import Mapping
from dataclasses import field, make_dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from trainers.config import TrainConfig
from trainers.variants.variant import Variant, VariantConfig, is_on

if TYPE_CHECKING:
    from torch import Tensor

    from trainers.population import Population

VARIANTS = {
    "steady_state": "SteadyState",  # first, so that observers of states see the newcomers
    "distillation": "Distillation",
    "replay": "Replay",
    "social": "Social",
    "inheritance": "Inheritance",
    "coevolution": "Coevolution",
    "es": "ES",
}
"""By the names of their sections: `social` has the section `SocialConfig` in social_config.py, and the hooks `Social`
in social.py."""


def _section(name: str) -> type[VariantConfig]:
    found: type[VariantConfig] = getattr(import_module(f"trainers.variants.{name}_config"), f"{VARIANTS[name]}Config")
    return found


def _hooks(name: str) -> type[Variant]:
    found: type[Variant] = getattr(import_module(f"trainers.variants.{name}"), VARIANTS[name])
    return found


class _Checked(TrainConfig):
    """A config whose sections say what they do not go with."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for section in sections(self):
            section.check(self)

    def breeding_sizes(self) -> list[int]:
        """As the first section has it that says something else than the core."""
        found = (section.breeding_sizes(self) for section in sections(self))
        return next((sizes for sizes in found if sizes is not None), super().breeding_sizes())


FullConfig: type[TrainConfig] = make_dataclass(
    "FullConfig",
    [(name, _section(name), field(default_factory=_section(name))) for name in VARIANTS],
    bases=(_Checked,),
    namespace={"__doc__": "A whole run: the core, and its variants."},
    frozen=True,
)
"""The config of the core with the sections of all variants."""


def sections(config: TrainConfig) -> list[VariantConfig]:
    """The sections of all variants that a config has."""
    return [getattr(config, name) for name in VARIANTS if hasattr(config, name)]


def switched_on(config: TrainConfig) -> dict[str, VariantConfig]:
    """The sections that are switched on, by their names."""
    return {name: getattr(config, name) for name in VARIANTS if is_on(config, name)}


def acting_config(config: TrainConfig, run_dir: Path, generation: int) -> TrainConfig:
    """The config of a population that acts as that of a run did after a generation; see `VariantConfig.acting`."""
    for section in sections(config):
        config = section.acting(config, run_dir, generation)
    return config


def open_variants(config: TrainConfig, population: "Population", run_dir: Path) -> dict[str, Variant]:
    """The variants that are switched on, by their names; UserError where something that one needs is missing."""
    return {name: _hooks(name)(own, config, population, run_dir) for name, own in switched_on(config).items()}


def passed_on(config: TrainConfig, tensors: "Mapping[str, Tensor]") -> "Tensor":
    """The adapters (P, F) that the population of a checkpoint passes on; KeyError where they are missing."""
    found = (_hooks(name).passed_on(own, tensors) for name, own in switched_on(config).items())
    return next((rows for rows in found if rows is not None), tensors["bank"])
