"""Lambert's function, in which Adap-tau's temperatures have their closed form."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def lambert_w(x: Tensor) -> Tensor:
    """Principal branch of Lambert's function: W e^W = x.

    Args:
        x: any shape, floating; -1/e <= x (NaN below). Computed in float64.

    Returns:
        W(x) in x's dtype, within a few float64 roundings (near -1/e the function itself is
        ill-conditioned: W = -1 + sqrt(2 (e x + 1)) + ...).
    """
    z = x.double()
    # Series in p around the branch point -1/e, where rounding may have put x just below it.
    square = 2 * (math.e * z + 1)
    below = -4 * torch.finfo(x.dtype).eps
    p = torch.where((square > below) & (square < 1e-14), 0, square).sqrt()
    series = -1 + p * (1 + p * (-1 / 3 + p * (11 / 72 + p * (-43 / 540))))
    log = torch.log1p(z.clamp(min=-0.25))
    w = torch.where(z < -0.2, series, log * (1 - torch.log1p(log) / (2 + log)))
    for _ in range(4):  # Halley's steps triple the digits, from a few per cent
        e = w.exp()
        f = w * e - z
        w = w - f / (e * (w + 1) - (w + 2) * f / (2 * w + 2))
    w = torch.where(p < 1e-3, series, w)  # NaN below the branch point stays NaN
    return torch.where(z == math.inf, z, w).to(x.dtype)
