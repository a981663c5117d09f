"""Reading data: what comes out, and what is said about data that cannot be used."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from adaptau_ext.data import DataError, add_noise, read_lightgcn, synthetic
from adaptau_ext.data.interactions import without_rows
from tests.conftest import real_data


def write(folder: Path, train: str, test: str = "0 1\n") -> Path:
    (folder / "train.txt").write_text(train)
    (folder / "test.txt").write_text(test)
    return folder


def test_reads_pairs_sorted_and_sized(tmp_path: Path) -> None:
    data = read_lightgcn(write(tmp_path, "0 5 2\n\n2 0 3\n1\n", "0 1\n2 6\n"))
    assert (data.n_users, data.n_items) == (3, 7)
    users, items = data.pairs()
    assert users.tolist() == [0, 0, 2, 2] and items.tolist() == [2, 5, 0, 3]
    assert data.test.toarray()[[0, 2], [1, 6]].tolist() == [1, 1] and data.test.nnz == 2
    assert data.describe().endswith("3 users, 7 items, 4 train and 2 test interactions")


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        ("", "0 1\n", "the training data is empty"),
        ("0\n", "0 1\n", "the training data is empty"),
        ("0 2\n0 x 3\n", "0 1\n", r"train.txt:2: expected integers `user item item ...`, got '0 x 3'"),
        ("0 2\n", "0 1.5\n", r"test.txt:1: expected integers"),
        ("0 2\n1 -3\n", "0 1\n", r"train.txt:2: ids must lie in \[0, 2\^31\), got -3"),
        ("0 2147483648\n", "0 1\n", r"train.txt:1: ids must lie in \[0, 2\^31\), got 2147483648"),
        ("0 2 3\n", "0 1\n4 0\n", '1 users have test items but no training items, the first is user 4; use cold_users="drop"'),
        ("0 2 3\n1 4 5 4\n", "0 1\n", '1 duplicate pairs in train, the first is user 1, item 4; use duplicates="merge"'),
        ("0 2 3\n", "0 1\n0 1\n", "1 duplicate pairs in test, the first is user 0, item 1"),
        ("0 2 3\n", "0 1 3\n", "1 pairs are in train and in test, the first is user 0, item 3"),
    ],
)  # fmt: skip
def test_unusable_data(tmp_path: Path, train: str, test: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_lightgcn(write(tmp_path, train, test))


def test_missing_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a folder; data must name a folder"):
        read_lightgcn(tmp_path / "nowhere")
    with pytest.raises(DataError, match="train.txt: no such file"):
        read_lightgcn(tmp_path)


def test_ways_out(tmp_path: Path) -> None:
    write(tmp_path, "0 2 3 2\n", "0 1\n4 0\n")
    dropped = read_lightgcn(tmp_path, cold_users="drop", duplicates="merge")
    assert dropped.train.toarray()[0].tolist() == [0, 0, 1, 1] and dropped.test.nnz == 1
    kept = read_lightgcn(tmp_path, cold_users="keep", duplicates="merge")
    assert kept.test.nnz == 2 and kept.n_users == 5


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("yelp2018", (31_668, 38_048, 1_237_259, 324_147)),
        ("gowalla", (29_858, 40_981, 810_128, 217_242)),
        ("ml-1m", (6_022, 3_043, 796_244, 99_455)),
    ],
)
def test_real_data_sizes(name: str, sizes: tuple[int, ...]) -> None:
    data = read_lightgcn(real_data(name))
    assert (data.n_users, data.n_items, data.train.nnz, data.test.nnz) == sizes


def test_lastfm_has_users_without_training_items() -> None:
    folder = real_data("lastfm")
    with pytest.raises(DataError, match="users have test items but no training items"):
        read_lightgcn(folder)
    data = read_lightgcn(folder, cold_users="drop")
    assert (np.diff(data.train.indptr)[np.diff(data.test.indptr) > 0] > 0).all()


def test_synthetic_is_reproducible_zipf_and_tasteful() -> None:
    data, again, other = synthetic(0), synthetic(0), synthetic(1)
    assert (data.train != again.train).nnz == 0 and (data.train != other.train).nnz > 0
    assert (np.diff(data.train.indptr) > 0).all() and (np.diff(data.test.indptr) > 0).all()
    popularity = np.sort(np.bincount(data.train.indices, minlength=data.n_items))[::-1]
    top_tenth = popularity[: data.n_items // 10].sum() / popularity.sum()
    assert 0.2 < top_tenth < 0.8
    # Planted tastes: two users who share an item share far more others than popularity explains.
    train = data.train.astype(float)
    overlap = (train @ train.T).toarray()
    together = np.triu(overlap, 1) > 0
    assert overlap[together].mean() > 1.3


def test_small_synthetic_data() -> None:
    data = synthetic(0, n_users=5, n_items=8, n_tastes=2, test_fraction=0.95)
    assert (np.diff(data.train.indptr) > 0).all() and (np.diff(data.test.indptr) > 0).all()
    with pytest.raises(ValueError, match="n_items must be at least 8, got 7"):
        synthetic(0, n_items=7)


def test_valid_is_a_part_of_train() -> None:
    data = synthetic(0, n_users=100, n_items=80, n_tastes=4, mean_items=12)
    assert data.valid is None
    with pytest.raises(DataError, match="no validation split; cut one with cut_valid"):
        data.without_valid()
    cut = data.cut_valid(0.25, seed=3)
    assert cut.valid is not None
    assert cut.valid.multiply(data.train).nnz == cut.valid.nnz  # all of it is in train
    share = np.diff(cut.valid.indptr) / np.diff(data.train.indptr)
    assert share.mean() == pytest.approx(0.25, abs=0.02) and share.max() < 1
    left = cut.without_valid()
    assert left.train.multiply(cut.valid).nnz == 0
    assert ((left.train + cut.valid) != data.train).nnz == 0
    again = left.without_valid()  # nothing comes back
    assert (again.train != left.train).nnz == 0 and (again.seen != data.train).nnz == 0
    again = data.cut_valid(0.25, seed=3)
    assert again.valid is not None and (again.valid != cut.valid).nnz == 0
    for fraction in (0, 1, -0.5):
        with pytest.raises(ValueError, match=r"fraction must be in \(0, 1\), got"):
            data.cut_valid(fraction)


def test_valid_file(tmp_path: Path) -> None:
    for name, text in (("train", "0 1 2 3\n1 0\n"), ("test", "0 0\n"), ("valid", "0 2\n1 0\n")):
        (tmp_path / f"{name}.txt").write_text(text)
    data = read_lightgcn(tmp_path)
    assert data.valid is not None and data.valid.nnz == 2
    left = data.without_valid()  # user 1 has nothing else to train on
    assert left.valid is not None and left.valid.toarray().tolist() == [[0, 0, 1, 0], [0] * 4]
    assert left.train.toarray().tolist() == [[0, 1, 0, 1], [1, 0, 0, 0]]
    assert left.without_valid().train.toarray().tolist() == left.train.toarray().tolist()
    (tmp_path / "valid.txt").write_text("0 2\n1 3\n")
    with pytest.raises(
        DataError, match="1 pairs of valid are not in train, the first is user 1, item 3"
    ):
        read_lightgcn(tmp_path)


@pytest.mark.parametrize("held_out", [False, True], ids=["", "clean"])
@pytest.mark.parametrize("by", ["activity", "user"])
def test_noise(by: Literal["activity", "user"], held_out: bool) -> None:
    data = synthetic(0, n_users=200, n_items=120, n_tastes=4, mean_items=20).cut_valid(0.1)
    if held_out:
        data = data.without_valid()
    noisy = add_noise(data, 0.3, by=by, seed=1)
    added = (noisy.train - data.train).tocsr()
    added.eliminate_zeros()
    assert added.nnz / data.train.nnz == pytest.approx(0.3, abs=0.02)
    assert (added.data == 1).all() and (noisy.train.data == 1).all()
    assert added.multiply(data.test).nnz == added.multiply(data.valid).nnz == 0
    assert noisy.valid is data.valid
    degree, new = np.diff(data.train.indptr), np.diff(added.indptr)
    if by == "activity":
        assert (abs(new - 0.3 * degree) <= 1).all()
    else:
        assert (abs(new - 0.3 * degree.mean()) <= 1).all()
    items = np.bincount(added.indices, minlength=120)
    assert items.max() < 3 * items.mean()  # not by popularity
    assert (add_noise(data, 0.3, by=by, seed=1).train != noisy.train).nnz == 0
    if by == "user":  # whoever has no interaction gets none, and does not make it less for the others
        half = np.arange(200) >= 100
        sparse = add_noise(replace(data, train=without_rows(data.train, half)), 0.3, by=by, seed=1)
        more = np.diff(sparse.train.indptr) - np.where(half, 0, degree)
        assert (more[half] == 0).all() and (abs(more[~half] - 0.3 * degree[~half].mean()) <= 1).all()
    with pytest.raises(ValueError, match="ratio must be >= 0, got -1"):
        add_noise(data, -1)
