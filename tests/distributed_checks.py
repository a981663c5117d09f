"""What tests/test_distributed.py runs on several ranks: `torchrun distributed_checks.py CHECK`.

Every rank makes the same data from a seed, takes its part, and compares what it gets with what one
process computes of the whole. Splits are uneven, with ranks that have nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse
import torch
import torch.distributed as dist
from torch import Tensor

import adaptau_ext as ax
from adaptau_ext import distributed as axd

D = 12


def borders(n: int, shares: list[int]) -> list[tuple[int, int]]:
    """Ranges of n rows in proportion to shares."""
    ends = (np.cumsum(shares) * n // sum(shares)).tolist()
    return list(zip([0, *ends[:-1]], ends, strict=True))


def splits(n: int) -> list[tuple[int, int]]:
    """A part of n rows for this rank, one for each way of cutting."""
    world, rank = dist.get_world_size(), dist.get_rank()
    ways = [[1] * world, [*range(1, world + 1)], [0] * (world - 1) + [1], [1] + [0] * (world - 1)]
    return [borders(n, shares)[rank] for shares in ways]


def random_csr(n_rows: int, n_columns: int, density: float, seed: int) -> scipy.sparse.csr_array:
    rng = np.random.default_rng(seed)
    csr = scipy.sparse.csr_array(rng.random((n_rows, n_columns)) < density)
    csr.sort_indices()
    return csr


def leaves(*tensors: Tensor) -> list[Tensor]:
    return [x.clone().requires_grad_() for x in tensors]


def close(ours: Tensor, expected: Tensor, what: str) -> None:
    """1e-6, relative to the largest of the tensor."""
    scale = expected.abs().max().clamp(min=1e-3) if expected.numel() else 1.0
    worst = ((ours - expected).abs().max() / scale) if expected.numel() else torch.zeros(())
    assert ours.shape == expected.shape and worst <= 1e-6, f"{what}: {worst:.2e}"


def total(x: Tensor) -> Tensor:
    summed = x.detach().clone()
    dist.all_reduce(summed)
    return summed


def check_in_batch() -> None:
    for n, options in (
        (37, {}),
        (1, {}),
        (64, {"denominator": "negatives"}),
        (30, {"normalize": "none"}),
    ):
        if n == 1 and options.get("denominator") == "negatives":
            continue
        u, i, tau = torch.randn(n, D) / 3, torch.randn(n, D), torch.rand(n) + 0.2
        log_q, ids = torch.randn(n), torch.randint(n, (n,))
        for more in ({}, {"log_q": log_q}, {"item_ids": ids}):
            if options.get("denominator") == "negatives" and "item_ids" in more:
                continue  # somebody might have no negative left
            whole = leaves(u, i, tau)
            expected = ax.fused_adaptive_softmax(*whole, return_unit_loss=True, **options, **more)
            expected[0].backward()
            for first, last in splits(n):
                mine = leaves(*(x[first:last] for x in (u, i, tau)))
                part: dict[str, Any] = {k: v[first:last] for k, v in more.items()}
                loss, unit = axd.in_batch_softmax(*mine, return_unit_loss=True, **options, **part)
                loss.backward()
                close(total(loss), expected[0], "loss")
                close(unit, expected[1][first:last], "unit loss")
                for ours, theirs, name in zip(mine, whole, ("u", "i", "tau"), strict=True):
                    assert ours.grad is not None and theirs.grad is not None
                    close(
                        ours.grad, theirs.grad[first:last], f"grad {name} of {n}, {options}, {[*more]}"
                    )


def check_sharded_softmax() -> None:
    for n, n_items, options in (
        (37, 90, {}),
        (1, 50, {}),
        (20, 3, {}),
        (40, 200, {"denominator": "negatives"}),
        (33, 70, {"normalize": "none", "positive_tau": 0.7}),
        (33, 70, {"denominator": "negatives", "normalize": "item"}),
    ):
        u, i, tau = torch.randn(n, D) / 3, torch.randn(n_items, D), torch.rand(n) + 0.2
        target, log_q = torch.randint(n_items, (n,)), torch.randn(n_items)
        exclude = random_csr(n, n_items, 0.2, seed=1)
        for more in ({}, {"log_q": log_q}, {"exclude": exclude}):
            whole = leaves(u, i, tau, *([log_q] if "log_q" in more else []))
            given = {**more, **({"log_q": whole[3]} if "log_q" in more else {})}
            expected = ax.fused_adaptive_softmax(
                *whole[:3], target=target, return_unit_loss=True, **options, **given
            )
            expected[0].backward()
            for (first, last), (item, end) in zip(splits(n), reversed(splits(n_items)), strict=True):
                mine = leaves(u[first:last], i[item:end], tau[first:last])
                part: dict[str, Any] = dict(more)
                if "log_q" in more:
                    part["log_q"] = log_q[item:end].clone().requires_grad_()
                if "exclude" in more:
                    part["exclude"] = exclude[first:last]
                loss, unit = axd.sharded_softmax(
                    *mine, target[first:last], first_item=item, return_unit_loss=True, **options, **part
                )
                loss.backward()
                what = f"of {n} x {n_items}, {options}, {[*more]}, items {item} to {end}"
                close(total(loss), expected[0], f"loss {what}")
                close(unit, expected[1][first:last], f"unit loss {what}")
                pairs = list(
                    zip(mine, whole, ((first, last), (item, end), (first, last)), strict=False)
                )
                if "log_q" in more:
                    pairs.append((part["log_q"], whole[3], (item, end)))
                for (ours, theirs, (a, b)), name in zip(
                    pairs, ("u", "i", "tau", "log_q"), strict=False
                ):
                    assert ours.grad is not None and theirs.grad is not None
                    close(ours.grad, theirs.grad[a:b], f"grad {name} {what}")


def check_topk() -> None:
    for n, n_items, k in ((25, 130, 9), (1, 40, 40), (12, 20, 30)):
        u, i = torch.randn(n, D), torch.randn(n_items, D)
        i[n_items // 2 :] = i[: n_items - n_items // 2].clone()  # ties across parts
        if n_items > 100:
            i[3] = torch.nan
        for normalize in ("none", "both"):
            for exclude in (None, random_csr(n, n_items, 0.3, seed=2)):
                scores, ids = ax.topk(u, i, n_items, normalize=normalize)
                for (first, last), (item, end) in zip(
                    splits(n), reversed(splits(n_items)), strict=True
                ):
                    given = None if exclude is None else exclude[first:last]
                    found = axd.topk(
                        u[first:last],
                        i[item:end],
                        k,
                        first_item=item,
                        exclude=given,
                        normalize=normalize,
                    )
                    for row in range(last - first):
                        gone = set() if given is None else set(given[[row]].indices.tolist())
                        kept = [c for c, j in enumerate(ids[first + row].tolist()) if j not in gone][:k]
                        short = k - len(kept)
                        expected = ids[first + row, kept].tolist() + [-1] * short
                        assert found[1][row].tolist() == expected
                        values = torch.cat(
                            [scores[first + row, kept], torch.full((short,), -torch.inf)]
                        )
                        assert torch.equal(found[0][row].nan_to_num(7.0), values.nan_to_num(7.0))


def check_ranks() -> None:
    for n, n_items in ((25, 130), (1, 40)):
        u, i = torch.randn(n, D), torch.randn(n_items, D)
        i[n_items // 2 :] = i[: n_items - n_items // 2].clone()
        targets = random_csr(n, n_items, 0.1, seed=3)
        exclude = random_csr(n, n_items, 0.3, seed=4)
        exclude = scipy.sparse.csr_array(exclude.astype(int) - exclude.multiply(targets))
        exclude.eliminate_zeros()
        for normalize in ("none", "both"):
            for given in (None, exclude):
                expected = ax.ranks(u, i, targets, exclude=given, normalize=normalize)
                for (first, last), (item, end) in zip(
                    splits(n), reversed(splits(n_items)), strict=True
                ):
                    found = axd.ranks(
                        u[first:last], i[item:end], targets[first:last], first_item=item,
                        exclude=None if given is None else given[first:last], normalize=normalize,
                    )  # fmt: skip
                    a, b = targets.indptr[[first, last]]
                    assert torch.equal(found, expected[a:b])


CHECKS: dict[str, Callable[[], None]] = {
    name.removeprefix("check_"): function
    for name, function in list(globals().items())
    if name.startswith("check_")
}

if __name__ == "__main__":
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    for name in sys.argv[1:]:
        torch.manual_seed(0)
        CHECKS[name]()
        if dist.get_rank() == 0:
            print(name, "passed", flush=True)
    dist.destroy_process_group()
