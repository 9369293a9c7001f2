"""Distillation: a teacher takes the place of the reward. It judges what the student read itself.

The student acts, as one that only watches never sees where its own mistakes lead; in the first `led_generations` the
teacher does, as one that knows nothing meets nothing worth a lesson. The teacher says of each text that was met what
should have been done (DAgger, Ross et al. 2011, arXiv:1011.0686, with the teacher's share of acting 1 and then 0).
Adapters learn by `trainers.learning.distil`, or all weights of the model by `distillation_model`.
"""

from pathlib import Path
from time import perf_counter
from typing import Any, ClassVar

import torch
from torch import Tensor

from agents.files import remove_folder
from agents.types import UserError
from trainers.config import TrainConfig
from trainers.learning.health import health
from trainers.learning.learner import Targets
from trainers.population import Population
from trainers.records.manifest import by_generation
from trainers.records.sealed import DamagedRun, check_folder
from trainers.records.tags import Tag
from trainers.rollout import Actor, Observer, Rollout
from trainers.stages import Generation, Run
from trainers.variants.distillation_config import DistillationConfig
from trainers.variants.distillation_expert import ExpertTeacher
from trainers.variants.distillation_model import WholeModel
from trainers.variants.distillation_teacher import open_teacher
from trainers.variants.variant import Variant


class Distillation(Variant):
    """Asks the teacher after each rollout; trains the model itself where that is what learns."""

    tags: ClassVar[dict[str, Tag]] = {
        "learn/teacher_kl": Tag(
            "teacher_kl", "KL of the student's actions from its teacher's on what it read, in nats."
        )
    }

    settings: DistillationConfig

    def __init__(self, settings: DistillationConfig, config: TrainConfig, population: Population, run_dir: Path):
        super().__init__(settings, config, population, run_dir)
        self.teacher = open_teacher(settings.teacher, config.env, population.codec, settings.temperature)
        self.student = None
        if settings.trains == "model":
            self.student = WholeModel(population.policy.network, config.learn, settings.temperature)

    def observers(self, run: Run, generation: Generation) -> list[Observer]:
        """Those of the teacher."""
        return list(self.teacher.observers)

    def actor(self, run: Run) -> Actor | None:
        """The teacher, while it is to act."""
        if run.history.generation + 1 >= self.settings.led_generations:
            return None
        assert isinstance(self.teacher, ExpertTeacher)
        return self.teacher.acting_for(self.population.policy)

    def targets(self, run: Run, rollout: Rollout) -> Targets:
        """What the teacher says of each step."""
        targets = torch.from_numpy(self.teacher.targets(rollout)).float().flatten(0, 1)
        return Targets(targets, self.settings.temperature)

    def learn(self, run: Run, rollout: Rollout) -> dict[str, float] | None:
        """Where the model learns: update all its weights, and act by them from now on."""
        if not self.student:
            return None
        targets, start = self.teacher.targets(rollout), perf_counter()
        self.student.remember(rollout.trajectory, targets)
        figures = self.student.learn(self.population.streams["learner"]) | {"learn_s": perf_counter() - start}
        figures |= health(self.population.policy, rollout.trajectory)
        self._act_by(self.student, run.history.generation + 1)
        return figures | {"teacher_kl": figures["policy_loss"] / self.settings.temperature**2}

    def tensors(self) -> dict[str, Tensor]:
        """The student's weights, and what it was taught."""
        return {name: tensor.detach() for name, tensor in self.student.tensors().items()} if self.student else {}

    def state(self) -> dict[str, Any]:
        """Which teacher it is, and the texts that the student has met."""
        return {"teacher": self.teacher.name, "texts": self.student.texts if self.student else []}

    def restore(self, tensors: dict[str, Tensor], state: dict[str, Any], generation: int) -> None:
        """UserError where the teacher is another one."""
        if state["teacher"] != self.teacher.name:
            name = self.settings.teacher
            raise UserError(
                f"distillation.teacher = {name!r}: must be as it was when this run began; it has learned since"
            )
        if self.student:
            self.student.restore(tensors, state["texts"])
            self._act_by(self.student, generation, is_written=True)

    def _act_by(self, student: WholeModel, generation: int, is_written: bool = False) -> None:
        """Write the model of a generation, and let the population act by it. That of the one before stays, too: until
        the checkpoint of this one is whole, it is the newest that counts.

        is_written: it need not be written again if it is whole.
        """
        models = self.run_dir / "model"
        folder = models / f"gen_{generation:04d}"
        if not (is_written and _is_whole(folder)):
            student.write(folder)
        for number, other in by_generation(models).items():
            if number not in (generation, generation - 1):
                remove_folder(other)
        self.population.reload(self.settings.acting_by(self.config, folder))


def _is_whole(folder: Path) -> bool:
    try:
        check_folder(folder)
    except DamagedRun:
        return False
    return True
