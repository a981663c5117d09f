"""The torch device "virtual": memory of the virtual GPU, PyTorch's own operators on the CPU."""

from __future__ import annotations

import copy
import ctypes
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.conftest import ROOT
from tests.virtual_gpu import build

pytestmark = [
    pytest.mark.skipif(build.why_not() is not None, reason=str(build.why_not())),
    pytest.mark.usefixtures("virtual"),
]

DTYPES = [
    torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.int64, torch.int32, torch.int16,
    torch.int8, torch.uint8, torch.bool, torch.complex64,
]  # fmt: skip


def reads_uninitialised(virtual: Any, x: Tensor) -> bool:
    """Whether a kernel that reads these floats, contiguous ones, reads what nobody has written."""
    out = torch.empty(x.numel(), device="virtual")
    given = ctypes.c_void_p(out.data_ptr()), ctypes.c_void_p(x.data_ptr()), ctypes.c_float(1)
    assert virtual.load().sample_scale(*given, x.numel(), 128) == 0
    found = {finding["problem"] for finding in virtual.findings()}
    virtual.clear()
    assert found <= {"uninitialised"}
    return bool(found)


@pytest.mark.parametrize("dtype", DTYPES)
def test_there_and_back(dtype: torch.dtype) -> None:
    x = torch.randint(0, 2, (3, 4, 5)).to(dtype)
    there = x.to("virtual")
    assert there.device == torch.device("virtual", 0) and there.dtype == dtype
    assert torch.equal(there.cpu(), x)
    assert torch.equal(there.transpose(0, 2).cpu(), x.transpose(0, 2))
    assert torch.equal(there[1:, ::2].clone().cpu(), x[1:, ::2])
    target = torch.zeros(5, 4, 3, dtype=dtype, device="virtual")
    target.transpose(0, 2).copy_(x)
    assert torch.equal(target.cpu(), x.transpose(0, 2))
    assert torch.equal(there.to(torch.complex128).cpu(), x.to(torch.complex128))
    assert there.flatten()[7].item() == x.flatten()[7].item()
    assert torch.empty(0, dtype=dtype, device="virtual").cpu().shape == (0,)


def test_lazy_conjugate() -> None:
    x = torch.randn(3, dtype=torch.complex64)
    assert torch.equal(x.to("virtual").conj().cpu(), x.conj())
    assert torch.equal(x.conj().to("virtual").cpu(), x.conj())


def test_what_counts_as_initialised(virtual: Any) -> None:
    empty = torch.empty(8, 4, device="virtual")
    assert reads_uninitialised(virtual, empty)
    assert reads_uninitialised(virtual, torch.empty_like(empty))
    for written in (
        torch.zeros(8, 4, device="virtual"), torch.empty_like(empty).fill_(2), empty.new_ones(8, 4),
        torch.randn(8, 4).to("virtual"), torch.randn(8, 4, device="virtual"), torch.ones(32).to("virtual") + 1,
    ):  # fmt: skip
        assert not reads_uninitialised(virtual, written)
    empty[:, :3] = 1
    assert reads_uninitialised(virtual, empty)  # the last column still is
    assert not reads_uninitialised(virtual, empty[5, :3])
    empty[:, 3:].copy_(torch.ones(8, 1))
    assert not reads_uninitialised(virtual, empty)


def test_resize(virtual: Any) -> None:
    x = torch.ones(4, device="virtual").resize_(6)
    assert x[:4].tolist() == [1.0] * 4
    assert not reads_uninitialised(virtual, x[:4])
    assert reads_uninitialised(virtual, x)
    into = torch.empty(0, device="virtual")
    torch.add(x[:4], 1, out=into)
    assert into.tolist() == [2.0] * 4


def test_views_share_memory() -> None:
    x = torch.arange(24.0, device="virtual").reshape(2, 3, 4)
    views = [
        x.view(6, 4), x.t() if x.dim() == 2 else x.transpose(0, 1), x.permute(2, 0, 1), x[1], x.unfold(2, 2, 2),
        x.detach(), x.expand(2, 3, 4), x.unsqueeze(0), x.view(torch.int32), x.diagonal(dim1=0, dim2=1),
        x.narrow(1, 0, 2), x.as_strided((2, 2), (1, 2)), *x.split(2, dim=2), *x.unbind(0),
    ]  # fmt: skip
    begin = x.untyped_storage().data_ptr()
    assert all(view.untyped_storage().data_ptr() == begin for view in views)
    x.transpose(0, 2)[0].fill_(-1)
    assert x[:, :, 0].eq(-1).all().item() and x[0, 0, 1].item() == 1


OPERATORS: dict[str, Callable[[Tensor], Any]] = {
    "sort": lambda x: x.sort(dim=0, stable=True),
    "topk": lambda x: x.topk(2),
    "cumsum": lambda x: x.cumsum(1),
    "unique": lambda x: x.round().unique(return_counts=True),
    "searchsorted": lambda x: torch.searchsorted(x[0].sort().values, x),
    "index": lambda x: x[x.sum(1) > 0],
    "index_put": lambda x: x.index_put((torch.tensor([0, 2], device=x.device),), x[0]),
    "gather": lambda x: x.gather(1, x.argsort(1)),
    "scatter_add": lambda x: x.clone().scatter_add_(0, x.argsort(0), x),
    "where": lambda x: torch.where(x > 0, x, 0.0),
    "cat": lambda x: torch.cat([x, x * 2]),
    "matmul": lambda x: x @ x.T,
    "einsum": lambda x: torch.einsum("ab,cb->ac", x, x),
    "logsumexp": lambda x: x.logsumexp(1),
    "cross_entropy": lambda x: torch.nn.functional.cross_entropy(x, x.argmax(1)),
    "embedding": lambda x: torch.nn.functional.embedding(x.argmax(0) % 4, x),
    "norm": lambda x: torch.nn.functional.normalize(x).norm(),
    "foreach": lambda x: torch._foreach_mul([x, x[0]], 2.0),
    "in place": lambda x: x.clone().mul_(2).sub_(1).clamp_(min=0).masked_fill_(x > 1, 7),
    "arange": lambda x: torch.arange(7, device=x.device) + torch.full((7,), 2, device=x.device),
    "repeat": lambda x: x.repeat(2, 1).roll(1, 0).flip(1).contiguous(),
    "nonzero": lambda x: (x > 0).nonzero(),
    "bincount": lambda x: x.argmax(1).bincount(minlength=9),
    "equal": lambda x: torch.equal(x, x.clone()) and torch.allclose(x, x),
    "numbers": lambda x: [x.sum().item(), bool((x > 0).any()), x.tolist(), x.numel()],
    "text": lambda x: repr(x.cpu()),
}


def on_cpu(result: Any) -> list[Any]:
    if isinstance(result, Tensor):
        return [result.cpu()]
    return [y for x in result for y in on_cpu(x)] if isinstance(result, (tuple, list)) else [result]


@pytest.mark.parametrize("name", OPERATORS)
def test_operators(name: str) -> None:
    x = torch.randn(4, 5)
    expected, result = (on_cpu(OPERATORS[name](where)) for where in (x, x.to("virtual")))
    assert len(expected) == len(result)
    for one, other in zip(expected, result, strict=True):
        assert torch.equal(one, other) if isinstance(one, Tensor) else one == other


def test_results_stay_on_the_device() -> None:
    x = torch.randn(4, 5).to("virtual")
    assert x.sort().indices.device == x.cumsum(0).device == (x > 0).nonzero().device == x.device
    assert "device='virtual:0'" in repr(x)


def test_random_numbers_are_the_cpus() -> None:
    numbers = []
    for device in ("cpu", "virtual", "virtual"):
        torch.manual_seed(3)
        made = [torch.randn(5, device=device), torch.randperm(9, device=device)]
        made.append(torch.randn(3, device=device, generator=torch.Generator().manual_seed(1)))
        numbers.append([x.cpu() for x in made])
    for first, second, third in zip(*numbers, strict=True):
        assert torch.equal(first, second) and torch.equal(second, third)


def test_training_a_module() -> None:
    """Autograd, modules, deep copies and an optimiser that has its own kernels for accelerators."""

    def train(device: str) -> list[Tensor]:
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Embedding(9, 8), torch.nn.Linear(8, 3)).to(device)
        model = copy.deepcopy(model)
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
        for _ in range(3):
            loss = model(torch.arange(9, device=device)).log_softmax(1)[:, 0].sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return [p.detach().cpu() for p in model.parameters()]

    for expected, result in zip(train("cpu"), train("virtual"), strict=True):
        torch.testing.assert_close(result, expected)


def test_backward_where_there_was_one_before() -> None:
    """PyTorch counts the devices that get a thread of their own in its first backward pass."""
    code = """
import sys
import torch
torch.ones(1, requires_grad=True).sum().backward()
sys.path.append(sys.argv[1])  # last: the installed package, not the folder beside us
from tests import virtual_gpu
virtual_gpu.load()
x = torch.ones(3, device="virtual", requires_grad=True)
(x * 2).sum().backward()
assert x.grad.tolist() == [2.0] * 3
"""
    done = subprocess.run(
        [sys.executable, "-I", "-c", code, ROOT], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_no_falling_back_for_other_libraries() -> None:
    """An operator of this package without a kernel for the device must not pass on the CPU's."""
    library = torch.library.Library("virtual_test", "FRAGMENT")
    library.define("twice(Tensor x) -> Tensor")
    library.impl("twice", lambda x: x * 2, "CPU")
    assert torch.ops.virtual_test.twice(torch.ones(1)).item() == 2
    with pytest.raises(
        NotImplementedError, match=r"virtual_test::twice has no kernel for the virtual GPU"
    ):
        torch.ops.virtual_test.twice(torch.ones(1, device="virtual"))


def test_out_of_memory(virtual: Any) -> None:
    with pytest.raises(RuntimeError, match=r"virtual GPU: out of memory"):
        torch.empty(1 << 40, device="virtual")
    assert not reads_uninitialised(virtual, torch.ones(1, device="virtual"))


def test_accelerator() -> None:
    assert torch.virtual.is_available() and torch.virtual.device_count() == 1
    assert torch.accelerator.current_accelerator() == torch.device("virtual")
    torch.accelerator.synchronize()
