"""Fused linear cross-entropies of others, for GPUs, called as their documentation says.

They compute `cross_entropy(u @ i.T, target)`, so unit rows and temperatures are prepared outside
(`scaled_pair`), in the time that counts for them. Where they take 16-bit rows only, float32 rows are
cast, which counts too: such contenders say "as bfloat16".

* CCE, apple/ml-cross-entropy (newer there than on PyPI): "CCE" is its default, which drops gradients
  below a threshold of the softmax; "CCE exact" drops none. The column of errors shows what that means.
* Liger, linkedin/Liger-Kernel: the Triton operator, in chunks as large as those of our own chunked
  contender, and "Liger scaled", its CuTe kernels for sm_90.
* quack, Dao-AILab/quack: chunks of 4096 users; on sm_90 with multiples of 128 items its fastest path.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from typing import Any

import torch
from throughput_case import missing
from torch import Tensor

LinearLoss = Callable[[Tensor, Tensor, Tensor, str], Tensor]  # users, items, target, reduction


def cce(exact: bool) -> LinearLoss:
    from cut_cross_entropy import LinearCrossEntropyImpl, linear_cross_entropy

    options: dict[str, Any] = {}
    if exact:  # the release of January 2025 only has the threshold to turn off
        has_exact = hasattr(LinearCrossEntropyImpl, "CCE_EXACT")
        options = {"impl": "cce_exact"} if has_exact else {"filter_eps": None}

    def loss(users: Tensor, items: Tensor, target: Tensor, reduction: str) -> Tensor:
        return linear_cross_entropy(users, items, target, reduction=reduction, **options)

    return loss


def liger() -> LinearLoss:
    from liger_kernel.transformers.functional import liger_fused_linear_cross_entropy

    if "chunk_mem_const" not in inspect.signature(liger_fused_linear_cross_entropy).parameters:
        raise ImportError(
            "its chunks are of one user where items are many; liger-kernel 0.8.5 can do more"
        )

    def loss(users: Tensor, items: Tensor, target: Tensor, reduction: str) -> Tensor:
        # chunks of 64 Mi logits, like our own chunked contender's; it counts in sizes of the users
        larger = max(1, 2**26 // users.numel())
        return liger_fused_linear_cross_entropy(
            users, items, target, reduction=reduction, chunk_mem_const=larger
        )

    return loss


def liger_scaled() -> LinearLoss:
    if torch.cuda.get_device_capability() != (9, 0):
        raise ImportError("Liger's scaled cross entropy has kernels for sm_90 only")
    # a check of the targets that waits for the GPU
    os.environ.setdefault("LIGER_SCALED_CE_SM90_VALIDATE_TARGETS", "0")
    from liger_kernel.ops import LigerFusedLinearScaledCrossEntropyFunction

    def loss(users: Tensor, items: Tensor, target: Tensor, reduction: str) -> Tensor:
        rows = LigerFusedLinearScaledCrossEntropyFunction.apply(users, items, target)
        return rows.mean() if reduction == "mean" else rows.sum()

    return loss


def quack() -> LinearLoss:
    from quack.linear_cross_entropy import chunked_linear_cross_entropy

    def loss(users: Tensor, items: Tensor, target: Tensor, reduction: str) -> Tensor:
        return chunked_linear_cross_entropy(users, items, target, reduction=reduction)

    return loss


# name -> (what to install, how to make it)
PEERS: dict[str, tuple[str, Callable[[], LinearLoss]]] = {
    "CCE": ("cut-cross-entropy", lambda: cce(exact=False)),
    "CCE exact": ("cut-cross-entropy", lambda: cce(exact=True)),
    "Liger": ("liger-kernel", liger),
    "Liger scaled": ("liger-kernel", liger_scaled),
    "quack": ("quack-kernels", quack),
}


def fused_peers(device: torch.device, dtype: torch.dtype) -> dict[str, LinearLoss]:
    """All of them; those that cannot be had fail with the reason when called."""
    as_bfloat16 = dtype not in (torch.bfloat16, torch.float16)

    def cast(loss: LinearLoss) -> LinearLoss:
        return lambda u, i, target, reduction: loss(u.bfloat16(), i.bfloat16(), target, reduction)

    def failing(why: str) -> LinearLoss:
        fail = missing(why)
        return lambda u, i, target, reduction: fail()  # type: ignore[return-value]

    made = {}
    for name, (package, make) in PEERS.items():
        try:
            if device.type != "cuda":
                raise ImportError(f"{package} needs a CUDA GPU")
            loss = make()
        except ModuleNotFoundError as gone:
            loss = failing(f"not installed: {package} ({gone})")
        except Exception as problem:
            loss = failing(f"{type(problem).__name__}: {problem}")
        made[f"{name} as bfloat16" if as_bfloat16 else name] = cast(loss) if as_bfloat16 else loss
    return made
