"""Cases of throughput.py: the operators and every other way of computing the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.sparse
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

import adaptau_ext as ax
from adaptau_ext.data import DataError, Interactions, read_lightgcn
from adaptau_ext.ops import Precision
from adaptau_ext.training import MFTrainer, TrainConfig

OURS = "adaptau_ext"
Contenders = dict[str, Callable[[], object]]


@dataclass
class Case:
    """One operation on one shape; contenders are made per number of threads."""

    operation: str
    shape: str
    data: str
    flops: float
    contenders: Callable[[int], Contenders]
    one_thread: bool = False  # one is enough to see what this data does


def embeddings(n: int, d: int, kind: str, seed: int) -> Tensor:
    """Rows as they occur: nothing is tuned to one kind of them."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, d, generator=generator)
    if kind == "clustered":
        centres = torch.randn(100, d, generator=torch.Generator().manual_seed(7))
        x = centres[torch.randint(100, (n,), generator=generator)] + 0.3 * x
    elif kind == "common mean":
        x = x + 2 * torch.randn(d, generator=torch.Generator().manual_seed(7))
    elif kind == "lognormal norms":
        x = x * torch.randn(n, 1, generator=generator).exp()
    elif kind == "heavy ties":
        x = x[torch.randint(max(1, n // 50), (n,), generator=generator)]
    elif kind != "random":
        raise ValueError(f"unknown kind of data {kind!r}")
    return x


KINDS = ("random", "clustered", "common mean", "lognormal norms", "heavy ties")


def compiled(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    torch.compiler.reset()
    return torch.compile(function, dynamic=False)


def loss_cases(shapes: list[tuple[int, int, int]], tau: float = 0.1) -> Iterator[Case]:
    def naive(u: Tensor, i: Tensor, target: Tensor) -> Tensor:
        normalize = torch.nn.functional.normalize
        logits = normalize(u, dim=1) @ normalize(i, dim=1).T / tau
        return torch.nn.functional.cross_entropy(logits, target)

    def chunked(u: Tensor, i: Tensor, target: Tensor) -> Tensor:
        def part(rows: slice) -> Tensor:
            return naive(u[rows], i, target[rows]) * (rows.stop - rows.start) / u.shape[0]

        total = torch.zeros(())
        for start in range(0, u.shape[0], 256):
            rows = slice(start, min(start + 256, u.shape[0]))
            total = total + checkpoint(part, rows, use_reentrant=False)
        return total

    def step(function: Callable[..., Tensor], *inputs: Tensor) -> None:
        inputs[0].grad = inputs[1].grad = None
        function(*inputs).backward()

    for n_users, n_items, d in shapes:
        u = embeddings(n_users, d, "random", 0).requires_grad_()
        i = embeddings(n_items, d, "random", 1).requires_grad_()
        target = torch.randint(n_items, (n_users,), generator=torch.Generator().manual_seed(2))

        def contenders(threads: int, inputs: tuple[Tensor, ...] = (u, i, target)) -> Contenders:
            def ours(precision: Precision) -> Callable[..., Tensor]:
                return lambda u, i, t: ax.fused_adaptive_softmax(
                    u, i, tau, target=t, precision=precision
                )

            whole = compiled(naive)
            step(whole, *inputs)  # compiling is not what is timed
            return {
                OURS: lambda: step(ours("float32"), *inputs),
                "our bfloat16": lambda: step(ours("bfloat16"), *inputs),
                "torch eager": lambda: step(naive, *inputs),
                "torch.compile": lambda: step(whole, *inputs),
                "torch chunked": lambda: step(chunked, *inputs),
            }

        shape = f"{n_users} x {n_items}, d {d}"
        yield Case("loss fwd+bwd", shape, "random", 8.0 * n_users * n_items * d, contenders)


def sampled_cases(shapes: list[tuple[int, int, int, int, int]], tau: float = 0.1) -> Iterator[Case]:
    normalize = torch.nn.functional.normalize

    def gather(users: Tensor, items: Tensor, batch: Tensor, positives: Tensor, n: Tensor) -> Tensor:
        u = normalize(users[batch], dim=1)
        scores = torch.bmm(normalize(items[n], dim=2), u[:, :, None])[..., 0] / tau
        positive = (u * normalize(items[positives], dim=1)).sum(1) / tau
        return (scores.logsumexp(1) - positive).mean()

    def normalise_first(
        users: Tensor, items: Tensor, batch: Tensor, positives: Tensor, n: Tensor
    ) -> Tensor:
        """The strongest PyTorch form we know: the table once, embedding's own backward."""
        u, i = normalize(users[batch], dim=1), normalize(items, dim=1)
        rows = torch.nn.functional.embedding(n, i)
        scores = torch.bmm(rows, u[:, :, None])[..., 0] / tau
        positive = (u * torch.nn.functional.embedding(positives, i)).sum(1) / tau
        return (scores.logsumexp(1) - positive).mean()

    for n_rows, n_negatives, n_users, n_items, d in shapes:
        users = embeddings(n_users, d, "random", 0).requires_grad_()
        items = embeddings(n_items, d, "random", 1).requires_grad_()
        generator = torch.Generator().manual_seed(2)
        batch = torch.randint(n_users, (n_rows,), generator=generator)
        positives = torch.randint(n_items, (n_rows,), generator=generator)

        def step(loss: Tensor, tables: tuple[Tensor, Tensor] = (users, items)) -> None:
            tables[0].grad = tables[1].grad = None
            loss.backward()

        def draw(shape: tuple[int, int] = (n_rows, n_negatives), high: int = n_items) -> Tensor:
            return torch.randint(high, shape)

        def contenders(
            threads: int, given: tuple[Tensor, ...] = (users, items, batch, positives),
            n: int = n_negatives, step: Callable[..., None] = step, draw: Callable[..., Tensor] = draw,
        ) -> Contenders:  # fmt: skip
            return {
                OURS: lambda: step(ax.sampled_adaptive_softmax(*given, tau, n_negatives=n)),
                "torch gather": lambda: step(gather(*given, draw())),
                "torch, table normalised first": lambda: step(normalise_first(*given, draw())),
            }

        shape = f"B {n_rows}, N {n_negatives}, {n_users} + {n_items} rows, d {d}"
        yield Case("sampled step", shape, "random", 6.0 * n_rows * n_negatives * d, contenders)


def topk_peers(u: Tensor, i: Tensor, k: int, threads: int) -> Contenders:
    u_array, i_array = u.numpy(), i.numpy()

    def chunked() -> list[object]:
        return [(part @ i.T).topk(k) for part in u.split(256)]

    def numpy_partition() -> np.ndarray:
        out = []
        for start in range(0, len(u_array), 256):
            scores = u_array[start : start + 256] @ i_array.T
            best = np.argpartition(-scores, k - 1, axis=1)[:, :k]
            order = np.argsort(-np.take_along_axis(scores, best, 1), axis=1, kind="stable")
            out.append(np.take_along_axis(best, order, 1))
        return np.concatenate(out)

    peers: Contenders = {"torch mm + topk": lambda: (u @ i.T).topk(k), "torch chunked": chunked}
    if len(i) < 50_000:  # minutes beyond
        peers["numpy"] = numpy_partition
    try:
        import faiss

        faiss.omp_set_num_threads(threads)
        peers["faiss knn"] = lambda: faiss.knn(u_array, i_array, k, metric=faiss.METRIC_INNER_PRODUCT)
        if len(i) < 500_000:  # the same engine
            index = faiss.IndexFlatIP(i.shape[1])
            index.add(i_array)
            peers["faiss IndexFlatIP"] = lambda: index.search(u_array, k)
    except ImportError:
        peers["faiss"] = missing("faiss-cpu is not installed")
    try:
        from implicit.cpu.topk import topk as implicit_topk

        peers["implicit"] = lambda: implicit_topk(i_array, u_array, k, num_threads=threads)
    except ImportError:
        peers["implicit"] = missing("implicit is not installed")
    return peers


def missing(why: str) -> Callable[[], object]:
    def fail() -> object:
        raise ImportError(why)

    return fail


def topk_case(u: Tensor, i: Tensor, k: int, data: str) -> Case:
    index = ax.ItemIndex(i)

    def contenders(threads: int) -> Contenders:
        return {
            OURS: lambda: ax.topk(u, i, k),
            "our ItemIndex": lambda: index.topk(u, k),
            **topk_peers(u, i, k, threads),
        }

    shape = f"{len(u)} x {len(i)}, d {u.shape[1]}, k {k}"
    return Case("top-k", shape, data, 2.0 * len(u) * i.numel(), contenders, one_thread=data != "random")


def topk_cases(
    shapes: list[tuple[int, int, int]], ks: tuple[int, ...], kinds: tuple[str, ...]
) -> Iterator[Case]:
    for n_users, n_items, d in shapes:
        for kind in kinds:
            u, i = embeddings(n_users, d, kind, 0), embeddings(n_items, d, kind, 1)
            for k in ks:
                yield topk_case(u, i, k, kind)


def read(folder: Path, name: str) -> Interactions | None:
    try:
        return read_lightgcn(folder / name, cold_users="keep", duplicates="merge")
    except DataError as missing:
        print(f"left out: {missing}")
        return None


def trained_cases(folder: Path, n_users: int = 2048, epochs: int = 3) -> Iterator[Case]:
    """Embeddings as training leaves them; both sides unit rows, so that inner products are cosines."""
    data = read(folder, "gowalla")
    if data is None:
        return
    trainer = MFTrainer(TrainConfig(epochs=epochs, seed=0, tau="0.1"), data)
    for _ in range(epochs):
        for users, items in trainer.batches():
            trainer.step(users, items)
    u, i = (torch.nn.functional.normalize(x.detach()) for x in trainer.model.embeddings())
    yield topk_case(u[:n_users].contiguous(), i, 20, "trained")


def evaluation_cases(folder: Path, d: int = 64, k: int = 20) -> Iterator[Case]:
    """All users of yelp2018 in chunks, training items excluded."""
    data = read(folder, "yelp2018")
    if data is None:
        return
    seen = data.train.astype(np.float32)
    n_users, n_items = seen.shape
    u, i = embeddings(n_users, d, "random", 0), embeddings(n_items, d, "random", 1)
    chunks = [slice(s, min(s + 2048, n_users)) for s in range(0, n_users, 2048)]
    by_degree = np.argsort(np.diff(seen.indptr), kind="stable")

    def ours() -> list[object]:
        index = ax.ItemIndex(i)
        return [index.topk(u[c], k, exclude=seen[c]) for c in chunks]

    def masked() -> list[object]:
        out: list[object] = []
        for start in range(0, n_users, 256):
            part = seen[start : start + 256].tocoo()
            scores = u[start : start + 256] @ i.T
            scores[
                torch.from_numpy(part.coords[0]).long(), torch.from_numpy(part.coords[1]).long()
            ] = -torch.inf
            out.append(scores.topk(k))
        return out

    def contenders(threads: int) -> Contenders:
        peers: Contenders = {"torch chunked, masked": masked}
        try:
            import faiss

            faiss.omp_set_num_threads(threads)

            def deeper() -> list[object]:
                """Users of similar degree together, each searched k + the largest degree deep."""
                out: list[object] = []
                for start in range(0, n_users, 512):
                    rows = by_degree[start : start + 512]
                    depth = k + int(np.diff(seen.indptr)[rows].max())
                    ids = faiss.knn(
                        u.numpy()[rows], i.numpy(), min(depth, n_items),
                        metric=faiss.METRIC_INNER_PRODUCT,
                    )[1]  # fmt: skip
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
            peers["implicit, filtered"] = lambda: [
                implicit_topk(
                    i.numpy(), u[c].numpy(), k, filter_query_items=as_matrix[c], num_threads=threads
                )
                for c in chunks
            ]
        except ImportError:
            peers["implicit"] = missing("implicit is not installed")
        return {OURS: ours, **peers}

    shape = f"{n_users} x {n_items}, d {d}, k {k}, {seen.nnz} excluded"
    yield Case("evaluation", shape, "yelp2018's exclusions", 2.0 * n_users * n_items * d, contenders)


def ranks_cases(shapes: list[tuple[int, int, int]], targets_a_user: int = 7) -> Iterator[Case]:
    for n_users, n_items, d in shapes:
        u, i = embeddings(n_users, d, "random", 0), embeddings(n_items, d, "random", 1)
        generator = torch.Generator().manual_seed(3)
        chosen = torch.rand(n_users, 64, generator=generator).argsort(1)[:, :targets_a_user]
        indices = (chosen * (n_items // 64)).sort(1)[0].flatten()
        targets = (torch.arange(0, indices.numel() + 1, targets_a_user), indices)

        def by_sorting(u: Tensor = u, i: Tensor = i, wanted: Tensor = indices) -> Tensor:
            ranks = []
            for rows, ids in zip(u.split(256), wanted.view(len(u), -1).split(256), strict=True):
                order = (rows @ i.T).argsort(dim=1, descending=True, stable=True)
                place = torch.empty_like(order)
                place.scatter_(1, order, torch.arange(len(i)).expand_as(order))
                ranks.append(place.gather(1, ids) + 1)
            return torch.cat(ranks)

        def contenders(
            threads: int, u: Tensor = u, i: Tensor = i, targets: tuple[Tensor, Tensor] = targets,
            by_sorting: Callable[[], Tensor] = by_sorting,
        ) -> Contenders:  # fmt: skip
            return {
                OURS: lambda: ax.ranks(u, i, targets),
                "our top-k, k 1000": lambda: ax.topk(u, i, min(1000, len(i))),
                "torch sort": by_sorting,
            }

        shape = f"{n_users} x {n_items}, d {d}, {targets_a_user} targets"
        yield Case("ranks", shape, "random", 2.0 * n_users * n_items * d, contenders)
