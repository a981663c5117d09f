"""The public operators. Each docstring opens with the naive equation; `adaptau_ext.reference` has
the same functions in plain PyTorch.

All of them take float32, bfloat16 or float16 embeddings (computed and accumulated in float32) or
float64, with any strides, and give the same bits on any number of threads. A NaN or an infinity in a
row makes that row's loss NaN, and as a candidate the loss of every row that scores it, unless the score
is -inf (with precision="bfloat16" then, too: its factors have no infinity); `topk` and `ranks` order
whatever scores come out. Nothing is raised, because on a GPU nobody could look. Bad shapes, dtypes and
values raise `RuntimeError`, bad forms of a CSR `TypeError`.

On a GPU an infinity counts as NaN in `topk` and `ranks` too; a candidate that is not finite spoils the
results of those it is excluded for as well; of rows to be normalised, unless they are float16, those
shorter than 2^-60 count as zero and those longer than 2^60 as not finite; and values that only the
device can see (an id out of range, tau <= 0) stop it with an assertion, as PyTorch's indexing does.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from adaptau_ext.arguments import (
    Exclusion,
    Temperature,
    as_ids,
    as_real,
    check_devices,
    csr_pair,
    n_rows_of,
    optional_csr,
    refuse_tangents,
    row_temperature,
)
from adaptau_ext.autograd import gradient_bits

Denominator = Literal["all", "negatives"]
Normalize = Literal["both", "user", "item", "none"]
Precision = Literal["float32", "tf32", "bfloat16"]
Reduction = Literal["mean", "sum", "none"]

_ops = torch.ops.adaptau


def as_pair(found: Tensor | tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor | None]:
    """What a loss returned: the loss, and the unit losses where they were asked for."""
    return found if isinstance(found, tuple) else (found, None)


def _optional_row(x: Temperature | None, u: Tensor, n_rows: int) -> Tensor | None:
    return None if x is None else row_temperature(x, u, n_rows, "positive_tau")


def fused_adaptive_softmax(
    u: Tensor,
    i: Tensor,
    tau: Temperature,
    *,
    target: Tensor | None = None,
    positive_tau: Temperature | None = None,
    denominator: Denominator = "all",
    normalize: Normalize = "both",
    log_q: Tensor | None = None,
    item_ids: Tensor | None = None,
    exclude: Exclusion | None = None,
    precision: Precision = "float32",
    workspace_mib: int = 64,
    reduction: Reduction = "mean",
    return_unit_loss: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    r"""Soft-max loss over all candidates with a temperature per user; no `[B, M]` tensor is stored.

    ::

        s = unit_rows(u) @ unit_rows(i).T                     # cosine, [B, M]
        loss[b] = -s[b, t] / tau[b] + log(sum_j exp(s[b, j] / tau[b]))      # t = target[b]

    With every option: negatives' logits are ``s[b, j] / tau[b] - log_q[j]`` over the candidates that
    are neither the positive, nor excluded, nor duplicates of it. The positive's logit is
    ``s[b, t] / positive_tau[b]``, less ``log_q[t]`` when it stands in the denominator.

    Args:
        u: `[B, d]` user embeddings, float32, bfloat16, float16 or float64.
        i: `[M, d]` candidates, same dtype.
        tau: temperature, > 0: a float, a scalar tensor, or `[B]`, one for each user. Divides scores.
        target: `[B]` int64, row of `i` that is each user's positive. Default: row b (in-batch
            negatives; then M >= B). -1: none is; the row's loss is then the log of its candidates' sum
            alone, -inf where there is no candidate (a part of a catalogue: `adaptau_ext.distributed`).
        positive_tau: temperature of the positive's logit alone, like `tau`. Default: `tau`.
        denominator: "all" puts the positive into the denominator (cross-entropy), "negatives" leaves it
            out (the published Adap-tau code).
        normalize: which side is divided by its norm: "both" (cosine), "user", "item" or "none".
            A zero row stays zero and gets a zero gradient.
        log_q: `[M]` log sampling probabilities, subtracted from the candidates' logits.
        item_ids: `[M]` int64 in [0, 2^31). Candidates with the positive's id leave its denominator.
            Default: every candidate is its own item.
        exclude: known positives to leave out of each user's denominator: a SciPy CSR or a pair
            (indptr `[B + 1]`, indices), ascending and distinct within a row. Holds `item_ids` when
            those are given, rows of `i` otherwise. The positive itself is never left out.
        precision: "bfloat16" lets the matrix products take 16-bit factors: scores from integers of 15
            bits or from sums of two bfloat16 numbers, products with exponentials in bfloat16. Sums,
            exponentials and the positive's share stay float32. Gradients are right to 1e-3 of their
            norm at tau >= 0.05, about twice as fast where the processor has the instructions (AMX;
            AVX-512 BF16, of AMD's), and the same as "float32" on processors without them and for
            float64 embeddings. On a GPU float32 rows then become float16, scaled by
            powers of two. "tf32" rounds factors to 11 bits, on a GPU only.
        workspace_mib: MiB of exponentials that may be kept between the two passes; where a block of
            users does not fit they are computed twice. Other scratch is of the size of u.
        reduction: "mean" or "sum" over users, or "none" for `[B]`.
        return_unit_loss: also return `[B]` losses with every temperature 1 and no `log_q`, from the
            same pass, without gradient: what Adap-tau sets the next temperatures from.

    Returns:
        The loss, float32 (float64 for float64 inputs); with `return_unit_loss`, (loss, unit_loss).
        Differentiable once, in u, i, tau, positive_tau and log_q.

    Raises:
        RuntimeError: naming the argument, for a wrong dtype, device or shape, a temperature that is not
            finite and > 0, a target out of range, a CSR that is not sorted, or a row without any
            negative under denominator="negatives".

    Source: Adap-tau (WWW 2023), equations 1 and 3; `log_q`: Yi et al., RecSys 2019.
    """
    n_rows = n_rows_of("u", u, "[B, d]")
    tau = row_temperature(tau, u, n_rows)
    positive_tau = _optional_row(positive_tau, u, n_rows)
    log_q = None if log_q is None else as_real("log_q", log_q, u).contiguous()
    check_devices(
        u.device, i=i, tau=tau, target=target, positive_tau=positive_tau, log_q=log_q, item_ids=item_ids
    )
    refuse_tangents(u, i, tau, positive_tau, log_q)
    loss, unit_loss, *_ = _ops.fused_adaptive_softmax(
        u,
        i,
        tau,
        as_ids(target),
        positive_tau,
        log_q,
        as_ids(item_ids),
        *optional_csr(exclude, u.device),
        denominator,
        normalize,
        precision,
        workspace_mib,
        reduction,
        return_unit_loss,
        0 if reduction == "none" else gradient_bits(u, i, tau, positive_tau, log_q),
    )
    return (loss, unit_loss) if return_unit_loss else loss


def sampled_adaptive_softmax(
    user_table: Tensor,
    item_table: Tensor,
    users: Tensor | None,
    positives: Tensor,
    tau: Temperature,
    *,
    n_negatives: int = 1024,
    seed: int | None = None,
    negatives: Tensor | None = None,
    item_l2: float = 0.0,
    positive_tau: Temperature | None = None,
    denominator: Denominator = "negatives",
    normalize: Normalize = "both",
    log_q: Tensor | None = None,
    reduction: Reduction = "mean",
    return_unit_loss: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    r"""Soft-max loss over sampled negatives; no `[B, N, d]` tensor is stored.

    ::

        n = draw_negatives(B, n_negatives, n_items, seed)     # or `negatives`
        s = (unit_rows(item_table)[n] @ unit_rows(user_table)[users][:, :, None])[..., 0]     # [B, N]
        loss[b] = -s+[b] / positive_tau[b] + log(sum_n exp(s[b, n] / tau[b] - log_q[n]))

    Negatives are drawn uniformly with replacement, inside the kernel, by a counter-based generator: the
    same seed gives the same ids for any number of threads and on any device. Known positives are not
    rejected, and a negative that happens to be the positive counts like any other.

    Args:
        user_table: `[n_users, d]`; item_table: `[n_items, d]`, same dtype.
        users: `[B]` int64 rows of `user_table`, or None: row b for each b.
        positives: `[B]` int64 rows of `item_table`.
        tau, positive_tau, denominator, normalize, reduction, return_unit_loss: as in
            `fused_adaptive_softmax`.
        n_negatives: N, drawn for each row.
        seed: of the draw; None takes one from PyTorch's default generator.
        negatives: `[B, N]` int64 to use instead of drawing.
        log_q: `[n_items]`, subtracted from the logits of sampled items (and of the positive where it
            stands in the denominator).
        item_l2: each row's loss also gains ``item_l2 / 2`` times the squared norm of every item row it
            uses, the positive's and each negative's: the regulariser "on the rows used".

    Returns:
        The loss, or (loss, unit_loss). Differentiable once, in both tables (dense gradients), tau,
        positive_tau and log_q.

    Raises:
        RuntimeError: as `fused_adaptive_softmax`; also when B x N reaches 2^32.

    Source: the sampled soft-max of the published Adap-tau MF, in closed form.
    """
    n_rows = n_rows_of("positives", positives, "[B]")
    tau = row_temperature(tau, user_table, n_rows)
    positive_tau = _optional_row(positive_tau, user_table, n_rows)
    log_q = None if log_q is None else as_real("log_q", log_q, user_table).contiguous()
    check_devices(
        user_table.device, item_table=item_table, users=users, positives=positives, tau=tau,
        positive_tau=positive_tau, negatives=negatives, log_q=log_q,
    )  # fmt: skip
    refuse_tangents(user_table, item_table, tau, positive_tau, log_q)
    if seed is None:
        seed = 0 if negatives is not None else int(torch.randint(2**62, ()))
    loss, unit_loss, *_ = _ops.sampled_adaptive_softmax(
        user_table,
        item_table,
        as_ids(users),
        as_ids(positives),
        tau,
        positive_tau,
        as_ids(negatives),
        n_negatives,
        seed,
        item_l2,
        log_q,
        denominator,
        normalize,
        reduction,
        return_unit_loss,
        0 if reduction == "none" else gradient_bits(user_table, item_table, tau, positive_tau, log_q),
    )
    return (loss, unit_loss) if return_unit_loss else loss


def sampled_scores(u: Tensor, i: Tensor, items: Tensor, *, normalize: Normalize = "none") -> Tensor:
    r"""Scores of some items for every user, like sampled negatives; no `[B, N, d]` tensor is stored.

    ::

        u, i = unit_rows(u), unit_rows(i)                     # as `normalize` says
        s[b, n] = <u[b], i[items[b, n]]>

    What losses of a positive and sampled negatives are made of, see `adaptau_ext.losses`.

    Args:
        u: `[B, d]`; i: `[M, d]`, same dtype.
        items: `[B, N]` int64 rows of `i`, in any order, repeated or not.
        normalize: which side is divided by its norm first.

    Returns:
        `[B, N]` float32, float64 for float64. Differentiable once, in u and i (dense gradients).

    Raises:
        RuntimeError: also when B x N reaches 2^32.
    """
    check_devices(u.device, i=i, items=items)
    refuse_tangents(u, i)
    scores: Tensor = _ops.sampled_scores(u, i, as_ids(items), normalize)
    return scores


def draw_negatives(
    n_rows: int, n_negatives: int, n_items: int, seed: int, device: torch.device | str = "cpu"
) -> Tensor:
    """The `[n_rows, n_negatives]` int64 ids that `sampled_adaptive_softmax` draws for this seed.

    Entry (b, n) is a function of (seed, b, n) alone, on every device: Philox4x32-10 (Salmon et al.,
    SC 2011) with Lemire's rejection, exactly uniform on [0, n_items).
    """
    like = torch.empty(0, device=device)  # the dispatcher looks at tensors only
    ids: Tensor = _ops.draw_negatives(like, n_rows, n_negatives, n_items, seed)
    return ids


def topk(
    u: Tensor,
    i: Tensor,
    k: int,
    *,
    exclude: Exclusion | None = None,
    normalize: Normalize = "none",
) -> tuple[Tensor, Tensor]:
    """The k best items of every user, exactly; no `[B, M]` tensor is stored.

    ::

        scores = u @ i.T                                      # [B, M], -inf where excluded
        scores, ids = scores.topk(k)                          # ties: smaller id first

    Scores are computed in float32 (float64 for float64), and the order is total: score descending, NaN
    after every number, then id ascending.

    Args:
        u: `[B, d]`; i: `[M, d]`, same dtype.
        k: 1 <= k <= M.
        exclude: items each user must not be given, as in `fused_adaptive_softmax` (rows of `i`).
        normalize: which side is divided by its norm first.

    Returns:
        (scores `[B, k]`, ids `[B, k]` int64), not differentiable.

    Raises:
        RuntimeError: also when exclusions leave a user fewer than k items.
    """
    check_devices(u.device, i=i)
    scores, ids = _ops.topk(u.detach(), i.detach(), k, *optional_csr(exclude, u.device), normalize)
    return scores, ids


def ranks(
    u: Tensor,
    i: Tensor,
    targets: Exclusion,
    *,
    exclude: Exclusion | None = None,
    normalize: Normalize = "none",
) -> Tensor:
    """The exact rank of every held-out item, by counting: no selection, no `[B, M]` tensor.

    ::

        scores = u @ i.T                                      # [B, M], -inf where excluded
        rank[b, t] = 1 + sum_j (scores[b, j] before scores[b, t] in the order of `topk`)

    Args:
        u, i, exclude, normalize: as in `topk`.
        targets: the held-out items of each user, in the form of `exclude`. They compete with each
            other; a target that is also excluded is ranked all the same.

    Returns:
        `[nnz]` int64, 1 = best, aligned with the targets' indices.
    """
    check_devices(u.device, i=i)
    indptr, indices = csr_pair(targets, u.device, "targets")
    result: Tensor = _ops.ranks(
        u.detach(), i.detach(), indptr, indices, *optional_csr(exclude, u.device), normalize
    )
    return result
