"""`sampled_scores` where it has no kernel: PyTorch's own operators, a few rows at a time."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from adaptau_ext.arguments import compute_dtype, split_normalize
from adaptau_ext.reference import normalized_pair

_CHUNK = 1 << 24  # elements of gathered rows at a time


def sampled_scores(u: Tensor, i: Tensor, items: Tensor, normalize: str = "none") -> Tensor:
    """See `adaptau_ext.sampled_scores`."""
    x, y = normalized_pair(u.to(compute_dtype(u)), i.to(compute_dtype(i)), normalize)
    scores = x.new_empty(items.shape)
    for part in _chunks(items, x.shape[1]):
        scores[part] = torch.bmm(y[items[part]], x[part, :, None])[..., 0]
    return scores


def sampled_scores_backward(
    grad: Tensor, u: Tensor, i: Tensor, items: Tensor, normalize: str, gradients: int
) -> tuple[Tensor, Tensor]:
    """Gradients in u (bit 1) and in i (bit 2), empty where they are not wanted."""
    u, i = u.to(compute_dtype(u)), i.to(compute_dtype(i))
    x, y = normalized_pair(u, i, normalize)
    of_users, of_items = (bool(gradients & bit) for bit in (1, 2))
    grad_x, grad_y = torch.zeros_like(x), torch.zeros_like(y)
    for part in _chunks(items, x.shape[1]):
        chosen, g = items[part], grad[part]
        if of_users:
            grad_x[part] = torch.bmm(g[:, None], y[chosen])[:, 0]
        if of_items:
            rows = g[:, :, None] * x[part, None]
            grad_y.index_add_(0, chosen.flatten(), rows.flatten(0, 1))
    unit = split_normalize(normalize)
    both = zip((of_users, of_items), unit, (grad_x, grad_y), (u, i), (x, y), strict=True)
    grad_u, grad_i = (
        (_of_raw_rows(g, raw, rows) if is_unit else g) if wanted else g.new_empty(0)
        for wanted, is_unit, g, raw, rows in both
    )
    return grad_u, grad_i


def _of_raw_rows(grad: Tensor, x: Tensor, unit: Tensor) -> Tensor:
    """From the gradient of unit rows to that of rows: (g - <g, x^> x^) / |x|, zero for zero rows."""
    norm = torch.linalg.vector_norm(x, dim=1, keepdim=True)
    tangent = grad - (grad * unit).sum(1, keepdim=True) * unit
    return torch.where(norm == 0, 0, tangent / torch.where(norm == 0, 1, norm))


def _chunks(items: Tensor, d: int) -> Iterator[slice]:
    rows = max(1, _CHUNK // max(1, items.shape[1] * d))
    return (slice(first, first + rows) for first in range(0, items.shape[0], rows))
