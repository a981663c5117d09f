"""The C++ half for aarch64, whatever this machine is: cross-compiled, its tests run under qemu."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.test_cpp import passed_ctests

MISSING = [tool for tool in ("aarch64-linux-gnu-g++", "qemu-aarch64") if shutil.which(tool) is None]


@pytest.mark.skipif(bool(MISSING), reason=f"not on PATH: {', '.join(MISSING)}")
def test_aarch64(tmp_path: Path) -> None:
    toolchain = ROOT / "cmake" / "aarch64-linux-gnu.cmake"
    passed = passed_ctests(tmp_path, f"-DCMAKE_TOOLCHAIN_FILE={toolchain}", "-DCMAKE_CXX_FLAGS=-Werror")
    # bytes_baseline is skipped: scans of bytes exist for AVX2 and AVX-512 only
    assert passed == {"core", "kernels_baseline", "operators_baseline", "no_weak_symbols_baseline"}
