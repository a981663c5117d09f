"""sampled_adaptive_softmax and draw_negatives: any arguments, against the twins."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import torch

import adaptau_ext as ax
from adaptau_ext import reference
from tests.fuzz.softmax import shared, temperature, twin_of
from tests.fuzz.target import Target
from tests.fuzz.tensors import explained, faults, matrix, mostly, seeds, sizes, spoil, threads
from tests.test_sampled_scores import compare as compare_scores
from tests.test_sampled_softmax import compare

NAMES = (
    "user_table", "item_table", "users", "positives", "tau", "positive_tau", "negatives", "n_negatives",
    "seed", "item_l2", "log_q", "denominator", "normalize", "reduction",
)  # fmt: skip
cases = st.fixed_dictionaries(
    {
        **shared,
        "rows": st.one_of(st.none(), sizes),
        "negatives": st.one_of(st.none(), sizes),
        "n_negatives": mostly(sizes, [-1, -(2**63), 2**32, 2**63 - 1]),
        "sampling seed": mostly(seeds, [-1, 2**63 - 1, 2**63]),
        "item_l2": mostly([0.0, 0.0, 1e-3], [-1.0, float("inf"), float("nan")]),
        "faults": faults(
            "user_table",
            "item_table",
            "users",
            "positives",
            "tau",
            "positive_tau",
            "negatives",
            "log_q",
        ),
    }
)


def arguments_of(case: dict[str, Any]) -> dict[str, Any]:
    n_users, n_items, d = case["shape"]
    draw = torch.Generator().manual_seed(case["seed"])
    compute = torch.float64 if case["dtype"] == "float64" else torch.float32
    given: dict[str, Any] = {}
    sides = zip(
        ("user_table", "item_table"), (n_users, n_items), case["values"], case["layouts"], strict=True
    )
    for name, n, values, layout in sides:
        given[name] = matrix(n, d, case["dtype"], values, layout, case["seed"] + len(name))
    n_rows = n_users if case["rows"] is None else case["rows"]

    def ids(n: int, *shape: int) -> torch.Tensor:
        return torch.randint(max(n, 1), shape, generator=draw)

    given["users"] = None if case["rows"] is None else ids(n_users, n_rows)
    given["positives"] = ids(n_items, n_rows)
    given["tau"] = temperature(*case["tau"], n_rows, compute)
    if case["positive_tau"]:
        given["positive_tau"] = torch.rand(n_rows, generator=draw, dtype=compute) + 0.3
    if case["log_q"]:
        given["log_q"] = torch.randn(n_items, generator=draw, dtype=compute)
    if case["negatives"] is not None:
        given["negatives"] = ids(n_items, n_rows, case["negatives"])
    options = ("n_negatives", "item_l2", "denominator", "normalize", "reduction")
    return {**given, **{name: case[name] for name in options}, "seed": case["sampling seed"]}


def check(case: dict[str, Any]) -> str:
    given = spoil(arguments_of(case), case["faults"])
    with threads(case["threads"]):
        try:
            loss = ax.sampled_adaptive_softmax(**given)
            rows = ax.sampled_adaptive_softmax(**{**given, "reduction": "none"})
        except Exception as problem:
            return explained(problem, NAMES)
        assert isinstance(loss, torch.Tensor) and isinstance(rows, torch.Tensor)
        n_rows = given["positives"].shape[0]
        assert loss.shape == ((n_rows,) if given["reduction"] == "none" else ())
        if any(x.is_meta for x in given.values() if isinstance(x, torch.Tensor)):
            return "meta"
        exact = reference.sampled_adaptive_softmax(**{**twin_of(given), "reduction": "none"})
        assert isinstance(exact, torch.Tensor)
        assert torch.equal(rows.isfinite(), exact.isfinite()), "finite elsewhere than the twin"
        finite = bool(rows.isfinite().all())
        plain = not case["faults"] and "not finite" not in case["values"] and case["shape"][1] > 0
        if plain and finite and case["tau"][0] == "rows":
            if "negatives" in given:  # then their number is what counts
                given["n_negatives"] = given["negatives"].shape[1]
            compare(**given)
            return f"gradients {case['dtype']} {case['normalize']} {case['denominator']}"
    return f"losses {case['dtype']} {'finite' if finite else 'not'}"


SCORES = ("u", "i", "items", "normalize")
score_cases = st.fixed_dictionaries(
    {
        name: shared[name]
        for name in ("shape", "dtype", "values", "layouts", "seed", "normalize", "threads")
    }
    | {"listed": sizes, "faults": faults("u", "i", "items")}
)


def check_scores(case: dict[str, Any]) -> str:
    n_rows, n_items, d = case["shape"]
    draw = torch.Generator().manual_seed(case["seed"])
    given: dict[str, Any] = {"normalize": case["normalize"]}
    sides = zip(("u", "i"), (n_rows, n_items), case["values"], case["layouts"], strict=True)
    for name, n, values, layout in sides:
        given[name] = matrix(n, d, case["dtype"], values, layout, case["seed"] + n)
    given["items"] = torch.randint(max(n_items, 1), (n_rows, case["listed"]), generator=draw)
    given = spoil(given, case["faults"])
    with threads(case["threads"]):
        try:
            scores = ax.sampled_scores(**given)
        except Exception as problem:
            return explained(problem, SCORES)
        if any(x.is_meta for x in given.values() if isinstance(x, torch.Tensor)):
            return "meta"
        exact = reference.sampled_scores(**twin_of(given))
        assert scores.shape == exact.shape
        assert torch.equal(scores.isfinite(), exact.isfinite()), "finite elsewhere than the twin"
        if not case["faults"] and "not finite" not in case["values"]:
            compare_scores(**given, device="cpu")
            return f"gradients {case['dtype']} {case['normalize']}"
    return f"scores {scores.dtype} {'finite' if scores.isfinite().all() else 'not'}"


draws = st.fixed_dictionaries(
    {
        "n_rows": mostly(sizes, [-1, -(2**63)]),
        "n_negatives": mostly(sizes, [-1, -(2**63)]),
        "n_items": mostly([1, 2, 3, 97, 2**20, 2**31 - 1, 2**30 + 7], [0, -1, 2**31, 2**63 - 1]),
        "seed": st.one_of(seeds, st.integers(-(2**63), 2**63 - 1)),
        "threads": st.integers(1, 3),
    }
)


def check_draw(case: dict[str, Any]) -> str:
    given = {name: x for name, x in case.items() if name != "threads"}
    with threads(case["threads"]):
        try:
            ids = ax.draw_negatives(**given)
        except Exception as problem:
            return explained(problem, ("n_rows", "n_negatives", "n_items", "seed"))
    assert torch.equal(ids, reference.draw_negatives(**given))
    return "drawn" if ids.numel() else "nothing drawn"


SORTED = ("csrc/cpu/samples.cpp", "csrc/cpu/samples.h")
LOSS = ("csrc/torch/sampled.h", "csrc/cpu/sampled.cpp", "csrc/core/philox.h")
SCORE = ("csrc/torch/scores.h", "csrc/cpu/sampled_scores.cpp")
RANDOM = ("csrc/torch/random.h", "csrc/core/philox.h", "csrc/torch/cpu/random.cpp")
TARGETS = [
    Target("sampled_adaptive_softmax", cases, check, (*LOSS, *SORTED)),
    Target("sampled_scores", score_cases, check_scores, (*SCORE, *SORTED)),
    Target("draw_negatives", draws, check_draw, RANDOM),
]
