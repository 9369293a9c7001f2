"""Packages that only some parts need: which extra of `pyproject.toml` brings each, and how to say so."""

EXTRAS = {
    "av": "video",
    "matplotlib": "draw",
    "minigrid": "worlds",
    "moviepy": "video",
    "mpe2": "worlds",
    "plotly": "dashboard",
    "pygame": "render",
    "sb3_contrib": "sb3",
    "stable_baselines3": "sb3",
    "starlette": "dashboard",
    "uvicorn": "dashboard",
    "websockets": "dashboard",
}
"""The extra of a package, by the name under which it is imported."""


def advice(extra: str) -> str:
    """Return the command that installs an extra, to be given in the project's folder: no package index has it."""
    return f"`pip install -e '.[{extra}]'`"


def missing(package: str) -> str:
    """Return a sentence about a package that is not installed; with the extra that brings it, if one does."""
    extra = EXTRAS.get(package)
    return f"the package {package} is not installed" + (f"; {advice(extra)} brings it" if extra else "")
