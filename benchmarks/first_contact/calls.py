"""Every operator with every option, forward and backward, on inputs that stay where they are: what is
repeated, captured, traced and sanitised."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import scipy.sparse
import torch
from throughput_graphs import graph_on
from torch import Tensor

import adaptau_ext as ax

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Size:
    """Nothing is a multiple of a tile, except d in one of two."""

    n_users: int
    n_items: int
    d: int
    k: int


TINY = Size(17, 75, 16, 7)  # for interpreters
SMALL = (Size(70, 300, 64, 20), Size(33, 517, 40, 300))  # for instrumented code
MEDIUM = Size(1000, 20_011, 64, 100)


@dataclass
class Call:
    name: str
    inputs: list[Tensor]  # floating-point ones, on the device
    run: Callable[[], list[Tensor]]


def some_of_each(n_rows: int, n_columns: int, how_many: int, draw: torch.Generator) -> Tensor:
    """`[n_rows, how_many]` distinct columns, ascending."""
    step = n_columns // how_many
    return torch.randint(step, (n_rows, how_many), generator=draw) + torch.arange(how_many) * step


class Inputs:
    """Drawn on the CPU, so that every device gets the same."""

    def __init__(self, device: torch.device, dtype: torch.dtype):
        self.device, self.dtype = device, dtype
        self.draw = torch.Generator().manual_seed(0)

    def rows(self, n: int, d: int) -> Tensor:
        x = torch.randn(n, d, generator=self.draw)
        return x.to(self.device, self.dtype).requires_grad_()

    def tau(self, n: int) -> Tensor:
        x = 0.07 + 0.1 * torch.rand(n, generator=self.draw)
        return x.to(self.device).requires_grad_()

    def log_q(self, n: int) -> Tensor:
        x = torch.rand(n, generator=self.draw).clamp_min(0.01).log()
        return x.to(self.device).requires_grad_()

    def ids(self, high: int, *shape: int) -> Tensor:
        return torch.randint(high, shape, generator=self.draw).to(self.device)

    def csr(self, n_rows: int, n_columns: int, how_many: int) -> tuple[Tensor, Tensor]:
        indices = some_of_each(n_rows, n_columns, how_many, self.draw).flatten()
        indptr = torch.arange(0, indices.numel() + 1, how_many)
        return indptr.to(self.device), indices.to(self.device)


def weighted(x: Tensor) -> Tensor:
    """A sum that treats no two neighbours alike."""
    return (x * ((torch.arange(x.numel(), device=x.device) % 7 - 2) / 4).view_as(x)).sum()


def loss_calls(made: Inputs, size: Size) -> list[Call]:
    u, i = made.rows(size.n_users, size.d), made.rows(size.n_items, size.d)
    tau, positive_tau = made.tau(size.n_users), made.tau(size.n_users)
    log_q, target = made.log_q(size.n_items), made.ids(size.n_items, size.n_users)
    n_ids = size.n_items - size.n_items // 10  # some items come twice
    item_ids = (torch.arange(size.n_items) % n_ids).to(made.device)
    exclude = made.csr(size.n_users, n_ids, 5)

    def plain() -> list[Tensor]:
        loss = ax.fused_adaptive_softmax(u, i, tau, target=target)
        assert isinstance(loss, Tensor)
        return [loss, *torch.autograd.grad(loss, [u, i, tau])]

    def everything() -> list[Tensor]:
        loss, unit = ax.fused_adaptive_softmax(
            u, i, tau, target=target, positive_tau=positive_tau, denominator="negatives", log_q=log_q,
            item_ids=item_ids, exclude=exclude, reduction="none", return_unit_loss=True,
        )  # fmt: skip
        return [loss, unit, *torch.autograd.grad(weighted(loss), [u, i, tau, positive_tau, log_q])]

    return [
        Call("loss", [u, i], plain),
        Call("loss, every option", [u, i, log_q], everything),
    ]


def sampled_calls(made: Inputs, size: Size) -> list[Call]:
    users, items = made.rows(size.n_users, size.d), made.rows(size.n_items, size.d)
    n_rows = size.n_users - 1
    batch, positives = made.ids(size.n_users, n_rows), made.ids(size.n_items, n_rows)
    tau, positive_tau = made.tau(n_rows), made.tau(n_rows)
    log_q, given = made.log_q(size.n_items), made.ids(size.n_items, n_rows, 33)

    def drawn() -> list[Tensor]:
        loss = ax.sampled_adaptive_softmax(
            users, items, batch, positives, tau, n_negatives=100, seed=7, item_l2=1e-3
        )
        assert isinstance(loss, Tensor)
        return [loss, *torch.autograd.grad(loss, [users, items, tau])]

    def everything() -> list[Tensor]:
        loss, unit = ax.sampled_adaptive_softmax(
            users, items, batch, positives, tau, negatives=given, item_l2=1e-3, log_q=log_q,
            positive_tau=positive_tau, denominator="all", reduction="none", return_unit_loss=True,
        )  # fmt: skip
        wanted = [users, items, tau, positive_tau, log_q]
        return [loss, unit, *torch.autograd.grad(weighted(loss), wanted)]

    def scores() -> list[Tensor]:
        found = ax.sampled_scores(users[:n_rows], items, given, normalize="both")
        return [found, *torch.autograd.grad(weighted(found), [users, items])]

    return [
        Call("scores of listed items", [users, items], scores),
        Call("sampled loss", [users, items], drawn),
        Call("sampled loss, every option", [users, items, log_q], everything),
    ]


def retrieval_calls(made: Inputs, size: Size) -> list[Call]:
    u, i = made.rows(size.n_users, size.d), made.rows(size.n_items, size.d)
    exclude, targets = (made.csr(size.n_users, size.n_items, n) for n in (5, 4))
    k = size.k
    return [
        Call("top-k", [u, i], lambda: list(ax.topk(u, i, k))),
        Call(
            "top-k with exclusions",
            [u, i],
            lambda: list(ax.topk(u, i, k, exclude=exclude, normalize="both")),
        ),
        Call("ranks", [u, i], lambda: [ax.ranks(u, i, targets, exclude=exclude, normalize="both")]),
    ]


def graph_calls(made: Inputs, size: Size) -> list[Call]:
    dense = np.random.default_rng(0).random((size.n_users, size.n_items)) < 5 / size.n_items
    dense[0], dense[1] = True, False  # one who knows all items, one who knows none
    graph = graph_on(scipy.sparse.csr_array(dense), made.device)
    x_users, x_items = made.rows(size.n_users, size.d), made.rows(size.n_items, size.d)
    users, items = made.ids(size.n_users, 9), made.ids(size.n_items, 11)

    def all_rows() -> list[Tensor]:
        out = graph.propagate(x_users, x_items)
        total = weighted(out[0]) + weighted(out[1])
        return [*out, *torch.autograd.grad(total, [x_users, x_items])]

    def batch() -> list[Tensor]:
        out = graph.propagate(x_users, x_items, users=users, items=items)
        total = weighted(out[0]) + weighted(out[1])
        return [*out, *torch.autograd.grad(total, [x_users, x_items])]

    return [
        Call("hop", [x_users, x_items], lambda: list(graph.hop(x_users, x_items))),
        Call("propagation", [x_users, x_items], all_rows),
        Call("propagation of a batch", [x_users, x_items], batch),
    ]


MAKERS = {
    "loss": loss_calls,
    "sampled loss": sampled_calls,
    "retrieval": retrieval_calls,
    "graph": graph_calls,
}


def broken(name: str, problem: Exception) -> Call:
    def run() -> list[Tensor]:
        raise problem

    return Call(name, [], run)


def every_call(device: torch.device, size: Size) -> Iterator[Call]:
    """Of every dtype, named by it; one that cannot even be made fails when it is run."""
    for dtype in DTYPES:
        for name, make in MAKERS.items():
            try:
                calls = make(Inputs(device, dtype), size)
            except Exception as problem:
                calls = [broken(name, problem)]
            for call in calls:
                yield Call(f"{call.name}, {str(dtype)[6:]}", call.inputs, call.run)


def detached(outputs: list[Tensor]) -> list[Tensor]:
    return [x.detach().clone() for x in outputs]


def same_bits(a: list[Tensor], b: list[Tensor]) -> bool:
    """NaN equal to itself, and zero different from minus zero."""
    return len(a) == len(b) and all(
        x.dtype == y.dtype
        and x.shape == y.shape
        and torch.equal(
            x.contiguous().flatten().view(torch.uint8), y.contiguous().flatten().view(torch.uint8)
        )
        for x, y in zip(a, b, strict=True)
    )
