"""A fitted model in the forms that other software reads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from adaptau_ext import durable
from adaptau_ext.fitted import FittedModel

_LARGE = 1 << 30  # bytes; one file of ONNX holds twice that at most

# Each file is whole or not there (durable.py), but for the data that ONNX keeps beside a large model.
# Every form holds embeddings whose inner products are the scores: cosine models as unit vectors.


def export_numpy(model: FittedModel, folder: Path) -> list[Path]:
    """`users.npy`, `items.npy` `[n, d]` float32, and `user_ids.npy`, `item_ids.npy`."""
    u, i = (table.numpy() for table in model.unit_embeddings())
    ids = {"user_ids": model.user_ids, "item_ids": model.item_ids}
    arrays = {"users": u, "items": i}
    arrays |= {name: _numpy_ids(column) for name, column in ids.items()}
    paths = []
    for name, array in arrays.items():
        paths.append(folder / f"{name}.npy")
        _save(paths[-1], array)
    return paths


def export_parquet(model: FittedModel, folder: Path) -> list[Path]:
    """`users.parquet`, `items.parquet`: id, embedding (a list of d float32)."""
    paths = []
    for name, ids, table in zip(
        ("users", "items"), (model.user_ids, model.item_ids), model.unit_embeddings(), strict=True
    ):
        flat = pa.array(table.contiguous().numpy().ravel())
        rows = pa.FixedSizeListArray.from_arrays(flat, table.shape[1])
        paths.append(folder / f"{name}.parquet")
        with durable.beside(paths[-1]) as part:
            pyarrow.parquet.write_table(pa.table({"id": ids, "embedding": rows}), part)
    return paths


def export_faiss(model: FittedModel, folder: Path) -> list[Path]:
    """`items.faiss`, an exact inner-product index whose labels are the items' rows; ids as in NumPy."""
    import faiss

    items = model.unit_embeddings()[1].numpy()
    index = faiss.IndexFlatIP(items.shape[1])
    index.add(items)
    path = folder / "items.faiss"
    with durable.beside(path) as part:
        faiss.write_index(index, str(part))
    return [path, *_item_ids(model, folder)]


def export_hnswlib(model: FittedModel, folder: Path) -> list[Path]:
    """`items.hnsw`, an approximate inner-product index whose labels are the items' rows; ids as in
    NumPy.

    ::

        index = hnswlib.Index(space="ip", dim=d)
        index.load_index("items.hnsw")
        index.set_ef(200)                           # candidates looked at, which the file does not keep
    """
    import hnswlib

    items = model.unit_embeddings()[1].numpy()
    index = hnswlib.Index(space="ip", dim=items.shape[1])
    index.init_index(max_elements=len(items), M=32, ef_construction=200, random_seed=0)
    index.add_items(items, np.arange(len(items)), num_threads=1)  # the same index every time
    path = folder / "items.hnsw"
    with durable.beside(path) as part:
        index.save_index(str(part))
    return [path, *_item_ids(model, folder)]


def export_onnx(model: FittedModel, folder: Path) -> list[Path]:
    """`model.onnx`: (users `[b]` int64 rows, k `[1]` int64) -> (scores `[b, k]`, items `[b, k]` rows).

    Scores everything; what a user has already is for the caller to leave out, by asking for more.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    u, i = (table.numpy() for table in model.unit_embeddings())
    nodes = [
        helper.make_node("Gather", ["user_table", "users"], ["u"]),
        helper.make_node("MatMul", ["u", "item_columns"], ["all_scores"]),
        helper.make_node("TopK", ["all_scores", "k"], ["scores", "items"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "adaptau",
        [
            helper.make_tensor_value_info("users", TensorProto.INT64, ["b"]),
            helper.make_tensor_value_info("k", TensorProto.INT64, [1]),
        ],
        [
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["b", "k"]),
            helper.make_tensor_value_info("items", TensorProto.INT64, ["b", "k"]),
        ],
        [
            numpy_helper.from_array(u, "user_table"),
            numpy_helper.from_array(np.ascontiguousarray(i.T), "item_columns"),
        ],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path, data = folder / "model.onnx", folder / "model.onnx.data"
    large = u.nbytes + i.nbytes > _LARGE
    data.unlink(missing_ok=True)  # onnx would write behind what is there
    with durable.beside(path) as part:
        onnx.save(made, part, save_as_external_data=large, location=data.name)
        onnx.checker.check_model(str(part))
    return [path, *[data] * large, *_item_ids(model, folder)]


def _item_ids(model: FittedModel, folder: Path) -> list[Path]:
    path = folder / "item_ids.npy"
    _save(path, _numpy_ids(model.item_ids))
    return [path]


def _save(path: Path, array: np.ndarray) -> None:
    durable.write(path, lambda file: np.save(file, array, allow_pickle=False))


def _numpy_ids(ids: pa.Array) -> np.ndarray:
    """int64, or fixed-width text: no Python objects."""
    values = np.asarray(ids.to_numpy(zero_copy_only=False))
    return values.astype(np.str_) if values.dtype == object else values


FORMATS: dict[str, tuple[Callable[[FittedModel, Path], list[Path]], tuple[str, ...]]] = {
    "numpy": (export_numpy, ()),
    "parquet": (export_parquet, ()),
    "faiss": (export_faiss, ("faiss",)),
    "hnswlib": (export_hnswlib, ("hnswlib",)),
    "onnx": (export_onnx, ("onnx",)),
}
