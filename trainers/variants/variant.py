"""What a variant of the core is: a section of the config, and hooks that the stages of a run call. Imports no torch.

A hook that a variant does not override does nothing. Where several variants override a hook, they are called in the
order of `trainers.variants.VARIANTS`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from trainers.records.tags import Tag

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from trainers.config import TrainConfig
    from trainers.learning.critic import CriticExamples
    from trainers.learning.imitation import Demonstrations
    from trainers.learning.learner import Targets
    from trainers.population import Population
    from trainers.rollout import Actor, Observer, Outcome, Rollout
    from trainers.stages import BreedingGroup, Generation, Run


@dataclass(frozen=True)
class VariantConfig:
    """A section of the config, which a frozen dataclass inherits from. By default it is switched off."""

    def is_on(self, config: "TrainConfig") -> bool:
        """Whether the run has this variant."""
        raise NotImplementedError

    def check(self, config: "TrainConfig") -> None:
        """UserError where the section does not go with the rest of the config; asked whether it is on or not."""

    def breeding_sizes(self, config: "TrainConfig") -> list[int] | None:
        """How many agents breed with each other, in each group that does, where that is another number than all."""
        return None

    def acting(self, config: "TrainConfig", run_dir: Path, generation: int) -> "TrainConfig":
        """The config of a population that acts as that of a run did after a generation, and learns no more.

        UserError where nothing is left of that generation.
        """
        return config


def is_on(config: "TrainConfig", name: str) -> bool:
    """Whether the variant whose section has this name is switched on; False where it was deleted."""
    section: VariantConfig | None = getattr(config, name, None)
    return section is not None and section.is_on(config)


class Variant:
    """The hooks of a variant in one run."""

    tags: ClassVar[dict[str, Tag]] = {}
    """Its figures in TensorBoard."""

    stages: ClassVar[tuple[str, ...]] = ()
    """What follows the evaluation of each generation, as progress shows it."""

    def __init__(self, settings: Any, config: "TrainConfig", population: "Population", run_dir: Path):
        """settings: the variant's section. UserError where something that it needs is missing."""
        self.settings, self.config, self.population, self.run_dir = settings, config, population, run_dir

    @staticmethod
    def passed_on(settings: Any, tensors: "Mapping[str, Tensor]") -> "Tensor | None":
        """The adapters (P, F) that a population passes on, from its checkpoint; None: as they have learned."""
        return None

    def observers(self, run: "Run", generation: "Generation") -> "list[Observer]":
        """What watches a rollout from which agents learn."""
        return []

    def learn(self, run: "Run", rollout: "Rollout") -> dict[str, float] | None:
        """Learn in place of the adapters; return what is worth logging."""
        return None

    def actor(self, run: "Run") -> "Actor | None":
        """Who acts in place of the population in rollouts from which it learns."""
        return None

    def targets(self, run: "Run", rollout: "Rollout") -> "Targets | None":
        """What a teacher would have done."""
        return None

    def demonstrations(self, run: "Run", rollout: "Rollout", returns: "Tensor") -> "list[Demonstrations]":
        """What adapters imitate after a rollout; returns (S,) of its samples."""
        return []

    def critic_examples(self) -> "list[CriticExamples]":
        """More for the critic to learn from."""
        return []

    def after_learning(self, rollout: "Rollout", returns: "Tensor") -> dict[str, float]:
        """Adapters and critic have learned; return what is worth logging."""
        return {}

    def breeding_groups(self, run: "Run") -> "list[BreedingGroup] | None":
        """Who breeds with whom."""
        return None

    def evolve(self, run: "Run") -> dict[str, float] | None:
        """Evolve in place of breeding; return what is worth logging."""
        return None

    def inherited(self) -> "Tensor | None":
        """The adapters (P, F) that the population passes on, where they are not those that it has learned."""
        return None

    def begin_anew(self, is_new: "np.ndarray", *, in_rollout: bool) -> "np.ndarray | None":
        """New agents, (P,) bool, have their slots. Return which others begin anew as well, (P,) bool, if any.

        in_rollout: the others are in the middle of a rollout.
        """
        return None

    def forget(self, slot: int) -> None:
        """The agent of this slot is new, or begins anew."""

    def evaluate(self, run: "Run", generation: "Generation", seeds: "np.ndarray") -> "Outcome | None":
        """Measure fitness in another way, in worlds (E,)."""
        return None

    def after_evaluation(self, run: "Run", generation: "Generation") -> dict[str, float]:
        """Fitness has been measured; return what is worth logging."""
        return {}

    def tensors(self) -> "dict[str, Tensor]":
        """What a checkpoint must hold of it, by name."""
        return {}

    def state(self) -> dict[str, Any]:
        """What else a checkpoint must hold, fit for JSON."""
        return {}

    def restore(self, tensors: "dict[str, Tensor]", state: dict[str, Any], generation: int) -> None:
        """Become what was saved after a generation; KeyError, ValueError or RuntimeError where it does not fit."""
