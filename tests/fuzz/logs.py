"""Logs of interactions: CSV, TSV, .inter, compressed or not, Parquet, SciPy's .npz, LightGCN's text."""

from __future__ import annotations

import bz2
import gzip
import io
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet
import scipy.sparse

from adaptau_ext.data import Columns, Interactions, Preparation, load, read_log
from tests.fuzz.files import file, read, written
from tests.fuzz.target import Target

ids = st.one_of(
    st.integers(0, 30).map(str), st.sampled_from(["", "a", "ü", "007", "1.5", '"x"', "nan", "-1"])
)
good_ids = st.integers(0, 12).map(str)
headers = st.sampled_from(
    ["user,item,rating,time", "user_id:token,item_id:token,rating:float", "user,item", "uid,iid,x", "1,2",
     "who,what", "user,user", "item,user,time", "user"]
)  # fmt: skip


@st.composite
def text(draw: st.DrawFn, delimiter: str) -> bytes:
    header = draw(headers)
    width = header.count(",") + 1
    field = draw(st.sampled_from([good_ids, good_ids, ids]))
    rows = draw(st.lists(st.lists(field, min_size=width, max_size=width), max_size=40))
    lines = [header, *(",".join(row) for row in rows)]
    end = draw(st.sampled_from(["\n", "\n", "\r\n"]))
    return end.join(line.replace(",", delimiter) for line in lines).encode() + b"\n"


def packed(content: bytes, suffix: str) -> bytes:
    if suffix in ("zst", "lz4"):
        sink = pa.BufferOutputStream()
        with pa.CompressedOutputStream(sink, {"zst": "zstd"}.get(suffix, suffix)) as stream:
            stream.write(content)
        return bytes(sink.getvalue())
    return {"gz": gzip.compress, "bz2": bz2.compress}[suffix](content)


COLUMNS = {
    "int64": st.integers(0, 9), "int8": st.integers(-5, 9), "uint64": st.sampled_from([0, 1, 2**63, 2**64 - 1]),
    "string": st.sampled_from(["a", "b", "7", "", "2026-01-02"]), "float64": st.sampled_from([0.0, 1.0, 0.5, 1e300]),
    "float32": st.sampled_from([1.0, 2.0, float("nan"), float("inf")]), "bool": st.booleans(),
    "timestamp[us]": st.integers(0, 2**40), "date32": st.integers(0, 20000), "binary": st.binary(max_size=3),
    "large_string": st.sampled_from(["x", "y"]), "null": st.none(), "time32[s]": st.integers(0, 80000),
    "duration[s]": st.integers(0, 9),
}  # fmt: skip


@st.composite
def parquet(draw: st.DrawFn) -> bytes:
    n = draw(st.integers(0, 20))
    columns: dict[str, pa.Array] = {}
    for name in draw(
        st.sampled_from([("user", "item"), ("user", "item", "rating", "time"), ("user",), ()])
    ):
        kind = draw(st.sampled_from(["int64", "int64", "string", *COLUMNS]))
        values: Any = COLUMNS[kind]
        if draw(st.integers(0, 9)) == 5:
            values = st.one_of(values, st.none())
        column = pa.array(draw(st.lists(values, min_size=n, max_size=n)), pa.type_for_alias(kind))
        if draw(st.integers(0, 9)) == 5 and kind != "null":
            column = column.dictionary_encode()
        elif draw(st.integers(0, 19)) == 5:
            column = pa.array([[x] for x in column.to_pylist()], pa.list_(column.type))
        columns[name] = column
    sink = io.BytesIO()
    pyarrow.parquet.write_table(pa.table(columns), sink)
    return sink.getvalue()


@st.composite
def npz(draw: st.DrawFn) -> bytes:
    shape = draw(st.tuples(st.integers(0, 9), st.integers(0, 9)))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    matrix = scipy.sparse.coo_array(rng.random(shape) < draw(st.sampled_from([0, 0.3, 1])))
    kind = draw(st.sampled_from(["csr", "csc", "coo", "dia", "bsr"]))
    sink = io.BytesIO()
    scipy.sparse.save_npz(sink, matrix.asformat(kind), compressed=draw(st.booleans()))
    if draw(st.booleans()):
        return sink.getvalue()
    with np.load(io.BytesIO(sink.getvalue())) as arrays:  # its arrays, one of them another
        changed = dict(arrays)
    name = draw(st.sampled_from(sorted(changed)))
    other: Any = st.sampled_from(
        [np.array([-1, 5, 2**40]), np.array(2**62), np.zeros((2, 2)), np.array(b"csr"), np.array(["csr"]),
         np.array([2**31, 2**31]), np.array([-3, 4]), np.arange(4.0), np.array([1 + 2j]), np.array([], np.int64)]
    )  # fmt: skip
    how = draw(st.sampled_from(["other", "drop", "shift", "shorten"]))
    if how == "drop":
        del changed[name]
    elif how == "other":
        changed[name] = draw(other)
    elif how == "shift" and changed[name].dtype.kind in "iuf":
        changed[name] = changed[name] + draw(st.sampled_from([-1, 1, 100]))
    elif how == "shorten" and changed[name].ndim:
        changed[name] = changed[name][:-1]
    sink = io.BytesIO()
    np.savez(sink, **changed)
    return sink.getvalue()


kinds = {
    "a.csv": file(text(",")), "a.tsv": file(text("\t")), "a.inter": file(text("\t")),
    "a.parquet": file(parquet()), "a.npz": file(npz()),
    **{f"a.csv.{s}": file(text(",").map(lambda x, s=s: packed(x, s))) for s in ("gz", "bz2", "zst", "lz4")},
}  # fmt: skip
options = st.fixed_dictionaries(
    {
        "columns": st.sampled_from(
            [None, None, ["0", "1"], ["user", "item", "rating"], ["1", "0", None, "2"]]
        ),
        "delimiter": st.sampled_from([None, None, None, ";", ""]),
        "min_rating": st.sampled_from([None, None, 1.0, float("nan")]),
        "k_core": st.sampled_from([0, 0, 2, 5]),
        "split": st.sampled_from(["random", "leave_one_out", "temporal"]),
    }
)
cases = st.sampled_from(sorted(kinds)).flatmap(
    lambda name: st.fixed_dictionaries(
        {"file": kinds[name].map(lambda x: {name: x}), "options": options}
    )
)


def assert_consistent(data: Interactions) -> None:
    assert data.train.nnz > 0
    for part in (data.train, data.test, data.valid):
        if part is not None:
            part.check_format()
            assert part.shape == (data.n_users, data.n_items)
            assert (part.data == 1).all() and part.has_canonical_format
    assert data.train.multiply(data.test).nnz == 0
    for n, names in ((data.n_users, data.user_ids), (data.n_items, data.item_ids)):
        assert names is None or len(names) == n == len(pc.unique(names))


def check(case: dict[str, Any]) -> str:
    columns = Columns(*(case["options"]["columns"] or ()))
    rest = {name: x for name, x in case["options"].items() if name != "columns"}
    ((name, _),) = case["file"].items()
    with written(case["file"]) as folder:

        def reader() -> str:
            log = read_log(folder / name, columns, delimiter=rest["delimiter"])
            for places, names in ((log.users, log.user_ids), (log.items, log.item_ids)):
                assert places.min() >= 0 and places.max() < len(names)
                assert len(pc.unique(names)) == len(names) and names.null_count == 0
            assert log.ratings is None or not np.isnan(log.ratings).any()
            assert_consistent(load(folder / name, Preparation(columns, **rest)))
            return f"read {name} {rest['split']}"

        return read(reader)


odd_ids = st.sampled_from([-1, 2**31 - 1, 2**31, 2**64, "x", "1_0", "\u0663", "+1", "9" * 5000])


@st.composite
def users_lines(draw: st.DrawFn, first: int, last: int) -> bytes:
    """One line a user, of items in [first, last)."""
    lines = [[user, *draw(st.sets(st.integers(first, last - 1), max_size=4))] for user in range(4)]
    if draw(st.integers(0, 3)) == 2:
        lines.append([0, draw(odd_ids)])
    return "".join(" ".join(map(str, line)) + "\n" for line in lines).encode()


@st.composite
def parts(draw: st.DrawFn) -> dict[str, str]:
    """train, test and perhaps valid, most of them of one kind."""
    kind = draw(st.sampled_from([".txt", ".txt", ".csv", ".inter", ".parquet", ".npz"]))
    found = {}
    for name in draw(
        st.sampled_from([("train", "test"), ("train", "test", "valid"), ("test",), ("train",)])
    ):
        here = draw(st.sampled_from([kind] * 7 + [".csv"]))
        if here == ".txt":
            content = file(users_lines(*((0, 9) if name != "test" else (9, 16))))
        else:
            content = kinds["a" + here]
        found[name + here] = draw(content)
    return found


folders = st.fixed_dictionaries(
    {
        "files": parts(),
        "cold_users": st.sampled_from(["error", "drop", "keep"]),
        "duplicates": st.sampled_from(["error", "merge"]),
    }
)


def check_folder(case: dict[str, Any]) -> str:
    with written(case["files"]) as folder:

        def reader() -> str:
            data = load(folder, cold_users=case["cold_users"], duplicates=case["duplicates"])
            assert_consistent(data)
            return f"read {sorted(case['files'])} {case['cold_users']} {case['duplicates']}"

        return read(reader)


LOG = ("adaptau_ext/data/files.py", "adaptau_ext/data/log.py", "adaptau_ext/data/splits.py")
FOLDER = (
    "adaptau_ext/data/load.py",
    "adaptau_ext/data/lightgcn.py",
    "adaptau_ext/data/interactions.py",
)
TARGETS = [
    Target("read_log", cases, check, LOG),
    Target("load", folders, check_folder, FOLDER),
]
