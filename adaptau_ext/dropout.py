"""Dropout from the caller's generator, so that runs repeat; several times faster than bernoulli_."""

from __future__ import annotations

import torch
from torch import Tensor


def dropout(x: Tensor, p: float, generator: torch.Generator | None = None) -> Tensor:
    """Elements become zero with probability p, independently; others are divided by 1 - p.

    p counts to the nearest 1/65,536: a mask takes sixteen random bits an element.

    Args:
        x: any shape and floating dtype.
        p: in [0, 1).
        generator: default PyTorch's. One of another device seeds one of x's device.
    """
    if not 0 <= p < 1:
        raise ValueError(f"p must be in [0, 1), got {p}")
    steps = round(p * 65536)
    if steps == 0:
        return x
    if generator is not None and generator.device != x.device:
        seed = torch.randint(2**62, (), generator=generator, device=generator.device)
        generator = torch.Generator(x.device).manual_seed(int(seed))
    words = torch.empty((x.numel() + 3) // 4, dtype=torch.int64, device=x.device)
    words.random_(-(2**63), None, generator=generator)
    kept = (words.view(torch.int16)[: x.numel()] < 2**15 - steps).view(x.shape)
    return torch.where(kept, x, 0) * (65536 / (65536 - steps))
