"""Cases of throughput.py: top-k, evaluation of all users with exclusions, ranks."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse
import torch
from throughput_case import CPU, OURS, Case, Contenders, embeddings, missing, read
from throughput_retrieval_peers import cpu_peers, gpu_peers, rows_a_chunk, torch_peers
from torch import Tensor

import adaptau_ext as ax
from adaptau_ext.arguments import csr_pair
from adaptau_ext.training import TrainConfig, Trainer


def share_of_wrong_ids(u: Tensor, i: Tensor, k: int, result: object) -> float:
    """Ids that score below the exact k-th best, by more than float32 sums may be off; of some users.

    Results are (scores, ids), or a list of such pairs for chunks of users.
    """
    parts: list[Any] = result if isinstance(result, list) else [result]
    if not all(isinstance(part, tuple) and isinstance(part[1], Tensor) for part in parts):
        return math.nan  # NumPy's and implicit's own forms
    n_checked = max(4, min(64, 2**28 // len(i)))
    rows = torch.arange(0, len(u), max(1, len(u) // n_checked), device=u.device)
    ids = torch.cat([part[1] for part in parts])[rows].long()
    users = u[rows].double()
    exact = torch.cat([users @ part.double().T for part in i.split(2**20)], dim=1)
    largest = max(float(part.norm(dim=1, dtype=torch.float64).max()) for part in i.split(2**20))
    limit = exact.topk(k)[0][:, -1] - 1e-5 * users.norm(dim=1) * largest
    return float((exact.gather(1, ids) < limit[:, None]).double().mean())


def topk_case(u: Tensor, i: Tensor, k: int, data: str, check: bool = False) -> Case:
    def contenders(threads: int) -> Contenders:
        made: Contenders = {OURS: lambda: ax.topk(u, i, k)}
        try:
            index = ax.ItemIndex(i)
            made["our ItemIndex"] = lambda: index.topk(u, k)
        except Exception as problem:
            made["our ItemIndex"] = missing(f"{type(problem).__name__}: {problem}")
        others = cpu_peers(u, i, k, threads) if u.device.type == "cpu" else gpu_peers(u, i, k)
        return {**made, **torch_peers(u, i, k), **others}

    return Case(
        "top-k", f"{len(u)} x {len(i)}, d {u.shape[1]}, k {k}", data, 2.0 * len(u) * i.numel(),
        contenders, u.dtype, one_thread=data != "random",
        error=(lambda result: share_of_wrong_ids(u, i, k, result)) if check else None,
    )  # fmt: skip


def topk_cases(
    shapes: list[tuple[int, int, int]],
    ks: tuple[int, ...],
    kinds: tuple[str, ...] = ("random",),
    device: torch.device = CPU,
    dtype: torch.dtype = torch.float32,
    check: bool = False,
) -> Iterator[Case]:
    for n_users, n_items, d in shapes:
        for kind in kinds:
            u = embeddings(n_users, d, kind, 0, device, dtype)
            i = embeddings(n_items, d, kind, 1, device, dtype)
            for k in ks:
                yield topk_case(u, i, k, kind, check)


def trained_cases(
    folder: Path, device: torch.device = CPU, n_users: int = 2048, epochs: int = 3
) -> Iterator[Case]:
    """Embeddings as training leaves them; both sides unit rows, so that inner products are cosines."""
    data = read(folder, "gowalla")
    if data is None:
        return
    trainer = Trainer(TrainConfig(protocol="paper", epochs=epochs, seed=0, tau="0.1"), data)
    for _ in range(epochs):
        for users, items in trainer.batches():
            trainer.step(users, items)
    u, i = (torch.nn.functional.normalize(x.detach()) for x in trainer.model.embeddings())
    yield topk_case(u[:n_users].contiguous().to(device), i.to(device), 20, "trained")


def evaluation_cases(
    folder: Path, device: torch.device = CPU, d: int = 64, k: int = 20
) -> Iterator[Case]:
    """All users of yelp2018 in chunks, training items excluded."""
    data = read(folder, "yelp2018")
    if data is None:
        return
    seen = data.train.astype(np.float32)
    n_users, n_items = seen.shape
    u = embeddings(n_users, d, "random", 0, device)
    i = embeddings(n_items, d, "random", 1, device)
    chunks = [slice(s, min(s + 2048, n_users)) for s in range(0, n_users, 2048)]
    excluded = [csr_pair(seen[c], device) for c in chunks]

    n = rows_a_chunk(u, i)
    masks = []
    for start in range(0, n_users, n):
        part = seen[start : start + n].tocoo()
        masks.append([torch.from_numpy(side).long().to(device) for side in part.coords])

    def ours() -> list[object]:
        index = ax.ItemIndex(i)
        return [index.topk(u[c], k, exclude=pair) for c, pair in zip(chunks, excluded, strict=True)]

    def masked() -> list[object]:
        out: list[object] = []
        for rows, (user, item) in zip(u.split(n), masks, strict=True):
            scores = rows @ i.T
            scores[user, item] = -torch.inf
            out.append(scores.topk(k))
        return out

    def contenders(threads: int) -> Contenders:
        peers = filtering_peers(u, i, k, seen, threads) if device.type == "cpu" else {}
        return {OURS: ours, "torch chunked, masked": masked, **peers}

    shape = f"{n_users} x {n_items}, d {d}, k {k}, {seen.nnz} excluded"
    yield Case("evaluation", shape, "yelp2018's exclusions", 2.0 * n_users * n_items * d, contenders)


def filtering_peers(
    u: Tensor, i: Tensor, k: int, seen: scipy.sparse.csr_array, threads: int
) -> Contenders:
    n_users, n_items = seen.shape
    u_array, i_array = u.numpy(), i.numpy()
    degree = np.diff(seen.indptr)
    by_degree = np.argsort(degree, kind="stable")
    peers: Contenders = {}
    try:
        import faiss

        faiss.omp_set_num_threads(threads)

        def deeper() -> list[object]:
            """Users of similar degree together, each searched k + the largest degree deep."""
            out: list[object] = []
            for start in range(0, n_users, 512):
                rows = by_degree[start : start + 512]
                depth = min(k + int(degree[rows].max()), n_items)
                ids = faiss.knn(u_array[rows], i_array, depth, metric=faiss.METRIC_INNER_PRODUCT)[1]
                known = seen[rows]
                keys = np.repeat(np.arange(len(rows)), np.diff(known.indptr)) * n_items
                wanted = np.arange(len(rows))[:, None] * n_items + ids
                gone = np.isin(wanted, keys + known.indices)
                out.append(np.take_along_axis(ids, np.argsort(gone, 1, kind="stable")[:, :k], 1))
            return out

        peers["faiss, deeper and filtered"] = deeper
    except ImportError:
        peers["faiss"] = missing("faiss-cpu is not installed")
    try:
        from implicit.cpu.topk import topk as implicit_topk

        as_matrix = scipy.sparse.csr_matrix(seen)  # implicit knows no sparse arrays
        starts = range(0, n_users, 2048)
        peers["implicit, filtered"] = lambda: [
            implicit_topk(
                i_array, u_array[s : s + 2048], k, filter_query_items=as_matrix[s : s + 2048],
                num_threads=threads,
            )
            for s in starts
        ]  # fmt: skip
    except ImportError:
        peers["implicit"] = missing("implicit is not installed")
    return peers


def ranks_case(
    n_users: int,
    n_items: int,
    d: int,
    device: torch.device = CPU,
    dtype: torch.dtype = torch.float32,
    targets_a_user: int = 7,
) -> Case:
    u = embeddings(n_users, d, "random", 0, device, dtype)
    i = embeddings(n_items, d, "random", 1, device, dtype)
    chosen = torch.rand(n_users, 64, generator=torch.Generator().manual_seed(3)).argsort(1)
    wanted = (chosen[:, :targets_a_user] * (n_items // 64)).sort(1)[0].to(device)
    indptr = torch.arange(0, wanted.numel() + 1, targets_a_user, device=device)
    targets = (indptr, wanted.flatten())

    def by_sorting() -> Tensor:
        ranks = []
        n = rows_a_chunk(u, i)
        for rows, ids in zip(u.split(n), wanted.split(n), strict=True):
            order = (rows @ i.T).argsort(dim=1, descending=True, stable=True)
            place = torch.empty_like(order)
            place.scatter_(1, order, torch.arange(len(i), device=device).expand_as(order))
            ranks.append(place.gather(1, ids) + 1)
        return torch.cat(ranks)

    def contenders(threads: int) -> Contenders:
        return {
            OURS: lambda: ax.ranks(u, i, targets),
            "our top-k, k 1000": lambda: ax.topk(u, i, min(1000, len(i))),
            "torch sort": by_sorting,
        }

    shape = f"{n_users} x {n_items}, d {d}, {targets_a_user} targets"
    return Case("ranks", shape, "random", 2.0 * n_users * n_items * d, contenders, dtype)
