"""Instruction-set levels: every level this machine has gives results within the same budgets."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache

import pytest
import torch

import adaptau_ext  # noqa: F401  (registers the operators)


def at_level(level: str, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-I", *command],  # the installed package, not the folder beside us
        env={**os.environ, "ADAPTAU_ISA": level},
        capture_output=True,
        text=True,
        check=False,
    )


LEVELS = (
    "baseline",
    "avx2",
    "avx512",
    "avx512vnni",
    "avx512bf16",
    "avx512amx",
)  # each includes the ones before it
PRINT_LEVEL = "import adaptau_ext, torch; print(torch.ops.adaptau.cpu_level())"


@cache
def levels() -> list[str]:
    return [level for level in LEVELS if at_level(level, "-c", PRINT_LEVEL).stdout.strip() == level]


def test_the_best_level_is_the_default() -> None:
    assert torch.ops.adaptau.cpu_level() == os.environ.get("ADAPTAU_ISA", levels()[-1])


def test_unknown_level_is_an_error() -> None:
    failed = at_level("avx1024", "-c", PRINT_LEVEL)
    assert failed.returncode != 0
    assert "ADAPTAU_ISA must be one of the levels this machine has" in failed.stderr


@pytest.mark.parametrize("level", LEVELS)
def test_operators_at_level(level: str) -> None:
    if level not in levels():
        pytest.skip(f"this machine has no {level}")
    tests = [
        "tests/test_fused_softmax.py::test_temperatures",
        "tests/test_fused_softmax.py::test_odd_shapes",
        "tests/test_precision.py",
        "tests/test_sampled_softmax.py::test_options_and_dtypes",
        "tests/test_sampled_scores.py::test_shapes",
        "tests/test_retrieval.py::test_order_is_total_with_ties_nan_and_infinities",
        "tests/test_retrieval.py::test_ranks_agree_with_topk",
        "tests/test_retrieval.py::test_targets_nothing_or_everything_stands_before",
        "tests/test_retrieval.py::test_ranks_of_ties_at_zero_while_subnormals_are_flushed",
        "tests/test_topk_bytes.py::test_k",
        "tests/test_topk_bytes.py::test_exclusions",
        "tests/test_topk_bytes.py::test_nan_rows_do_not_touch_their_neighbours",
        "tests/test_topk_bytes.py::test_sums_that_overflow_on_the_way",
        "tests/test_graph.py::test_against_dense_float64",
        "tests/test_graph.py::test_chosen_rows_are_rows_of_the_whole",
        "tests/test_graph.py::test_dropout_of_a_hop",
        "tests/test_graph.py::test_dropout_is_its_twin",
    ]
    options = ["-q", "-p", "no:cacheprovider", "--no-cov", "-k", "not virtual and not cuda"]
    result = at_level(level, "-m", "pytest", *options, *tests)
    assert result.returncode == 0, result.stdout
