"""Which installed packages have known vulnerabilities, and under which licences they are: warnings, never a failure.

    .venv/bin/python .ci/audit.py .venv-audit/bin/pip-audit

pip-audit asks the database OSV (osv.dev). Where that cannot be reached, it is said that nobody was asked. Licences are
those that packages state of themselves.
"""

import json
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterable
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any

NOT_ASKED = "vulnerabilities: could not ask"
LOOK_AT = ("gpl", "general public", "unknown", "proprietary")
"""What a licence has in its name, in small letters, that asks for a look before a package is shipped along: copyleft,
closed, or nothing said."""
SECONDS = 120


def vulnerabilities(program: Path, packages: str) -> list[str]:
    """What pip-audit knows of the packages in a folder, a line each; one line if it could not ask."""
    if not program.exists():
        return [f"{NOT_ASKED}: {program} is not there, as pip-audit could not be installed"]
    with tempfile.TemporaryDirectory() as box:
        report = Path(box) / "report.json"
        options = ["--path", packages, "--skip-editable", "--vulnerability-service", "osv", "--progress-spinner", "off"]
        try:
            done = subprocess.run(
                [str(program), *options, "--format", "json", "--output", str(report)],
                capture_output=True,
                text=True,
                timeout=SECONDS,
            )
            if report.exists():
                return summary(json.loads(report.read_text(encoding="utf-8"))["dependencies"])
        except (OSError, subprocess.TimeoutExpired, ValueError, KeyError) as error:
            return [f"{NOT_ASKED}: {error}"]
    lines = done.stderr.strip().splitlines() or [f"pip-audit ended with exit code {done.returncode}"]
    return [f"{NOT_ASKED}: {lines[-1]}"]


def summary(packages: list[dict[str, Any]]) -> list[str]:
    """Lines about what pip-audit reports of packages: how many were asked about, and each vulnerability."""
    asked = [package for package in packages if "skip_reason" not in package]
    found = [(package, known) for package in asked for known in package["vulns"]]
    if not asked:
        return [f"{NOT_ASKED} about any of {len(packages)} packages"]
    lines = [f"vulnerabilities: {len(found)} known in {len(asked)} of {len(packages)} packages"]
    for package, known in found:
        mended = ", ".join(known["fix_versions"]) or "no version yet"
        lines.append(f"warning: {package['name']} {package['version']}: {known['id']}, mended in {mended}")
    return lines


def licences(packages: Iterable[Distribution]) -> list[str]:
    """How many packages there are of each licence, and which to look at."""
    by_licence: dict[str, list[str]] = {}
    for package in packages:
        by_licence.setdefault(licence(package), []).append(package.metadata["Name"])
    ordered = sorted(by_licence.items(), key=lambda entry: (-len(entry[1]), entry[0]))
    lines = ["licences:", *(f"  {len(names):4d}  {name}" for name, names in ordered)]
    for name, names in ordered:
        if any(word in name.lower() for word in LOOK_AT):
            lines.append(f"warning: {name}: {', '.join(sorted(names, key=str.lower))}")
    return lines


def licence(package: Distribution) -> str:
    """The licence that a package states of itself: as an expression, by classifiers, or in words.

    "OSI Approved" alone names none.
    """
    said = package.metadata
    stated = [line.split(" :: ")[-1] for line in said.get_all("Classifier", []) if line.startswith("License :: ")]
    classified = [name for name in stated if name != "OSI Approved"]
    words = (said.get("License") or "").strip().splitlines()
    return said.get("License-Expression") or " and ".join(classified) or (words[0] if words else "unknown")


if __name__ == "__main__":
    for line in (*vulnerabilities(Path(sys.argv[1]), sysconfig.get_path("purelib")), *licences(distributions())):
        print(line)
