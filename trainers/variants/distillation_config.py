"""The section `distillation`: who teaches, and what learns. Imports no torch."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from agents.types import UserError, expand_user, is_number, require, require_at_least, require_word
from envs.bots.planner import MAX_CELLS
from trainers.config import MOST, TrainConfig
from trainers.records.manifest import by_generation
from trainers.records.sealed import check_folder
from trainers.variants.variant import VariantConfig, is_on

NO_TRUST_REGION = 1e9
"""The largest `learn.max_kl`."""

Trained = Literal["adapters", "model"]
PLANNER, EXPERT = "planner", "expert"
"""Teachers that are no runs: of the forage world, and of a Gymnasium world whose infos say what an expert would do."""


@dataclass(frozen=True)
class DistillationConfig(VariantConfig):
    """Learn from a teacher what should have been done after each text that was met, with learn.algorithm = distil."""

    teacher: str = ""
    """planner; expert, whose action the infos of a Gymnasium world tell as `expert_action`; or the folder of a run,
    whose fittest agent teaches. Empty unless learn.algorithm = distil."""
    temperature: float = 1.0
    """How soft the distributions of teacher and student are made before they are compared."""
    trains: Trained = "adapters"
    """What learns: adapters; or model, all weights of the model, which all agents then share."""
    led_generations: int = 0
    """In the first so many generations the teacher acts in the students' place and shows how it is done, with teacher =
    expert; after them they act, and meet what their own mistakes lead to. While the teacher acts there is no trust
    region: set learn.max_kl to 1e9."""

    def __post_init__(self) -> None:
        """Reject values that are out of range."""
        expand_user(self, "distillation.", "teacher")
        require_word(self, "distillation", "trains", Trained)
        require_at_least(self, "distillation.", "led_generations", 0, MOST, "the students always act")
        is_able = self.led_generations == 0 or self.teacher == EXPERT
        allowed = f"0, unless distillation.teacher = {EXPERT}"
        require(is_able, "distillation.led_generations", self.led_generations, allowed)
        is_fine = is_number(self.temperature) and 0.01 <= self.temperature <= 1000
        require(is_fine, "distillation.temperature", self.temperature, "finite and above 0, between 0.01 and 1,000")
        is_plain = self.teacher not in (PLANNER, EXPERT) or self.temperature == 1
        allowed = f"1 with the {self.teacher}, which has no doubts to soften"
        require(is_plain, "distillation.temperature", self.temperature, allowed)

    def is_on(self, config: TrainConfig) -> bool:
        """Whether there is a teacher."""
        return bool(self.teacher.strip())

    def check(self, config: TrainConfig) -> None:
        """A teacher with distil and only then, in a world that it knows; a model without heredity."""
        distils, without = config.learn.algorithm == "distil", "left out unless learn.algorithm = distil"
        allowed = f"{PLANNER}, {EXPERT} or the folder of a run with learn.algorithm = distil" if distils else without
        require(self.is_on(config) == distils, "distillation.teacher", self.teacher, allowed)
        require(distils or self.trains == "adapters", "distillation.trains", self.trains, f"adapters, or {without}")
        require(distils or self.temperature == 1, "distillation.temperature", self.temperature, without)
        if self.trains == "model":
            self._check_model(config)
        if self.teacher == PLANNER:
            condition, env = "with distillation.teacher = planner", config.env
            require(env.is_forage, "env.id", env.id, f"forage {condition}")
            require(not env.also, "env.also", env.also, f"empty {condition}")
            cells = env.height * env.width
            require(cells <= MAX_CELLS, "env.height * env.width", cells, f"at most {MAX_CELLS} {condition}")
        if self.teacher == EXPERT:
            allowed = "a Gymnasium world whose infos have expert_action with distillation.teacher = expert"
            require(not (config.env.is_forage or config.env.is_team), "env.id", config.env.id, allowed)
        if self.led_generations:
            allowed = (
                f"{NO_TRUST_REGION:g} with distillation.led_generations above 0, as KL from who acted says nothing then"
            )
            require(config.learn.max_kl == NO_TRUST_REGION, "learn.max_kl", config.learn.max_kl, allowed)

    def _check_model(self, config: TrainConfig) -> None:
        condition, model = "with distillation.trains = model", config.model
        require(not config.evolution.enabled, "evolution.enabled", True, f"false {condition}")
        for name in ("social", "replay"):
            require(not is_on(config, name), name, getattr(config, name, None), f"left out {condition}")
        require(not config.learn.pool, "learn.pool", True, f"false {condition}: it is of adapters")
        require(
            config.learn.anneal_to == 1, "learn.anneal_to", config.learn.anneal_to, f"1 {condition}: it is of adapters"
        )
        require(not config.init_from, "init_from", config.init_from, f"empty {condition}: it brings adapters")
        require(model.weight_storage == "full", "model.weight_storage", model.weight_storage, f"full {condition}")
        require(model.trunk == "same", "model.trunk", model.trunk, f"same {condition}")

    def acting(self, config: TrainConfig, run_dir: Path, generation: int) -> TrainConfig:
        """Where the model learned, agents act by its copy in the run folder, of which the newest are kept."""
        if self.trains != "model":
            return config
        found = by_generation(run_dir / "model")
        if generation not in found:
            known = ", ".join(map(str, found)) or "none"
            raise UserError(f"generation = {generation}: must be one of those in {run_dir / 'model'}: {known}")
        check_folder(found[generation])
        return self.acting_by(config, found[generation])

    def acting_by(self, config: TrainConfig, folder: Path) -> TrainConfig:
        """The config of a population that acts by the model in a folder, which learns no more."""
        section: dict[str, Any] = {"distillation": replace(self, trains="adapters")}
        return replace(config, model=replace(config.model, name=str(folder)), **section)
