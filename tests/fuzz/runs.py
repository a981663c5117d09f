"""What runs leave behind: model folders, results, metrics of users, checkpoints of one process or many."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import logging
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import scipy.sparse
import torch
import torch.distributed as dist

from adaptau_ext.data import Interactions
from adaptau_ext.distributed import checkpoint as sharded
from adaptau_ext.evaluation import UserMetrics
from adaptau_ext.fitted import FittedModel
from adaptau_ext.training import TrainConfig, Trainer
from adaptau_ext.training.finished import FinishedRun
from tests.fuzz.files import edited, edits, read, written
from tests.fuzz.target import Target


def encoded(content: bytes) -> str:
    return base64.b64encode(content).decode()


def sealed(content: bytes) -> bytes:
    """As `durable.write_sealed` leaves it, so that the content is looked at."""
    return content + f"\nsha256 {hashlib.sha256(content).hexdigest()}\n".encode()


@st.composite
def mostly_sealed(draw: st.DrawFn, contents: st.SearchStrategy[bytes]) -> bytes:
    content = draw(contents)
    return content if draw(st.integers(0, 7)) == 3 else sealed(content)


@cache
def saved_model() -> dict[str, bytes]:
    """Of three users and four items."""
    seen = scipy.sparse.csr_array(np.array([[1, 0, 0, 1], [0, 0, 0, 0], [0, 1, 1, 0]], np.int8))
    ids = pa.array(["a", "b", "c"]), pa.array([1, 2, 3, 7])
    with written({}) as folder:
        FittedModel(*ids, torch.eye(3, 2), torch.ones(4, 2), "both", seen).save(folder / "m")
        return {path.name: path.read_bytes() for path in (folder / "m").iterdir()}


OTHER_COLUMNS = {
    "id": [pa.array([1, 2, None, 4]), pa.array([[1], [2], [3], [4]]), pa.array([1.5, 2, 3, 4]), pa.nulls(4),
           pa.array(["x"] * 4)],
    "embedding": [pa.array([[1.0, 2.0]] * 4), pa.FixedSizeListArray.from_arrays(pa.array([1.0] * 8), 2),
                  pa.FixedSizeListArray.from_arrays(pa.array([1] * 12, pa.float32()), 3), pa.array([1.0] * 4),
                  pa.array([[1.0, 2.0], None, [1.0, 2.0], [1.0, 2.0]], pa.list_(pa.float32(), 2))],
    "seen": [pa.array([[0, 9], [], [1], []], pa.large_list(pa.int32())),
             pa.array([[2, 1], [], [1], []], pa.large_list(pa.int32())),
             pa.array([[-1], [], [1], []], pa.large_list(pa.int32())),
             pa.array([["x"], [], [], []]), pa.array([0, 1, 2, 3]),
             pa.array([None, [], [1], []], pa.large_list(pa.int32()))],
}  # fmt: skip


@st.composite
def model_files(draw: st.DrawFn) -> dict[str, str]:
    """One file changed; often with the digest of what it is now, so that its content is looked at."""
    files = dict(saved_model())
    name = draw(st.sampled_from(sorted(files)))
    if name.endswith(".parquet") and draw(st.booleans()):
        table = pyarrow.parquet.read_table(io.BytesIO(files[name]))
        column = draw(st.sampled_from(table.column_names))
        place = table.column_names.index(column)
        if draw(st.booleans()):
            other = draw(st.sampled_from(OTHER_COLUMNS[column]))
            table = table.set_column(place, column, [other.slice(0, len(table))])
        elif draw(st.booleans()):
            table = table.drop_columns([column])
        else:
            table = table.slice(0, draw(st.integers(0, 2)))
        sink = io.BytesIO()
        pyarrow.parquet.write_table(table, sink)
        files[name] = sink.getvalue()
    elif name == "model.json" and draw(st.booleans()):
        header = json.loads(files[name])
        odd = st.sampled_from([None, 1, 2, "x", [], {}, [["users", "x"]], "none", "cosine", 1e99])
        header[draw(st.sampled_from(sorted(header)))] = draw(odd)
        files[name] = json.dumps(header).encode()
    else:
        files[name] = edited(files[name], draw(edits))
    if name != "model.json" and draw(st.booleans()):
        header = json.loads(files["model.json"])
        header["sha256"][Path(name).stem] = hashlib.sha256(files[name]).hexdigest()
        files["model.json"] = json.dumps(header).encode()
    return {name: encoded(content) for name, content in files.items()}


def check_model(case: dict[str, str]) -> str:
    with written(case) as folder:

        def reader() -> str:
            model = FittedModel.load(folder)
            table = model.recommend(k=2)
            assert table.num_rows <= 2 * len(model.user_ids)
            known = set(model.item_ids.to_pylist())
            assert known.issuperset(table["item"].to_pylist())
            return f"loaded {model}"

        return read(reader)


@cache
def saved_run() -> dict[str, bytes]:
    with written({}) as folder:
        UserMetrics(np.arange(5), {"recall@20": np.linspace(0, 1, 5)}, held_out=7).save(
            folder / "users.npz"
        )
        users = (folder / "users.npz").read_bytes()
    return {
        "config.json": TrainConfig().model_dump_json().encode(),
        "results.json": json.dumps({"test": {"recall@20": 0.5}, "best_epoch": 1}).encode(),
        "metrics.jsonl": b'{"epoch": 0, "metrics": {"recall@20": 0.5}}\n' * 2,
        "users.npz": users,
    }


@st.composite
def run_files(draw: st.DrawFn) -> dict[str, str]:
    files = dict(saved_run())
    name = draw(st.sampled_from(sorted(files)))
    if name == "users.npz" and draw(st.booleans()):
        arrays: Any = st.sampled_from(
            [np.arange(5), np.arange(4), np.zeros((5, 1)), np.array(3), np.array(["a"] * 5),
             np.array([1j] * 5), np.array([{}], object), np.full(5, np.nan)]
        )  # fmt: skip
        names = st.sampled_from(["users", "recall@20", "held_out", "x"])
        sink = io.BytesIO()
        np.savez(sink, **draw(st.dictionaries(names, arrays)))
        files[name] = draw(mostly_sealed(st.just(sink.getvalue())))
    elif name == "users.npz":
        files[name] = draw(mostly_sealed(st.builds(edited, st.just(files[name]), edits)))
    elif draw(st.integers(0, 3)) == 2:
        odd = [b"[]", b"3", b"null", b'"x"', b"[" * 100_000, b"{}", b"NaN", b"9" * 5000]
        files[name] = draw(st.sampled_from(odd))
    else:
        files[name] = edited(files[name], draw(edits))
    return {name: encoded(content) for name, content in files.items()}


def check_run(case: dict[str, str]) -> str:
    with written(case) as folder:

        def reader() -> str:
            run = FinishedRun.read(folder)
            assert isinstance(run.results, dict) and isinstance(run.config, TrainConfig)
            users = run.users()
            assert all(x.shape == users.users.shape for x in users.values.values())
            return f"read {sorted(users.values)} {len(run.epochs)}"

        return read(reader)


@cache
def trainer() -> Trainer:
    pairs = np.repeat(np.arange(6), 2), np.tile(np.arange(4), 3)
    data = Interactions.from_pairs("tiny", pairs, (np.arange(6), np.full(6, 4)))
    config = TrainConfig(
        dim=2, epochs=1, n_negatives=2, batch_size=4, protocol="paper", ks=(2,), threads=1
    )
    made = Trainer(config, data)
    list(made.run())
    return made


@cache
def saved_state() -> bytes:
    sink = io.BytesIO()
    torch.save(trainer().state_dict(), sink)
    return sink.getvalue()


class Executes:
    """Pickles as a call of os.system, which no reader may make."""

    def __reduce__(self) -> tuple[Any, ...]:
        import os

        return os.system, ("true",)


@st.composite
def states(draw: st.DrawFn) -> bytes:
    if draw(st.integers(0, 9)) == 5:
        return pickle.dumps({"model": Executes()}, protocol=draw(st.integers(0, 5)))
    if draw(st.booleans()):
        return edited(saved_state(), draw(edits))
    state = torch.load(io.BytesIO(saved_state()), weights_only=True)
    odd: Any = st.sampled_from(
        [
            None,
            3,
            "x",
            [],
            {},
            [{}],
            {"x": torch.zeros(2)},
            torch.zeros(3),
            torch.zeros(0, dtype=torch.uint8),
        ]
    )
    name = draw(st.sampled_from([*state, ""]))
    if not name:
        state = draw(odd)
    elif draw(st.booleans()):
        state[name] = Executes() if draw(st.integers(0, 4)) == 2 else draw(odd)
    else:
        del state[name]
    sink = io.BytesIO()
    torch.save(state, sink)
    return sink.getvalue()


def check_state(case: str) -> str:
    with written({"checkpoint.pt": case}) as folder:

        def reader() -> str:
            trainer().restore(folder)
            return f"restored, best {trainer().best}"

        return read(reader)


def tables() -> tuple[sharded.Sharded, dict[str, torch.Tensor]]:
    draw = torch.Generator().manual_seed(0)
    return {"users": (torch.rand(3, 2, generator=draw), 3)}, {"tau": torch.rand(2, generator=draw)}


@contextmanager
def process_group() -> Iterator[None]:
    """Of this process alone."""
    logging.disable(logging.ERROR)  # PyTorch logs the tracebacks of what is refused
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        yield
    finally:
        dist.destroy_process_group()
        logging.disable(logging.NOTSET)


@cache
def saved_shards() -> dict[str, bytes]:
    with process_group(), written({}) as folder:
        sharded.save(folder / "c", *tables(), {"epoch": 3})
        return {path.name: path.read_bytes() for path in (folder / "c").iterdir()}


@st.composite
def shards(draw: st.DrawFn) -> dict[str, str]:
    files = dict(saved_shards())
    name = draw(st.sampled_from(sorted(files)))
    state = files["state"].partition(b"\n")[0]
    if name == "state" and draw(st.booleans()):
        odd = [
            b"[]",
            b"3",
            b"null",
            b"[" * 100_000,
            b'{"sha256": 3}',
            b'{"sha256": {"": "x"}}',
            b'{"sha256": []}',
        ]
        files[name] = sealed(draw(st.sampled_from(odd)))
    elif name == "state":
        files[name] = draw(mostly_sealed(st.builds(edited, st.just(state), edits)))
    else:
        files[name] = edited(files[name], draw(edits))
    if name != "state" and draw(st.booleans()):
        header = json.loads(state)
        header["sha256"][name] = hashlib.sha256(files[name]).hexdigest()
        files["state"] = sealed(json.dumps(header).encode())
    return {name: encoded(content) for name, content in files.items()}


def check_shards(case: dict[str, str]) -> str:
    files = {f"c/{name}": content for name, content in case.items()}
    with process_group(), written(files) as folder:

        def reader() -> str:
            state = sharded.load(folder / "c", *tables())
            return "nothing there" if state is None else f"loaded {sorted(state)}"

        return read(reader)


FITTED, FINISHED = "adaptau_ext/fitted.py", "adaptau_ext/training/finished.py"
TARGETS = [
    Target("FittedModel.load", model_files(), check_model, (FITTED,)),
    Target("FinishedRun.read", run_files(), check_run, (FINISHED, "adaptau_ext/errors.py")),
    Target(
        "Trainer.restore",
        mostly_sealed(states()).map(encoded),
        check_state,
        ("adaptau_ext/training/checkpoint.py",),
    ),
    Target(
        "distributed.checkpoint.load",
        shards(),
        check_shards,
        ("adaptau_ext/distributed/checkpoint.py",),
    ),
]
