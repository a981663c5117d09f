"""Rows that move between ranks, with gradients that move back.

One primitive carries everything: `all_to_all_single` with uneven parts, which Gloo and NCCL both have.
Sums over ranks are taken in the order of ranks, so that results have the same bits every time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

Group = dist.ProcessGroup | None


def row_counts(n: int, group: Group, device: torch.device) -> list[int]:
    """Every rank's n. Waits for the device."""
    found = torch.empty(dist.get_world_size(group), dtype=torch.int64, device=device)
    mine = torch.full_like(found, n)
    dist.all_to_all_single(found, mine, group=group)
    counts: list[int] = found.tolist()
    return counts


def exchange(x: Tensor, send: Sequence[int], receive: Sequence[int], group: Group = None) -> Tensor:
    """Rows `[sum(send), ...]`, the first send[0] for rank 0 and so on, for `[sum(receive), ...]`, the
    first receive[0] from rank 0 and so on. Differentiable."""
    moved: Tensor = _Exchange.apply(x, list(send), list(receive), group)  # type: ignore[no-untyped-call]
    return moved


def gather_rows(x: Tensor, counts: Sequence[int], group: Group = None) -> Tensor:
    """All ranks' rows, rank after rank: `[sum(counts), ...]`. The gradient of a row is the sum of those
    that all ranks have for it.

    Args:
        counts: rows of every rank, as of `row_counts`.
    """
    world = len(counts)
    copies = x.expand(world, *x.shape).reshape(world * x.shape[0], *x.shape[1:])
    return exchange(copies, [x.shape[0]] * world, counts, group)


class _Exchange(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, send: list[int], receive: list[int], group: Group) -> Tensor:
        ctx.parts = send, receive, group
        return _all_to_all(x, send, receive, group)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        send, receive, group = ctx.parts
        return _all_to_all(grad, receive, send, group), None, None, None


def _all_to_all(x: Tensor, send: list[int], receive: list[int], group: Group) -> Tensor:
    out = x.new_empty((sum(receive), *x.shape[1:]))
    dist.all_to_all_single(out, x.contiguous(), receive, send, group=group)
    return out
