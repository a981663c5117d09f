"""topk, ItemIndex, ranks and target_scores: any arguments, against the twins and each other."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import torch
from torch import Tensor

import adaptau_ext as ax
from adaptau_ext import reference
from tests.budget import assert_same_ranking, assert_within
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
from tests.test_retrieval import score_budget

NAMES = ("u", "i", "k", "exclude", "targets", "normalize", "target_scores", "first_item", "item_bytes")
shared = {
    # the scan of bytes starts at some hundreds of items
    "shape": st.tuples(sizes, st.one_of(sizes, st.integers(200, 3000)), sizes).map(list),
    "dtype": st.sampled_from(list(DTYPES)),
    "values": st.lists(st.sampled_from(VALUES), min_size=2, max_size=2),
    "layouts": st.lists(st.sampled_from(LAYOUTS), min_size=2, max_size=2),
    "seed": seeds,
    "exclude": st.sampled_from([None, 0.0, 0.1, 0.5, 1.0]),
    "normalize": mostly(["both", "user", "item", "none", "none"], [""]),
    "threads": st.integers(1, 3),
}
csr_faults = ("exclude.0", "exclude.1")
cases = st.fixed_dictionaries(
    {
        **shared,
        "k": mostly(sizes, [-1, 2**31, 2**63 - 1, -(2**63)]),
        "index": st.booleans(),
        "faults": faults("u", "i", *csr_faults),
    }
)
rank_cases = st.fixed_dictionaries(
    {
        **shared,
        "targets": st.sampled_from([0.0, 0.02, 0.3]),
        "faults": faults("u", "i", *csr_faults, "targets.0", "targets.1"),
    }
)
part_cases = st.fixed_dictionaries(
    {
        **shared,
        "targets": st.sampled_from([0.0, 0.05]),
        "first_item": mostly(sizes, [-1, 2**31, 2**62, 2**63 - 1, -(2**63)]),
        "faults": faults(
            "u", "i", "targets.0", "targets.1", "target_scores", "item_bytes", "item_meta"
        ),
    }
)


def sparse_pair(n_rows: int, n_items: int, density: float, seed: int) -> tuple[Tensor, ...]:
    found = csr(n_rows, n_items, density, seed)
    return tuple(torch.from_numpy(x).long() for x in (found.indptr, found.indices))


def arguments_of(case: dict[str, Any]) -> dict[str, Any]:
    n_rows, n_items, d = case["shape"]
    sides = zip(("u", "i"), (n_rows, n_items), case["values"], case["layouts"], strict=True)
    given: dict[str, Any] = {
        name: matrix(n, d, case["dtype"], values, layout, case["seed"] + n)
        for name, n, values, layout in sides
    }
    if case["exclude"] is not None:
        given["exclude"] = sparse_pair(n_rows, n_items, case["exclude"], case["seed"])
    if "targets" in case:
        given["targets"] = sparse_pair(n_rows, n_items, case["targets"], case["seed"] + 1)
    return {**given, "normalize": case["normalize"]}


def topk(given: dict[str, Any], k: int, index: bool) -> tuple[Tensor, Tensor]:
    if not index:
        return ax.topk(**given, k=k)
    items = ax.ItemIndex(given["i"], normalize=given["normalize"])
    return items.topk(given["u"], k, exclude=given.get("exclude"))


def check_topk(case: dict[str, Any]) -> str:
    given = spoil(arguments_of(case), case["faults"])
    with threads(case["threads"]):
        try:
            scores, ids = topk(given, case["k"], case["index"])
        except Exception as problem:
            return explained(problem, NAMES)
        u, i, n_rows = given["u"], given["i"], given["u"].shape[0]
        assert scores.shape == ids.shape == (n_rows, case["k"])
        if ids.is_meta:
            return "meta"
        if not case["faults"]:  # an index of unit rows takes users of more dtypes
            again = topk(given, case["k"], not case["index"])
            assert torch.equal(ids, again[1])
            assert torch.equal(scores.nan_to_num(0.5), again[0].nan_to_num(0.5))
    excluded = reference.csr_mask(given.get("exclude"), n_rows, len(i), u.device)
    assert not bool(excluded.gather(1, ids).any())
    exact_values = {"small integers"}.issuperset(case["values"]) and given["normalize"] == "none"
    if exact_values and not case["faults"]:  # every score is exact: the order must be, too
        options = {k: v for k, v in given.items() if k not in ("u", "i")}
        expected = reference.topk(u.double(), i.double(), case["k"], **options)[1]
        assert torch.equal(ids, expected)
        return f"the exact order {case['dtype']}"
    if not (u.isfinite().all() and i.isfinite().all()):
        return f"not finite {case['dtype']}"
    user, item = reference.normalized_pair(u.double(), i.double(), given["normalize"])
    budget = score_budget(u, i, given["normalize"], "cpu")
    assert_same_ranking(ids, scores, user @ item.T, ~excluded, budget)
    return f"{'index' if case['index'] else 'topk'} {case['dtype']} {given['normalize']}"


def check_ranks(case: dict[str, Any]) -> str:
    """A rank is the place in the whole top-k, excluded targets aside."""
    given = spoil(arguments_of(case), case["faults"])
    with threads(case["threads"]):
        try:
            ranks = ax.ranks(**given)
        except Exception as problem:
            return explained(problem, NAMES)
        if ranks.is_meta:
            return "meta"
        indptr, indices = given["targets"]
        assert ranks.shape == (len(indices),) and ranks.dtype == torch.int64
        n_items = len(given["i"])
        assert bool(((ranks >= 1) & (ranks <= n_items)).all())
        if n_items == 0 or len(indices) == 0:
            return "nothing to rank"
        excluded = reference.csr_mask(
            given.get("exclude"), len(given["u"]), n_items, torch.device("cpu")
        )
        order = ax.topk(given["u"], given["i"], n_items, normalize=given["normalize"])[1]
        rows = torch.arange(len(given["u"])).repeat_interleave(indptr.long().diff())
        place = order.argsort(1)
        for row, target, rank in zip(rows.tolist(), indices.tolist(), ranks.tolist(), strict=True):
            before = order[row, : place[row, target]]
            assert rank == 1 + int((~excluded[row, before]).sum()), (row, target)
    return f"ranks {case['dtype']} {given['normalize']}"


def check_parts(case: dict[str, Any]) -> str:
    """The operators below: scores of targets, ranks within a part, packed items of another catalogue."""
    ops = torch.ops.adaptau
    given = arguments_of(case)
    u, i = given["u"], given["i"]
    with threads(case["threads"]):
        try:
            given["target_scores"] = ops.target_scores(u, i, *given["targets"], given["normalize"])
            packed = ops.pack_items(i)
        except Exception as problem:
            return explained(problem, NAMES)
        given["item_bytes"], given["item_meta"], centre = packed
        exact = not case["faults"]
        given = spoil(given, case["faults"])
        u, i, targets = given["u"], given["i"], given["targets"]
        first = case["first_item"]
        try:
            scores = ops.target_scores(u, i, *targets, given["normalize"])
            ranks = ops.ranks(
                u, i, *targets, None, None, given["normalize"], given["target_scores"], first
            )
            if len(i) and centre.numel() and given["normalize"] in ("none", "user"):
                ops.topk(
                    u,
                    i,
                    1,
                    None,
                    None,
                    given["normalize"],
                    given["item_bytes"],
                    given["item_meta"],
                    centre,
                )
        except Exception as problem:
            return explained(problem, (*NAMES, "item_meta"))
    if any(fault == "meta" for _, fault in case["faults"]):  # then a fake kernel runs
        return "meta"
    assert bool((ranks >= 1).all()) and bool((ranks <= len(i) + 1).all())
    if exact and u.isfinite().all() and i.isfinite().all():
        rows = torch.arange(len(u)).repeat_interleave(targets[0].diff())
        user, item = reference.normalized_pair(u.double(), i.double(), given["normalize"])
        expected = (user[rows] * item[targets[1]]).sum(1)
        assert_within(scores, expected, score_budget(u, i, given["normalize"], "cpu"), "target_scores")
        return f"scores {case['dtype']} {given['normalize']}"
    return f"part {case['dtype']}"


TOPK = (
    "csrc/torch/retrieval.h", "csrc/torch/cpu/retrieval.cpp", "csrc/cpu/topk.cpp", "csrc/cpu/byte_scan.cpp",
    "csrc/cpu/candidate_lists.h", "csrc/cpu/rough_lists.h", "csrc/cpu/quantized.cpp", "csrc/cpu/scan.h",
    "csrc/core/order.h", "adaptau_ext/index.py",
)  # fmt: skip
RANKS = ("csrc/torch/retrieval.h", "csrc/cpu/ranks.cpp", "csrc/cpu/scan.h", "csrc/core/order.h")
TARGETS = [
    Target("topk", cases, check_topk, TOPK),
    Target("ranks", rank_cases, check_ranks, RANKS),
    Target("target_scores", part_cases, check_parts, RANKS),
]
