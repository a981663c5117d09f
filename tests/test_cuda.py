"""What the CUDA half promises besides numbers: a reason where it cannot run, and errors that say what to do."""

from __future__ import annotations

import importlib
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import setuptools
import torch

import adaptau_ext as ax
from tests import virtual_gpu
from tests.devices import VIRTUAL

ROOT = Path(__file__).parents[1]
BEYOND = 2**40  # out of every range


def test_a_reason_where_there_is_no_gpu() -> None:
    if torch.version.cuda is None:
        assert "was built without CUDA" in str(ax.cuda.missing)
    if not torch.cuda.is_available():
        assert ax.cuda.why_no_gpu() is not None


@pytest.mark.skipif(ax.cuda.missing is None, reason="there are CUDA kernels")
def test_operators_refuse_with_that_reason() -> None:
    for name in ax.cuda.OPERATORS:
        assert torch._C._dispatch_has_kernel_for_dispatch_key(f"adaptau::{name}", "CUDA")
    with pytest.raises(RuntimeError, match="cannot compute on CUDA tensors: PyTorch .* install"):
        torch.ops.adaptau.unit_rows.default._op_dk(torch._C.DispatchKey.CUDA, torch.ones(2, 3))


def test_a_missing_and_a_broken_library_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    def importing(error: Exception) -> Callable[[str], Any]:
        def import_module(name: str) -> Any:
            raise error

        return import_module

    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(importlib, "import_module", importing(ModuleNotFoundError("_cuda")))
    assert str(ax.cuda._load()).startswith("adaptau_ext was built without its CUDA kernels; install")
    monkeypatch.setattr(importlib, "import_module", importing(ImportError("undefined symbol: x")))
    assert "could not be loaded (undefined symbol: x); install it again" in str(ax.cuda._load())


def gencode(monkeypatch: pytest.MonkeyPatch, architectures: str) -> list[str]:
    monkeypatch.setattr(setuptools, "setup", lambda **_: None)
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", architectures)
    monkeypatch.chdir(ROOT)
    flags: list[str] = runpy.run_path("setup.py")["gencode"](Path("nvcc"))
    return [flag.removeprefix("-gencode=arch=") for flag in flags]


def test_architectures_as_pytorch_spells_them(monkeypatch: pytest.MonkeyPatch) -> None:
    assert gencode(monkeypatch, "8.0;9.0a 10.0+PTX") == [
        "compute_80,code=sm_80",
        "compute_90a,code=sm_90a",
        "compute_100,code=sm_100",
        "compute_100,code=compute_100",
    ]
    assert gencode(monkeypatch, "Hopper") == ["compute_90,code=sm_90", "compute_90,code=compute_90"]
    with pytest.raises(SystemExit, match=r'like "8.0;9.0;10.0\+PTX", got \'Volta\''):
        gencode(monkeypatch, "Volta;8.0")


def test_architectures_that_are_too_old_are_left_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert gencode(monkeypatch, "7.0 7.5 8.0") == ["compute_80,code=sm_80"]
    assert "7.5 is left out, the kernels need 8.0" in capsys.readouterr().out
    with pytest.raises(SystemExit, match=r"one of 8.0 or more, got '6.1;7.5\+PTX'"):
        gencode(monkeypatch, "6.1;7.5+PTX")


def tensors() -> dict[str, torch.Tensor]:
    given = {
        "u": torch.randn(3, 4), "i": torch.randn(5, 4), "tau": torch.ones(3),
        "positives": torch.tensor([0, 1, 2]),
    }  # fmt: skip
    return {name: x.to("virtual") for name, x in given.items()}


def sampled(t: dict[str, torch.Tensor], **options: Any) -> Any:
    options = {"n_negatives": 8, "seed": 1, **options}
    return ax.sampled_adaptive_softmax(
        t["u"], t["i"], options.pop("users", None), options.pop("positives", t["positives"]),
        options.pop("tau", t["tau"]), **options,
    )  # fmt: skip


def graph() -> ax.BipartiteGraph:
    csr = torch.tensor([0, 2, 2, 3]), torch.tensor([0, 4, 1])
    return ax.BipartiteGraph(csr, 5).to("virtual")


def with_adjacency(t: dict[str, torch.Tensor], position: int, tensor: list[int]) -> Any:
    adjacency = list(graph()._adjacency)
    adjacency[position] = torch.tensor(tensor, dtype=adjacency[position].dtype).to("virtual")
    return torch.ops.adaptau.propagate(t["u"], t["i"], *adjacency, 1)


def ids(*values: int) -> torch.Tensor:
    return torch.tensor(values).to("virtual")


ASSERTIONS: list[tuple[Callable[[dict[str, torch.Tensor]], Any], str]] = [
    (lambda t: sampled(t, tau=t["tau"] * 0), "tau must be finite and > 0"),
    (lambda t: sampled(t, tau=t["tau"] * torch.inf), "tau must be finite and > 0"),
    (lambda t: sampled(t, positive_tau=-t["tau"]), "positive_tau must be finite and > 0"),
    (lambda t: sampled(t, users=ids(0, 3, 1)), "users must lie in [0, n_users)"),
    (lambda t: sampled(t, users=ids(0, BEYOND, 1)), "users must lie in [0, n_users)"),
    (lambda t: sampled(t, positives=ids(0, 5, 1)), "ids of items must lie in [0, n_items)"),
    (lambda t: sampled(t, negatives=ids(-1, 0, 1)[:, None]), "ids of items must lie in [0, n_items)"),
    (lambda t: ax.sampled_scores(t["u"], t["i"], ids(0, 5, 1)[:, None]), "ids of items must lie in"),
    (lambda t: graph().propagate(t["u"], t["i"], users=ids(3)), "users and items must be nodes"),
    (lambda t: graph().propagate(t["u"], t["i"], items=ids(-1)), "users and items must be nodes"),
    (lambda t: with_adjacency(t, 1, [0, 4, 5]), "the graph's indices are in range"),
    (lambda t: with_adjacency(t, 3, [0, -1, 0]), "the graph's indices are in range"),
    (lambda t: with_adjacency(t, 0, [0, 2, 1, 3]), "the graph's indptr ascends"),
    (lambda t: with_adjacency(t, 0, [0, 2, 2, 4]), "the graph's indptr ascends"),
]


@pytest.mark.parametrize("device", [VIRTUAL])
@pytest.mark.parametrize("case", range(len(ASSERTIONS)))
def test_values_are_asserted_on_the_device(device: str, case: int) -> None:
    call, message = ASSERTIONS[case]
    virtual_gpu.clear()
    with virtual_gpu.running(), pytest.raises(RuntimeError, match="cudaErrorAssert"):
        call(tensors())
    (found, *_) = virtual_gpu.findings()
    virtual_gpu.clear()
    assert found["problem"] == "assertion" and message in found["message"]


REFUSALS: list[tuple[Callable[[dict[str, torch.Tensor]], Any], str]] = [
    (lambda t: sampled({**t, "u": t["u"].double(), "i": t["i"].double()}, tau=1.0),
     r"user_table is float64, which is computed on the CPU only; convert it with .float\(\)"),
    (lambda t: ax.sampled_scores(t["u"].double(), t["i"].double(), ids(0, 1, 2)[:, None]),
     "u is float64, which is computed on the CPU only"),
    (lambda t: graph().propagate(t["u"].double(), t["i"].double()), "x_users is float64, which is computed"),
    (lambda t: torch.ops.adaptau.unit_rows(t["u"].double()), "i is float64, which is computed on the CPU"),
    (lambda t: sampled({**t, "i": t["i"].cpu()}), "item_table must be on virtual:0 like the embeddings, got cpu"),
    (lambda t: torch.ops.adaptau.topk(t["u"], t["i"].cpu(), 1),
     "i must be on .* like the other arguments, got a tensor on cpu; move all of them to one device"),
    (lambda t: sampled({**t, "u": torch.randn(3, 4097).to("virtual"), "i": torch.randn(5, 4097).to("virtual")}),
     "must have at most 4096 columns on this device, got 4097"),
    (lambda t: sampled(t, n_negatives=2**30), r"must be below 2\^31 on this device \(they are sorted\), got 3 x"),
    (lambda t: ax.BipartiteGraph.hop(graph().to("cpu"), t["u"], t["i"]), "graph must be on virtual:0 like"),
]  # fmt: skip


@pytest.mark.parametrize("device", [VIRTUAL])
@pytest.mark.parametrize("case", range(len(REFUSALS)))
def test_refusals_on_a_device(device: str, case: int) -> None:
    call, message = REFUSALS[case]
    with pytest.raises(RuntimeError, match=message):
        call(tensors())
