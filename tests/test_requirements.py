"""Requirements: locked ones, those of pyproject.toml; and those that operators do without."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from packaging.requirements import Requirement

from tests.conftest import ROOT

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def wanted(extra: str | None) -> list[Requirement]:
    extras = PROJECT["optional-dependencies"]
    lines = PROJECT["dependencies"] if extra is None else extras[extra]
    found: list[Requirement] = []
    for one in map(Requirement, lines):
        if one.name == PROJECT["name"]:  # its own extras
            found += [inner for name in one.extras for inner in wanted(name)]
        else:
            found.append(one)
    return found


@pytest.mark.parametrize(("file", "extras"), [("run", [None]), ("dev", [None, "dev"])])
def test_locked_requirements_are_those_of_the_project(file: str, extras: list[str | None]) -> None:
    """With hashes, from no particular index."""
    text = (ROOT / "requirements" / f"{file}.txt").read_text("utf-8")
    assert "://" not in text and "--index" not in text and "--find-links" not in text
    blocks = re.findall(r"^([\w.\[\]-]+)==(\S+)(.*(?:\n    --hash.*)*)", text, re.M)
    assert all("--hash=sha256:" in rest for _, _, rest in blocks)
    pins: dict[str, list[str]] = {}
    for name, version, _ in blocks:
        pins.setdefault(re.sub("[-_.]+", "-", name).lower(), []).append(version)
    assert pins["torch"] == ["2.13.0"]
    for one in (requirement for extra in extras for requirement in wanted(extra)):
        versions = pins.get(re.sub("[-_.]+", "-", one.name).lower(), [])
        assert versions and all(one.specifier.contains(v) for v in versions), one


def test_operators_import_pytorch_alone() -> None:
    """SciPy alone would make `import adaptau_ext` a fifth of a second longer."""
    code = "import sys, torch; before = {*sys.modules}; import adaptau_ext; print(*{*sys.modules} - before)"
    command = [sys.executable, "-I", "-c", code]  # the installed package, not the folder beside us
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in run.stdout.split()}
    others = {re.sub("[-_.]+", "_", one.name).lower() for one in wanted(None)} | {"yaml"}
    assert "adaptau_ext" in loaded
    assert not loaded & (others - {"torch", "numpy"})
