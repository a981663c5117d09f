"""BipartiteGraph, its propagation and layers, and dropout: any arguments, against the twins."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any
from unittest import mock

import hypothesis.strategies as st
import scipy.sparse
import torch
from torch import Tensor

import adaptau_ext as ax
from adaptau_ext import reference, reorder
from adaptau_ext.dropout import dropout
from tests.budget import assert_within, roundoff
from tests.fuzz.target import Target
from tests.fuzz.tensors import (
    DTYPES,
    LAYOUTS,
    VALUES,
    csr,
    explained,
    faults,
    matrix,
    mostly,
    seeds,
    sizes,
    spoil,
    threads,
)
from tests.test_graph import budget

NAMES = (
    "interactions", "n_items", "x_users", "x_items", "users", "items", "n_layers", "dropout", "p", "graph",
    "x", "rows", "first_row", "steps",
)  # fmt: skip
cases = st.fixed_dictionaries(
    {
        "shape": st.tuples(sizes, sizes, sizes).map(list),
        "dtype": st.sampled_from(list(DTYPES)),
        "values": st.lists(st.sampled_from(VALUES[:-1]), min_size=2, max_size=2),
        "layouts": st.lists(st.sampled_from(LAYOUTS), min_size=2, max_size=2),
        "seed": seeds,
        "density": st.sampled_from([0.0, 0.1, 0.5, 1.0]),
        "n_items": mostly([None], [1, -1, 2**31, 2**63 - 1]),
        "n_layers": mostly([0, 1, 2, 3], [-1, -(2**63)]),
        "chosen": st.lists(st.booleans(), min_size=2, max_size=2),
        "reorder": st.booleans(),
        "dropout": mostly([None, None, 0.0, 0.5, 0.99999], [1.0, -0.1, float("nan")]),
        "threads": st.integers(1, 3),
        "faults": faults("interactions.0", "interactions.1", "x_users", "x_items", "users", "items"),
    }
)


def check(case: dict[str, Any]) -> str:
    n_users, n_items, d = case["shape"]
    draw = torch.Generator().manual_seed(case["seed"])
    sparse = csr(n_users, n_items, case["density"], case["seed"])
    given: dict[str, Any] = {
        "interactions": tuple(torch.from_numpy(x).long() for x in (sparse.indptr, sparse.indices))
    }
    for side, (name, n) in enumerate((("users", n_users), ("items", n_items))):
        values, layout = case["values"][side], case["layouts"][side]
        given[f"x_{name}"] = matrix(n, d, case["dtype"], values, layout, case["seed"] + side)
        if case["chosen"][side]:
            given[name] = torch.randint(max(n, 1), (case["seed"] % 7 if n else 0,), generator=draw)
    given = spoil(given, case["faults"])
    x = given["x_users"], given["x_items"]
    chosen: dict[str, Any] = {name: given.get(name) for name in ("users", "items")}
    # cases that were kept before there was an order have none
    ordered = {"reorder": case.get("reorder", False)}
    with threads(case["threads"]), mock.patch.object(reorder, "LEAF", 2):
        try:
            graph = ax.BipartiteGraph(given["interactions"], case["n_items"] or n_items, **ordered)
            if case["dropout"] is not None:
                return check_layers(graph, given["interactions"], sparse, x, chosen, case)
            out = graph.propagate(*x, case["n_layers"], **chosen)
        except Exception as problem:
            return explained(problem, NAMES)
    if any(part.is_meta for part in out):
        return "meta"
    twin = reference.propagate(
        given["interactions"], *(part.double() for part in x), case["n_layers"], **chosen
    )
    allowed = budget(sparse, *x, case["n_layers"])
    if not all(part.isfinite().all() for part in x):
        return "not finite"
    for ours, exact in zip(out, twin, strict=True):
        assert_within(ours, exact, allowed)
    return f"propagated {case['dtype']} {case['n_layers']} {case['chosen']}"


def check_layers(
    graph: ax.BipartiteGraph,
    interactions: Any,
    sparse: scipy.sparse.csr_array,
    x: tuple[Tensor, Tensor],
    chosen: dict[str, Any],
    case: dict[str, Any],
) -> str:
    """The same bits whatever the order, a backward pass that is the transpose, and without dropout the
    mean that `propagate` has."""

    def run(graph: ax.BipartiteGraph, x: tuple[Tensor, ...] = x) -> tuple[Tensor, Tensor]:
        seed = torch.Generator().manual_seed(case["seed"])
        options = {**chosen, "dropout": case["dropout"], "generator": seed}
        return graph.layers(*x, case["n_layers"], **options)

    out = run(graph)
    if any(part.is_meta for part in out):
        return "meta"
    again = run(ax.BipartiteGraph(interactions, graph.n_items))
    assert all(
        torch.equal(a.nan_to_num(0.5), b.nan_to_num(0.5)) for a, b in zip(out, again, strict=True)
    )
    if all(part.isfinite().all() for part in x):
        check_transpose(x, out, lambda *leaves: run(graph, leaves))
    if case["dropout"] == 0 and all(part.isfinite().all() for part in x):
        wide = [part.double() for part in x]
        twin = reference.propagate(interactions, *wide, case["n_layers"], **chosen)
        allowed = 2 * budget(sparse, *x, case["n_layers"])
        for ours, exact in zip(out, twin, strict=True):
            assert_within(ours.double().mean(0), exact, allowed)
    return f"layers {case['dtype']} {case['n_layers']} {case['dropout']}"


def check_transpose(x: tuple[Tensor, Tensor], out: Any, layers: Callable[..., Any]) -> None:
    """<out, out> = <x, gradient of it>: linear, to the roundings of the terms."""
    leaves = [part.detach().clone().requires_grad_() for part in x]
    gradients = torch.autograd.grad(layers(*leaves), leaves, [side.detach() for side in out])
    squares = sum(float(side.detach().double().square().sum()) for side in out)
    terms = [a.detach().double() * g.double() for a, g in zip(x, gradients, strict=True)]
    products = sum(float(side.sum()) for side in terms)
    size = sum(float(side.abs().sum()) for side in terms)
    # gradients come back in the dtype of x
    loss = 200 * max(roundoff(torch.float32), roundoff(x[0].dtype))
    if math.isfinite(squares) and math.isfinite(size):
        assert abs(products - squares) <= loss * (squares + size)


drops = st.fixed_dictionaries(
    {
        "shape": st.tuples(sizes, sizes).map(list),
        "dtype": st.sampled_from(list(DTYPES)),
        "values": st.sampled_from(VALUES),
        "layout": st.sampled_from(LAYOUTS),
        "seed": seeds,
        "rows": st.booleans(),
        "first_row": mostly([0, 5, 2**40], [-1, 2**63 - 1]),
        "steps": mostly([0, 1, 6554, 65535], [65536, -1, 2**63 - 1]),
        "threads": st.integers(1, 3),
        "faults": faults("x", "rows"),
    }
)


def check_dropout(case: dict[str, Any]) -> str:
    n, d = case["shape"]
    given: dict[str, Any] = {
        "x": matrix(n, d, case["dtype"], case["values"], case["layout"], case["seed"])
    }
    if case["rows"]:
        given["rows"] = torch.randint(
            2**40, (n,), generator=torch.Generator().manual_seed(case["seed"])
        )
    given = spoil(given, case["faults"])
    x, rows, first, steps = given["x"], given.get("rows"), case["first_row"], case["steps"]
    with threads(case["threads"]):
        try:
            ours = torch.ops.adaptau.dropout(x, rows, first, steps, case["seed"])
            dropout(x, steps / 65536)
        except Exception as problem:
            return explained(problem, NAMES)
    if x.is_meta or (rows is not None and rows.is_meta):
        return "meta"
    exact = reference.dropout(x.double(), rows, first, steps, case["seed"])
    assert torch.equal(ours == 0, exact.to(ours.dtype) == 0)
    torch.testing.assert_close(
        ours.double(), exact.to(ours.dtype).double(), rtol=2**-22, atol=0, equal_nan=True
    )
    return f"dropped {case['dtype']} {steps}"


GRAPH = (
    "csrc/torch/propagation.h",
    "csrc/cpu/propagate.cpp",
    "adaptau_ext/graph.py",
    "adaptau_ext/reorder.py",
)
DROPOUT = (
    "csrc/torch/random.h",
    "csrc/cpu/dropout.cpp",
    "csrc/core/philox.h",
    "adaptau_ext/dropout.py",
)
TARGETS = [
    Target("BipartiteGraph", cases, check, GRAPH),
    Target("dropout", drops, check_dropout, DROPOUT),
]
