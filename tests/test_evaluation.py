"""Streaming evaluation against a per-user computation with sets, and known answers."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse
import scipy.stats
import torch

from adaptau_ext import ItemIndex
from adaptau_ext.evaluation import (
    Evaluation,
    UserMetrics,
    beyond_accuracy,
    compare,
    evaluate,
    evaluate_users,
    group_recall,
    popularity_groups,
    ranking,
)


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
            sums.setdefault(f"hit@{k}", []).append(float(bool(hits)))
            sums.setdefault(f"mrr@{k}", []).append(1 / hits[0] if hits else 0.0)
            precisions = [n / r for n, r in enumerate(hits, start=1)]
            sums.setdefault(f"map@{k}", []).append(sum(precisions) / min(k, len(wanted)))
    return {name: float(np.mean(values)) for name, values in sums.items()}


@pytest.mark.parametrize("chunk", [7, 4096])
def test_is_the_mean_of_per_user_metrics(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranking, "USERS_A_CHUNK", chunk)
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
    index = ItemIndex(i, normalize="both")
    assert evaluate(u, index, test) == evaluate(u, i, test, normalize="both")
    with pytest.raises(ValueError, match='normalize is that of the index, "both", got "item"'):
        evaluate(u, index, test, normalize="item")


def test_bad_arguments() -> None:
    u, i = torch.ones(1, 1), torch.ones(4, 1)
    empty = scipy.sparse.csr_array((1, 4))
    with pytest.raises(ValueError, match="held_out must hold at least one item"):
        evaluate(u, i, empty)
    with pytest.raises(ValueError, match=r"ks must be cut-offs >= 1, got \[0\]"):
        evaluate(u, i, empty, ks=(0,))


def test_users_whose_scores_are_all_nan_are_told() -> None:
    u, i = torch.randn(5, 3), torch.randn(7, 3)
    wanted = random_csr(5, 7, 0.6, seed=2).toarray()
    wanted[4] = 0  # nobody asks for their items
    held_out = scipy.sparse.csr_array(wanted)
    i[2] = torch.nan  # comes last, and takes nobody's place
    u[4] = torch.nan
    assert 0 < evaluate(u, i, held_out)["recall@20"] <= 1
    u[1] = torch.nan
    n = np.unique(held_out.nonzero()[0]).size
    with pytest.warns(UserWarning, match=f"^every candidate of 1 of {n} users scores NaN"):
        evaluate(u, i, held_out)


def test_groups_have_equal_shares() -> None:
    popularity = np.random.default_rng(0).zipf(1.5, 2000).clip(max=500)
    for equal, weight in (("interactions", popularity), ("items", np.ones(2000))):
        groups = popularity_groups(popularity, 10, equal=equal)  # type: ignore[arg-type]
        shares = np.bincount(groups, weights=weight, minlength=10) / weight.sum()
        largest = popularity.max() / popularity.sum() if equal == "interactions" else 1 / 2000
        assert np.abs(shares - 0.1).max() <= largest
        means = [popularity[groups == g].mean() for g in range(10)]
        assert means == sorted(means)
    assert popularity_groups(np.zeros(4, np.int64), 2, equal="items").tolist() == [0, 0, 1, 1]
    assert popularity_groups(np.array([7, 1, 1, 1])).tolist() == [6, 0, 1, 2]  # 3 to 10 without it
    with pytest.raises(ValueError, match="n_groups must be >= 1, got 0"):
        popularity_groups(popularity, 0)
    with pytest.raises(ValueError, match='equal must be "interactions" or "items", got'):
        popularity_groups(popularity, equal="users")  # type: ignore[arg-type]


def test_what_is_recommended() -> None:
    """Two users, four items by score 3, 2, 1, 0; the second has seen the best."""
    u, i = torch.ones(2, 1), torch.tensor([[3.0], [2.0], [1.0], [0.0]])
    held_out = scipy.sparse.csr_array(np.array([[0, 1, 0, 1], [0, 1, 0, 0]]))
    seen = scipy.sparse.csr_array(np.array([[0, 0, 0, 0], [1, 0, 0, 0]]))
    found = evaluate_users(u, i, held_out, exclude=seen, ks=(2,))
    assert found.users.tolist() == [0, 1]
    assert found.recommended[2].tolist() == [1, 2, 1, 0]
    groups = np.array([1, 0, 1, 1])
    assert group_recall(found, groups, 2, 3).tolist() == pytest.approx([0.75, 0, 0])  # one is empty
    assert group_recall(found, groups, 2).sum() == pytest.approx(found.means()["recall@2"])
    popularity = np.array([8, 4, 4, 0])
    # recommended: 8, 4, 4, 4 interactions; 1, 2, 2, 2 bits of 16
    assert beyond_accuracy(found, popularity, 2) == pytest.approx(
        {
            "coverage@2": 0.75,
            "gini@2": (-3 * 0 - 1 + 1 + 3 * 2) / 16,
            "popularity@2": 5,
            "novelty@2": 1.75,
        }
    )


def wilcoxon_p(difference: np.ndarray) -> float:
    """The signed-rank test with ties half to each side, by hand: Pratt's, Journal of the ASA 54 (1959)."""
    rank = scipy.stats.rankdata(np.abs(difference))
    zero = difference == 0
    positive = rank[difference > 0].sum() + rank[zero].sum() / 2
    negative = rank[difference < 0].sum() + rank[zero].sum() / 2
    n, ties = len(difference), np.unique(np.abs(difference[~zero]), return_counts=True)[1]
    variance = n * (n + 1) * (2 * n + 1) / 24 - ((ties**3 - ties).sum()) / 48
    z = (min(positive, negative) - n * (n + 1) / 4) / math.sqrt(variance)
    return float(2 * scipy.stats.norm.sf(abs(z)))


def test_paired_tests() -> None:
    rng = np.random.default_rng(0)
    a = rng.random(400)
    worse = np.where(rng.random(400) < 0.3, a - 0.1, a)
    noise = np.where(rng.random(400) < 0.3, a + rng.normal(0, 0.1, 400), a)

    def result(values: np.ndarray, held_out: int = 5) -> UserMetrics:
        return UserMetrics(np.arange(len(values)), {"recall@20": values}, held_out)

    (better,) = compare(result(a), result(worse))
    assert better.metric == "recall@20" and better.first > better.second
    assert better.t_p < 1e-10 and better.wilcoxon_p < 1e-10
    difference = (a - worse).round(6)  # by hand
    t = difference.mean() / (difference.std(ddof=1) / 20)
    assert better.t_p == pytest.approx(2 * scipy.stats.t.sf(t, 399), rel=1e-9)
    assert better.wilcoxon_p == pytest.approx(wilcoxon_p(difference), rel=1e-9)
    (chance,) = compare(result(a), result(noise))
    assert chance.t_p > 0.01 and chance.wilcoxon_p > 0.01
    (same,) = compare(result(a), result(a))
    assert same.t_p == same.wilcoxon_p == 1
    for other in (result(a[:9]), result(a, held_out=6)):
        with pytest.raises(ValueError, match="must be of the same users and held-out items"):
            compare(result(a), other)
    with pytest.raises(ValueError, match="at least two users, got 1"):
        compare(result(a[:1]), result(a[:1]))


def test_users_metrics_are_kept_in_a_file(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    values = {"recall@20": rng.random(50), "ndcg@20": rng.random(50)}
    first = UserMetrics(np.arange(0, 100, 2), values, held_out=2**64 - 3)
    first.save(tmp_path / "users.npz")
    loaded = UserMetrics.load(tmp_path / "users.npz")
    assert np.array_equal(loaded.users, first.users) and list(loaded.values) == list(values)
    assert loaded.held_out == first.held_out
    for name, value in values.items():
        assert np.array_equal(loaded.values[name], value.astype(np.float32))
    assert [c.metric for c in compare(loaded, loaded)] == list(values)
    for same in compare(first, loaded):  # of which a float is not what the other one is
        assert same.t_p == same.wilcoxon_p == 1
    changed = {name: np.where(np.arange(50) < 9, 0.5 * v, v) for name, v in values.items()}
    other = UserMetrics(first.users, changed, first.held_out)
    for a, b in zip(compare(first, other), compare(loaded, other), strict=True):
        assert 1e-9 < a.wilcoxon_p < 1 and b[1:] == pytest.approx(a[1:], rel=1e-3)


def test_matrices_of_any_form_are_the_same() -> None:
    """SciPy keeps indices in any order, pairs twice, zeros: of these one meaning is evaluated."""
    u, i = torch.randn(40, 8), torch.randn(60, 8)
    train, test = random_csr(40, 60, 0.2, seed=2), random_csr(40, 60, 0.1, seed=3)
    test = scipy.sparse.csr_array((test - test.multiply(train)) > 0).astype(np.int32)
    expected = evaluate_users(u, i, test, exclude=train, ks=(5,))
    forms = []
    for csr in (test, train):
        coo = csr.tocoo()
        zeros = (csr.toarray() == 0).nonzero()
        again = [np.concatenate([a, a[:7], b[:9]]) for a, b in zip(coo.coords, zeros, strict=True)]
        weights = np.concatenate([np.ones(csr.nnz + 7), np.zeros(9)])
        shuffled = np.random.default_rng(4).permutation(weights.size)
        users, items = (part[shuffled] for part in again)
        order = np.argsort(users, kind="stable")
        indptr = np.concatenate([[0], np.bincount(users, minlength=40).cumsum()])
        loose = scipy.sparse.csr_array(
            (weights[shuffled][order], items[order], indptr), shape=csr.shape
        )
        before = loose.indices.copy()
        assert not loose.has_sorted_indices
        forms.append((loose, before))
    (loose_test, before), (loose_train, _) = forms
    found = evaluate_users(u, i, loose_test, exclude=loose_train, ks=(5,))
    assert found.means() == expected.means() and found.held_out == expected.held_out
    assert np.array_equal(loose_test.indices, before)  # what it was given is as it was
    assert evaluate(u, i, test.tocoo(), exclude=train.tocsc(), ks=(5,)) == expected.means()
    with pytest.raises(
        ValueError, match=r"held_out must be \[40, 60\], as the embeddings, got \[40, 59\]"
    ):
        evaluate(u, i, test[:, :59], exclude=train)
    with pytest.raises(
        ValueError, match=r"exclude must be \[40, 60\], as the embeddings, got \[39, 60\]"
    ):
        evaluate(u, i, test, exclude=train[:39])
    with pytest.raises(ValueError, match="held_out must be a SciPy sparse matrix, got ndarray"):
        evaluate(u, i, test.toarray())


def test_held_out_pairs_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    u, i = torch.randn(20, 4), torch.randn(30, 4)
    test = random_csr(20, 30, 0.2, seed=5)
    one = evaluate_users(u, i, test).held_out
    monkeypatch.setattr(ranking, "USERS_A_CHUNK", 3)
    assert evaluate_users(u, i, test).held_out == one
    halves = [test.copy().tolil() for _ in range(2)]
    halves[0][10:], halves[1][:10] = 0, 0
    parts = [evaluate_users(u, i, half.tocsr()) for half in halves]
    assert Evaluation.joined(parts).held_out == one
    moved = test.copy()
    moved.indices = (moved.indices + 1) % 30
    swapped = test[[1, 0, *range(2, 20)]]  # the same items, of other users
    assert len({one, *(evaluate_users(u, i, other).held_out for other in (moved, swapped))}) == 3
