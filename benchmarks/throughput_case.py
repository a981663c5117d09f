"""What a case of throughput.py is, and the data that cases are made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from adaptau_ext.data import DataError, Interactions, read_lightgcn

OURS = "adaptau_ext"
Contenders = dict[str, Callable[[], object]]
CPU = torch.device("cpu")


@dataclass
class Case:
    """One operation on one shape; contenders are made per number of threads (of the CPU)."""

    operation: str
    shape: str
    data: str
    flops: float
    contenders: Callable[[int], Contenders]
    dtype: torch.dtype = torch.float32
    one_thread: bool = False  # one is enough to see what this data does
    # How far a contender's result is from the exact one, where that is worth its time (GPU only):
    # the time of a wrong answer is no time.
    error: Callable[[object], float] | None = None


def is_ours(contender: str) -> bool:
    return contender == OURS or contender.startswith("our ")


def missing(why: str) -> Callable[[], object]:
    """A contender that is a row all the same."""

    def fail() -> object:
        raise ImportError(why)

    return fail


KINDS = ("random", "clustered", "common mean", "lognormal norms", "heavy ties")


def embeddings(
    n: int,
    d: int,
    kind: str,
    seed: int,
    device: torch.device = CPU,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Rows as they occur: nothing is tuned to one kind of them."""
    # ten million rows are drawn where they are needed; other devices have no generator of their own
    where = device if device.type == "cuda" else CPU

    def generator(seed: int) -> torch.Generator:
        return torch.Generator(where).manual_seed(seed)

    draw = generator(seed)
    x = torch.empty(n, d, device=where).normal_(generator=draw)
    if kind == "clustered":
        centres = torch.empty(100, d, device=where).normal_(generator=generator(7))
        x = centres[torch.randint(100, (n,), generator=draw, device=where)] + 0.3 * x
    elif kind == "common mean":
        x = x + 2 * torch.empty(d, device=where).normal_(generator=generator(7))
    elif kind == "lognormal norms":
        x = x * torch.empty(n, 1, device=where).normal_(generator=draw).exp()
    elif kind == "heavy ties":
        x = x[torch.randint(max(1, n // 50), (n,), generator=draw, device=where)]
    elif kind != "random":
        raise ValueError(f"unknown kind of data {kind!r}")
    return x.to(device, dtype)


def integers(high: int, shape: tuple[int, ...], seed: int, device: torch.device = CPU) -> Tensor:
    return torch.randint(high, shape, generator=torch.Generator().manual_seed(seed)).to(device)


def read(folder: Path, name: str) -> Interactions | None:
    try:
        return read_lightgcn(folder / name, cold_users="keep", duplicates="merge")
    except DataError as gone:
        print(f"left out: {gone}")
        return None
