"""Dropout from the caller's generator, so that runs repeat: one pass, and no mask is kept."""

from __future__ import annotations

import torch
from torch import Tensor

STEPS = 65536  # of the probability


def dropout(x: Tensor, p: float, generator: torch.Generator | None = None) -> Tensor:
    """Elements become zero with probability p, independently; others are divided by 1 - p.

    p counts to the nearest 1/65,536: an element takes sixteen bits of the counter generator
    (`reference.dropout`), which the backward pass draws again.

    Args:
        x: any shape and floating dtype.
        p: in [0, 1).
        generator: of the seed; default PyTorch's.
    """
    steps = steps_of(p)
    if steps == 0:
        return x
    rows = torch.atleast_2d(x).flatten(0, -2)
    out: Tensor = torch.ops.adaptau.dropout(rows, None, 0, steps, draw_seed(generator))
    return out.view(x.shape).to(x.dtype)


def steps_of(p: float) -> int:
    """A probability as the operators take it."""
    if not 0 <= p < 1:
        raise ValueError(f"p must be in [0, 1), got {p}")
    return min(round(p * STEPS), STEPS - 1)


def draw_seed(generator: torch.Generator | None) -> int:
    """A seed for the operators."""
    device = "cpu" if generator is None else generator.device
    return int(torch.randint(2**62, (), generator=generator, device=device))
