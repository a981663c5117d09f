"""Plain-PyTorch twins of the operators: same names, same arguments, same results.

They are the definition of what the operators mean, and the oracle of the tests: 16-bit embeddings are
computed with in float32, too. They store the `[B, M]` or `[B, N, d]` tensors that the operators exist
to avoid; arguments are explained in `adaptau_ext.ops`. Those of `adaptau_ext.graph` take the
interactions in place of the graph.
"""

from __future__ import annotations

import torch
from torch import Tensor

from adaptau_ext.arguments import (
    Exclusion,
    Temperature,
    compute_dtype,
    csr_pair,
    row_temperature,
    split_normalize,
)


def unit_rows(x: Tensor) -> Tensor:
    """Rows divided by their Euclidean norm; a zero row stays zero and has zero gradient, one with a NaN
    or an infinity has a NaN."""
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return torch.where(norm == 0, 0, x / torch.where(norm == 0, 1, norm))


def normalized_pair(u: Tensor, i: Tensor, normalize: str) -> tuple[Tensor, Tensor]:
    """Users and items, each as unit rows where `normalize` says so."""
    user, item = split_normalize(normalize)
    u, i = u.to(compute_dtype(u)), i.to(compute_dtype(i))
    return unit_rows(u) if user else u, unit_rows(i) if item else i


def csr_mask(csr: Exclusion | None, n_rows: int, n_columns: int, device: torch.device) -> Tensor:
    """The `[n_rows, n_columns]` bool matrix of a CSR's entries."""
    mask = torch.zeros(n_rows, n_columns, dtype=torch.bool, device=device)
    if csr is not None:
        indptr, indices = csr_pair(csr, device)
        rows = torch.repeat_interleave(torch.arange(n_rows, device=device), indptr.diff())
        mask[rows, indices] = True
    return mask


def reduce(loss: Tensor, reduction: str) -> Tensor:
    """`[B]` -> scalar for "mean" and "sum"."""
    if reduction == "none":
        return loss
    return loss.mean() if reduction == "mean" else loss.sum()


def row_losses(
    positive_score: Tensor,  # [B]
    scores: Tensor,  # [B, candidates]
    left_out: Tensor,  # [B, candidates] bool: masked candidates and the positive itself
    tau: Tensor,  # [B]
    positive_tau: Tensor,  # [B]
    log_q: Tensor | None,  # broadcastable to scores
    positive_log_q: Tensor | None,  # [B]
    denominator: str,
    has_positive: Tensor | None = None,  # [B] bool; None: every row has one
) -> tuple[Tensor, Tensor]:
    """Loss and unit loss per row: -z+ + log([exp(z+)] + sum over negatives of exp(z_j)); for a row
    without a positive log(sum over negatives of exp(z_j))."""

    def loss(logits: Tensor, positive: Tensor) -> Tensor:
        negatives = torch.logsumexp(logits.masked_fill(left_out, -torch.inf), dim=1)
        total = torch.logaddexp(negatives, positive) if denominator == "all" else negatives
        total = total - positive
        return total if has_positive is None else torch.where(has_positive, total, negatives)

    logits = scores / tau[:, None]
    positive = positive_score / positive_tau
    if log_q is not None and positive_log_q is not None:
        logits = logits - log_q
        positive = positive - positive_log_q if denominator == "all" else positive
    return loss(logits, positive), loss(scores, positive_score).detach()


def fused_adaptive_softmax(
    u: Tensor,
    i: Tensor,
    tau: Temperature,
    *,
    target: Tensor | None = None,
    positive_tau: Temperature | None = None,
    denominator: str = "all",
    normalize: str = "both",
    log_q: Tensor | None = None,
    item_ids: Tensor | None = None,
    exclude: Exclusion | None = None,
    precision: str = "float32",
    workspace_mib: int = 64,
    reduction: str = "mean",
    return_unit_loss: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Twin of `adaptau_ext.fused_adaptive_softmax`; `precision` and `workspace_mib` have no effect."""
    n_rows, n_items = u.shape[0], i.shape[0]
    rows = torch.arange(n_rows, device=u.device)
    target = rows if target is None else target
    if n_rows and (int(target.min()) < -1 or int(target.max()) >= n_items):
        raise RuntimeError(f"target must lie in [-1, {n_items}), and M >= B without one")
    tau = row_temperature(tau, u, n_rows)
    positive_tau = tau if positive_tau is None else row_temperature(positive_tau, u, n_rows)
    has_positive = target >= 0
    # A zero row that nobody's denominator holds stands in for the positive of those who have none.
    target = torch.where(has_positive, target, n_items)
    i = torch.cat([i, i.new_zeros(1, i.shape[1])])
    log_q = None if log_q is None else torch.cat([log_q, log_q.new_zeros(1)])

    if item_ids is None:
        left_out = csr_mask(exclude, n_rows, n_items + 1, u.device)
    else:
        n_ids = int(item_ids.max()) + 1 if n_items else 0
        if exclude is not None:
            indices = csr_pair(exclude, u.device)[1]
            n_ids = max(n_ids, int(indices.max()) + 1 if indices.numel() else 0)
        item_ids = torch.cat([item_ids, item_ids.new_full((1,), n_ids)])
        left_out = csr_mask(exclude, n_rows, n_ids + 1, u.device)[:, item_ids]
        left_out |= item_ids[None, :] == item_ids[target][:, None]
    left_out[rows, target] = True
    left_out[:, n_items] = True

    u_hat, i_hat = normalized_pair(u, i, normalize)
    scores = u_hat @ i_hat.T
    positive_log_q = None if log_q is None else log_q[target]
    loss, unit_loss = row_losses(
        scores[rows, target], scores, left_out, tau, positive_tau, log_q, positive_log_q, denominator,
        has_positive,
    )  # fmt: skip
    loss = reduce(loss, reduction)
    return (loss, unit_loss) if return_unit_loss else loss


_PHILOX_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_PHILOX_WEYL = (0x9E3779B9, 0xBB67AE85)
_WORD = 0xFFFFFFFF


def philox(seed: int, counter: Tensor) -> Tensor:
    """Philox4x32-10 (Salmon et al., SC 2011) of `[..., 4]` int64 counters holding 32-bit words."""

    def multiply(a: int, b: Tensor) -> tuple[Tensor, Tensor]:  # high and low word of a * b
        low_half, high_half = a * (b & 0xFFFF), a * (b >> 16)  # both below 2^48
        total_low = low_half + ((high_half & 0xFFFF) << 16)
        return ((high_half >> 16) + (total_low >> 32)) & _WORD, total_low & _WORD

    key = [seed & _WORD, (seed >> 32) & _WORD]
    c0, c1, c2, c3 = counter.unbind(-1)
    for _ in range(10):
        high0, low0 = multiply(_PHILOX_MULTIPLIERS[0], c0)
        high1, low1 = multiply(_PHILOX_MULTIPLIERS[1], c2)
        c0, c1, c2, c3 = high1 ^ c1 ^ key[0], low1, high0 ^ c3 ^ key[1], low0
        key = [(k + w) & _WORD for k, w in zip(key, _PHILOX_WEYL, strict=True)]
    return torch.stack([c0, c1, c2, c3], dim=-1)


def dropout(x: Tensor, rows: Tensor | None, first_row: int, steps: int, seed: int) -> Tensor:
    """`[n, d]`, each element zero with probability steps / 65,536, otherwise divided by 1 - that.

    Row r of x is row `first_row + rows[r]` of its table (rows None: `first_row + r`): what is dropped
    depends on seed, that number and the column alone.
    """
    row = (torch.arange(x.shape[0]) if rows is None else rows) + first_row
    column = torch.arange(x.shape[1])
    block, row = torch.broadcast_tensors(column[None, :] // 8, row[:, None])
    words = philox(seed, torch.stack([block, row & _WORD, row >> 32, torch.zeros_like(row)], dim=-1))
    word = words.gather(-1, (column // 2 % 4).expand(x.shape)[..., None]).squeeze(-1)
    drawn = word >> (column % 2 * 16) & 0xFFFF
    return torch.where(drawn < steps, 0, x * (65536 / (65536 - steps)))


def draw_negatives(
    n_rows: int, n_negatives: int, n_items: int, seed: int, device: torch.device | str = "cpu"
) -> Tensor:
    """`[n_rows, n_negatives]` uniform ids; entry (b, n) depends on seed, b and n alone."""
    ids = torch.empty(n_rows, n_negatives, dtype=torch.int64)
    if not ids.numel():  # any number of columns then
        return ids.to(device)
    row = torch.arange(n_rows)[:, None]
    column = torch.arange(n_negatives)[None, :]
    todo = torch.ones_like(ids, dtype=torch.bool)
    threshold = (2**32 - n_items) % n_items if n_items else 0
    attempt = 0
    while bool(todo.any()):
        counter = torch.stack(
            torch.broadcast_tensors(column // 4, row & _WORD, row >> 32, torch.tensor(attempt)), dim=-1
        )
        words = philox(seed, counter)
        word = words.gather(-1, (column % 4).expand(n_rows, -1)[..., None])[..., 0]
        product = word * n_items  # below 2^63: n_items is below 2^31
        accept = todo & ((product & _WORD) >= threshold)
        ids = torch.where(accept, product >> 32, ids)
        todo &= ~accept
        attempt += 1
    return ids.to(device)


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
    denominator: str = "negatives",
    normalize: str = "both",
    log_q: Tensor | None = None,
    reduction: str = "mean",
    return_unit_loss: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Twin of `adaptau_ext.sampled_adaptive_softmax`."""
    n_rows, n_items = positives.shape[0], item_table.shape[0]
    if negatives is None:
        if seed is None:
            seed = int(torch.randint(2**62, ()))
        negatives = draw_negatives(n_rows, n_negatives, n_items, seed, item_table.device)
    u = user_table if users is None else user_table[users]
    tau = row_temperature(tau, u, n_rows)
    positive_tau = tau if positive_tau is None else row_temperature(positive_tau, u, n_rows)

    u_hat, i_hat = normalized_pair(u, item_table, normalize)
    positive_score = (u_hat * i_hat[positives]).sum(1)
    scores = torch.bmm(i_hat[negatives], u_hat[:, :, None])[..., 0]
    loss, unit_loss = row_losses(
        positive_score,
        scores,
        torch.zeros_like(scores, dtype=torch.bool),
        tau,
        positive_tau,
        None if log_q is None else log_q[negatives],
        None if log_q is None else log_q[positives],
        denominator,
    )
    if item_l2 > 0:  # without, not even infinities count
        used = torch.cat([positives[:, None], negatives], dim=1)
        loss = loss + item_l2 / 2 * item_table[used].square().sum((1, 2))
    loss = reduce(loss, reduction)
    return (loss, unit_loss) if return_unit_loss else loss


def sampled_scores(u: Tensor, i: Tensor, items: Tensor, *, normalize: str = "none") -> Tensor:
    """Twin of `adaptau_ext.sampled_scores`."""
    u_hat, i_hat = normalized_pair(u, i, normalize)
    return torch.bmm(i_hat[items], u_hat[:, :, None])[..., 0]


def _order(scores: Tensor, excluded: Tensor) -> Tensor:
    """Columns of each row, best first: score descending, NaN after every number, id ascending."""
    ids = torch.arange(scores.shape[1], device=scores.device).expand_as(scores)
    by_score = torch.sort(scores.nan_to_num(nan=-torch.inf), dim=1, descending=True, stable=True)[1]
    late = scores.isnan() + 2 * excluded.int()  # excluded last of all
    return (
        by_score.gather(1, torch.sort(late.gather(1, by_score), dim=1, stable=True)[1])
        if ids.numel()
        else ids
    )


def topk(
    u: Tensor, i: Tensor, k: int, *, exclude: Exclusion | None = None, normalize: str = "none"
) -> tuple[Tensor, Tensor]:
    """Twin of `adaptau_ext.topk`."""
    u_hat, i_hat = normalized_pair(u, i, normalize)
    scores = u_hat @ i_hat.T
    ids = _order(scores, csr_mask(exclude, u.shape[0], i.shape[0], u.device))[:, :k]
    return scores.gather(1, ids), ids


def ranks(
    u: Tensor,
    i: Tensor,
    targets: Exclusion,
    *,
    exclude: Exclusion | None = None,
    normalize: str = "none",
) -> Tensor:
    """Twin of `adaptau_ext.ranks`."""
    u_hat, i_hat = normalized_pair(u, i, normalize)
    excluded = csr_mask(exclude, u.shape[0], i.shape[0], u.device)
    order = _order(u_hat @ i_hat.T, torch.zeros_like(excluded))
    counts = (~excluded).gather(1, order).long()  # whether an item counts for those after it
    result = torch.empty_like(order).scatter(1, order, 1 + counts.cumsum(1) - counts)
    indptr, indices = csr_pair(targets, u.device)
    rows = torch.arange(u.shape[0], device=u.device).repeat_interleave(indptr.diff())
    return result[rows, indices]


def normalized_adjacency(interactions: Exclusion, x_users: Tensor, x_items: Tensor) -> Tensor:
    """A = D^-1/2 [[0, R], [R^T, 0]] D^-1/2 as a dense matrix of the embeddings' dtype."""
    n_users, n_items = x_users.shape[0], x_items.shape[0]
    r = csr_mask(interactions, n_users, n_items, x_users.device).to(x_users.dtype)
    inverse_root = [torch.where(degree > 0, degree.rsqrt(), 0) for degree in (r.sum(1), r.sum(0))]
    r = inverse_root[0][:, None] * r * inverse_root[1]
    return torch.cat(
        [
            torch.cat([r.new_zeros(n_users, n_users), r], 1),
            torch.cat([r.T, r.new_zeros(n_items, n_items)], 1),
        ]
    )


def hop(interactions: Exclusion, x_users: Tensor, x_items: Tensor) -> tuple[Tensor, Tensor]:
    """Twin of `adaptau_ext.BipartiteGraph.hop`."""
    out_users, out_items = layers(interactions, x_users, x_items, 1)
    return out_users[1], out_items[1]


def layers(
    interactions: Exclusion,
    x_users: Tensor,
    x_items: Tensor,
    n_layers: int = 3,
    *,
    users: Tensor | None = None,
    items: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Twin of `adaptau_ext.BipartiteGraph.layers` without dropout."""
    n_users = x_users.shape[0]
    x_users, x_items = x_users.to(compute_dtype(x_users)), x_items.to(compute_dtype(x_items))
    adjacency = normalized_adjacency(interactions, x_users, x_items)
    found = [torch.cat([x_users, x_items])]
    for _ in range(n_layers):
        found.append(adjacency @ found[-1])
    out = torch.stack(found)
    out_users, out_items = out[:, :n_users], out[:, n_users:]
    return (
        out_users if users is None else out_users[:, users],
        out_items if items is None else out_items[:, items],
    )


def propagate(
    interactions: Exclusion,
    x_users: Tensor,
    x_items: Tensor,
    n_layers: int = 3,
    *,
    users: Tensor | None = None,
    items: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Twin of `adaptau_ext.BipartiteGraph.propagate`."""
    out = layers(interactions, x_users, x_items, n_layers, users=users, items=items)
    return out[0].mean(0), out[1].mean(0)
