"""Autograd formulas and fake kernels of the operators, the same for every device.

With reduction "mean" or "sum" the forward operator is asked for the gradients too: it has every
exponential at hand, so the two passes together cost no more than a forward and a cheaper backward,
and nothing of size [B, M] survives between them. The backward pass multiplies by the incoming scalar.
With "none", or when the graph is walked a second time, the backward operator computes them.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from adaptau_ext.arguments import compute_dtype

# Bits of the operators' `gradients` argument, in the order of their gradient outputs
# (csrc/torch/tensors.h has the twin).
GRADIENT_BITS = (1, 2, 4, 8, 16)

ops = torch.ops.adaptau


def gradient_bits(*tensors: Tensor | None) -> int:
    """Which of (users, items, tau, positive_tau, log_q) autograd wants to know about."""
    if not torch.is_grad_enabled():
        return 0
    wanted = (t is not None and t.requires_grad for t in tensors)
    return sum(bit for bit, want in zip(GRADIENT_BITS, wanted, strict=True) if want)


def _is_plain_one(scale: Tensor) -> bool:
    """True for the 1.0 that `loss.backward()` sends on the CPU; never looks into traced tensors."""
    return (
        type(scale) is Tensor
        and scale.device.type == "cpu"
        and not torch.compiler.is_compiling()
        and not torch._C._functorch.is_legacy_batchedtensor(scale)  # of several backward passes
        and scale.item() == 1.0
    )


def _first_derivatives_only(name: str, ctx: Any, *grads: Any) -> None:
    raise NotImplementedError(
        f"{name} has first derivatives only; for higher ones use adaptau_ext.reference.{name}"
    )


class _Loss:
    """What the two losses share: names are those of the operators' arguments."""

    def __init__(self, name: str, arguments: tuple[str, ...], differentiable: tuple[str, ...]):
        self.name, self.arguments, self.differentiable = name, arguments, differentiable
        torch.library.register_autograd(
            f"adaptau::{name}", self.backward, setup_context=self.setup_context
        )
        torch.library.register_autograd(
            f"adaptau::{name}_backward", partial(_first_derivatives_only, name)
        )

    def setup_context(self, ctx: Any, inputs: tuple[Any, ...], output: tuple[Any, ...]) -> None:
        given = dict(zip(self.arguments, inputs, strict=True))
        ctx.n_inputs = len(inputs)
        ctx.n_rows = given["tau"].shape[0]
        ctx.dtypes = [None if given[a] is None else given[a].dtype for a in self.differentiable]
        ctx.reduction = given["reduction"]
        # Handed out once: the outputs may become .grad without a copy.
        ctx.gradients = list(output[-5:]) if given["gradients"] else None
        ctx.mark_non_differentiable(*output[1:])
        ctx.set_materialize_grads(False)
        ctx.tensors = [a for a in self.arguments if isinstance(given[a], Tensor)]
        ctx.save_for_backward(*(given[a] for a in ctx.tensors))
        ctx.others = {a: v for a, v in given.items() if not isinstance(v, Tensor)}

    def backward(self, ctx: Any, grad_loss: Tensor | None, *_: Any) -> tuple[Any, ...]:
        grads: list[Tensor | None] = [None] * len(self.arguments)
        if grad_loss is None:
            return tuple(grads)
        ready, ctx.gradients = ctx.gradients, None
        if ready is None or torch.is_grad_enabled():
            # "none", a second walk, or create_graph: then the operator's own error is due
            ready = self.recompute(ctx, grad_loss)
        elif not _is_plain_one(grad_loss):
            ready = [g * grad_loss for g in ready]
        for name, gradient, dtype in zip(self.differentiable, ready, ctx.dtypes, strict=True):
            position = self.arguments.index(name)
            if ctx.needs_input_grad[position]:
                grads[position] = gradient.to(dtype)
        return tuple(grads)

    def recompute(self, ctx: Any, grad_loss: Tensor) -> list[Tensor]:
        given = {**ctx.others, **dict(zip(ctx.tensors, ctx.saved_tensors, strict=True))}
        tau = given["tau"]
        if ctx.reduction == "mean":
            grad_loss = grad_loss / ctx.n_rows
        weight = grad_loss.to(tau.dtype).expand(ctx.n_rows).contiguous()
        bits = sum(
            bit
            for bit, name in zip(GRADIENT_BITS, self.differentiable, strict=True)
            if ctx.needs_input_grad[self.arguments.index(name)]
        )
        skipped = ("reduction", "unit_loss", "gradients")
        arguments = [given[a] for a in self.arguments if a not in skipped]
        return list(getattr(ops, f"{self.name}_backward")(weight, *arguments, bits))


_FUSED = _Loss(
    "fused_adaptive_softmax",
    (
        "u", "i", "tau", "target", "positive_tau", "log_q", "item_ids", "exclude_indptr",
        "exclude_indices", "denominator", "normalize", "precision", "workspace_mib", "reduction",
        "unit_loss", "gradients",
    ),
    ("u", "i", "tau", "positive_tau", "log_q"),
)  # fmt: skip
_SAMPLED = _Loss(
    "sampled_adaptive_softmax",
    (
        "user_table", "item_table", "users", "positives", "tau", "positive_tau", "negatives",
        "n_negatives", "seed", "item_l2", "log_q", "denominator", "normalize", "reduction", "unit_loss",
        "gradients",
    ),
    ("user_table", "item_table", "tau", "positive_tau", "log_q"),
)  # fmt: skip


def _gradients(
    bits: int, u: Tensor, i: Tensor, n_rows: int, grad_users_shape: tuple[int, ...]
) -> tuple[Tensor, ...]:
    shapes = (grad_users_shape, tuple(i.shape), (n_rows,), (n_rows,), (i.shape[0],))
    return tuple(
        u.new_empty(shape if bits & bit else (0,), dtype=compute_dtype(u))
        for bit, shape in zip(GRADIENT_BITS, shapes, strict=True)
    )


@torch.library.register_fake("adaptau::fused_adaptive_softmax")
def _fused(
    u: Tensor, i: Tensor, tau: Tensor, target: Tensor | None = None, positive_tau: Tensor | None = None,
    log_q: Tensor | None = None, item_ids: Tensor | None = None, exclude_indptr: Tensor | None = None,
    exclude_indices: Tensor | None = None, denominator: str = "all", normalize: str = "both",
    precision: str = "float32", workspace_mib: int = 64, reduction: str = "mean",
    unit_loss: bool = False, gradients: int = 0,
) -> tuple[Tensor, ...]:  # fmt: skip
    n_rows = u.shape[0]
    return (
        tau.new_empty((n_rows,) if reduction == "none" else ()),
        tau.new_empty((n_rows if unit_loss else 0,)),
        *_gradients(gradients, u, i, n_rows, tuple(u.shape)),
    )


@torch.library.register_fake("adaptau::fused_adaptive_softmax_backward")
def _fused_backward(grad_loss: Tensor, u: Tensor, i: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    return _gradients(rest[-1], u, i, u.shape[0], tuple(u.shape))


@torch.library.register_fake("adaptau::sampled_adaptive_softmax")
def _sampled(
    user_table: Tensor, item_table: Tensor, users: Tensor | None, positives: Tensor, tau: Tensor,
    positive_tau: Tensor | None = None, negatives: Tensor | None = None, n_negatives: int = 0,
    seed: int = 0, item_l2: float = 0.0, log_q: Tensor | None = None, denominator: str = "negatives",
    normalize: str = "both", reduction: str = "mean", unit_loss: bool = False, gradients: int = 0,
) -> tuple[Tensor, ...]:  # fmt: skip
    n_rows = positives.shape[0]
    return (
        tau.new_empty((n_rows,) if reduction == "none" else ()),
        tau.new_empty((n_rows if unit_loss else 0,)),
        *_gradients(gradients, user_table, item_table, n_rows, tuple(user_table.shape)),
    )


@torch.library.register_fake("adaptau::sampled_adaptive_softmax_backward")
def _sampled_backward(
    grad_loss: Tensor, user_table: Tensor, item_table: Tensor, users: Tensor | None, positives: Tensor,
    *rest: Any,
) -> tuple[Tensor, ...]:  # fmt: skip
    n_rows = positives.shape[0]
    return _gradients(rest[-1], user_table, item_table, n_rows, tuple(user_table.shape))


@torch.library.register_fake("adaptau::sampled_scores")
def _sampled_scores(u: Tensor, i: Tensor, items: Tensor, normalize: str = "none") -> Tensor:
    return u.new_empty(items.shape, dtype=compute_dtype(u))


@torch.library.register_fake("adaptau::sampled_scores_backward")
def _sampled_scores_gradients(
    grad: Tensor, u: Tensor, i: Tensor, items: Tensor, normalize: str, gradients: int
) -> tuple[Tensor, ...]:
    return _gradients(gradients, u, i, u.shape[0], tuple(u.shape))[:2]


def _scores_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    u, i, items, ctx.normalize = inputs
    ctx.dtypes = u.dtype, i.dtype
    ctx.save_for_backward(u, i, items)


def _scores_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    wanted = ctx.needs_input_grad[:2]
    bits = sum(bit for bit, want in zip(GRADIENT_BITS, wanted, strict=False) if want)
    grads = ops.sampled_scores_backward(grad.contiguous(), *ctx.saved_tensors, ctx.normalize, bits)
    made = zip(wanted, grads, ctx.dtypes, strict=True)
    return *(g.to(dtype) if want else None for want, g, dtype in made), None, None


torch.library.register_autograd(
    "adaptau::sampled_scores", _scores_backward, setup_context=_scores_setup
)
torch.library.register_autograd(
    "adaptau::sampled_scores_backward", partial(_first_derivatives_only, "sampled_scores")
)


@torch.library.register_fake("adaptau::topk")
def _topk(
    u: Tensor, i: Tensor, k: int, exclude_indptr: Tensor | None = None,
    exclude_indices: Tensor | None = None, normalize: str = "none", item_bytes: Tensor | None = None,
    item_meta: Tensor | None = None, item_centre: Tensor | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    shape = (u.shape[0], k)
    return u.new_empty(shape, dtype=compute_dtype(u)), u.new_empty(shape, dtype=torch.int64)


@torch.library.register_fake("adaptau::unit_rows")
def _unit_rows(i: Tensor) -> Tensor:
    return i.new_empty(i.shape, dtype=compute_dtype(i))


@torch.library.register_fake("adaptau::ranks")
def _ranks(
    u: Tensor, i: Tensor, target_indptr: Tensor, target_indices: Tensor,
    exclude_indptr: Tensor | None = None, exclude_indices: Tensor | None = None,
    normalize: str = "none", target_scores: Tensor | None = None, first_item: int = 0,
) -> Tensor:  # fmt: skip
    return target_indices.new_empty(target_indices.shape)


@torch.library.register_fake("adaptau::target_scores")
def _target_scores(
    u: Tensor, i: Tensor, target_indptr: Tensor, target_indices: Tensor, normalize: str = "none"
) -> Tensor:
    return u.new_empty(target_indices.shape, dtype=compute_dtype(u))


@torch.library.register_fake("adaptau::draw_negatives")
def _draw_negatives(like: Tensor, n_rows: int, n_negatives: int, n_items: int, seed: int) -> Tensor:
    return like.new_empty((n_rows, n_negatives), dtype=torch.int64)


@torch.library.register_fake("adaptau::adam_rows_")
def _adam_rows(*_: Any) -> None:
    """In place."""


@torch.library.register_fake("adaptau::dropout")
def _dropout(x: Tensor, rows: Tensor | None, first_row: int, steps: int, seed: int) -> Tensor:
    return x.new_empty(x.shape, dtype=compute_dtype(x))


def _dropout_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, rows, *ctx.settings = inputs
    ctx.dtype = x.dtype
    ctx.save_for_backward(rows)


def _dropout_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    """Linear and diagonal: the same operator."""
    return ops.dropout(grad, *ctx.saved_tensors, *ctx.settings).to(ctx.dtype), *[None] * 4


torch.library.register_autograd("adaptau::dropout", _dropout_backward, setup_context=_dropout_setup)


@torch.library.register_fake("adaptau::bipartite_graph")
def _bipartite_graph(indptr: Tensor, indices: Tensor, n_items: int) -> tuple[Tensor, ...]:
    def make(n: int | torch.SymInt, dtype: torch.dtype) -> Tensor:
        return indptr.new_empty((n,), dtype=dtype)

    n_users, nnz = indptr.shape[0] - 1, indices.shape[0]
    return (
        make(n_users + 1, torch.int64),
        make(nnz, torch.int32),
        make(n_items + 1, torch.int64),
        make(nnz, torch.int32),
    )


@torch.library.register_fake("adaptau::renumber_side")
def _renumber_side(
    indptr: Tensor, indices: Tensor, order: Tensor, other_order: Tensor
) -> tuple[Tensor, Tensor]:
    return torch.empty_like(indptr), torch.empty_like(indices)


@torch.library.register_fake("adaptau::propagate")
def _propagate(
    x_users: Tensor, x_items: Tensor, user_indptr: Tensor, user_indices: Tensor, item_indptr: Tensor,
    item_indices: Tensor, user_order: Tensor | None, item_order: Tensor | None, n_layers: int,
    mean: bool = True, users: Tensor | None = None, items: Tensor | None = None,
    given_users: Tensor | None = None, given_items: Tensor | None = None, dropout: int = 0,
    seed: int = 0,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    n_users = user_indptr.shape[0] - 1 if users is None else users.shape[0]
    n_items = item_indptr.shape[0] - 1 if items is None else items.shape[0]
    d, dtype = x_users.shape[1], compute_dtype(x_users)
    return x_users.new_empty((n_users, d), dtype=dtype), x_users.new_empty((n_items, d), dtype=dtype)


def _propagate_setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors_and_layers, dropout, seed = inputs
    x_users, x_items, *graph, ctx.n_layers, ctx.mean, users, items, given_users, given_items = (
        tensors_and_layers
    )
    ctx.dropout = dropout, seed
    ctx.dtypes = x_users.dtype, x_items.dtype
    ctx.save_for_backward(*graph, users, items, given_users, given_items)


def _propagate_backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
    """A is symmetric: the same operator, with what was wanted and what was given exchanged."""
    *graph, users, items, given_users, given_items = ctx.saved_tensors
    if ctx.dropout[0] > 0:
        sides = zip(grads, (users, items), (0, graph[0].shape[0] - 1), strict=True)
        grads = tuple(ops.dropout(g, ids, first, *ctx.dropout) for g, ids, first in sides)
    grads = ops.propagate(
        *grads, *graph, ctx.n_layers, ctx.mean, given_users, given_items, users, items
    )
    return *(g.to(dtype) for g, dtype in zip(grads, ctx.dtypes, strict=True)), *[None] * 14


torch.library.register_autograd(
    "adaptau::propagate", _propagate_backward, setup_context=_propagate_setup
)


def _layers_fake(
    is_backward: bool, x_users: Tensor, x_items: Tensor, user_indptr: Tensor, user_indices: Tensor,
    item_indptr: Tensor, item_indices: Tensor, user_order: Tensor | None, item_order: Tensor | None,
    n_layers: int, users: Tensor | None = None, items: Tensor | None = None, dropout: int = 0,
    seed: int = 0,
) -> tuple[Tensor, ...]:  # fmt: skip
    d, dtype = x_users.shape[1], compute_dtype(x_users)
    sides = zip(
        (user_indptr, item_indptr), (None, None) if is_backward else (users, items), strict=True
    )
    nodes = [p.shape[0] - 1 if ids is None else ids.shape[0] for p, ids in sides]
    layers = 1 if is_backward else n_layers + 1
    return tuple(x_users.new_empty((layers * n, d), dtype=dtype) for n in nodes)


def _layers_setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x_users, x_items, *graph, ctx.n_layers, users, items, dropout, seed = inputs
    ctx.dropout, ctx.dtypes = (dropout, seed), (x_users.dtype, x_items.dtype)
    ctx.save_for_backward(*graph, users, items)


def _layers_backward(transpose: Any, ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
    """All layers' rows are linear in x; each of the two operators is the other's transpose."""
    *graph, users, items = ctx.saved_tensors
    grads = transpose(*grads, *graph, ctx.n_layers, users, items, *ctx.dropout)
    return *(g.to(dtype) for g, dtype in zip(grads, ctx.dtypes, strict=True)), *[None] * 11


torch.library.register_fake("adaptau::propagate_layers")(partial(_layers_fake, False))
torch.library.register_fake("adaptau::propagate_layers_backward")(partial(_layers_fake, True))
torch.library.register_autograd(
    "adaptau::propagate_layers",
    partial(_layers_backward, ops.propagate_layers_backward),
    setup_context=_layers_setup,
)
torch.library.register_autograd(
    "adaptau::propagate_layers_backward",
    partial(_layers_backward, ops.propagate_layers),
    setup_context=_layers_setup,
)
