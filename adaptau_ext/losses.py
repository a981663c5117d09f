"""Regularisers that go with the losses."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class _RowsL2(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, table: Tensor, counts: Tensor) -> Tensor:
        ctx.save_for_backward(table, counts)
        squares: Tensor = torch.linalg.vecdot(table, table)
        return squares @ counts / 2

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        table, counts = ctx.saved_tensors
        return table * (grad * counts)[:, None], None


def rows_l2(table: Tensor, counts: Tensor) -> Tensor:
    """Half the squared norms of the rows a batch used, each as often as it was used.

    ::

        0.5 * (table[ids] ** 2).sum()                         # counts = bincount(ids)

    Args:
        table: `[n, d]`; counts: `[n]` uses of each row, any dtype.

    Returns:
        A scalar, differentiable once, in `table`; no `[len(ids), d]` tensor is made.
    """
    norms: Tensor = _RowsL2.apply(table, counts.to(table.dtype))  # type: ignore[no-untyped-call]
    return norms
