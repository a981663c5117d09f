"""Streaming evaluation against a per-user computation with sets, and known answers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.sparse
import torch

from adaptau_ext import evaluation
from adaptau_ext.evaluation import evaluate


def random_csr(n_rows: int, n_columns: int, density: float, seed: int) -> scipy.sparse.csr_array:
    rng = np.random.default_rng(seed)
    csr = scipy.sparse.csr_array((rng.random((n_rows, n_columns)) < density).astype(np.int32))
    csr.sort_indices()
    return csr


def naive(
    u: torch.Tensor,
    i: torch.Tensor,
    held_out: scipy.sparse.csr_array,
    exclude: scipy.sparse.csr_array,
    ks: tuple[int, ...],
) -> dict[str, float]:
    scores = (u.double() @ i.double().T).numpy()
    sums: dict[str, list[float]] = {}
    for user in range(u.shape[0]):
        wanted = set(held_out[[user]].indices.tolist())
        if not wanted:
            continue
        seen = set(exclude[[user]].indices.tolist())
        order = [j for j in np.argsort(-scores[user], kind="stable").tolist() if j not in seen]
        for k in ks:
            hits = [rank for rank, j in enumerate(order[:k], start=1) if j in wanted]
            ideal = sum(1 / math.log2(r + 1) for r in range(1, min(k, len(wanted)) + 1))
            sums.setdefault(f"recall@{k}", []).append(len(hits) / len(wanted))
            sums.setdefault(f"precision@{k}", []).append(len(hits) / k)
            sums.setdefault(f"ndcg@{k}", []).append(sum(1 / math.log2(r + 1) for r in hits) / ideal)
    return {name: float(np.mean(values)) for name, values in sums.items()}


@pytest.mark.parametrize("chunk", [7, 4096])
def test_is_the_mean_of_per_user_metrics(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "_USERS_A_CHUNK", chunk)
    u, i = torch.randn(60, 8), torch.randn(90, 8)
    train = random_csr(60, 90, 0.2, seed=0)
    train = scipy.sparse.csr_array(scipy.sparse.vstack([train[:59], np.arange(90)[None] < 85]))
    test = random_csr(60, 90, 0.05, seed=1)
    test = scipy.sparse.csr_array((test - test.multiply(train)) > 0).astype(np.int32)
    last = np.arange(90)[None] == 88  # a user with five candidates left
    test = scipy.sparse.csr_array(scipy.sparse.vstack([test[:59], last.astype(np.int32)]))
    test.sort_indices()
    train.sort_indices()
    ks = (1, 5, 20)
    ours = evaluate(u, i, test, exclude=train, ks=ks)
    assert ours == pytest.approx(naive(u, i, test, train, ks), rel=1e-12)


def test_known_answer() -> None:
    """One user, four items by score 3, 2, 1, 0; held out: the second and the fourth."""
    u, i = torch.ones(1, 1), torch.tensor([[3.0], [2.0], [1.0], [0.0]])
    held_out = scipy.sparse.csr_array(np.array([[0, 1, 0, 1]]))
    metrics = evaluate(u, i, held_out, ks=(2,))
    assert metrics["recall@2"] == 0.5 and metrics["precision@2"] == 0.5
    assert metrics["ndcg@2"] == pytest.approx((1 / math.log2(3)) / (1 + 1 / math.log2(3)))


def test_cosine_scores() -> None:
    u, i = torch.randn(30, 8), torch.randn(50, 8) * torch.rand(50, 1) * 10
    test = random_csr(30, 50, 0.1, seed=1)
    unit = torch.nn.functional.normalize
    assert evaluate(u, i, test, normalize="both") == pytest.approx(evaluate(unit(u), unit(i), test))
    assert evaluate(u, i, test, normalize="both") != pytest.approx(evaluate(u, i, test))


def test_bad_arguments() -> None:
    u, i = torch.ones(1, 1), torch.ones(4, 1)
    empty = scipy.sparse.csr_array((1, 4))
    with pytest.raises(ValueError, match="held_out must hold at least one item"):
        evaluate(u, i, empty)
    with pytest.raises(ValueError, match=r"ks must be cut-offs >= 1, got \[0\]"):
        evaluate(u, i, empty, ks=(0,))
