"""Builds csrc/core and csrc/cpu with CMake, without PyTorch, and runs their C++ tests through CTest."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT


def run(*command: str | Path) -> str:
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    output = result.stdout + result.stderr
    assert result.returncode == 0, output
    return output


def passed_ctests(build: Path, *options: str) -> set[str]:
    run("cmake", "-S", ROOT, "-B", build, "-G", "Ninja", "-DCMAKE_BUILD_TYPE=Release", *options)
    run("cmake", "--build", build)
    output = run("ctest", "--test-dir", build, "--output-on-failure")
    return set(re.findall(r"Test +#\d+: (\S+) \.+ +Passed", output))


@pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler")
def test_ctest(tmp_path: Path) -> None:
    passed = passed_ctests(tmp_path)
    assert {"core", "kernels_baseline", "operators_baseline", "no_weak_symbols_baseline"} <= passed
