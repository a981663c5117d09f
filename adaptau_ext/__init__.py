"""Adaptive-temperature soft-max for recommendation: fused losses, exact top-k and ranks.

    import torch, adaptau_ext as ax

    u = torch.randn(2048, 64, requires_grad=True)             # users of a batch
    i = torch.randn(40_000, 64, requires_grad=True)           # the whole catalogue
    target = torch.randint(40_000, (2048,))                   # each user's positive
    loss = ax.fused_adaptive_softmax(u, i, tau=0.1, target=target)
    loss.backward()                                           # no 2048 x 40,000 matrix anywhere

Six operators carry the package, each with a plain-PyTorch twin in `adaptau_ext.reference`:

    fused_adaptive_softmax     loss over all candidates, a temperature per user
    sampled_adaptive_softmax   loss over negatives drawn inside the kernel
    sampled_scores             scores of listed items, for any other loss of sampled negatives
    topk, ItemIndex, ranks     exact retrieval and exact ranks of held-out items
    BipartiteGraph.propagate   LightGCN's propagation, for the rows of a batch or for all

    ops.py -> torch.ops.adaptau.* -> csrc/torch (checks) -> csrc/cpu, csrc/cuda (kernels)
       autograd.py: gradients and fake kernels                csrc/core (plain data, order, generator)
       cuda.py: loads the CUDA kernels, or says why not

On top of them: temperatures (`temperature`), other losses (`losses`), models (`models`), data (`data`),
streaming evaluation (`evaluation`), training (`training`) and the `adaptau` command (`cli`).
"""

import os as _os
from typing import TYPE_CHECKING as _TYPE_CHECKING
from typing import Any as _Any

import torch as _torch  # loads the libraries that _C links to

import adaptau_ext._C  # noqa: F401  registers torch.ops.adaptau
from adaptau_ext import cuda, reference
from adaptau_ext.graph import BipartiteGraph
from adaptau_ext.index import ItemIndex
from adaptau_ext.ops import (
    draw_negatives,
    fused_adaptive_softmax,
    ranks,
    sampled_adaptive_softmax,
    sampled_scores,
    topk,
)

# A forked child has its parent's pool but none of the pool's threads, and would wait for them for ever.
_os.register_at_fork(after_in_child=lambda: _torch.set_num_threads(1))

__version__ = "0.1.0"
__all__ = [
    "AdapTau",
    "BipartiteGraph",
    "FittedModel",
    "ItemIndex",
    "cuda",
    "draw_negatives",
    "fused_adaptive_softmax",
    "ranks",
    "reference",
    "sampled_adaptive_softmax",
    "sampled_scores",
    "topk",
]

if _TYPE_CHECKING:
    from adaptau_ext.estimator import AdapTau
    from adaptau_ext.fitted import FittedModel


def __getattr__(name: str) -> _Any:
    """The estimator and its model, when first asked for: operators need no data tools."""
    if name == "AdapTau":
        from adaptau_ext.estimator import AdapTau

        return AdapTau
    if name == "FittedModel":
        from adaptau_ext.fitted import FittedModel

        return FittedModel
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
