"""Shared fixtures. Real data sets live beside the checkout, in ../shared/data, and are optional."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

from adaptau_ext.data import Interactions
from tests import virtual_gpu
from tests.virtual_gpu import build

ROOT = Path(__file__).parents[1]
REAL_DATA = ROOT.parent / "shared" / "data"
PUBLISHED = ROOT.parent / "shared" / "reference"


@pytest.fixture(autouse=True, scope="session")
def _virtual_gpu(request: pytest.FixtureRequest) -> None:
    """Loaded before the first backward pass, where PyTorch counts its devices."""
    if any("virtual" in item.name for item in request.session.items) and build.find_nvcc():
        virtual_gpu.load()


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def virtual() -> Iterator[ModuleType]:
    """The virtual GPU; the test fails if the checks found something that it did not `clear`."""
    if reason := build.why_not():
        pytest.skip(reason)
    virtual_gpu.load()
    virtual_gpu.clear()
    yield virtual_gpu
    found = virtual_gpu.findings()
    virtual_gpu.clear()
    assert not found, found


@pytest.fixture
def restore_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def write_lightgcn(data: Interactions, folder: Path) -> Path:
    """train.txt and test.txt of LightGCN's format."""
    folder.mkdir(parents=True)
    for name, rows in (("train", data.train), ("test", data.test)):
        lines = [" ".join(map(str, [user, *rows[[user]].indices])) for user in range(data.n_users)]
        (folder / f"{name}.txt").write_text("\n".join(lines) + "\n")
    return folder


def real_data(name: str) -> Path:
    folder = REAL_DATA / name
    if not folder.is_dir():
        pytest.skip(f"data set {name} is not in {REAL_DATA}")
    return folder
