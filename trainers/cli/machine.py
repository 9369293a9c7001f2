"""The machine that figures come from. Never imports torch."""

import platform
from pathlib import Path


def processor() -> str:
    """The processor's name, as its vendor gives it where Linux knows it."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
