"""The audit says what is known of the installed packages, or that nobody could be asked; it never fails."""

import importlib.util
import json
import subprocess
import sys
from email.message import Message
from pathlib import Path
from types import SimpleNamespace

import pytest

SCRIPT = Path(__file__).parent.parent / ".ci" / "audit.py"


@pytest.fixture(scope="module")
def audit():
    spec = importlib.util.spec_from_file_location("audit", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def program(tmp_path: Path, code: str) -> Path:
    """A pip-audit that does what `code` says; `out` is the file that it should write."""
    file = tmp_path / "pip-audit"
    file.write_text(f"#!{sys.executable}\nimport sys\nout = sys.argv[sys.argv.index('--output') + 1]\n{code}\n")
    file.chmod(0o755)
    return file


def package(**said: str | list[str]) -> SimpleNamespace:
    metadata = Message()
    for name, value in said.items():
        for entry in value if isinstance(value, list) else [value]:
            metadata[name.replace("_", "-")] = entry
    return SimpleNamespace(metadata=metadata)


def test_without_pip_audit_or_a_network_it_says_that_it_could_not_ask(audit, tmp_path):
    absent = audit.vulnerabilities(tmp_path / "absent", "packages")
    assert absent == [
        f"vulnerabilities: could not ask: {tmp_path / 'absent'} is not there, as pip-audit could not be installed"
    ]
    broken = program(tmp_path, "sys.exit('Traceback ...\\nConnectionError: no network')")
    assert audit.vulnerabilities(broken, "packages") == ["vulnerabilities: could not ask: ConnectionError: no network"]
    garbled = program(tmp_path, "open(out, 'w').write('[')")
    assert audit.vulnerabilities(garbled, "packages")[0].startswith("vulnerabilities: could not ask: Expecting value")
    silent = program(tmp_path, "sys.exit(3)")
    assert "ended with exit code 3" in audit.vulnerabilities(silent, "packages")[0]


def test_what_is_known_is_said_by_package(audit, tmp_path):
    known = {"id": "PYSEC-1", "fix_versions": ["1.1", "2.0"]}
    packages = [
        {"name": "good", "version": "1.0", "vulns": []},
        {"name": "bad", "version": "1.0", "vulns": [known, {"id": "PYSEC-2", "fix_versions": []}]},
        {"name": "own", "skip_reason": "not on the index"},
    ]
    report = json.dumps({"dependencies": packages})
    assert audit.vulnerabilities(program(tmp_path, f"open(out, 'w').write({report!r}); sys.exit(1)"), "packages") == [
        "vulnerabilities: 2 known in 2 of 3 packages",
        "warning: bad 1.0: PYSEC-1, mended in 1.1, 2.0",
        "warning: bad 1.0: PYSEC-2, mended in no version yet",
    ]
    assert audit.summary(packages[2:]) == ["vulnerabilities: could not ask about any of 1 packages"]


def test_licences_are_counted_and_those_to_look_at_are_named(audit):
    packages = [
        package(Name="a", License_Expression="MIT"),
        package(Name="b", Classifier=["License :: OSI Approved :: MIT License", "Topic :: Games"]),
        package(Name="c", License="MIT\nPermission is hereby granted"),
        package(Name="d", License_Expression="LGPL-2.1-or-later"),
        package(Name="e"),
    ]
    assert audit.licences(packages) == [
        "licences:",
        *("     2  MIT", "     1  LGPL-2.1-or-later", "     1  MIT License", "     1  unknown"),
        *("warning: LGPL-2.1-or-later: d", "warning: unknown: e"),
    ]


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ({"License": "UNKNOWN"}, "UNKNOWN"),
        ({"License": "GNU General Public License v3"}, "GNU General Public License v3"),
        ({"License": "gpl-3.0"}, "gpl-3.0"),
        ({"License": "Proprietary"}, "Proprietary"),
        ({"Classifier": ["License :: Other/Proprietary License"]}, "Other/Proprietary License"),
        ({"Classifier": ["License :: OSI Approved"]}, "unknown"),
    ],
)
def test_a_licence_to_look_at_is_known_however_it_is_spelt(audit, said, name):
    assert audit.licences([package(Name="a", **said)])[-1] == f"warning: {name}: a"


def test_osi_approved_alone_does_not_hide_what_is_said_in_words(audit):
    assert audit.licence(package(Name="a", Classifier=["License :: OSI Approved"], License="MIT")) == "MIT"


def test_it_ends_well_whatever_it_finds():
    done = subprocess.run([sys.executable, str(SCRIPT), "absent"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("vulnerabilities: could not ask: absent is not there")
    assert "licences:" in done.stdout
