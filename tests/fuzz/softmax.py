"""fused_adaptive_softmax: any arguments, against the float64 twin."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import torch
from torch import Tensor

import adaptau_ext as ax
from adaptau_ext import reference
from tests.budget import LossBudget
from tests.fuzz.target import Target
from tests.fuzz.tensors import (
    DTYPES,
    LAYOUTS,
    VALUES,
    csr,
    explained,
    faults,
    made_whole,
    matrix,
    mostly,
    seeds,
    sizes,
    spoil,
    threads,
)
from tests.test_fused_softmax import compare, float64

NAMES = (
    "u", "i", "tau", "target", "positive_tau", "log_q", "item_ids", "exclude", "denominator", "normalize",
    "precision", "workspace_mib", "reduction",
)  # fmt: skip
shared = {
    "shape": st.tuples(sizes, sizes, sizes).map(list),
    "dtype": st.sampled_from(list(DTYPES)),
    "values": st.lists(st.sampled_from(VALUES), min_size=2, max_size=2),
    "layouts": st.lists(st.sampled_from(LAYOUTS), min_size=2, max_size=2),
    "seed": seeds,
    "tau": st.tuples(
        st.sampled_from(["float", "scalar", "rows", "rows", "rows"]), st.floats(0.02, 8)
    ).map(list),
    "positive_tau": st.booleans(),
    "log_q": st.booleans(),
    "denominator": mostly(["all", "negatives"], ["some"]),
    "normalize": mostly(["both", "user", "item", "none"], ["", "all"]),
    "reduction": mostly(["mean", "sum", "none"], ["avg"]),
    "threads": st.integers(1, 3),
}
cases = st.fixed_dictionaries(
    {
        **shared,
        "target": st.sampled_from(["none", "given", "some without"]),
        "item_ids": st.booleans(),
        "exclude": st.sampled_from([None, 0.0, 0.2, 1.0]),
        "precision": mostly(["float32", "float32", "bfloat16", "tf32"], ["float8"]),
        "workspace_mib": mostly([64, 1, 0], [2**43, 2**63 - 1, -1]),
        "faults": faults(
            "u", "i", "tau", "target", "positive_tau", "log_q", "item_ids", "exclude.0", "exclude.1"
        ),
    }
)


def temperature(kind: str, value: float, n_rows: int, compute: torch.dtype) -> Any:
    if kind == "float":
        return value
    tau = torch.full((n_rows,) if kind == "rows" else (), value, dtype=compute)
    return tau * torch.linspace(1, 2, n_rows, dtype=compute) if kind == "rows" else tau


def arguments_of(case: dict[str, Any]) -> dict[str, Any]:
    n_rows, n_items, d = case["shape"]
    draw = torch.Generator().manual_seed(case["seed"])
    compute = torch.float64 if case["dtype"] == "float64" else torch.float32
    u, i = (
        matrix(n, d, case["dtype"], values, layout, case["seed"] + side)
        for side, (n, values, layout) in enumerate(
            zip((n_rows, n_items), case["values"], case["layouts"], strict=True)
        )
    )
    given: dict[str, Any] = {"u": u, "i": i, "tau": temperature(*case["tau"], n_rows, compute)}
    if case["target"] != "none":
        lowest = -1 if case["target"] == "some without" else 0
        given["target"] = torch.randint(lowest, max(n_items, 1), (n_rows,), generator=draw)
    if case["positive_tau"]:
        given["positive_tau"] = torch.rand(n_rows, generator=draw, dtype=compute) + 0.3
    if case["log_q"]:
        given["log_q"] = torch.randn(n_items, generator=draw, dtype=compute)
    if case["item_ids"]:
        given["item_ids"] = torch.randint(max(n_items // 2, 1), (n_items,), generator=draw)
    if case["exclude"] is not None:
        sparse = csr(n_rows, n_items, case["exclude"], case["seed"])
        given["exclude"] = tuple(torch.from_numpy(x).long() for x in (sparse.indptr, sparse.indices))
    options = ("denominator", "normalize", "precision", "workspace_mib", "reduction")
    return {**given, **{name: case[name] for name in options}}


def run(module: Any, given: dict[str, Any]) -> Tensor:
    losses: Tensor = module.fused_adaptive_softmax(**{**given, "reduction": "none"})
    return losses


def check(case: dict[str, Any]) -> str:
    given = spoil(arguments_of(case), case["faults"])
    with threads(case["threads"]):
        try:
            loss = ax.fused_adaptive_softmax(**given)
            rows = run(ax, given)
        except Exception as problem:
            return explained(problem, NAMES)
        assert isinstance(loss, Tensor)
        n_rows = given["u"].shape[0]
        assert loss.shape == ((n_rows,) if given["reduction"] == "none" else ())
        if any(x.is_meta for x in given.values() if isinstance(x, Tensor)):
            return "meta"
        assert_rows(rows, run(reference, twin_of(given)), given)
        plain = not case["faults"] and "not finite" not in case["values"]
        if plain and case["tau"][0] == "rows" and bool(rows.isfinite().all()):
            given.pop("workspace_mib"), given.pop("precision")
            u, i, tau = (given.pop(name) for name in ("u", "i", "tau"))
            compare(u, i, tau, **given)
            return f"gradients {case['dtype']} {case['normalize']} {case['denominator']}"
    return f"losses {case['dtype']} {case['precision']} {'finite' if rows.isfinite().all() else 'not'}"


def twin_of(given: dict[str, Any]) -> dict[str, Any]:
    """In float64, as the operators read booleans and integers, too."""
    given = made_whole(given)
    taus = ("tau", "positive_tau", "log_q")
    return {
        name: x.double() if name in taus and isinstance(x, Tensor) else float64(x)
        for name, x in given.items()
    }


def assert_rows(rows: Tensor, exact: Tensor, given: dict[str, Any]) -> None:
    """Within the budget where the twin is finite, and not finite where it is not."""
    u, i = given["u"], given["i"]
    taus = [
        torch.as_tensor(given[name]).double().flatten()
        for name in ("tau", "positive_tau")
        if name in given
    ]
    compute = torch.float64 if u.dtype == torch.float64 else torch.float32
    finite_rows = [x[x.double().norm(dim=1).isfinite()] for x in (u, i)]
    coarse = given["precision"] == "bfloat16" and compute == torch.float32
    budget = LossBudget.of(
        compute, *finite_rows, torch.cat(taus), given["normalize"], max(len(u), len(i)),
        2.0**-14 if coarse else 0.0,  # scores from integers of 15 bits
    )  # fmt: skip
    finite = rows.isfinite()
    assert bool((exact.isfinite() | ~finite).all()), "finite where the twin is not"
    # integers of 15 bits have no infinity, whatever its sign
    assert coarse or bool((finite | ~exact.isfinite()).all()), "not finite where the twin is"
    off = (rows.double() - exact)[finite].abs() - exact[finite].abs() * 8 * budget.u - budget.loss
    assert not bool((off > 0).any()), f"off by {float(off.max()):.3g} more than the budget"


REACHES = (
    "csrc/torch/fused.h", "csrc/torch/results.h", "csrc/torch/terms.h", "csrc/torch/tensors.cpp",
    "csrc/cpu/softmax.cpp", "csrc/cpu/softmax_products.h", "csrc/cpu/exp_tiles.h", "csrc/cpu/tile_masks.h",
    "csrc/cpu/masks.cpp", "csrc/cpu/rows.cpp", "csrc/core/loss_row.h", "adaptau_ext/ops.py",
    "adaptau_ext/arguments.py", "adaptau_ext/autograd.py",
)  # fmt: skip
TARGETS = [Target("fused_adaptive_softmax", cases, check, REACHES)]
