"""What a policy is made of, as plain settings. Never imports torch, so that `--help` stays quick."""

import logging
import os
from dataclasses import dataclass, field
from numbers import Real
from typing import Literal, get_args

log = logging.getLogger("terrarium")
"""What goes on while one waits, and notes; the commands print it on standard error, a library's user may listen."""


class UserError(ValueError):
    """A mistake of the user's, which one sentence explains; command lines print it and end with its exit code."""

    exit_code = 2


def require(ok: bool, name: str, value: object, allowed: str) -> None:
    """Raise a UserError that names the field, its value and what is allowed, unless `ok`."""
    if not ok:
        raise UserError(f"{name} = {value!r}: must be {allowed}")


def require_at_least(section: object, prefix: str, name: str, least: float, most: float, none: str = "") -> None:
    """Raise a UserError unless a number of a section is finite, not below `least` and not above `most`.

    most: what is above is a mistake of writing, and would fail late. none: what `least` means, in brackets.
    """
    value = getattr(section, name)
    allowed = f"{least} or more, at most {most:,}" if not none else f"{least} ({none}) or more, at most {most:,}"
    require(is_number(value) and least <= value <= most, f"{prefix}{name}", value, allowed)


def require_above_0(section: object, prefix: str, name: str, most: float) -> None:
    """Raise a UserError unless a number of a section is finite, above 0 and not above `most`."""
    value = getattr(section, name)
    require(is_number(value) and 0 < value <= most, f"{prefix}{name}", value, f"finite and above 0, at most {most:,}")


def is_number(value: object) -> bool:
    """Whether it is a number; to Python True is one, and here a mistake."""
    return isinstance(value, Real) and not isinstance(value, bool)


def expand_user(section: object, prefix: str, *names: str) -> None:
    """Put the user's home in place of a leading ~ in these paths of a frozen dataclass; UserError if there is none."""
    for name in names:
        path = os.path.expanduser(getattr(section, name))
        require(not path.startswith("~"), prefix + name, path, "a path, or ~ or ~user with a user that exists")
        object.__setattr__(section, name, path)


Dtype = Literal["auto", "float32", "bfloat16"]
WeightStorage = Literal["full", "compact"]
Trunk = Literal["same", "int8"]
Device = Literal["auto", "cpu", "cuda", "mps"]
Tokens = Literal["answer", "text"]


def require_word(section: object, prefix: str, name: str, words: object) -> None:
    """Raise a UserError unless this field of a section holds one of the words of a Literal type."""
    value, allowed = getattr(section, name), get_args(words)
    require(value in allowed, f"{prefix}.{name}", value, f"one of {', '.join(allowed)}")


@dataclass(frozen=True)
class ModelConfig:
    """Which frozen language model all agents share, and how it is stored."""

    name: str = "smollm2-135m"
    """A known name, a GGUF file, or a model folder (config.json, model.safetensors, tokenizer.json)."""
    dtype: Dtype = "auto"
    """Number format in which the frozen weights are multiplied: float32, bfloat16, or auto, the faster one here."""
    weight_storage: WeightStorage = "full"
    """full, fast; or compact: the frozen weights stay in 4 or 8 bits, learning goes in smaller steps of the work."""
    trunk: Trunk = "same"
    """How the layers below the adapted ones multiply: same, as dtype says; or int8, which reads many new texts faster
    where the processor has AVX512-VNNI, and a little less exactly."""
    prefix_cache_mb: int = 64
    """Bound, in MiB, on what is cached of texts already read. Up to 512 more stay for putting together what is asked of
    them."""
    device: Device = "auto"
    """Where the model and its adapters are, and compute: cpu, cuda, mps, or auto, which is cuda if there is one."""
    threads: int = 0
    """CPU threads for torch; 0 leaves torch's own choice."""

    def __post_init__(self) -> None:
        """Reject values that are out of range."""
        expand_user(self, "model.", "name")
        choices = {"dtype": Dtype, "weight_storage": WeightStorage, "trunk": Trunk, "device": Device}
        for name, words in choices.items():
            require_word(self, "model", name, words)
        allowed = "same with weight_storage = compact, which has 4 or 8 bits of its own"
        require(self.weight_storage == "full" or self.trunk == "same", "model.trunk", self.trunk, allowed)
        if self.needs_cpu:
            why = "weight_storage = compact" if self.weight_storage == "compact" else "trunk = int8"
            require(self.device in ("auto", "cpu"), "model.device", self.device, f"cpu or auto with {why}")
        require_at_least(self, "model.", "prefix_cache_mb", 1, 1_000_000)
        require_at_least(self, "model.", "threads", 0, 1024, "torch's choice")

    @property
    def needs_cpu(self) -> bool:
        """Whether it has weights in a form that the CPU alone can multiply."""
        return self.weight_storage == "compact" or self.trunk == "int8"


@dataclass(frozen=True)
class AdapterConfig:
    """The LoRA adapter (Hu et al. 2021, arXiv:2106.09685) that each agent owns."""

    rank: int = 4
    """Inner width r of an adapter."""
    alpha: float = 16.0
    """The adapter's output is scaled by alpha / rank."""
    top_layers: int = 8
    """How many of the model's last layers carry adapters."""
    modules: list[str] = field(default_factory=list)
    """Names of the linear modules that carry adapters, in each of those layers. None given: q_proj, v_proj, o_proj and
    down_proj where the model has them, else those that PEFT adapts in its architecture."""
    tokens: Tokens = "answer"
    """On which tokens adapters act: answer, the one after the text; or text, all from the last of the instructions on,
    which costs a pass of the whole text through the top layers for each agent."""

    def __post_init__(self) -> None:
        """Reject values that are out of range."""
        require(1 <= self.rank <= 256, "adapter.rank", self.rank, "between 1 and 256")
        require_above_0(self, "adapter.", "alpha", 10_000)
        require_at_least(self, "adapter.", "top_layers", 1, 10_000)
        require_word(self, "adapter", "tokens", Tokens)

    @property
    def scaling(self) -> float:
        """The factor alpha / rank on an adapter's output."""
        return self.alpha / self.rank
