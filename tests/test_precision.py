"""precision="bfloat16" of the dense loss: inside its error budget, on every path."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import adaptau_ext as ax
from adaptau_ext import reference
from tests.devices import DEVICES, GPUS, runs

BUDGET = 1e-3  # of a gradient's norm, tau >= 0.05, embeddings as training leaves them


def trained_like(n_users: int, n_items: int, d: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Items around centres of Zipf popularity, users between the centres of what they like."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(200, d, generator=generator)
    weight = 1 / torch.arange(1.0, 201)
    group = weight.multinomial(n_items, True, generator=generator)
    items = centres[group] + 1.2 * torch.randn(n_items, d, generator=generator)
    liked = weight.multinomial(2 * n_users, True, generator=generator).view(n_users, 2)
    users = centres[liked].sum(1) + 1.5 * torch.randn(n_users, d, generator=generator)
    near = (users @ items.T + 15 * torch.randn(n_users, n_items, generator=generator)).argmax(1)
    return users, items, near


def gradients(module: Any, u: Tensor, i: Tensor, tau: Any, **options: Any) -> list[Tensor]:
    u, i = u.clone().requires_grad_(), i.clone().requires_grad_()
    loss = module.fused_adaptive_softmax(u, i, tau, **options)
    loss.backward()
    assert u.grad is not None and i.grad is not None
    return [loss.detach(), u.grad, i.grad]


def relative(x: Tensor, y: Tensor) -> float:
    return float((x.double() - y.double()).norm() / y.double().norm())


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("tau", [0.05, 0.1, 0.3])
@pytest.mark.parametrize("d", [64, 100])
def test_gradients_stay_inside_the_budget(device: str, tau: float, d: int) -> None:
    u, i, target = trained_like(*((100, 300) if device == "virtual" else (500, 3000)), d)
    exact = gradients(reference, u.double(), i.double(), tau, target=target)
    for _ in runs(device):
        tensors = (x.to(device) for x in (u, i))
        rounded = gradients(ax, *tensors, tau, target=target.to(device), precision="bfloat16")
        assert relative(rounded[0].cpu(), exact[0]) < 2e-4
        for ours, theirs in zip(rounded[1:], exact[1:], strict=True):
            assert relative(ours.cpu(), theirs) < BUDGET


@pytest.mark.parametrize("device", GPUS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("normalize", ["both", "none"])
def test_no_further_from_float64_than_pytorch_in_the_same_dtype(
    device: str, dtype: torch.dtype, normalize: str
) -> None:
    """The error of the naive computation, all of it in the dtype, is what nobody should exceed: but for
    the rounding of the results, and 2^-20 for products of two 11-bit parts, sums cut off, ex2.approx.
    """
    u, i, target = trained_like(60, 200, 64)
    tau = torch.full((60,), 0.1 if normalize == "both" else 20.0)
    u, i = u.to(dtype), i.to(dtype)
    options = {"target": target, "normalize": normalize}
    exact = gradients(reference, u.double(), i.double(), tau.double(), **options)
    naive = gradients(reference, u, i, tau.to(dtype), **options)
    for _ in runs(device):
        there = {k: v.to(device) if isinstance(v, Tensor) else v for k, v in options.items()}
        ours = gradients(ax, u.to(device), i.to(device), tau.to(device), **there)
        for mine, plain, right in zip(ours, naive, exact, strict=True):
            epsilon = torch.finfo(mine.dtype).eps + 2.0**-20
            assert relative(mine.cpu(), right) <= relative(plain, right) + epsilon


def test_a_positive_that_takes_all_the_mass() -> None:
    """p+ - 1 is far below a bfloat16 ulp of p+, and still right: the positive is never rounded."""
    u, i, _ = trained_like(60, 400, 64)
    target = torch.arange(60)
    u = 6 * i[:60] + 0.1 * u
    exact = gradients(reference, u.double(), i.double(), 0.03, target=target)
    rounded = gradients(ax, u, i, 0.03, target=target, precision="bfloat16")
    assert float(exact[0]) < 1e-3
    assert relative(rounded[0], exact[0]) < 0.02
    for ours, theirs in zip(rounded[1:], exact[1:], strict=True):
        assert relative(ours, theirs) < 0.02


@pytest.mark.parametrize(
    "options",
    [
        {"workspace_mib": 0},
        {"workspace_mib": 1},
        {"log_q": True, "positive_tau": 0.2},
        {"denominator": "negatives", "normalize": "user"},
        {"exclude": True, "reduction": "sum"},
        {"tau": 0.01},
    ],
    ids=str,
)
def test_every_path(options: dict[str, Any]) -> None:
    u, i, target = trained_like(131, 1117, 50, seed=3)
    i = i / 4
    options = dict(options, target=target)
    tau = options.pop("tau", 0.2)
    if options.pop("log_q", False):
        options["log_q"] = torch.randn(1117).sigmoid().log()
    if options.pop("exclude", False):
        indices = torch.cat([torch.arange(b % 7, 1117, 1 + b % 5) for b in range(131)])
        counts = torch.tensor([0] + [len(range(b % 7, 1117, 1 + b % 5)) for b in range(131)])
        options["exclude"] = (counts.cumsum(0), indices)
    plain = gradients(ax, u, i, tau, **options)
    rounded = gradients(ax, u, i, tau, **options, precision="bfloat16")
    for ours, theirs in zip(rounded, plain, strict=True):
        assert relative(ours, theirs) < (0.03 if tau < 0.05 else 4e-3)


def test_unit_loss_and_threads() -> None:
    u, i, target = trained_like(300, 2000, 64)
    results = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            options: dict[str, Any] = {"target": target, "precision": "bfloat16"}
            _, unit = ax.fused_adaptive_softmax(u, i, 0.1, **options, return_unit_loss=True)
            results.append([unit, *gradients(ax, u, i, 0.1, **options)])
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))
    _, exact = reference.fused_adaptive_softmax(
        u.double(), i.double(), 0.1, target=target, return_unit_loss=True
    )
    assert relative(results[0][0], exact) < 1e-4


def test_only_processors_with_the_instruction_round() -> None:
    u, i, target = trained_like(100, 700, 64)
    plain = gradients(ax, u, i, 0.1, target=target)
    rounded = gradients(ax, u, i, 0.1, target=target, precision="bfloat16")
    same = all(torch.equal(a, b) for a, b in zip(plain, rounded, strict=True))
    assert same == (torch.ops.adaptau.cpu_level() not in ("avx512bf16", "avx512amx"))
    double = gradients(ax, u.double(), i.double(), 0.1, target=target, precision="bfloat16")
    exact = gradients(ax, u.double(), i.double(), 0.1, target=target)
    assert all(torch.equal(a, b) for a, b in zip(double, exact, strict=True))


def test_unknown_precision_and_workspace_are_errors() -> None:
    u, i, _ = trained_like(4, 200, 16)
    with pytest.raises(
        RuntimeError, match='precision must be "float32", "tf32" or "bfloat16", got "half"'
    ):
        ax.fused_adaptive_softmax(u, i, 0.1, precision="half")  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="workspace_mib must be in .*, got -1"):
        ax.fused_adaptive_softmax(u, i, 0.1, workspace_mib=-1)
