"""Cases of throughput.py: hops of LightGCN and a training step's propagation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import scipy.sparse
import torch
from throughput_case import CPU, OURS, Case, Contenders, embeddings, missing, read
from torch import Tensor

import adaptau_ext as ax


def skewed_graph(n_users: int, n_items: int, n_pairs: int) -> scipy.sparse.csr_array:
    """Log-normal users, Zipf items: the size and skew of a real graph without its clusters."""
    rng = np.random.default_rng(0)
    activity = np.exp(rng.normal(0, 0.9, n_users))
    popularity = 1 / np.arange(20, n_items + 20) ** 0.7
    users = rng.choice(n_users, 2 * n_pairs, p=activity / activity.sum())
    items = rng.permutation(n_items)[rng.choice(n_items, 2 * n_pairs, p=popularity / popularity.sum())]
    pairs = rng.permutation(np.unique(users * n_items + items))[:n_pairs]
    graph = scipy.sparse.csr_array((np.ones(len(pairs)), np.divmod(pairs, n_items)), (n_users, n_items))
    graph.sort_indices()
    return graph


def graph_on(r: scipy.sparse.csr_array, device: torch.device) -> ax.BipartiteGraph:
    graph = ax.BipartiteGraph(r)
    return graph if device.type == "cpu" else graph.to(device)


def graphs_on(r: scipy.sparse.csr_array, device: torch.device) -> dict[str, ax.BipartiteGraph]:
    """By contender; an order of the nodes is the CPU's."""
    made = {OURS: graph_on(r, device)}
    if device.type == "cpu":
        made["our reorder=True"] = ax.BipartiteGraph(r, reorder=True)
    return made


def graphs(quick: bool, folder: Path) -> Iterator[tuple[str, scipy.sparse.csr_array]]:
    yield "made up", skewed_graph(31_668, 38_048, 1_237_259)
    for name in () if quick else ("yelp2018", "lastfm"):
        data = read(folder, name)
        if data is not None:
            yield name, data.train


def adjacencies(r: scipy.sparse.csr_array, library: str) -> dict[str, Tensor]:
    """The normalised adjacency of users and items, in each of PyTorch's sparse formats."""
    n = sum(r.shape)
    degree = np.concatenate([r.sum(1), r.sum(0)])
    both = scipy.sparse.block_array([[None, r], [r.T, None]]).tocsr()
    both.sort_indices()
    inverse_root = scipy.sparse.diags_array(np.where(degree > 0, degree, 1) ** -0.5)
    both = (inverse_root @ both @ inverse_root).astype(np.float32).tocoo()
    coo = torch.sparse_coo_tensor(np.stack(both.coords), both.data, (n, n))
    made = {"COO": coo.coalesce(), "COO uncoalesced": coo}
    csr = coo.coalesce().to_sparse_csr()
    for dtype in (torch.int64, torch.int32):
        made[f"CSR {str(dtype)[6:]} ({library})"] = torch.sparse_csr_tensor(
            csr.crow_indices().to(dtype), csr.col_indices().to(dtype), csr.values(), (n, n)
        )
    return made


def on_device(matrix: Tensor, device: torch.device) -> Callable[[], Tensor]:
    """The matrix there; where the device has no such format, whoever asks for it fails."""
    try:
        moved = matrix.to(device)
    except Exception as problem:
        return missing(f"{type(problem).__name__}: {problem}")  # type: ignore[return-value]
    return lambda: moved


def propagation_cases(
    named: Iterator[tuple[str, scipy.sparse.csr_array]],
    device: torch.device = CPU,
    d: int = 64,
    n_rows: int = 2048,
) -> Iterator[Case]:
    library = "MKL" if device.type == "cpu" else "cuSPARSE"
    for data, r in named:
        n_users, n_items = r.shape
        n = n_users + n_items
        matrices = {name: on_device(a, device) for name, a in adjacencies(r, library).items()}
        ours = graphs_on(r, device)
        x = embeddings(n, d, "random", 0, device).requires_grad_()
        picked = torch.randperm(r.nnz, generator=torch.Generator().manual_seed(1))[:n_rows].numpy()
        users, items = (torch.from_numpy(side[picked]).long().to(device) for side in r.tocoo().coords)
        grads = tuple(embeddings(len(users), d, "random", seed, device) for seed in (2, 3))

        def hop(threads: int, ours=ours, x=x, matrices=matrices, sizes=r.shape) -> Contenders:
            x = x.detach()
            sides = x.split(sizes)
            peers = {f"torch {k}": lambda a=a: a() @ x for k, a in matrices.items()}
            return {**{k: lambda g=g: g.hop(*sides) for k, g in ours.items()}, **peers}

        def step(
            threads: int, ours=ours, x=x, matrices=matrices, users=users, items=items, grads=grads,
            sizes=r.shape,
        ) -> Contenders:  # fmt: skip
            sides = [side.detach().requires_grad_() for side in x.split(sizes)]
            rows = torch.cat([users, items + sizes[0]])

            def propagated(graph: ax.BipartiteGraph) -> object:
                out = graph.propagate(*sides, users=users, items=items)
                return torch.autograd.grad(out, sides, grads)

            def naive(a: Tensor) -> object:
                layers = [x]
                for _ in range(3):
                    layers.append(torch.sparse.mm(a, layers[-1]))
                out = torch.nn.functional.embedding(rows, torch.stack(layers).mean(0))
                return torch.autograd.grad(out, x, torch.cat(grads))

            def symmetric(a: Tensor) -> object:
                """The best that is possible with six products: Horner's form, backward by hand."""
                with torch.no_grad():
                    z = x
                    for _ in range(3):
                        z = torch.addmm(x, a, z)
                    out = z[rows] / 4
                    grad = torch.zeros_like(x).index_add_(0, rows, torch.cat(grads) / 4)
                    z = grad
                    for _ in range(3):
                        z = torch.addmm(grad, a, z)
                return out, z

            by_csr = {k: a for k, a in matrices.items() if library in k}
            return {
                **{k: lambda g=g: propagated(g) for k, g in ours.items()},
                **{f"torch {k}": lambda a=a: symmetric(a()) for k, a in by_csr.items()},
                "torch COO, autograd": lambda: naive(matrices["COO"]()),
            }

        shape = f"{n_users} + {n_items} nodes, {r.nnz} edges, d {d}"
        yield Case("hop", shape, data, 4.0 * r.nnz * d, hop)
        yield Case("propagation step", f"{shape}, B {n_rows}", data, 24.0 * r.nnz * d, step)
