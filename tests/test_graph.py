"""BipartiteGraph against its dense twin in float64, and what it promises beyond the values."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import torch
from torch import Tensor

import adaptau_ext as ax
from adaptau_ext import graph as graph_module
from adaptau_ext import reference, reorder
from adaptau_ext.dropout import draw_seed, steps_of
from tests.budget import assert_within, roundoff
from tests.devices import DEVICES, GPUS, runs
from tests.test_retrieval import random_csr

SHAPES = [(0, 0), (0, 3), (4, 0), (1, 1), (7, 11), (60, 130), (300, 200)]


def graph_and_inputs(
    n_users: int, n_items: int, d: int, dtype: torch.dtype = torch.float32, density: float = 0.1
) -> tuple[scipy.sparse.csr_array, ax.BipartiteGraph, Tensor, Tensor]:
    """Isolated users and items included, and one user who knows every item."""
    csr = random_csr(n_users, n_items, density).tolil()
    if n_users > 2:
        csr[1, :] = True
        csr[2, :] = False
    csr = scipy.sparse.csr_array(csr)
    csr.sort_indices()
    x_users, x_items = torch.randn(n_users, d).to(dtype), torch.randn(n_items, d).to(dtype)
    return csr, ax.BipartiteGraph(csr), x_users, x_items


def budget(csr: scipy.sparse.csr_array, x_users: Tensor, x_items: Tensor, n_layers: int) -> float:
    """A sum of m terms is off by m u of its absolute terms, scaling and the last addition add 4 u, once a
    layer; no layer has absolute row sums above sqrt(m) (1 / sqrt(degrees) of m neighbours at most)."""
    u = roundoff(torch.float64 if x_users.dtype == torch.float64 else torch.float32)
    longest = max((int(np.diff(m.indptr).max(initial=0)) for m in (csr, csr.tocsc())), default=0)
    largest = max((float(x.abs().max()) for x in (x_users, x_items) if x.numel()), default=0.0)
    grown = max(1.0, longest**0.5) ** n_layers
    return n_layers * (longest + 4) * u * largest * grown + 4 * u * largest


def on(device: str, tensors: Sequence[Tensor | None]) -> list[Any]:
    return [None if x is None else x.to(device) for x in tensors]


def random_ids(n: int, count: int) -> Tensor:
    return torch.randint(n, (count,)) if n else torch.zeros(0, dtype=torch.int64)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("d", [0, 1, 17, 48, 64, 200])
@pytest.mark.parametrize("n_layers", [0, 1, 2, 3])
def test_against_dense_float64(shape: tuple[int, int], d: int, n_layers: int) -> None:
    for dtype in (torch.float32, torch.float64):
        compare(shape, d, n_layers, dtype, "cpu")


@pytest.mark.parametrize("device", GPUS)
@pytest.mark.parametrize("shape", SHAPES[:-1])
@pytest.mark.parametrize("d", [0, 1, 17, 64, 132])
@pytest.mark.parametrize("n_layers", [0, 1, 3])
def test_against_dense_float64_on_a_gpu(
    device: str, shape: tuple[int, int], d: int, n_layers: int
) -> None:
    compare(shape, d, n_layers, torch.float32, device)


@pytest.mark.parametrize("device", GPUS)
@pytest.mark.parametrize("d", [8, 300])
def test_long_rows_on_a_gpu(device: str, d: int) -> None:
    """More neighbours than a warp takes for itself: the block's warps share them."""
    compare((3, 1100), d, 2, torch.float32, device)


def compare(shape: tuple[int, int], d: int, n_layers: int, dtype: torch.dtype, device: str) -> None:
    csr, graph, x_users, x_items = graph_and_inputs(*shape, d, dtype)
    graph = graph.to(device)
    x = (x_users.double(), x_items.double())
    whole = reference.propagate(csr, *x, n_layers)
    one_hop = reference.hop(csr, *x)
    for _ in runs(device):
        given = on(device, (x_users, x_items))
        for ours, exact in zip(graph.propagate(*given, n_layers), whole, strict=True):
            assert ours.dtype == dtype and ours.device.type == device
            assert_within(ours.cpu(), exact, budget(csr, x_users, x_items, n_layers))
        for ours, exact in zip(graph.hop(*given), one_hop, strict=True):
            assert_within(ours.cpu(), exact, budget(csr, x_users, x_items, 1))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("d", [17, 64])
@pytest.mark.parametrize("n_layers", [0, 1, 2, 3])
@pytest.mark.parametrize("chosen", [(True, True), (True, False), (False, True)])
def test_chosen_rows_are_rows_of_the_whole(
    d: int, n_layers: int, chosen: tuple[bool, bool], device: str
) -> None:
    """Bit for bit, forward and backward; duplicates, none at all, an isolated user and a popular one."""
    n_users, n_items = (60, 130) if device == "virtual" else (300, 200)
    _, graph, *inputs = graph_and_inputs(n_users, n_items, d)
    graph = graph.to(device)
    x = [t.to(device).requires_grad_() for t in inputs]
    for count in (0, 1, 90):
        users = torch.cat([random_ids(n_users, count), torch.tensor([1, 2])])
        wanted = [users if chosen[0] else None, random_ids(n_items, count) if chosen[1] else None]
        rows = on(device, wanted)
        sizes = [n if w is None else len(w) for n, w in zip((n_users, n_items), wanted, strict=True)]
        weights = [torch.randn(size, d) for size in sizes]
        scattered = [
            w if at is None else torch.zeros(n, d).index_add_(0, at, w)
            for w, at, n in zip(weights, wanted, (n_users, n_items), strict=True)
        ]
        for _ in runs(device):
            ours = graph.propagate(*x, n_layers, users=rows[0], items=rows[1])
            whole = graph.propagate(*x, n_layers)
            for side in (0, 1):
                expected = whole[side] if rows[side] is None else whole[side][rows[side]]
                assert torch.equal(ours[side], expected)
            gradients = torch.autograd.grad(ours, x, on(device, weights))
            expected = torch.autograd.grad(whole, x, on(device, scattered))
            assert all(torch.equal(a, b) for a, b in zip(gradients, expected, strict=True))


def double_inputs() -> tuple[ax.BipartiteGraph, Tensor, Tensor]:
    _, graph, x_users, x_items = graph_and_inputs(5, 4, 3, torch.float64, density=0.4)
    return graph, x_users.requires_grad_(), x_items.requires_grad_()


@pytest.mark.parametrize("n_layers", [0, 1, 3])
def test_gradcheck(n_layers: int) -> None:
    graph, *x = double_inputs()
    for users, items in product((None, torch.tensor([3, 0, 3])), (None, torch.tensor([1]))):

        def run(u: Tensor, i: Tensor, users: Any = users, items: Any = items) -> tuple[Tensor, Tensor]:
            return graph.propagate(u, i, n_layers, users=users, items=items)

        assert torch.autograd.gradcheck(run, x)
        assert torch.autograd.gradgradcheck(run, x)
    assert torch.autograd.gradcheck(graph.hop, x)


def test_hops_compose_to_propagation() -> None:
    """The form that dropout between layers or a regulariser on each layer takes."""
    graph, *x = double_inputs()
    layers = [tuple(x)]
    for _ in range(3):
        layers.append(graph.hop(*layers[-1]))
    mean = [torch.stack(side).mean(0) for side in zip(*layers, strict=True)]
    for ours, expected in zip(graph.propagate(*x), mean, strict=True):
        torch.testing.assert_close(ours, expected)
    weights = [torch.randn_like(m) for m in mean]
    torch.testing.assert_close(
        torch.autograd.grad(graph.propagate(*x), x, weights), torch.autograd.grad(mean, x, weights)
    )


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("d", [1, 17, 64, 132])
def test_dropout_of_a_hop(d: int, device: str) -> None:
    """What the twin drops, and no other bit changes but for the factor, a power of two here."""
    _, graph, *inputs = graph_and_inputs(60, 130, d)
    graph, x = graph.to(device), on(device, inputs)
    chosen = torch.tensor([3, 59, 3]), torch.tensor([0, 129])
    steps, seed = 2**15, 2**40 + 3
    for _ in runs(device):
        for users, items in ((None, None), chosen):
            wanted = on(device, (users, items))
            ours = torch.ops.adaptau.propagate(
                *x, *graph._adjacency, 1, False, *wanted, None, None, steps, seed
            )
            whole = torch.ops.adaptau.propagate(*x, *graph._adjacency, 1, False, *wanted)
            for got, plain, ids, first in zip(ours, whole, (users, items), (0, 60), strict=True):
                assert torch.equal(got.cpu(), reference.dropout(plain.cpu(), ids, first, steps, seed))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("d", [0, 1, 8, 17, 64, 200])
def test_dropout_is_its_twin(d: int, dtype: torch.dtype, device: str) -> None:
    """Rows that are numbered apart, in any stride, past 2^32; the factor is rounded once."""
    if device != "cpu" and dtype == torch.float64:
        pytest.skip("float64 is the CPU's")
    x = torch.randn(d, 37).to(dtype).T
    rows = torch.randint(2**40, (37,))
    x_there, rows_there = on(device, (x, rows))
    for _ in runs(device):
        for ids, there, first in ((None, None, 0), (rows, rows_there, 5)):
            ours = torch.ops.adaptau.dropout(x_there, there, first, 20_000, 2**50 + 7).cpu()
            exact = reference.dropout(x.double(), ids, first, 20_000, 2**50 + 7)
            assert torch.equal(ours == 0, exact == 0)
            torch.testing.assert_close(ours.double(), exact, rtol=2**-22, atol=0)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dropout", [0.0, 0.5])
@pytest.mark.parametrize("n_layers", [0, 1, 3])
def test_layers_are_hops(n_layers: int, dropout: float, device: str) -> None:
    """Values and gradients: hop by hop, with masks of the twin, by autograd."""
    csr, graph, *inputs = graph_and_inputs(12, 15, 8)
    graph = graph.to(device)
    x = [t.to(device).requires_grad_() for t in inputs]
    exact = [t.double().requires_grad_() for t in inputs]
    adjacency = reference.normalized_adjacency(csr, *exact)
    seed = draw_seed(torch.Generator().manual_seed(3))
    e = [torch.cat(exact)]
    for hop in range(1, n_layers + 1):
        e.append(reference.dropout(adjacency @ e[-1], None, 0, steps_of(dropout), seed + hop))
    whole = torch.stack(e)
    for users, items in product((None, torch.tensor([3, 0, 3])), (None, torch.tensor([1, 1]))):
        expected = [
            side if ids is None else side[:, ids]
            for side, ids in zip(whole.split([12, 15], 1), (users, items), strict=True)
        ]
        weights = [torch.randn(side.shape) for side in expected]
        exact_gradients = torch.autograd.grad(
            expected, exact, [w.double() for w in weights], retain_graph=True
        )
        wanted = dict(zip(("users", "items"), on(device, (users, items)), strict=True))
        for _ in runs(device):
            generator = torch.Generator().manual_seed(3)
            ours = graph.layers(*x, n_layers, **wanted, dropout=dropout, generator=generator)
            gradients = torch.autograd.grad(ours, x, on(device, weights))
            for got, right in zip((*ours, *gradients), (*expected, *exact_gradients), strict=True):
                torch.testing.assert_close(got.cpu().double(), right, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("n_layers", [0, 1, 3])
def test_layers_hop_by_hop_are_the_operator(n_layers: int) -> None:
    """What other devices do, on the CPU: the same masks, the same values."""
    _, graph, x_users, x_items = graph_and_inputs(60, 130, 8, torch.float64)
    x = x_users.requires_grad_(), x_items.requires_grad_()
    steps = 20_000
    for chosen in (
        (None, None),
        (torch.tensor([3, 0, 3]), None),
        (torch.tensor([2]), random_ids(130, 90)),
    ):
        generator = torch.Generator().manual_seed(7)
        ours = graph.layers(
            *x, n_layers, users=chosen[0], items=chosen[1], dropout=steps / 65536, generator=generator
        )
        seed = draw_seed(torch.Generator().manual_seed(7))
        hops = graph_module._HopByHop.apply(*x, *chosen, graph._adjacency, n_layers, steps, seed)
        weights = [torch.randn_like(side) for side in hops]
        for got, other in zip(
            (*ours, *torch.autograd.grad(ours, x, weights)),
            (*hops, *torch.autograd.grad(hops, x, weights)),
            strict=True,
        ):
            assert torch.equal(got == 0, other == 0)
            torch.testing.assert_close(got, other)


@pytest.mark.parametrize(
    ("d", "dtype"),
    [(17, torch.float32), (64, torch.float32), (64, torch.bfloat16), (5, torch.float64)],
)
def test_reordered_graphs_have_the_same_bits(
    d: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Values and gradients, with chosen rows and masks."""
    monkeypatch.setattr(reorder, "LEAF", 16)
    csr, plain, *inputs = graph_and_inputs(60, 130, d, dtype)
    reordered = ax.BipartiteGraph(csr, reorder=True)
    for order, n in zip(reordered._ready()[4:], (60, 130), strict=True):
        assert order is not None and torch.equal(order.sort().values, torch.arange(n).int())
        assert not torch.equal(order, torch.arange(n).int())
    x = [t.requires_grad_() for t in inputs]
    some_users, some_items = torch.tensor([3, 59, 3, 1, 2]), random_ids(130, 20)
    ways: list[Any] = [lambda g: g.hop(*x)]
    for users, items in ((None, None), (some_users, None), (some_users, some_items)):
        for n_layers in (0, 1, 3):
            options: dict[str, Any] = {"n_layers": n_layers, "users": users, "items": items}
            ways.append(lambda g, o=options: g.propagate(*x, **o))
            for p in (0.0, 0.3):
                ways.append(
                    lambda g, o=options, p=p: g.layers(
                        *x, **o, dropout=p, generator=torch.Generator().manual_seed(1)
                    )
                )
    for way in ways:
        ours, expected = way(reordered), way(plain)
        weights = [torch.randn_like(side) for side in expected]
        gradients = [torch.autograd.grad(out, x, weights) for out in (ours, expected)]
        for got, right in zip((*ours, *gradients[0]), (*expected, *gradients[1]), strict=True):
            assert torch.equal(got, right)


def test_an_order_is_given_up_and_found_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """On other devices the graph is as it came; copies have an order of their own."""
    monkeypatch.setattr(reorder, "LEAF", 16)
    csr, plain, *x = graph_and_inputs(60, 130, 8)
    graph = ax.BipartiteGraph(csr, reorder=True)
    expected = plain.propagate(*x)
    for one in (graph, copy.deepcopy(graph), pickle.loads(pickle.dumps(graph))):
        assert all(torch.equal(a, b) for a, b in zip(one.propagate(*x), expected, strict=True))
        assert one._adjacency[4] is not None
    away = graph.to("meta")
    assert away._adjacency[4:] == (None, None) and away.n_items == 130
    orders = [order for order in graph._adjacency[4:] if order is not None]
    before = graph._adjacency
    graph._renumber([torch.argsort(order).int() for order in orders])
    for got, right in zip(graph._adjacency[:4], plain._adjacency[:4], strict=True):
        assert got is not None and right is not None and torch.equal(got, right)
    assert not all(torch.equal(a, b) for a, b in zip(before[:4], plain._adjacency[:4], strict=True))


@pytest.mark.parametrize("device", GPUS)
def test_reordered_graphs_go_to_other_devices(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As they were."""
    monkeypatch.setattr(reorder, "LEAF", 16)
    csr, plain, *inputs = graph_and_inputs(60, 130, 8)
    reordered = ax.BipartiteGraph(csr, reorder=True)
    reordered._ready()
    reordered = reordered.to(device)
    for _ in runs(device):
        ours = reordered.propagate(*on(device, inputs))
        expected = plain.to(device).propagate(*on(device, inputs))
        assert all(torch.equal(a, b) for a, b in zip(ours, expected, strict=True))


def test_an_order_brings_neighbours_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sixteen groups whose members know each other alone, shuffled: hardly an order leaves them far apart."""
    monkeypatch.setattr(reorder, "LEAF", 50)
    generator = np.random.default_rng(0)
    users, items = generator.integers(0, 16, 600), generator.integers(0, 16, 700)
    same = users[:, None] == items
    csr = scipy.sparse.csr_array(same & (generator.random(same.shape) < 0.3))
    orders = reorder.locality_order(csr.indptr, csr.indices, 700)
    assert orders is not None

    def distance(places: Sequence[np.ndarray]) -> float:
        rows, columns = csr.nonzero()
        return float(np.abs(places[0][rows] / 600 - places[1][columns] / 700).mean())

    before = distance((np.arange(600), np.arange(700)))
    assert before > 0.3 and distance([np.argsort(order) for order in orders]) < 0.1
    few = csr[:50, :50]
    assert reorder.locality_order(few.indptr, few.indices, 50) is None


def test_an_order_of_graphs_without_much() -> None:
    """No edges at all, one side empty, one item that everybody knows."""
    large = reorder.LEAF + 1
    for shape, edges in (((large, 3), 0), ((0, large), 0), ((large, 1), large)):
        indptr = np.minimum(np.arange(shape[0] + 1), edges)
        orders = reorder.locality_order(indptr, np.zeros(edges, np.int64), shape[1])
        assert orders is not None
        for order, n in zip(orders, shape, strict=True):
            assert np.array_equal(np.sort(order), np.arange(n))


def test_layers_gradcheck() -> None:
    graph, *x = double_inputs()
    for options in ({}, {"users": torch.tensor([3, 0, 3]), "items": torch.tensor([1])}):

        def run(u: Tensor, i: Tensor, options: Any = options) -> tuple[Tensor, Tensor]:
            generator = torch.Generator().manual_seed(0)
            return graph.layers(u, i, 2, dropout=0.3, generator=generator, **options)

        assert torch.autograd.gradcheck(run, x)
        assert torch.autograd.gradgradcheck(run, x)

    def hop(u: Tensor, i: Tensor) -> Any:
        return torch.ops.adaptau.propagate(
            u, i, *graph._adjacency, 1, False, torch.tensor([3, 3]), None, None, None, 20_000, 5
        )

    assert torch.autograd.gradcheck(hop, x)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_computes_in_float32(dtype: torch.dtype, device: str) -> None:
    _, graph, *inputs = graph_and_inputs(60, 130, 64, dtype)
    graph, (x_users, x_items) = graph.to(device), on(device, inputs)
    for _ in runs(device):
        for ours, expected in zip(
            graph.propagate(x_users, x_items),
            graph.propagate(x_users.float(), x_items.float()),
            strict=True,
        ):
            assert torch.equal(ours, expected)
        leaf = x_users.detach().requires_grad_()
        sum(out.sum() for out in graph.propagate(leaf, x_items)).backward()  # type: ignore[union-attr]
        assert leaf.grad is not None and leaf.grad.dtype == dtype


@pytest.mark.parametrize("device", DEVICES)
def test_strides_do_not_matter(device: str) -> None:
    _, graph, *inputs = graph_and_inputs(60, 130, 64)
    graph, (x_users, x_items) = graph.to(device), on(device, inputs)
    rows, columns = torch.stack([x_users, x_users], 1)[:, 0], x_items.T.contiguous().T
    one = torch.randn(1, 64).to(device)
    for _ in runs(device):
        for strided, plain in (
            ((rows, columns), (x_users, x_items)),
            ((one.expand(60, 64), x_items), (one.repeat(60, 1), x_items)),
        ):
            for ours, same in zip(graph.propagate(*strided), graph.propagate(*plain), strict=True):
                assert torch.equal(ours, same)


def test_layers_of_gradients_may_lie_in_a_wider_table() -> None:
    """Read where they are, and the same as a copy."""
    _, graph, *_ = graph_and_inputs(60, 130, 64)
    for chosen in ((None, None), (torch.tensor([3, 0, 3]), None)):
        sizes = [n if ids is None else len(ids) for n, ids in zip((60, 130), chosen, strict=True)]
        wide = [torch.randn(3 * n, 80) for n in sizes]
        ours, expected = (
            torch.ops.adaptau.propagate_layers_backward(*grads, *graph._adjacency, 2, *chosen)
            for grads in ([w[:, 8:72] for w in wide], [w[:, 8:72].clone() for w in wide])
        )
        assert all(torch.equal(a, b) for a, b in zip(ours, expected, strict=True))


@pytest.mark.parametrize("d", [33, 64])
def test_bitwise_the_same_on_any_number_of_threads(d: int, restore_threads: None) -> None:
    _, graph, x_users, x_items = graph_and_inputs(3000, 2000, d, density=0.02)
    x_users.requires_grad_()
    x_items.requires_grad_()
    users, items = random_ids(3000, 500), random_ids(2000, 700)
    results = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        for options in ({}, {"users": users, "items": items}):
            generator = torch.Generator().manual_seed(1)
            layers = graph.layers(x_users, x_items, dropout=0.1, generator=generator, **options)
            for out in (graph.propagate(x_users, x_items, **options), layers):
                results.append([*out, *torch.autograd.grad(out, (x_users, x_items), out)])
    for k, other in enumerate(results[4:]):
        assert all(torch.equal(a, b) for a, b in zip(results[k % 4], other, strict=True))


def test_opcheck() -> None:
    csr, graph, x_users, x_items = graph_and_inputs(7, 11, 5)
    indptr, indices = (torch.from_numpy(part).long() for part in (csr.indptr, csr.indices))
    torch.library.opcheck(torch.ops.adaptau.bipartite_graph.default, (indptr, indices, 11))
    chosen = torch.tensor([3, 0, 3]), torch.tensor([10])
    for x in ((x_users, x_items), (x_users.requires_grad_(), x_items.requires_grad_())):
        for options in ((3, True, None, None), (2, True, *chosen), (1, False, None, chosen[1])):
            torch.library.opcheck(
                torch.ops.adaptau.propagate.default, (*x, *graph._adjacency, *options)
            )
        dropped = (1, False, *chosen, None, None, 20_000, 1)
        torch.library.opcheck(torch.ops.adaptau.propagate.default, (*x, *graph._adjacency, *dropped))
        layers = (*graph._adjacency, 2, *chosen, 20_000, 1)
        torch.library.opcheck(torch.ops.adaptau.propagate_layers.default, (*x, *layers))
        grads = [torch.randn(9, 5, requires_grad=x[0].requires_grad), torch.randn(3, 5)]
        torch.library.opcheck(torch.ops.adaptau.propagate_layers_backward.default, (*grads, *layers))
        for rows in (None, torch.randint(9, (7,))):
            torch.library.opcheck(torch.ops.adaptau.dropout.default, (x[0], rows, 4, 20_000, 1))


def test_compile_without_graph_breaks() -> None:
    _, graph, x_users, x_items = graph_and_inputs(60, 130, 8)
    leaves = x_users.requires_grad_(), x_items.requires_grad_()
    users, items = random_ids(60, 20), random_ids(130, 20)

    def step(u: Tensor, i: Tensor) -> Tensor:
        user_layers, item_layers = graph.layers(u, i, 2)
        u, i = graph.hop(user_layers.mean(0) * 2, item_layers[1])
        u, i = graph.propagate(u, i, users=users, items=items)
        return (u * i).sum()

    expected = step(*leaves)
    compiled = torch.compile(step, backend="aot_eager", fullgraph=True)(*leaves)
    torch.testing.assert_close(compiled, expected)
    torch.testing.assert_close(
        torch.autograd.grad(compiled, leaves), torch.autograd.grad(expected, leaves)
    )


def test_forms_of_interactions_are_equivalent() -> None:
    csr, graph, x_users, x_items = graph_and_inputs(60, 130, 8)
    arrays = (csr.indptr, csr.indices)
    tensors = (torch.from_numpy(csr.indptr), torch.from_numpy(csr.indices))
    ratings = scipy.sparse.csr_matrix((np.full(csr.nnz, 5.0), csr.indices, csr.indptr), csr.shape)
    expected = graph.propagate(x_users, x_items)
    for other in (
        ax.BipartiteGraph(arrays, 130),
        ax.BipartiteGraph(tensors, 130),
        ax.BipartiteGraph(ratings),
    ):
        assert (other.n_users, other.n_items, other.n_interactions) == (60, 130, csr.nnz)
        for ours, same in zip(other.propagate(x_users, x_items), expected, strict=True):
            assert torch.equal(ours, same)
    assert repr(graph) == f"BipartiteGraph(60 users, 130 items, {csr.nnz} interactions)"


G = ax.BipartiteGraph((torch.tensor([0, 2, 2, 3]), torch.tensor([0, 4, 1])), 5)
U, I = torch.randn(3, 4), torch.randn(5, 4)  # noqa: E741
LONG = torch.zeros(3, dtype=torch.int64)


def with_adjacency(position: int, tensor: Tensor) -> Any:
    adjacency = list(G._adjacency)
    adjacency[position] = tensor
    return torch.ops.adaptau.propagate(U, I, *adjacency, 1)


ERRORS: list[tuple[Any, str]] = [
    (lambda: ax.BipartiteGraph((torch.tensor([0, 2]), torch.tensor([3, 1])), 5),
     "interactions indices must be ascending and distinct within a row, got 3 then 1 in row 0; sort"),
    (lambda: ax.BipartiteGraph((torch.tensor([0, 1]), torch.tensor([5])), 5),
     r"interactions indices must lie in \[0, 5\), got 5"),
    (lambda: ax.BipartiteGraph((torch.tensor([1, 1]), torch.tensor([0])), 5),
     "interactions indptr must start at 0 and end at len"),
    (lambda: ax.BipartiteGraph((LONG[:0], LONG[:0]), 5), r"interactions indptr must have n_users \+ 1 entries"),
    (lambda: ax.BipartiteGraph((LONG, LONG[:0]), 2**31), r"n_items must be in \[0, 2\^31\), got 2147483648"),
    (lambda: G.propagate(U[:2], I), "x_users must have a row for each of the 3 users, got 2 rows"),
    (lambda: G.propagate(U, I[:4]), "x_items must have a row for each of the 5 items, got 4 rows"),
    (lambda: G.hop(U, I[:, :3]), "x_users and x_items must have the same number of columns d, got 4 and 3"),
    (lambda: G.hop(U, I.double()), "x_users and x_items must have the same dtype; convert"),
    (lambda: G.hop(U.int(), I.int()), "x_users must be float32, float64, bfloat16 or float16, got int32"),
    (lambda: G.hop(U[0], I), r"x_users must be a matrix \[rows, d\], got shape \[4\]"),
    (lambda: G.hop(U, I.to("meta")), "x_items must be on cpu like the embeddings, got meta; move"),
    (lambda: G.hop(U.to("meta"), I.to("meta")), "graph must be on meta like the embeddings, got cpu"),
    (lambda: G.propagate(U, I, -1), "n_layers must be >= 0, got -1"),
    (lambda: G.propagate(U, I, users=LONG + 3), r"users must lie in \[0, 3\), got 3 at position 0"),
    (lambda: G.propagate(U, I, items=LONG - 1), r"items must lie in \[0, 5\), got -1 at position 0"),
    (lambda: G.propagate(U, I, users=LONG.int()), r"users must be int64, got int32; convert it with .long\(\)"),
    (lambda: torch.ops.adaptau.propagate(U, I, *G._adjacency, 2, False, dropout=1), "dropout is of one layer without mean, got n_layers=2"),
    (lambda: torch.ops.adaptau.propagate(U, I, *G._adjacency, 1, False, dropout=-1), r"dropout must be in \[0, 65536\), got -1"),
    (lambda: torch.ops.adaptau.dropout(U, None, 0, 65536, 0), r"steps must be in \[0, 65536\), got 65536"),
    (lambda: torch.ops.adaptau.dropout(U, None, -1, 1, 0), r"first_row must be in \[0, 2\^62\), got -1"),
    (lambda: torch.ops.adaptau.dropout(U, LONG[:2], 0, 1, 0), "rows must"),
    (lambda: torch.ops.adaptau.dropout(U, LONG - 1, 0, 1, 0), "rows must lie in .* got -1"),
    # tensors that no BipartiteGraph made
    (lambda: with_adjacency(1, torch.tensor([0, 4, 5], dtype=torch.int32)), r"user_indices must lie in \[0, 5\), got 5"),
    (lambda: with_adjacency(3, torch.tensor([0, -1, 0], dtype=torch.int32)), r"item_indices must lie in \[0, 3\), got -1"),
    (lambda: with_adjacency(1, torch.tensor([0, 4, 1])), "user_indices must be int32, contiguous, .* got int64"),
    (lambda: with_adjacency(0, torch.tensor([0, 2, 1, 3])), "user_indptr must ascend from 0 to len"),
    (lambda: with_adjacency(4, torch.tensor([0, 2, 2], dtype=torch.int32)), "user_order must have each of the 3 nodes once"),
    (lambda: with_adjacency(4, torch.tensor([0, 2], dtype=torch.int32)), "user_order must have each of the 3 nodes once"),
    (lambda: with_adjacency(5, torch.tensor([0, 1, 2, 3, 5], dtype=torch.int32)), "item_order must have each of the 5 nodes once"),
    (lambda: with_adjacency(5, torch.tensor([0, 1, 2, 3, -1], dtype=torch.int32)), "item_order must have each of the 5 nodes once"),
    (lambda: with_adjacency(5, torch.arange(5)), "item_order must be int32, contiguous, .* got int64"),
    (lambda: G.layers(U, I, -1), "n_layers must be >= 0, got -1"),
    (lambda: G.layers(U, I, 2**62), "n_layers must be <= 65536, got"),
    (lambda: G.layers(U, I, 65536, users=LONG[:1].expand(40_000).contiguous()),
     r"n_layers \+ 1 times the rows wanted must be fewer than 2\^31, got 65537 times 40000"),
    (lambda: ax.BipartiteGraph((LONG[:2], LONG[:0]), 1).layers(
        U[:1, :1].expand(1, 2**62), U[:1, :1].expand(1, 2**62), users=LONG[:0], items=LONG[:0]),
     r"x_users must have fewer than 2\^31 columns d, got 4611686018427387904"),
    (lambda: torch.ops.adaptau.propagate_layers_backward(U, I, *G._adjacency, 1),
     "grad_users must have a row for each of the 3 users and layers, got 3 rows"),
]  # fmt: skip


@pytest.mark.parametrize("case", range(len(ERRORS)))
def test_errors(case: int) -> None:
    call, message = ERRORS[case]
    with pytest.raises(RuntimeError, match=message):
        call()


def test_forms_of_interactions_errors() -> None:
    with pytest.raises(TypeError, match=r"n_items is needed with a pair \(indptr, indices\)"):
        ax.BipartiteGraph((LONG, LONG[:0]))
    with pytest.raises(TypeError, match="interactions must be in CSR format, got a SciPy csc matrix"):
        ax.BipartiteGraph(scipy.sparse.csc_array((3, 5)))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="interactions must be a pair .* got list"):
        ax.BipartiteGraph([0, 1], 5)  # type: ignore[arg-type]
