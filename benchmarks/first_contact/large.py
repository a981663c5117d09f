"""Tables of more than 2^31 elements: an index kept in 32 bits anywhere would reach the wrong rows."""

from __future__ import annotations

import math

import torch
from throughput_case import embeddings
from torch import Tensor
from torch.nn.functional import normalize

import adaptau_ext as ax
from first_contact.context import Context
from first_contact.outcome import ELSEWHERE, MISSING, Outcome, attempt

B, D = 64, 256
BORDER = 2**31 // D  # the first item beyond 2^31 elements
M = BORDER + 1000  # items
TAU = 0.1
# bfloat16 items and gradients, and the gradient in float32 before it is rounded
NEEDED_GIB = M * D * (2 + 2 + 4) / 2**30 + 4
ALLOWED = 2e-2  # of bfloat16 gradients' norm


def log_sum_exp(u: Tensor, i: Tensor) -> Tensor:
    """`[B]`, a slice of the items at a time, in float64."""
    total = u.new_full((len(u),), -math.inf)
    for part in i.split(2**18):
        scores = u @ normalize(part.double(), dim=1).T / TAU
        total = torch.logaddexp(total, scores.logsumexp(1))
    return total


def loss(u: Tensor, i: Tensor) -> str:
    """Value, and gradients of the items at both ends and at the border."""
    target = torch.arange(M - B, M, device=u.device)
    target[::2] = torch.arange(0, B, 2, device=u.device)
    rows = torch.cat([torch.arange(n - 100, n, device=u.device) for n in (100, BORDER + 50, M)])
    u, i = u.clone().requires_grad_(), i.detach().requires_grad_()
    value = ax.fused_adaptive_softmax(u, i, TAU, target=target)
    assert isinstance(value, Tensor)
    _, grad_i = torch.autograd.grad(value, [u, i])

    exact_u = normalize(u.detach().double(), dim=1)
    lse = log_sum_exp(exact_u, i.detach())
    some = i.detach()[rows].double().requires_grad_()
    scores = exact_u @ normalize(some, dim=1).T / TAU
    share = (scores.detach() - lse[:, None]).exp() - (rows == target[:, None]).double()
    exact_grad = torch.autograd.grad(scores, some, share / B)[0]
    positive = (exact_u * normalize(i.detach()[target].double(), dim=1)).sum(1) / TAU
    exact = float((lse - positive).mean())
    off = abs(float(value.detach()) - exact)
    assert off <= 1e-3 * exact, f"loss {float(value.detach()):.6f}, exactly {exact:.6f}"
    grad_off = float((grad_i[rows].double() - exact_grad).norm() / exact_grad.norm())
    assert grad_off <= ALLOWED, f"gradients of the items are off by {grad_off:.1e} of their norm"
    return f"loss off by {off:.1e}, gradients by {grad_off:.1e}"


def plant(u: Tensor, i: Tensor) -> Tensor:
    """Makes item M - 1 - b the best of user b by far; returns the ids."""
    ids = torch.arange(M - 1, M - 1 - B, -1, device=u.device)
    i[ids] = 8 * u
    return ids


def topk(u: Tensor, i: Tensor, planted: Tensor) -> str:
    scores, ids = ax.topk(u, i, 20)
    assert torch.equal(ids[:, 0], planted), f"best of user 0: {int(ids[0, 0])}, not {int(planted[0])}"
    again = (u.double()[:, None] * i[ids].double()).sum(2)
    off = float((scores.double() - again).abs().max() / again.abs().max())
    assert off <= 1e-5, f"scores are off by {off:.1e} from those of the ids they came with"
    return f"scores off by {off:.1e}"


def ranks(u: Tensor, i: Tensor, planted: Tensor) -> str:
    indptr = torch.arange(B + 1, device=u.device)
    found = ax.ranks(u, i, (indptr, planted))
    assert bool((found == 1).all()), f"ranks of the best items: {found.tolist()[:8]}, not 1"
    return ""


def sampled(u: Tensor, i: Tensor, n: int = 100) -> str:
    positives = torch.arange(M - B, M, device=u.device)
    given = torch.randint(M - 2000, M, (B, n), generator=torch.Generator().manual_seed(0))
    given = given.to(u.device)
    rows = i.detach().requires_grad_()
    value = ax.sampled_adaptive_softmax(u, rows, None, positives, TAU, negatives=given)
    assert isinstance(value, Tensor)
    grad = torch.autograd.grad(value, rows)[0]
    some = i.detach()[M - 2000 :].double().requires_grad_()
    unit_u, unit_i = normalize(u.double(), dim=1), normalize(some, dim=1)
    scores = (unit_i[given - (M - 2000)] * unit_u[:, None]).sum(2) / TAU
    positive = (unit_i[positives - (M - 2000)] * unit_u).sum(1) / TAU
    exact = (scores.logsumexp(1) - positive).mean()
    exact_grad = torch.autograd.grad(exact, some)[0]
    off = abs(float(value.detach()) - float(exact.detach()))
    assert off <= 1e-3, f"loss {float(value.detach()):.6f}, exactly {float(exact.detach()):.6f}"
    grad_off = float((grad[M - 2000 :].double() - exact_grad).norm() / exact_grad.norm())
    assert grad_off <= ALLOWED, f"gradients of the items are off by {grad_off:.1e} of their norm"
    assert not bool(grad[: M - 2000].any()), "items that were not drawn have gradients"
    return f"loss off by {off:.1e}, gradients by {grad_off:.1e}"


def large_tables(context: Context) -> Outcome:
    if not context.hardware:
        return Outcome.only(ELSEWHERE + context.place, "")
    device = torch.device(context.device)
    free = torch.cuda.mem_get_info(device)[0] / 2**30
    if free < NEEDED_GIB:
        return Outcome.only(MISSING, f"needs {NEEDED_GIB:.0f} GiB of GPU memory, {free:.0f} are free")
    u = embeddings(B, D, "random", 0, device, torch.bfloat16)
    i = torch.empty(M, D, dtype=torch.bfloat16, device=device)
    i.normal_(generator=torch.Generator(device).manual_seed(1))
    checks = [
        attempt("loss", lambda: loss(u, i)),
        attempt("sampled loss", lambda: sampled(u, i)),
    ]
    planted = plant(u, i)
    checks += [
        attempt("top-k", lambda: topk(u, i, planted)),
        attempt("ranks", lambda: ranks(u, i, planted)),
    ]
    return Outcome(checks)
