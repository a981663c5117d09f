"""Logs of interactions: files of every kind, ids, filters, splits."""

from __future__ import annotations

import gzip
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet
import pytest
import scipy.sparse

from adaptau_ext.data import (
    Columns,
    DataError,
    Interactions,
    Log,
    Preparation,
    load,
    read_log,
    split_log,
)

from .conftest import real_data

FRAME = {
    "user_id": ["ann", "bob", "ann", "cid", "bob"],
    "item_id": ["007", "7", "x", "7", "x"],
    "rating": [5.0, 3.0, 4.0, 1.0, 2.0],
    "timestamp": [30, 10, 20, 50, 40],
}


def triples(log: Log) -> set[tuple[object, object, float | None, float | None]]:
    users, items = (
        ids.take(pa.array(rows)).to_pylist()
        for ids, rows in ((log.user_ids, log.users), (log.item_ids, log.items))
    )
    ratings = [None] * len(log) if log.ratings is None else log.ratings.tolist()
    times = [None] * len(log) if log.times is None else log.times.tolist()
    return set(zip(users, items, ratings, times, strict=True))


EXPECTED = set(zip(*FRAME.values(), strict=True))


@pytest.mark.parametrize(
    ("name", "columns"),
    [
        ("log.csv", Columns()),
        ("log.tsv", Columns()),
        ("log.inter", Columns()),
        ("log.inter", Columns(user="user_id")),
        ("log.parquet", Columns()),
        ("log.csv.gz", Columns()),
        ("bare.csv", Columns("0", "1", "2", "3")),
    ],
)
def test_every_kind_of_file_is_the_same_log(tmp_path: Path, name: str, columns: Columns) -> None:
    path = tmp_path / name
    if name.endswith(".parquet"):
        pyarrow.parquet.write_table(pa.table(FRAME), path)
    else:
        header = {"inter": ["user_id:token", "item_id:token", "rating:float", "timestamp:float"]}
        names = header.get(name.split(".")[1], list(FRAME))
        rows = [] if name.startswith("bare") else [names]
        rows += [[str(v) for v in row] for row in zip(*FRAME.values(), strict=True)]
        delimiter = "," if ".csv" in name else "\t"
        text = "".join(delimiter.join(row) + "\n" for row in rows)
        path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    log = read_log(path, columns)
    assert triples(log) == EXPECTED
    assert log.user_ids.to_pylist() == ["ann", "bob", "cid"]
    assert log.item_ids.to_pylist() == ["007", "7", "x"]  # "007" is not 7


def test_a_first_line_of_numbers(tmp_path: Path) -> None:
    """Names or an interaction: whatever is not certain is asked."""
    path = tmp_path / "log.csv"

    def pairs(text: str, *columns: str) -> set[tuple[object, ...]]:
        path.write_text(text)
        return {triple[:2] for triple in triples(read_log(path, Columns(*columns)))}

    assert pairs("0,1,5\n0,2,5\n", "0", "1") == {(0, 1), (0, 2)}  # 0 and 1 are an interaction
    assert pairs("user,0,1\n7,8,9\n", "user", "0") == {(7, 8)}
    assert pairs("user,item,2020\n7,8,9\n", "user", "item", "2020") == {(7, 8)}
    assert pairs("ann,7\nbob,8\n", "0", "1") == {("ann", 7), ("bob", 8)}
    for text in ("0,1\n0,2\n", "ann,0,1\nbob,2,3\n"):
        with pytest.raises(
            DataError, match="could be the columns' names or an interaction; put a line"
        ):
            pairs(text, "0", "1")


@pytest.mark.parametrize("make", [pd.DataFrame, pl.DataFrame, pa.table])
def test_frames_are_logs(make: object) -> None:
    assert triples(Log.from_frame(make(FRAME))) == EXPECTED  # type: ignore[operator]


def test_categories_and_numbers_are_ids() -> None:
    frame = pd.DataFrame(FRAME).astype({"user_id": "category"})
    assert Log.from_frame(frame[frame.user_id != "bob"]).user_ids.to_pylist() == ["ann", "cid"]
    numbers = Log.from_frame({"user": [10, 9, 10], "item": [3.0, 1.0, 2.0]} | {})
    assert numbers.user_ids.to_pylist() == [9, 10] and numbers.item_ids.to_pylist() == [1, 2, 3]
    text = Log.from_frame(pa.table({"user": ["10", "9"], "item": ["-1", "02"]}))
    assert text.user_ids.to_pylist() == [9, 10]  # all are integers as people write them
    assert text.item_ids.to_pylist() == ["-1", "02"]


def test_matrix_is_a_log(tmp_path: Path) -> None:
    dense = np.array([[0, 2, 0], [1, 0, 0], [0, 0, 0]])
    path = tmp_path / "matrix.npz"
    scipy.sparse.save_npz(path, scipy.sparse.csr_array(dense))
    log = read_log(path)
    assert triples(log) == {(0, 1, 2.0, None), (1, 0, 1.0, None)}
    assert len(log.user_ids) == len(log.item_ids) == 3  # rows and columns that are empty, too
    twice = scipy.sparse.coo_array(([1, 1, 1], ([0, 0, 1], [1, 1, 0])), shape=(3, 3))
    assert triples(Log.from_csr(twice)) == triples(log)
    assert len(Log.from_csr(twice).merged().user_ids) == 3
    with pytest.raises(DataError, match="matrix.npz has no columns: leave their names"):
        read_log(path, Columns("0", "1"))


def test_dates_order_interactions() -> None:
    dates = ["2026-01-02", "2026-01-01 10:00:00", "2026-01-01 09:59:59"]
    for column in (dates, pd.to_datetime(pd.Series(dates), format="mixed")):
        log = Log.from_frame(pd.DataFrame({"user": [1, 1, 1], "item": [1, 2, 3], "date": column}))
        assert log.times is not None
        assert np.argsort(log.times).tolist() == [2, 1, 0]
    zoned = ["2026-01-02T00:00:00Z", "2026-01-01T10:00:00Z", "2026-01-01T11:59:59+02:00"]
    for make in (pd.DataFrame, pl.DataFrame):
        for column in (dates, zoned):
            times = Log.from_frame(make({"user": [1] * 3, "item": [1, 2, 3], "date": column})).times
            assert times is not None and np.argsort(times).tolist() == [2, 1, 0]


def test_ratings_and_core() -> None:
    log = Log.from_frame(pa.table(FRAME)).with_min_rating(3)
    assert {t[2] for t in triples(log)} == {3.0, 4.0, 5.0} and log.user_ids.to_pylist() == [
        "ann",
        "bob",
    ]
    assert log.notes == ("rated 3 or more: 3 of 5 interactions",)
    # a - 1 2 3, b - 1 2 3, c - 1 9: c and 9 go, and nobody else
    pairs = [("a", 1), ("a", 2), ("b", 1), ("b", 2), ("c", 1), ("c", 9), ("a", 2)]
    log = Log.from_frame(pa.table({"user": [p[0] for p in pairs], "item": [p[1] for p in pairs]}))
    core = log.core(2)
    assert core.user_ids.to_pylist() == ["a", "b"] and core.item_ids.to_pylist() == [1, 2]
    assert len(core) == 4
    with pytest.raises(DataError, match=r"nothing is left of 6 interactions \(4-core\)"):
        log.core(4)


def test_repeated_pairs_are_one_at_the_last_time() -> None:
    frame = {"user": [1, 1, 2, 1], "item": [5, 5, 5, 6], "time": [3, 9, 1, 2]}
    merged = Log.from_frame(pa.table(frame)).merged()
    assert triples(merged) == {(1, 5, None, 9), (2, 5, None, 1), (1, 6, None, 2)}


def log_of(n_users: int = 40, n_items: int = 60, n: int = 1500) -> pa.Table:
    rng = np.random.default_rng(0)
    return pa.table(
        {
            "user": rng.integers(n_users, size=n),
            "item": rng.integers(n_items, size=n),
            "time": rng.permutation(n),
        }
    )


@pytest.mark.parametrize("split", ["random", "leave_one_out", "temporal"])
def test_splits_do_not_overlap_and_ignore_the_order_of_rows(split: str) -> None:
    table = log_of()
    made = [
        split_log(Log.from_frame(t), split, seed=3)  # type: ignore[arg-type]
        for t in (table, table.take(pa.array(np.random.default_rng(1).permutation(len(table)))))
    ]
    for a, b in (
        (made[0].train, made[1].train),
        (made[0].test, made[1].test),
        (made[0].valid, made[1].valid),
    ):
        assert (a != b).nnz == 0
    data = made[0]
    assert data.valid is not None
    assert data.train.multiply(data.test).nnz == 0
    assert data.valid.multiply(data.train).nnz == data.valid.nnz > 0
    if split != "temporal":
        everything = Log.from_frame(table).merged()
        assert data.train.nnz + data.test.nnz == len(everything)


def test_leave_one_out_takes_the_last() -> None:
    frame = {"user": [1, 1, 1, 2, 2, 3], "item": [5, 6, 7, 5, 6, 5], "time": [10, 30, 20, 2, 1, 0]}
    data = split_log(Log.from_frame(pa.table(frame)), "leave_one_out")
    assert data.valid_fraction is None  # whatever fraction is asked for is another valid
    assert data.test.toarray().tolist() == [[0, 1, 0], [1, 0, 0], [0, 0, 0]]
    assert data.valid is not None
    assert data.valid.toarray().tolist() == [
        [0, 0, 1],
        [0, 0, 0],
        [0, 0, 0],
    ]  # user 2 has one left to train on
    assert data.user_ids is not None and data.user_ids.to_pylist() == [1, 2, 3]
    without = split_log(Log.from_frame(pa.table(frame).drop_columns("time")), "leave_one_out")
    assert without.test.nnz == 2 and "by chance" in without.notes[-1]


def test_what_cannot_be_split_is_told() -> None:
    log = Log.from_frame(log_of())
    for split in ("random", "temporal"):
        with pytest.raises(ValueError, match=r"test_fraction must be in \(0, 1\), got 1.5"):
            split_log(log, split, test_fraction=1.5)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=r"valid_fraction must be in \(0, 1\), got 0"):
            split_log(log, split, valid_fraction=0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="k_core must be >= 0, got -1"):
        Preparation(k_core=-1)


def test_temporal_split_is_one_moment() -> None:
    log = Log.from_frame(log_of())
    data = split_log(log, "temporal", test_fraction=0.25, valid_fraction=0.2)
    merged = log.merged()
    assert merged.times is not None and data.valid is not None

    def times(csr: scipy.sparse.csr_array) -> np.ndarray:
        assert merged.times is not None
        rows = scipy.sparse.csr_array((merged.times + 1, (merged.users, merged.items)), shape=csr.shape)
        return rows.multiply(csr).tocsr().data

    train = (data.train - data.valid).tocsr()
    train.eliminate_zeros()
    assert times(train).max() < times(data.valid).min()
    assert times(data.valid).max() < times(data.test).min()
    assert data.train.nnz == int(np.ceil(0.75 * len(merged)))
    ties = {"user": [1, 1, 2, 2], "item": [1, 2, 2, 1], "time": [1, 5, 1, 5]}
    with pytest.raises(DataError, match="split=temporal leaves no test item"):
        split_log(Log.from_frame(pa.table(ties)), "temporal", test_fraction=0.25)  # 5 stays with 5
    assert split_log(Log.from_frame(pa.table(ties)), "temporal", test_fraction=0.5).test.nnz == 2
    with pytest.raises(DataError, match="needs a column of times"):
        split_log(Log.from_frame(pa.table(ties).drop_columns("time")), "temporal")


def test_folder_of_parts(tmp_path: Path) -> None:
    parts = {"train": [("a", "1"), ("b", "1"), ("b", "2")], "valid": [("a", "2")], "test": [("b", "3")]}
    for name, pairs in parts.items():
        lines = ["user,item", *(",".join(pair) for pair in pairs)]
        (tmp_path / f"{name}.csv").write_text("\n".join(lines) + "\n")
    data = load(tmp_path)
    assert data.user_ids is not None and data.user_ids.to_pylist() == ["a", "b"]
    assert data.item_ids is not None and data.item_ids.to_pylist() == [1, 2, 3]
    assert data.train.toarray().tolist() == [[1, 1, 0], [1, 1, 0]]  # valid is a part of it
    assert data.valid is not None and data.valid.toarray().tolist() == [[0, 1, 0], [0, 0, 0]]
    assert data.test.toarray().tolist() == [[0, 0, 0], [0, 0, 1]]
    (tmp_path / "test.csv").write_text("user,item\nb,3\nc,1\n")
    with pytest.raises(DataError, match="no training items, the first is user c; use"):
        load(tmp_path)
    (tmp_path / "test.csv").write_text("user,item\nb,3\na,1\n")
    with pytest.raises(DataError, match="in train and in test, the first is user a, item 1; training"):
        load(tmp_path)
    (tmp_path / "test.csv").write_text("user,item\nb,3\nb,3\n")
    with pytest.raises(DataError, match="duplicate pairs in test, the first is user b, item 3; use"):
        load(tmp_path)
    # ids that are strings in one file and integers in another
    pyarrow.parquet.write_table(pa.table({"user": ["b"], "item": [3]}), tmp_path / "test.parquet")
    (tmp_path / "test.csv").unlink()
    again = load(tmp_path)
    assert (again.test != data.test).nnz == 0
    with pytest.raises(DataError, match="is split already: min_rating, split would have no effect"):
        load(tmp_path, Preparation(min_rating=4, split="temporal"))


def test_lightgcn_files_have_no_columns(tmp_path: Path) -> None:
    for name in ("train", "test"):
        (tmp_path / f"{name}.txt").write_text(f"0 {len(name)}\n")
    assert load(tmp_path).train.nnz == 1
    for asked in (Preparation(Columns("user")), Preparation(delimiter=";")):
        with pytest.raises(DataError, match=r"train\.txt has no columns"):
            load(tmp_path, asked)


def test_ml_100k() -> None:
    path = real_data("ml-100k") / "ml-100k.inter"
    data = load(path, Preparation(min_rating=4, k_core=5, split="temporal"))
    lines = path.read_text().splitlines()[1:]
    kept = [line.split("\t") for line in lines if float(line.split("\t")[2]) >= 4]
    while True:  # the 5-core, slowly
        users, items = (Counter(row[column] for row in kept) for column in (0, 1))
        left = [r for r in kept if users[r[0]] >= 5 and items[r[1]] >= 5]
        if len(left) == len(kept):
            break
        kept = left
    assert (data.n_users, data.n_items) == (len(users), len(items))
    assert data.user_ids is not None and data.user_ids.to_pylist() == sorted(map(int, users))
    assert (
        isinstance(data, Interactions)
        and data.notes[0] == "rated 4 or more: 55,375 of 100,000 interactions"
    )
