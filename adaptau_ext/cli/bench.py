"""adaptau bench"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Annotated, Any

import torch
import typer
from rich.table import Table
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

import adaptau_ext as ax
from adaptau_ext.cli.console import console, explained


def add(app: typer.Typer) -> None:
    """The command."""
    app.command(
        epilog="[bold]Examples[/]\n\n"
        "adaptau bench\n\n"
        "adaptau bench --users 512 --items 100000 --dim 128"
    )(bench)


@explained
def bench(
    users: Annotated[int, typer.Option(min=1, help="Users a call.")] = 1024,
    items: Annotated[int, typer.Option(min=2, help="Items of the catalogue.")] = 20_000,
    dim: Annotated[int, typer.Option(min=1, help="Embedding size.")] = 64,
    negatives: Annotated[int, typer.Option(min=1, help="Sampled negatives a user.")] = 256,
    repeat: Annotated[int, typer.Option(min=1, help="Calls, of which the median counts.")] = 5,
) -> None:
    """Time the operators on this machine beside the usual way to write them in PyTorch.

    benchmarks/throughput.py, with the source, has more peers and checks what it times.
    """
    torch.manual_seed(0)
    u = torch.randn(users, dim, requires_grad=True)
    i = torch.randn(items, dim, requires_grad=True)
    target = torch.randint(items, (users,))

    def backward(loss: Callable[[], Any]) -> Callable[[], object]:
        def step() -> None:
            u.grad = i.grad = None
            loss().backward()

        return step

    def plain_sampled() -> Tensor:
        drawn = torch.randint(items, (users, negatives))
        unit_u, unit_i = normalize(u), normalize(i)
        positive = (unit_u * unit_i[target]).sum(1)
        scores = (unit_i[drawn] @ unit_u[:, :, None]).squeeze(2)
        return (-positive / 0.1 + (scores / 0.1).logsumexp(1)).mean()

    cases = {
        "loss, whole catalogue": (
            backward(lambda: ax.fused_adaptive_softmax(u, i, 0.1, target=target)),
            backward(lambda: cross_entropy(normalize(u) @ normalize(i).T / 0.1, target)),
        ),
        "loss, sampled": (
            backward(
                lambda: ax.sampled_adaptive_softmax(
                    u, i, None, target, 0.1, n_negatives=negatives, seed=0
                )
            ),
            backward(plain_sampled),
        ),
        "top-20": (
            lambda: ax.topk(u, i, min(20, items)),
            lambda: torch.topk(u.detach() @ i.detach().T, min(20, items)),
        ),
    }
    table = Table("", "ms", "plain PyTorch, ms", "times faster")
    for name, (ours, twin) in cases.items():
        seconds = [_median(call, repeat) for call in (ours, twin)]
        milliseconds = (f"{1e3 * s:.1f}" for s in seconds)
        table.add_row(name, *milliseconds, f"{seconds[1] / seconds[0]:.1f}")
    console.print(
        f"{users:,} users x {items:,} items, d = {dim}, {torch.get_num_threads()} threads, "
        f"kernels for {torch.ops.adaptau.cpu_level()}; forward and backward",
        highlight=False,
    )
    console.print(table)


def _median(call: Callable[[], object], repeat: int) -> float:
    call()
    seconds = []
    for _ in range(repeat):
        started = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)
