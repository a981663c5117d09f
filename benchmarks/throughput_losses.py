"""Cases of throughput.py: the two losses, forward and backward, a temperature for each user."""

from __future__ import annotations

from collections.abc import Callable

import torch
from throughput_case import CPU, OURS, Case, Contenders, embeddings, integers, missing
from throughput_loss_peers import LinearLoss, fused_peers
from torch import Tensor
from torch.nn.functional import cross_entropy, embedding, normalize
from torch.utils.checkpoint import checkpoint

import adaptau_ext as ax
from adaptau_ext.losses import cosine_contrastive
from adaptau_ext.ops import Precision

CHECKED_UP_TO = 1e13  # operations of a case whose exact gradients are worth the time


def scaled_pair(u: Tensor, i: Tensor, tau: Tensor) -> tuple[Tensor, Tensor]:
    """What everybody but us is given: unit rows, the users' divided by tau, so that their inner
    products are the logits. It costs each of them the same, as it would cost whoever uses them."""
    return normalize(u, dim=1) / tau[:, None].to(u.dtype), normalize(i, dim=1)


def whole(u: Tensor, i: Tensor, target: Tensor, reduction: str) -> Tensor:
    return cross_entropy(u @ i.T, target, reduction=reduction)


def rows_a_chunk(u: Tensor, i: Tensor) -> int:
    """256 on a CPU, where more do not fit the caches, 64 Mi logits on a GPU."""
    return min(len(u), 256 if u.device.type == "cpu" else max(128, 2**26 // len(i) // 128 * 128))


def chunked(u: Tensor, i: Tensor, target: Tensor, reduction: str) -> Tensor:
    n = rows_a_chunk(u, i)
    total = torch.zeros((), device=u.device)
    for rows, wanted in zip(u.split(n), target.split(n), strict=True):
        total = total + checkpoint(whole, rows, i, wanted, "sum", use_reentrant=False)
    return total / len(u) if reduction == "mean" else total


def pytorch_own(u: Tensor, i: Tensor, target: Tensor, reduction: str) -> Tensor:
    """PyTorch's own operator that stores the logits of a chunk only."""
    if not hasattr(torch.nn, "LinearCrossEntropyOptions"):
        raise ImportError("torch.nn.functional.linear_cross_entropy needs PyTorch 2.13")
    options = torch.nn.LinearCrossEntropyOptions(
        chunking_method=None, batch_chunk_size=rows_a_chunk(u, i)
    )
    return torch.nn.functional.linear_cross_entropy(u, i, target, reduction=reduction, options=options)


def compiled(run: Callable[[], object]) -> Callable[[], object]:
    """Compiling is not what is timed; where it fails, that is the contender's row."""
    try:
        run()
    except Exception as problem:
        return missing(f"{type(problem).__name__}: {problem}")
    return run


def exact_gradients(
    u: Tensor, i: Tensor, tau: Tensor, target: Tensor, reduction: str
) -> tuple[Tensor, Tensor, Tensor]:
    """Loss and gradients in float64, a chunk of users at a time."""
    u, i = (x.detach().double().requires_grad_() for x in (u, i))
    users, items = scaled_pair(u, i, tau.double())
    rows, columns = users.detach(), items.detach()
    weight = 1 / len(u) if reduction == "mean" else 1.0
    loss = rows.new_zeros(())
    grad_rows, grad_columns = torch.empty_like(rows), torch.zeros_like(columns)
    n = max(1, 2**27 // len(i))
    for start in range(0, len(u), n):
        part, wanted = rows[start : start + n], target[start : start + n, None]
        logits = part @ columns.T
        lse = logits.logsumexp(1, keepdim=True)
        loss += (lse - logits.gather(1, wanted)).sum() * weight
        share = logits.sub_(lse).exp_().mul_(weight)
        share.scatter_add_(1, wanted, share.new_full(wanted.shape, -weight))
        grad_rows[start : start + n] = share @ columns
        grad_columns.addmm_(share.T, part)
    torch.autograd.backward([users, items], [grad_rows, grad_columns])
    assert u.grad is not None
    assert i.grad is not None
    return loss, u.grad, i.grad


def loss_case(
    n_users: int,
    n_items: int,
    d: int,
    device: torch.device = CPU,
    dtype: torch.dtype = torch.float32,
    check: bool = False,
) -> Case:
    u = embeddings(n_users, d, "random", 0, device, dtype).requires_grad_()
    i = embeddings(n_items, d, "random", 1, device, dtype).requires_grad_()
    target = integers(n_items, (n_users,), 2, device)
    tau = (0.07 + 0.08 * torch.rand(n_users, generator=torch.Generator().manual_seed(3))).to(device)
    # gradients of a mean over thousands underflow in float16, as training scales the loss to avoid
    reduction = "sum" if dtype == torch.float16 else "mean"

    def step(loss: Callable[[], Tensor]) -> tuple[Tensor, Tensor | None, Tensor | None]:
        u.grad = i.grad = None
        value = loss()
        value.backward()
        return value.detach(), u.grad, i.grad

    def ours(precision: Precision) -> Callable[[], object]:
        return lambda: step(
            lambda: ax.fused_adaptive_softmax(
                u, i, tau, target=target, precision=precision, reduction=reduction
            )
        )

    def peer(loss: LinearLoss) -> Callable[[], object]:
        return lambda: step(lambda: loss(*scaled_pair(u, i, tau), target, reduction))

    def contenders(threads: int) -> Contenders:
        torch.compiler.reset()
        fused = torch.compile(
            lambda u, i, tau, target: whole(*scaled_pair(u, i, tau), target, reduction), dynamic=False
        )
        made: Contenders = {OURS: ours("float32")}
        if dtype == torch.float32:
            made["our bfloat16"] = ours("bfloat16")
            if device.type != "cpu":
                made["our tf32"] = ours("tf32")
        made["torch eager"] = peer(whole)
        made["torch.compile"] = compiled(lambda: step(lambda: fused(u, i, tau, target)))
        made["torch chunked"] = peer(chunked)
        made["torch linear_cross_entropy"] = peer(pytorch_own)
        if device.type != "cpu":
            made |= {name: peer(loss) for name, loss in fused_peers(device, dtype).items()}
        return made

    known: list[tuple[Tensor, ...]] = []

    def error(result: object) -> float:
        if not known:
            known.append(exact_gradients(u, i, tau, target, reduction))
        assert isinstance(result, tuple)
        off = [(x.double() - y).norm() / y.norm() for x, y in zip(result, known[0], strict=True)]
        return float(torch.stack(off).max())

    flops = 8.0 * n_users * n_items * d
    return Case(
        "loss fwd+bwd", f"{n_users} x {n_items}, d {d}", "random", flops, contenders, dtype,
        error=error if check and flops <= CHECKED_UP_TO else None,
    )  # fmt: skip


def sampled_case(
    n_rows: int,
    n_negatives: int,
    n_users: int,
    n_items: int,
    d: int,
    device: torch.device = CPU,
    dtype: torch.dtype = torch.float32,
    tau: float = 0.1,
    softmax: bool = True,
) -> Case:
    """The softmax in one operator, or SimpleX's loss of the scores, as any other would be."""
    users = embeddings(n_users, d, "random", 0, device, dtype).requires_grad_()
    items = embeddings(n_items, d, "random", 1, device, dtype).requires_grad_()
    batch, positives = integers(n_users, (n_rows,), 2, device), integers(n_items, (n_rows,), 3, device)

    def gather(n: Tensor) -> tuple[Tensor, Tensor]:
        u = normalize(users[batch], dim=1)
        scores = torch.bmm(normalize(items[n], dim=2), u[:, :, None])[..., 0]
        return (u * normalize(items[positives], dim=1)).sum(1), scores

    def normalise_first(n: Tensor) -> tuple[Tensor, Tensor]:
        """The strongest PyTorch form we know: the table once, embedding's own backward."""
        u, i = normalize(users[batch], dim=1), normalize(items, dim=1)
        scores = torch.bmm(embedding(n, i), u[:, :, None])[..., 0]
        return (u * embedding(positives, i)).sum(1), scores

    def our_scores(n: Tensor) -> tuple[Tensor, Tensor]:
        listed = torch.cat([positives[:, None], n], 1)
        scores = ax.sampled_scores(users[batch], items, listed, normalize="both")
        return scores[:, 0], scores[:, 1:]

    def our_softmax() -> Tensor:
        given = (users, items, batch, positives)
        loss = ax.sampled_adaptive_softmax(*given, tau, n_negatives=n_negatives)
        assert isinstance(loss, Tensor)
        return loss

    def loss(positive: Tensor, negatives: Tensor) -> Tensor:
        if softmax:
            return ((negatives / tau).logsumexp(1) - positive / tau).mean()
        return cosine_contrastive(positive, negatives)

    def step(loss: Callable[[], Tensor]) -> None:
        users.grad = items.grad = None
        loss().backward()

    def draw() -> Tensor:
        return torch.randint(n_items, (n_rows, n_negatives), device=device)

    def contenders(threads: int) -> Contenders:
        ours = our_softmax if softmax else lambda: loss(*our_scores(draw()))
        return {
            OURS: lambda: step(ours),
            "torch gather": lambda: step(lambda: loss(*gather(draw()))),
            "torch, table normalised first": lambda: step(lambda: loss(*normalise_first(draw()))),
        }

    shape = f"B {n_rows}, N {n_negatives}, {n_users} + {n_items} rows, d {d}"
    flops = 6.0 * n_rows * n_negatives * d
    name = "sampled step" if softmax else "sampled scores step"
    return Case(name, shape, "random", flops, contenders, dtype)
