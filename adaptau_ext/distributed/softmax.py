"""The soft-max loss over several processes: batches split, or catalogues."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.functional import softplus

from adaptau_ext.arguments import Exclusion, Temperature, csr_pair, row_temperature, split_normalize
from adaptau_ext.distributed.collectives import Group, exchange, gather_rows, row_counts
from adaptau_ext.distributed.csr import csr_of, gather_pairs, of_part
from adaptau_ext.ops import (
    Denominator,
    Normalize,
    Precision,
    Reduction,
    as_pair,
    fused_adaptive_softmax,
)
from adaptau_ext.reference import unit_rows


def in_batch_softmax(
    u: Tensor,
    i: Tensor,
    tau: Temperature,
    *,
    positive_tau: Temperature | None = None,
    denominator: Denominator = "all",
    normalize: Normalize = "both",
    log_q: Tensor | None = None,
    item_ids: Tensor | None = None,
    exclude: Exclusion | None = None,
    precision: Precision = "float32",
    reduction: Reduction = "mean",
    return_unit_loss: bool = False,
    group: Group = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """The in-batch loss of a batch that is split over the ranks: everybody's items are candidates.

    ::

        u, i = cat(all ranks' u), cat(all ranks' i)
        fused_adaptive_softmax(u, i, tau, ...)       # of which each rank computes its own rows

    Args:
        u, i: `[B, d]`, this rank's pairs; B may differ between ranks, and be 0.
        tau, positive_tau: as for `fused_adaptive_softmax`, of this rank's rows.
        log_q: `[B]` and item_ids: `[B]`, of this rank's items. exclude: this rank's rows; holds
            `item_ids` if they are given, otherwise places in the whole batch.
        reduction: "mean" is this rank's share of the mean over all ranks' rows, so that the ranks'
            losses add up to it, and so do their gradients; where an average is taken over ranks, as
            DistributedDataParallel does, multiply by the number of ranks. "sum" and "none" are of
            this rank's rows.
        others: as for `fused_adaptive_softmax`.

    Moves `B d` numbers to and from every other rank, as gradients again in the backward pass.
    """
    counts = row_counts(len(u), group, u.device)
    first = sum(counts[: dist.get_rank(group)])
    candidates = gather_rows(i, counts, group)
    loss = fused_adaptive_softmax(
        u,
        candidates,
        tau,
        target=first + torch.arange(len(u), device=u.device),
        positive_tau=positive_tau,
        denominator=denominator,
        normalize=normalize,
        log_q=None if log_q is None else gather_rows(log_q, counts, group),
        item_ids=None if item_ids is None else gather_rows(item_ids, counts, group),
        exclude=exclude,
        precision=precision,
        reduction="none" if reduction == "none" else "sum",
        return_unit_loss=return_unit_loss,
    )
    if reduction != "mean":
        return loss
    n = max(sum(counts), 1)
    return (loss[0] / n, loss[1]) if isinstance(loss, tuple) else loss / n


def sharded_softmax(
    u: Tensor,
    i: Tensor,
    tau: Temperature,
    target: Tensor,
    *,
    first_item: int,
    positive_tau: Temperature | None = None,
    denominator: Denominator = "all",
    normalize: Normalize = "both",
    log_q: Tensor | None = None,
    exclude: Exclusion | None = None,
    precision: Precision = "float32",
    workspace_mib: int = 64,
    reduction: Reduction = "mean",
    return_unit_loss: bool = False,
    group: Group = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """The loss over a catalogue that is split over the ranks, each with users of its own.

    ::

        i = cat(all ranks' i)
        fused_adaptive_softmax(u, i, tau, target=target, ...)        # of this rank's rows of u

    Every rank sees all users, sums up its own items' exponentials for them, and hands the sums back.
    Items and their gradients stay where they are.

    Args:
        u: `[B, d]`, this rank's users; B may differ between ranks, and be 0.
        i: `[M, d]`, this rank's items, [first_item, first_item + M) of the catalogue; M may be 0.
        target: `[B]` int64, the positives, as items of the whole catalogue.
        log_q: `[M]`, of this rank's items. exclude: this rank's rows, items of the whole catalogue.
        reduction: "mean" is this rank's share of the mean over all ranks' rows: the ranks' losses add
            up to it, and a table's gradient is complete where it lies. "sum" and "none" are of this
            rank's rows.
        others: as for `fused_adaptive_softmax`.

    Moves `B d` numbers to every other rank and their gradients back, and for each row and rank three
    numbers each way.
    """
    n, device = len(u), u.device
    counts = row_counts(n, group, device)
    tau = row_temperature(tau, u, n)
    positive_tau = tau if positive_tau is None else row_temperature(positive_tau, u, n)
    everybody = gather_rows(u, counts, group)
    targets = gather_rows(target, counts, group)
    pairs = of_part(
        gather_pairs(None if exclude is None else csr_pair(exclude, device), counts, group, device),
        first_item,
        first_item + len(i),
    )
    here = ((targets >= first_item) & (targets < first_item + len(i))).nonzero()[:, 0]
    place = targets[here] - first_item
    left_out = torch.cat([pairs[0], here]), torch.cat([pairs[1], place])

    found = fused_adaptive_softmax(
        everybody,
        i,
        gather_rows(tau, counts, group),
        target=torch.full_like(targets, -1),
        denominator="negatives",
        normalize=normalize,
        log_q=log_q,
        exclude=csr_of(left_out, len(targets), len(i)),
        precision=precision,
        workspace_mib=workspace_mib,
        reduction="none",
        return_unit_loss=return_unit_loss,
    )
    lse, unit_lse = as_pair(found)
    user, item = split_normalize(normalize)
    rows, positives = everybody[here].to(lse.dtype), i[place].to(lse.dtype)
    score = ((unit_rows(rows) if user else rows) * (unit_rows(positives) if item else positives)).sum(1)
    none = torch.zeros_like(lse)
    parts = [lse, none.index_copy(0, here, score)]
    if log_q is not None:
        parts.append(none.index_copy(0, here, log_q[place].to(lse.dtype)))
    returned = exchange(torch.stack(parts, 1), counts, [n] * len(counts), group)
    by_rank = returned.view(len(counts), n, len(parts))

    total = _logsumexp(by_rank[:, :, 0])
    score = by_rank[:, :, 1].sum(0)
    positive = score / positive_tau
    if log_q is not None and denominator == "all":
        positive = positive - by_rank[:, :, 2].sum(0)
    loss = softplus(total - positive) if denominator == "all" else total - positive
    if reduction != "none":
        loss = loss.sum()
    if reduction == "mean":
        loss = loss / max(sum(counts), 1)
    if unit_lse is None:
        return loss
    unit = exchange(unit_lse, counts, [n] * len(counts), group).view(len(counts), n)
    gap = _logsumexp(unit) - score.detach()
    return loss, softplus(gap) if denominator == "all" else gap


def _logsumexp(x: Tensor) -> Tensor:
    """Over ranks; -inf, without gradient, where there is nothing but -inf."""
    some = (x > -torch.inf).any(0) | x.isnan().any(0)
    return torch.where(some, torch.where(some, x, 0).logsumexp(0), -torch.inf)
