"""Every bad argument gets its own message: what, what was expected, what came, what to do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import scipy.sparse
import torch

import adaptau_ext as ax

U, I = torch.randn(3, 4), torch.randn(5, 4)  # noqa: E741
TARGET = torch.tensor([0, 1, 2])
ops = torch.ops.adaptau


def csr(indptr: list[int], indices: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.tensor(indptr), torch.tensor(indices, dtype=torch.int64)


def fused(u: Any = U, i: Any = I, tau: Any = 0.1, **options: Any) -> Any:
    return ax.fused_adaptive_softmax(u, i, tau, **options)


def sampled(
    u: Any = U, i: Any = I, users: Any = None, positives: Any = TARGET, tau: Any = 0.1, **o: Any
) -> Any:
    return ax.sampled_adaptive_softmax(u, i, users, positives, tau, **o)


CASES: list[tuple[Callable[[], Any], str]] = [
    # dtype and device
    (lambda: fused(U.int()), "u must be float32, float64, bfloat16 or float16, got int32; convert"),
    (lambda: fused(U.double()), "u and i must have the same dtype; convert"),
    (lambda: fused(U, I.to("meta")), "i must be on cpu like the embeddings, got meta; move"),
    (lambda: ax.topk(U, I.to("meta"), 1), "i must be on cpu like the embeddings, got meta"),
    (lambda: fused(target=TARGET.int()), r"target must be int64, got int32; convert it with .long\(\)"),
    (lambda: sampled(U, I.half()), "user_table and item_table must have the same dtype"),
    # shapes
    (lambda: fused(U[0], I), r"u must be a matrix \[rows, d\], got shape \[4\]"),
    (lambda: fused(U, I[:, :3]), "u and i must have the same number of columns d, got 4 and 3"),
    (lambda: ax.ItemIndex(I.to("meta")), "i must hold data to be packed, got a tensor on meta"),
    (lambda: fused(tau=torch.ones(3).to_sparse()), "tau must be dense, got torch.sparse_coo; call .to_dense"),
    (lambda: ax.topk(U, I[:, :3], 1), "u and i must have the same number of columns d, got 4 and 3"),
    (lambda: fused(tau=torch.ones(4)), r"tau must have shape \[3\], got \[4\]"),
    (lambda: fused(tau=torch.ones(3, 1)), r"tau must have shape \[3\], got \[3, 1\]"),
    (lambda: fused(positive_tau=torch.ones(2)), r"positive_tau must have shape \[3\], got \[2\]"),
    (lambda: fused(log_q=torch.ones(3)), r"log_q must have shape \[5\], got \[3\]"),
    (lambda: fused(target=TARGET[:2]), r"target must have shape \[3\], got \[2\]"),
    (lambda: fused(I, U), "target is needed when i has fewer rows than u .* got 3 and 5"),
    (lambda: sampled(negatives=torch.zeros(2, 7, dtype=torch.int64)),
     r"negatives must have shape \[3, n_negatives\], got \[2, 7\]"),
    # temperatures
    (lambda: fused(tau=0.0), r"tau must be finite and > 0 \(it divides the scores\), got 0 at row 0"),
    (lambda: fused(tau=torch.tensor([1.0, -2.0, 1.0])), "tau must be finite and > 0 .* got -2 at row 1"),
    (lambda: fused(tau=float("nan")), "tau must be finite and > 0 .* got nan at row 0"),
    (lambda: fused(tau=float("inf")), "tau must be finite and > 0 .* got inf at row 0"),
    (lambda: fused(positive_tau=-1.0), "positive_tau must be finite and > 0 .* got -1"),
    # ids
    (lambda: fused(target=TARGET + 3), r"target must lie in \[-1, 5\), got 5 at position 2"),
    (lambda: fused(target=TARGET - 2), r"target must lie in \[-1, 5\), got -2 at position 0"),
    (lambda: fused(item_ids=torch.arange(5) + 2**31 - 2), r"item_ids must lie in \[0, 2147483648\)"),
    (lambda: sampled(users=torch.tensor([0, 1, 9])), r"users must lie in \[0, 3\), got 9 at position 2"),
    (lambda: sampled(positives=torch.tensor([0, 1, 9])), r"positives must lie in \[0, 5\), got 9"),
    (lambda: sampled(negatives=torch.full((3, 2), 7)), r"negatives must lie in \[0, 5\), got 7"),
    (lambda: ax.topk(U[:1, :1], torch.ones(1, 1).expand(2**31, 1), 1),
     r"i must have fewer than 2\^31 rows \(ids are int32 inside\), got 2147483648"),
    (lambda: ax.draw_negatives(1, 1, 2**31, 0), r"n_items must be in \[1, 2\^31\), got 2147483648"),
    (lambda: ax.draw_negatives(1, 1, 0, 0), r"n_items must be in \[1, 2\^31\), got 0"),
    (lambda: sampled(n_negatives=2**31), r"batch rows x n_negatives must be below 2\^32"),
    # k
    (lambda: ax.topk(U, I, 0), r"k must be in \[1, n_items = 5\], got 0"),
    (lambda: ax.topk(U, I, 6), r"k must be in \[1, n_items = 5\], got 6"),
    (lambda: ax.topk(U, I, 4, exclude=csr([0, 0, 2, 2], [0, 3])),
     "k = 4 is more than the 3 items that row 1 has left after 2 exclusions; lower k to at most 3"),
    # CSR
    (lambda: fused(exclude=csr([0, 2, 2, 2], [3, 1])),
     "exclude indices must be ascending and distinct within a row, got 3 then 1 in row 0; sort"),
    (lambda: ax.topk(U, I, 1, exclude=csr([0, 2, 2, 2], [1, 1])), "got 1 then 1 in row 0; sort"),
    (lambda: ax.topk(U, I, 1, exclude=csr([0, 1, 1, 1], [5])),
     r"exclude indices must lie in \[0, 5\), got 5"),
    (lambda: ax.topk(U, I, 1, exclude=csr([0, 1, 1], [0])), r"exclude indptr must have shape \[4\], got \[3\]"),
    (lambda: ax.topk(U, I, 1, exclude=csr([0, 1, 0, 1], [0])), "exclude indptr must not decrease, got 1 then 0"),
    (lambda: ax.topk(U, I, 1, exclude=csr([0, 0, 0, 0], [1])),
     r"exclude indptr must start at 0 and end at len\(indices\) = 1, got 0 and 0"),
    (lambda: ax.ranks(U, I, csr([0, 1, 1, 1], [7])), r"targets indices must lie in \[0, 5\), got 7"),
    (lambda: ops.topk(U, I, 1, torch.zeros(4, dtype=torch.int64)), "only one of them"),
    # options
    (lambda: fused(denominator="some"), 'denominator must be "all" or "negatives", got "some"'),
    (lambda: fused(normalize="yes"), 'normalize must be "both", "user", "item" or "none", got "yes"'),
    (lambda: fused(workspace_mib=-1), r"workspace_mib must be in \[0, 2\^43\), got -1"),
    (lambda: fused(workspace_mib=2**43), r"workspace_mib must be in \[0, 2\^43\), got 8796093022208"),
    (lambda: fused(torch.tensor(1.0)), r"u must have shape \[B, d\], got \[\]"),
    (lambda: sampled(positives=torch.tensor(1)), r"positives must have shape \[B\], got \[\]"),
    (lambda: fused(tau=torch.ones(3) * 1j), "tau must be real, got torch.complex64; take its .real"),
    (lambda: fused(log_q=torch.ones(5) * 1j), "log_q must be real, got torch.complex64"),
    (lambda: fused(reduction="avg"), 'reduction must be "mean", "sum" or "none", got "avg"'),
    # nothing to divide by
    (lambda: fused(U[:1], I[:1], denominator="negatives"),
     "needs a candidate besides the positive, row 0 has none of 1 left"),
    (lambda: fused(denominator="negatives", exclude=csr([0, 0, 5, 5], [0, 1, 2, 3, 4])), "row 1 has none of 5 left"),
    (lambda: sampled(n_negatives=0), 'denominator="negatives" needs n_negatives >= 1, got 0'),
    (lambda: sampled(n_negatives=-1), "n_negatives must be >= 0, got -1"),
    (lambda: sampled(item_l2=-0.1), "item_l2 must be >= 0, got -0.1"),
]  # fmt: skip


@pytest.mark.parametrize("case", range(len(CASES)))
def test_message(case: int) -> None:
    call, message = CASES[case]
    with pytest.raises(RuntimeError, match=message):
        call()


def test_forms_of_exclude() -> None:
    with pytest.raises(
        TypeError, match="exclude must be in CSR format, got a SciPy csc matrix; call .tocsr"
    ):
        ax.topk(U, I, 1, exclude=scipy.sparse.csc_array((3, 5)))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="exclude must be a pair .* got list"):
        ax.topk(U, I, 1, exclude=[0, 1])  # type: ignore[arg-type]


def test_ids_are_not_rounded() -> None:
    with pytest.raises(
        TypeError, match="exclude indices must hold integers, got torch.float32; nothing is"
    ):
        ax.topk(U, I, 1, exclude=(torch.tensor([0, 1, 1, 1]), torch.tensor([0.5])))
    with pytest.raises(
        TypeError, match="targets indptr must be a dense tensor or array, got one that is"
    ):
        ax.ranks(U, I, (torch.tensor([0, 1, 1, 1]).to("meta"), torch.tensor([0])))


def test_messages_do_not_carry_c_plus_plus() -> None:
    with pytest.raises(RuntimeError) as caught:
        ax.topk(U, I, 0)
    assert "\n" not in str(caught.value) and ".cpp" not in str(caught.value)
