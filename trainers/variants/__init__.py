"""Variants of the core, each in files of its own: a section of the config, and hooks that the stages of a run call.

To add a variant, write its section and its hooks (`trainers.variants.variant`) and name the section in `VARIANTS`. To
delete one, delete its files and its line in `VARIANTS`. The core imports no variant, and no variant imports another.
Imports no torch.
"""

from dataclasses import field, make_dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from trainers.config import TrainConfig
from trainers.variants.variant import Variant, VariantConfig

if TYPE_CHECKING:
    from trainers.population import Population

VARIANTS = {
    "distillation": "DistillationConfig",
    "replay": "ReplayConfig",
    "social": "SocialConfig",
    "steady_state": "SteadyStateConfig",
    "inheritance": "InheritanceConfig",
    "coevolution": "CoevolutionConfig",
}
"""The sections: each is a class in the file of the same name with `_config` behind it."""


def _section(name: str) -> type[VariantConfig]:
    found: type[VariantConfig] = getattr(import_module(f"trainers.variants.{name}_config"), VARIANTS[name])
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
    frozen=True,
)
"""The config of the core with the sections of all variants."""


def sections(config: TrainConfig) -> list[VariantConfig]:
    """The sections of all variants that a config has."""
    return [getattr(config, name) for name in VARIANTS if hasattr(config, name)]


def acting_config(config: TrainConfig, run_dir: Path, generation: int, newest: int) -> TrainConfig:
    """The config of a population that acts as that of a run did after a generation; see `VariantConfig.acting`."""
    for section in sections(config):
        config = section.acting(config, run_dir, generation, newest)
    return config


def open_variants(config: TrainConfig, population: "Population", run_dir: Path) -> dict[str, Variant]:
    """The variants that are switched on, by their names; UserError where something that one needs is missing."""
    on = {name: getattr(config, name) for name in VARIANTS if hasattr(config, name)}
    return {name: section.open(config, population, run_dir) for name, section in on.items() if section.is_on}
