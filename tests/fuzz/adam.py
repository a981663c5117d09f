"""adam_rows_: any arguments, against Adam's steps taken one by one in float64."""

from __future__ import annotations

import math
from typing import Any

import hypothesis.strategies as st
import torch
from torch import Tensor

from tests.budget import assert_within, roundoff
from tests.fuzz.target import Target
from tests.fuzz.tensors import (
    DTYPES,
    LAYOUTS,
    VALUES,
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

TABLES = ("parameter", "mean", "square")
NAMES = (*TABLES, "last_step", "rows", "gradient", "step", "lr", "beta1", "beta2", "epsilon")
# PyTorch resolves lazy views for operators that return something
WRITABLE = [layout for layout in LAYOUTS if layout != "negated"]
nan = float("nan")
cases = st.fixed_dictionaries(
    {
        "shape": st.tuples(sizes, sizes).map(list),
        "dtype": mostly(["float32", "float64"], list(DTYPES)),
        "values": st.lists(st.sampled_from(VALUES), min_size=4, max_size=4),
        "layout": mostly(["contiguous"], WRITABLE),
        "seed": seeds,
        "used": mostly([0, 1, 3, 40], [None]),
        "gradient": st.booleans(),
        "step": mostly([1, 2, 5, 30, 300], [0, -1, 2**26, 2**63 - 1]),
        "lr": mostly([0.0, 1e-3, 0.5], [-1.0, nan]),
        "beta1": mostly([0.0, 0.5, 0.9], [1.0, -0.1, nan]),
        "beta2": mostly([0.0, 0.9, 0.999], [1.0, nan]),
        "epsilon": mostly([1e-8, 1e-3], [0.0, -1.0, nan]),
        "threads": st.integers(1, 3),
        "faults": faults(*TABLES, "last_step", "rows", "gradient"),
    }
)


def arguments(case: dict[str, Any]) -> dict[str, Any]:
    (n, d), used, step = case["shape"], case["used"], case["step"]
    draw = torch.Generator().manual_seed(case["seed"])

    def table(place: int, rows: int) -> Tensor:
        layout = case["layout"] if place == case["seed"] % 4 else "contiguous"
        return matrix(rows, d, case["dtype"], case["values"][place], layout, case["seed"] + place)

    given: dict[str, Any] = {name: table(place, n) for place, name in enumerate(TABLES)}
    given["square"] = given["square"].square()
    with_gradient = used is not None and case["gradient"]
    missed = max(0, min(step - with_gradient, 300))
    given["last_step"] = torch.randint(missed + 1, (n,), generator=draw)
    given["rows"] = given["gradient"] = None
    if used is not None:
        given["rows"] = torch.randint(max(n, 1), (used if n else 0,), generator=draw)
    if with_gradient:
        given["gradient"] = table(3, len(given["rows"]))
    return spoil(given, case["faults"])


def check(case: dict[str, Any]) -> str:
    given, before = arguments(case), made_whole(arguments(case))  # the same: one to be changed
    options = {name: case[name] for name in ("step", "lr", "beta1", "beta2", "epsilon")}
    with threads(case["threads"]), torch.no_grad():
        try:
            torch.ops.adaptau.adam_rows_(**given, **options)
        except Exception as problem:
            return explained(problem, NAMES)
    if any(x is not None and x.is_meta for x in before.values()):
        return "meta"
    rows, gradient, n = before["rows"], before["gradient"], len(before["parameter"])
    used, place = (torch.arange(n) if rows is None else rows).unique(return_inverse=True)
    others = torch.ones(n, dtype=torch.bool).index_fill(0, used, False)
    for name in TABLES:
        unused = given[name][others], before[name][others]
        assert torch.equal(*(x.nan_to_num(0.5) for x in unused)), f"{name} of other rows"
    last = before["last_step"].clone()
    assert torch.equal(given["last_step"], last.index_fill(0, used, case["step"]))

    start = [before[name][used].double() for name in TABLES]
    total = size = None
    if gradient is not None:
        total, size = (
            torch.zeros_like(start[0]).index_add_(0, place, x.double())
            for x in (gradient, gradient.abs())
        )
    finite = all(x.isfinite().all() for x in (*start, *([] if size is None else [size])))
    if not finite or case["epsilon"] == 0 or bool((start[2] < 0).any()):  # 0 / 0, roots of negatives
        return "not a number"
    repeated = int(place.bincount().max()) if len(place) else 1
    exact, allowed = stepped(
        start, last[used], total, size, repeated, roundoff(before["parameter"].dtype), **options
    )
    for name, own, budget in zip(TABLES, exact, allowed, strict=True):
        assert_within(given[name][used], own, budget, name)
    return f"moved {case['dtype']} {case['step']} {case['used']} {gradient is not None}"


def stepped(
    start: list[Tensor], last: Tensor, gradient: Tensor | None, size: Tensor | None, repeated: int,
    unit: float, step: int, lr: float, beta1: float, beta2: float, epsilon: float,
) -> tuple[list[Tensor], list[Tensor]]:  # fmt: skip
    """Parameter, mean and square after the steps that rows missed and one with a gradient, and budgets.

    size: of a gradient of `repeated` terms, the sum of their sizes. A step without a gradient moves a
    number by a quotient of some ten roundings, and adds it to those before.
    """

    def off_corrections(t: int) -> float:  # relative: powers of t roundings, next to 1
        powers = beta1**t, beta2**t
        return (t + 2) * roundoff(torch.float64) * sum(power / (1 - power) for power in powers)

    parameter, mean, square = start
    last = last[:, None]
    first = min(last[last > 0].tolist(), default=step)
    moved, path, off_path = (torch.zeros_like(mean) for _ in range(3))
    for t in range(first + 1, step + (gradient is None)):
        late = (last > 0) & (t > last)
        mean, square = torch.where(late, mean * beta1, mean), torch.where(late, square * beta2, square)
        root = (square / (1 - beta2**t)).sqrt()
        by = torch.where(late, lr * mean / (1 - beta1**t) / (root + epsilon), 0.0)
        moved, path = moved + by, path + by.abs()
        off_path += by.abs() * (off_corrections(t) + 12 * unit) + path * unit
    tiny = float(torch.finfo(torch.float32).tiny) if unit > 1e-10 else 0.0
    off_decay = 2 * unit + 2 * (step - first) * roundoff(torch.float64)  # as powers
    parameter = parameter - moved
    off = [
        2 * unit * (start[0].abs() + path) + off_path,
        off_decay * mean.abs() + tiny,
        off_decay * square + tiny,
    ]
    if gradient is None:
        return [parameter, mean, square], off
    assert size is not None
    new_mean = beta1 * mean + (1 - beta1) * gradient
    new_square = beta2 * square + (1 - beta2) * gradient.square()
    of_sum = (repeated + 4) * unit
    off_mean = off[1] + of_sum * (mean.abs() + size)
    off_square = off[2] + 2 * of_sum * (square + size.square())
    correct = 1 / math.sqrt(1 - beta2**step)
    root = new_square.sqrt()
    off_root = torch.minimum(off_square / root, off_square.sqrt()).nan_to_num(0.0)
    below = root * correct + epsilon
    off_below = off_root * correct + 4 * unit * below
    rate = lr / (1 - beta1**step)
    by = rate * new_mean / below
    least = (below - off_below).clamp_min(epsilon * (1 - 4 * unit))
    off_by = rate * off_mean / least
    off_by += by.abs() * (off_below / least + off_corrections(step) + 8 * unit)
    off_parameter = off[0] + off_by + 2 * unit * (parameter.abs() + by.abs())
    return [parameter - by, new_mean, new_square], [off_parameter, off_mean, off_square]


TARGETS = [
    Target("adam_rows_", cases, check, ("csrc/torch/adam.h", "csrc/cpu/adam.cpp")),
]
