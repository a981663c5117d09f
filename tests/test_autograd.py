"""gradcheck over every combination of options, opcheck, and torch.compile."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

import adaptau_ext as ax

B, M, D = 3, 5, 4
EXCLUDE = (torch.tensor([0, 2, 2, 3]), torch.tensor([0, 4, 1]))
IDS = torch.tensor([0, 1, 2, 1, 0])  # duplicates
MASKS: dict[str, dict[str, Any]] = {
    "all": {},
    "exclude": {"exclude": EXCLUDE},
    "duplicates": {"item_ids": IDS, "exclude": (torch.tensor([0, 1, 1, 1]), torch.tensor([2]))},
}


def double_inputs() -> dict[str, Tensor]:
    return {
        "u": torch.randn(B, D, dtype=torch.float64, requires_grad=True),
        "i": torch.randn(M, D, dtype=torch.float64, requires_grad=True),
        "tau": (torch.rand(B, dtype=torch.float64) + 0.3).requires_grad_(),
        "positive_tau": (torch.rand(B, dtype=torch.float64) + 0.3).requires_grad_(),
        "log_q": torch.randn(M, dtype=torch.float64, requires_grad=True),
    }


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("normalize", ["both", "user", "item", "none"])
@pytest.mark.parametrize("denominator", ["all", "negatives"])
@pytest.mark.parametrize("target", [None, [4, 1, 1]])
def test_gradcheck_fused(
    target: list[int] | None, denominator: str, normalize: str, reduction: str, mask: str
) -> None:
    for own_tau, with_log_q in product((False, True), repeat=2):
        leaves = double_inputs()
        if not own_tau:
            del leaves["positive_tau"]
        if not with_log_q:
            del leaves["log_q"]
        names = list(leaves)

        def loss(*values: Tensor, names: list[str] = names) -> Tensor:
            given = dict(zip(names, values, strict=True))
            return ax.fused_adaptive_softmax(
                given.pop("u"), given.pop("i"), given.pop("tau"), **given,
                target=None if target is None else torch.tensor(target), denominator=denominator,
                normalize=normalize, reduction=reduction, **MASKS[mask],
            )  # fmt: skip

        assert torch.autograd.gradcheck(loss, tuple(leaves.values()))


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("normalize", ["both", "user", "item", "none"])
@pytest.mark.parametrize("denominator", ["all", "negatives"])
@pytest.mark.parametrize("given", [False, True])
def test_gradcheck_sampled(given: bool, denominator: str, normalize: str, reduction: str) -> None:
    for own_tau, with_log_q in product((False, True), repeat=2):
        leaves = double_inputs()
        negatives = torch.tensor([[0, 1, 1], [4, 1, 2], [3, 3, 3]]) if given else None

        def loss(
            u: Tensor, i: Tensor, tau: Tensor, positive_tau: Tensor, log_q: Tensor,
            own_tau: bool = own_tau, with_log_q: bool = with_log_q, negatives: Tensor | None = negatives,
        ) -> Tensor:  # fmt: skip
            return ax.sampled_adaptive_softmax(
                u, i, torch.tensor([2, 0, 2]), torch.tensor([4, 1, 1]), tau,
                positive_tau=positive_tau if own_tau else None, log_q=log_q if with_log_q else None,
                n_negatives=7, seed=3, item_l2=0.3, negatives=negatives, denominator=denominator,
                normalize=normalize, reduction=reduction,
            )  # fmt: skip

        assert torch.autograd.gradcheck(loss, tuple(leaves.values()))


ops = torch.ops.adaptau
INDPTR, INDICES = EXCLUDE


def operator_calls(requires_grad: bool) -> list[tuple[Any, tuple[Any, ...]]]:
    u, i = torch.randn(B, D), torch.randn(M, D)
    tau = torch.rand(B) + 0.3
    if requires_grad:
        u, i, tau = u.requires_grad_(), i.requires_grad_(), tau.requires_grad_()
    positives = torch.tensor([4, 1, 1])
    masks = (torch.arange(M), INDPTR, INDICES)
    fused, sampled = ops.fused_adaptive_softmax.default, ops.sampled_adaptive_softmax.default
    calls: list[tuple[Any, tuple[Any, ...]]] = []
    for reduction in ("mean", "none"):
        calls += [
            (fused, (u, i, tau, positives, None, None, *masks, "all", "both", "float32", 64, reduction,
                     True, 0)),
            (fused, (u, i, tau, None, tau, torch.zeros(M), None, None, None, "negatives", "none",
                     "bfloat16", 0, reduction, False, 0)),
            (sampled, (u, i, torch.tensor([2, 0, 2]), positives, tau, None, None, 6, 1, 0.1, None,
                       "negatives", "both", reduction, True, 0)),
        ]  # fmt: skip
    calls.append(
        (fused, (u, i, tau, None, None, None, None, None, None, "all", "both", "bfloat16", 64, "mean",
                 True, 7))
    )  # fmt: skip
    return calls


@pytest.mark.parametrize("call", range(7))
@pytest.mark.parametrize("requires_grad", [False, True])
def test_opcheck_losses(call: int, requires_grad: bool) -> None:
    operator, arguments = operator_calls(requires_grad)[call]
    torch.library.opcheck(operator, arguments)


def test_opcheck_retrieval() -> None:
    u, i = torch.randn(B, D), torch.randn(M, D)
    torch.library.opcheck(ops.topk.default, (u, i, 2, INDPTR, INDICES, "both"))
    torch.library.opcheck(ops.topk.default, (u.bfloat16(), i.bfloat16(), 5))
    torch.library.opcheck(ops.ranks.default, (u, i, INDPTR, INDICES, INDPTR, INDICES, "none"))


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_compile_without_graph_breaks(reduction: str) -> None:
    u, i = torch.randn(20, 8, requires_grad=True), torch.randn(50, 8, requires_grad=True)
    log_tau = torch.full((20,), -2.0, requires_grad=True)
    target = torch.randint(50, (20,))

    def step(u: Tensor, i: Tensor, log_tau: Tensor) -> Tensor:
        tau = log_tau.exp()
        dense = ax.fused_adaptive_softmax(u * 2, i, tau, target=target, reduction=reduction)
        sampled = ax.sampled_adaptive_softmax(
            u, i * 3, None, target, tau, n_negatives=30, seed=4, reduction=reduction
        )
        return (dense + 0.5 * sampled).sum()

    leaves = (u, i, log_tau)
    expected = step(*leaves)
    expected_gradients = torch.autograd.grad(expected, leaves)
    compiled = torch.compile(step, backend="aot_eager", fullgraph=True)(*leaves)
    torch.testing.assert_close(compiled, expected)
    torch.testing.assert_close(torch.autograd.grad(compiled, leaves), expected_gradients)


def test_compile_retrieval() -> None:
    u, i = torch.randn(20, 8), torch.randn(50, 8)

    def retrieve(u: Tensor, i: Tensor) -> tuple[Tensor, Tensor]:
        scores, ids = ax.topk(u, i, 7, normalize="both")
        return scores * 2, ids + 1

    compiled = torch.compile(retrieve, backend="aot_eager", fullgraph=True)(u, i)
    for ours, expected in zip(compiled, retrieve(u, i), strict=True):
        assert torch.equal(ours, expected)


def test_only_wanted_gradients_are_computed() -> None:
    u, i = torch.randn(20, 8, requires_grad=True), torch.randn(50, 8)
    target = torch.randint(50, (20,))
    loss = ax.fused_adaptive_softmax(u, i, 0.2, target=target)
    loss.backward()
    assert i.grad is None and u.grad is not None
    outputs = ops.fused_adaptive_softmax(u.detach(), i, torch.full((20,), 0.2), target, gradients=1)
    assert [tuple(x.shape) for x in outputs[2:]] == [(20, 8), (0,), (0,), (0,), (0,)]
    with torch.no_grad():
        assert not ax.fused_adaptive_softmax(u, i, 0.2, target=target).requires_grad


@pytest.mark.parametrize("seed", ["drawn", "given"])
def test_compile_with_seeds(seed: str) -> None:
    """Seeds are no constants of the compiled code."""
    u, i = (torch.randn(n, D, requires_grad=True) for n in (B, M))
    graph = ax.BipartiteGraph((torch.tensor([0, 2, 3, 5]), torch.tensor([0, 1, 2, 3, 4])), n_items=M)

    def step(u: Tensor, i: Tensor, step: int) -> Tensor:
        loss = ax.sampled_adaptive_softmax(
            u, i, None, torch.arange(B), 0.2, n_negatives=3, seed=None if seed == "drawn" else step
        )
        if seed == "given":
            return loss
        return loss + sum(rows.square().sum() for rows in graph.layers(u, i, 2, dropout=0.3))

    compiled = torch.compile(step, backend="aot_eager", fullgraph=True)
    losses = []
    for count in range(12):  # more than PyTorch compiles anew
        gradients = []
        for call in (compiled, step):
            torch.manual_seed(count)
            losses.append(call(u, i, count))
            gradients.append(torch.autograd.grad(losses[-1], (u, i)))
        torch.testing.assert_close(losses[-2], losses[-1])
        torch.testing.assert_close(*gradients)
    assert len({loss.item() for loss in losses[1::2]}) > 6


LINEAR: dict[str, Any] = {
    "fused": lambda u, i: ax.fused_adaptive_softmax(u, i, 0.3),
    "sampled": lambda u, i: ax.sampled_adaptive_softmax(
        u, i, None, torch.arange(B), 0.3, n_negatives=3, seed=0
    ),
    "scores": lambda u, i: ax.sampled_scores(u, i, torch.tensor([[0, 2], [1, 1], [4, 3]])).sum(),
    "graph": lambda u, i: ax.BipartiteGraph(
        (torch.tensor([0, 2, 3, 5]), torch.tensor([0, 1, 2, 3, 4])), n_items=M
    ).hop(u, i)[0].sum(),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # PyTorch's own use of it
@pytest.mark.parametrize("name", LINEAR)
def test_forward_mode_is_refused(name: str) -> None:
    """PyTorch would have given zero."""
    u, i = torch.randn(B, D), torch.randn(M, D)
    for at in (0, 1):
        tangents = [torch.zeros(B, D), torch.zeros(M, D)]
        tangents[at] += 1
        with pytest.raises(NotImplementedError, match="for forward mode use its twin"):
            torch.func.jvp(LINEAR[name], (u, i), tuple(tangents))
    with torch.autograd.forward_ad.dual_level():
        LINEAR[name](u, i)  # nothing is asked of it


@pytest.mark.parametrize("name", LINEAR)
def test_several_backward_passes_at_once(name: str) -> None:
    u, i = torch.randn(B, D, requires_grad=True), torch.randn(M, D)
    loss, one = LINEAR[name](u, i), LINEAR[name](u, i)
    found = torch.autograd.grad(loss, u, torch.tensor([1.0, -2.0]), is_grads_batched=True)[0]
    expected = torch.autograd.grad(one, u)[0]
    torch.testing.assert_close(found, torch.stack([expected, -2 * expected]))
