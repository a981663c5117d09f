"""Kernels beside every other way of doing the same, in one run.

    python benchmarks/throughput.py                  all operators, under ten minutes
    python benchmarks/throughput.py --quick          the smallest shapes, under one
    python benchmarks/throughput.py --only topk --threads 1 2 --output results

Contenders of a case take turns; every round also measures the machine's multiply-add peak. A row gives
the median time and its spread (the middle half), GFLOP/s in the operation's nominal count (loss forward +
backward 8 B M d, forward 2 B M d, top-k and ranks 2 B M d, sampled step 6 B N d, a hop over a graph
4 E d for E interactions, a training step's propagation six hops, whatever is really done), the fraction of the peak of the threads used, memory beyond inputs and outputs on the first
call, and our speed over the best other. A contender that fails is a row that says so.
"""

from __future__ import annotations

import os
import sys

# Set for old OpenBLAS builds in some environments; they slow NumPy, faiss and implicit down.
_SLOWING = [name for name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE") if os.environ.pop(name, None)]
if _SLOWING:
    os.execv(sys.executable, [sys.executable, *sys.argv])

import argparse
import json
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import scipy.sparse
import torch
from peak_memory import rise_mib
from torch import Tensor
from torch.utils.checkpoint import checkpoint

import adaptau_ext as ax
from adaptau_ext.data import DataError, read_lightgcn

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


@dataclass
class Row:
    operation: str
    shape: str
    data: str
    threads: int
    contender: str
    milliseconds: float = float("nan")
    spread: tuple[float, float] = (float("nan"), float("nan"))
    gflops: float = float("nan")
    peak_gflops: float = float("nan")
    of_peak: float = float("nan")
    extra_mib: float = float("nan")
    over_best_peer: float = float("nan")
    failure: str = ""
    samples: list[float] = field(default_factory=list, repr=False)


# --- data -----------------------------------------------------------------------------------------


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


# --- cases ----------------------------------------------------------------------------------------


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
            whole = compiled(naive)
            return {
                OURS: lambda: step(
                    lambda u, i, t: ax.fused_adaptive_softmax(u, i, tau, target=t), *inputs
                ),
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
    peers: Contenders = {"torch mm + topk": lambda: (u @ i.T).topk(k)}

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

    peers["torch chunked"] = chunked
    peers["numpy"] = numpy_partition
    try:
        import faiss

        faiss.omp_set_num_threads(threads)
        index = faiss.IndexFlatIP(i.shape[1])
        index.add(i_array)
        peers["faiss IndexFlatIP"] = lambda: index.search(u_array, k)
        peers["faiss knn"] = lambda: faiss.knn(u_array, i_array, k, metric=faiss.METRIC_INNER_PRODUCT)
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


def topk_cases(
    shapes: list[tuple[int, int, int]], ks: tuple[int, ...], kinds: tuple[str, ...]
) -> Iterator[Case]:
    for n_users, n_items, d in shapes:
        for kind in kinds:
            u, i = embeddings(n_users, d, kind, 0), embeddings(n_items, d, kind, 1)
            for k in ks:

                def contenders(threads: int, u: Tensor = u, i: Tensor = i, k: int = k) -> Contenders:
                    return {OURS: lambda: ax.topk(u, i, k), **topk_peers(u, i, k, threads)}

                shape = f"{n_users} x {n_items}, d {d}, k {k}"
                yield Case("top-k", shape, kind, 2.0 * n_users * n_items * d, contenders)


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


def graphs(quick: bool, folder: Path) -> Iterator[tuple[str, scipy.sparse.csr_array]]:
    yield "made up", skewed_graph(31_668, 38_048, 1_237_259)
    for name in () if quick else ("yelp2018", "gowalla", "lastfm"):
        try:
            data = read_lightgcn(folder / name, cold_users="keep", duplicates="merge")
        except DataError as missing:
            print(f"no graph of {name}: {missing}")
        else:
            yield name, data.train


def propagation_cases(
    named: Iterator[tuple[str, scipy.sparse.csr_array]], d: int = 64, n_rows: int = 2048
) -> Iterator[Case]:
    for data, r in named:
        n_users, n_items = r.shape
        n = n_users + n_items
        degree = np.concatenate([r.sum(1), r.sum(0)])
        both = scipy.sparse.block_array([[None, r], [r.T, None]]).tocsr()
        both.sort_indices()
        inverse_root = scipy.sparse.diags_array(np.where(degree > 0, degree, 1) ** -0.5)
        both = (inverse_root @ both @ inverse_root).astype(np.float32).tocoo()
        coo = torch.sparse_coo_tensor(np.stack(both.coords), both.data, (n, n))
        matrices = {"COO": coo.coalesce(), "COO uncoalesced": coo}
        for bits, dtype in ((64, torch.int64), (32, torch.int32)):
            csr = coo.coalesce().to_sparse_csr()
            matrices[f"CSR int{bits} (MKL)"] = torch.sparse_csr_tensor(
                csr.crow_indices().to(dtype), csr.col_indices().to(dtype), csr.values(), (n, n)
            )
        graph = ax.BipartiteGraph(r)
        x = embeddings(n, d, "random", 0).requires_grad_()
        picked = torch.randperm(r.nnz, generator=torch.Generator().manual_seed(1))[:n_rows].numpy()
        users, items = (torch.from_numpy(side[picked]).long() for side in r.tocoo().coords)
        grads = embeddings(len(users), d, "random", 2), embeddings(len(users), d, "random", 3)

        def hop(threads: int, graph=graph, x=x, matrices=matrices) -> Contenders:
            x = x.detach()
            sides = x.split([graph.n_users, graph.n_items])
            peers = {f"torch {k}": lambda a=a: a @ x for k, a in matrices.items()}
            return {OURS: lambda: graph.hop(*sides), **peers}

        def step(
            threads: int, graph=graph, x=x, matrices=matrices, users=users, items=items, grads=grads
        ) -> Contenders:
            sides = [side.detach().requires_grad_() for side in x.split([graph.n_users, graph.n_items])]
            rows = torch.cat([users, items + graph.n_users])

            def ours() -> object:
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

            mkl = {k: a for k, a in matrices.items() if "MKL" in k}
            return {
                OURS: ours,
                **{f"torch {k}": lambda a=a: symmetric(a) for k, a in mkl.items()},
                "torch COO, autograd": lambda: naive(matrices["COO"]),
            }

        shape = f"{n_users} + {n_items} nodes, {r.nnz} edges, d {d}"
        yield Case("hop", shape, data, 4.0 * r.nnz * d, hop)
        yield Case("propagation step", f"{shape}, B {n_rows}", data, 24.0 * r.nnz * d, step)


def all_cases(quick: bool, only: set[str], folder: Path) -> Iterator[Case]:
    sampled_shape = (2048, 1024, 29_858, 40_981, 64)
    if "loss" in only:
        big = [(2048, 38_048, 64), (1024, 91_599, 64), (8192, 8192, 128)]
        yield from loss_cases([(2048, 2048, 64)] + ([] if quick else big))
    if "sampled" in only:
        yield from sampled_cases([(256, 256, 29_858, 40_981, 64)] if quick else [sampled_shape])
    if "topk" in only:
        yield from topk_cases([(2048, 38_048, 64)], (20,) if quick else (20, 100), ("random",))
        if not quick:
            yield from topk_cases([(1024, 91_599, 64)], (20, 100), ("random",))
            yield from topk_cases([(512, 1_000_000, 64)], (20,), ("random",))
            yield from topk_cases([(2048, 38_048, 64)], (20,), KINDS[1:])
    if "ranks" in only:
        yield from ranks_cases([(512 if quick else 2048, 38_048, 64)])
    if "propagation" in only:
        yield from propagation_cases(graphs(quick, folder))


# --- measuring ------------------------------------------------------------------------------------


def measure(case: Case, threads: int, seconds: float) -> list[Row]:
    torch.set_num_threads(threads)
    contenders = case.contenders(threads)
    rows = {name: Row(case.operation, case.shape, case.data, threads, name) for name in contenders}
    for name, run in list(contenders.items()):
        try:
            rows[name].extra_mib = rise_mib(run)
            run()
        except Exception as problem:  # a contender that cannot run is a result too
            rows[name].failure = f"{type(problem).__name__}: {problem}".splitlines()[0][:200]
            del contenders[name]
    peaks: list[float] = []
    deadline = time.perf_counter() + seconds
    while time.perf_counter() < deadline or len(peaks) < 3:
        peaks.append(torch.ops.adaptau.fma_peak(0.01))
        for name, run in contenders.items():
            start = time.perf_counter()
            run()
            rows[name].samples.append(time.perf_counter() - start)
    peak = statistics.median(peaks) * threads
    for row in rows.values():
        if not row.samples:
            continue
        low, middle, high = np.quantile(row.samples, [0.25, 0.5, 0.75])
        row.milliseconds = middle * 1e3
        row.spread = (low * 1e3, high * 1e3)
        row.gflops = case.flops / middle * 1e-9
        row.peak_gflops = peak
        row.of_peak = row.gflops / peak
    peers = [r.milliseconds for r in rows.values() if r.samples and not is_ours(r)]
    for row in rows.values():
        if is_ours(row) and row.samples and peers:
            row.over_best_peer = min(peers) / row.milliseconds
    return list(rows.values())


def is_ours(row: Row) -> bool:
    return row.contender == OURS or row.contender.startswith("our ")


# --- reporting ------------------------------------------------------------------------------------


def provenance(arguments: list[str]) -> dict[str, object]:
    name = platform.processor()
    info = Path("/proc/cpuinfo")
    if info.exists():
        models = [x for x in info.read_text().splitlines() if x.startswith("model name")]
        name = models[0].partition(":")[2].strip() if models else name
    git = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False,
        cwd=Path(__file__).parent,
    )  # fmt: skip
    return {
        "command": " ".join(["python", "benchmarks/throughput.py", *arguments]),
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
        "commit": git.stdout.strip(),
        "cpu": name,
        "level": torch.ops.adaptau.cpu_level(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def markdown(rows: list[Row], about: dict[str, object]) -> str:
    lines = [
        f"`{about['command']}`, commit {about['commit']}, {about['date']}: {about['cpu']}, "
        f"level {about['level']}, PyTorch {about['torch']}. Medians; the middle half in brackets.",
        "",
        "| operation | shape | data | threads | contender | ms | GF/s | of peak | MiB | over best peer |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for r in rows:
        cells = [r.operation, r.shape, r.data, str(r.threads), r.contender]
        if r.failure:
            cells += [r.failure, "", "", "", ""]
        else:
            over = f"**{r.over_best_peer:.2f}**" if r.over_best_peer == r.over_best_peer else ""
            cells += [
                f"{r.milliseconds:.1f} ({r.spread[0]:.1f} - {r.spread[1]:.1f})",
                f"{r.gflops:.1f}",
                f"{r.of_peak:.2f}",
                f"{r.extra_mib:.0f}",
                over,
            ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def plot(rows: list[Row], path: Path) -> None:
    try:
        import matplotlib
    except ImportError:
        print("no plot: matplotlib is not installed")
        return
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    groups: dict[str, list[Row]] = {}
    for row in rows:
        if row.samples:
            groups.setdefault(f"{row.operation}, {row.shape}, {row.data}, {row.threads} th", []).append(
                row
            )
    figure, axes = plt.subplots(
        len(groups), 1, figsize=(9, 0.5 + 0.32 * sum(len(g) + 2 for g in groups.values())),
        gridspec_kw={"height_ratios": [len(g) + 1 for g in groups.values()]}, squeeze=False,
        layout="constrained",
    )  # fmt: skip
    for axis, (title, group) in zip(axes[:, 0], groups.items(), strict=True):
        names = [r.contender for r in group][::-1]
        values = [r.gflops for r in group][::-1]
        colours = ["tab:orange" if is_ours(r) else "tab:gray" for r in group][::-1]
        axis.barh(names, values, color=colours)
        axis.axvline(group[0].peak_gflops, color="black", linestyle=":", linewidth=1)
        axis.set_title(title, fontsize=9, loc="left")
        axis.tick_params(labelsize=8)
    axes[-1, 0].set_xlabel("GFLOP/s, nominal count; dotted: multiply-add peak of the threads")
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="smallest shapes, under a minute")
    parser.add_argument(
        "--only", nargs="+", default=["loss", "sampled", "topk", "ranks", "propagation"],
        choices=["loss", "sampled", "topk", "ranks", "propagation"],
    )  # fmt: skip
    parser.add_argument(
        "--data", type=Path, default=Path(__file__).parents[2] / "shared" / "data",
        help="folder with LightGCN-format graphs (yelp2018, gowalla, lastfm), for propagation",
    )  # fmt: skip
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--seconds", type=float, help="measuring time of a case (default 8, quick 2)")
    parser.add_argument("--output", type=Path, help="folder for throughput.json, .md and .png")
    arguments = parser.parse_args()
    threads = arguments.threads[:1] if arguments.quick else arguments.threads
    seconds = arguments.seconds or (2.0 if arguments.quick else 8.0)

    rows: list[Row] = []
    for case in all_cases(arguments.quick, set(arguments.only), arguments.data):
        for n in threads:
            for row in measure(case, n, seconds):
                rows.append(row)
                print(
                    f"{row.operation:13s} {row.shape:45s} {row.data:16s} {n} th  {row.contender:30s} "
                    + (
                        row.failure
                        or f"{row.milliseconds:9.1f} ms {row.gflops:7.1f} GF/s {row.of_peak:5.2f} of peak "
                        f"{row.extra_mib:7.0f} MiB"
                        + (f"  {row.over_best_peer:.2f} x best peer" if is_ours(row) else "")
                    ),
                    flush=True,
                )
    about = provenance(sys.argv[1:])
    if arguments.output:
        arguments.output.mkdir(parents=True, exist_ok=True)
        measured = [{k: v for k, v in asdict(r).items() if k != "samples"} for r in rows]
        (arguments.output / "throughput.json").write_text(
            json.dumps({"about": about, "rows": measured}, indent=1) + "\n"
        )
        (arguments.output / "throughput.md").write_text(markdown(rows, about))
        plot(rows, arguments.output / "throughput.png")
    else:
        print(markdown(rows, about))


if __name__ == "__main__":
    main()
