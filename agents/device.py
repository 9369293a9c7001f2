"""On which device the frozen model and its adapters are: chosen here, once for each policy.

There are the model with its head, the bank, Adam's moments, what is remembered of texts, and what is computed of them.
All else is on the CPU, to which `PolicyNetwork.action_logits` and `features` bring what they return: learners, critic,
evolution and checkpoints know no device. Whoever needs to know it asks a policy's network or its bank.

Nothing here was run on a real GPU yet: tests hold it on a pretended one (tests/pretend_device.py).
"""

import torch

from agents.types import Device, ModelConfig, require

CPU = torch.device("cpu")


def present() -> list[str]:
    """The devices that this torch can use here, by the names of `model.device`."""
    mps = getattr(torch.backends, "mps", None)
    can_use = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": mps is not None and mps.is_available()}
    return [name for name, is_there in can_use.items() if is_there]


def is_present(model: ModelConfig) -> bool:
    """Whether the device that a config asks for is here."""
    return model.device in ("auto", *present())


def chosen_device(model: ModelConfig) -> Device:
    """The device that a config asks for, by name; UserError where it is not here.

    auto: cuda if it is here and the config has nothing that the CPU alone can do; mps only where it is asked for.
    """
    here = present()
    allowed = f"auto or one that this torch can use here: {', '.join(here)}"
    require(is_present(model), "model.device", model.device, allowed)
    if model.device == "auto":
        return "cuda" if "cuda" in here and not model.needs_cpu else "cpu"
    return model.device


def device_of(model: ModelConfig) -> torch.device:
    """The same as torch has it."""
    return torch.device(chosen_device(model))


def device_name(device: torch.device) -> str:
    """What a device is called, as `cpu` or by its vendor."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def synchronize(device: torch.device) -> None:
    """Wait until a device has done what it was told, as whoever takes the time must; the CPU always has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
