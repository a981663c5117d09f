"""A trained model as it is used: embeddings, ids, and what everybody has already."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet
import scipy.sparse
import torch
from torch import Tensor

from adaptau_ext import durable
from adaptau_ext.arguments import csr_pair
from adaptau_ext.data import Interactions
from adaptau_ext.errors import DataError, ModelError, reading
from adaptau_ext.index import ItemIndex
from adaptau_ext.ops import Normalize
from adaptau_ext.padded import padded_topk

_VERSION = 1
_USERS_A_BATCH = 16_384
RECOMMENDATIONS = ("user", "rank", "item", "score")


@dataclass(frozen=True)
class FittedModel:
    """Embeddings that recommend.

    ::

        score(user, item) = <u, i>, of unit vectors where `normalize` says so

    Attributes:
        user_ids, item_ids: Arrow arrays of the ids that people use, one a row.
        user_embeddings: `[n_users, d]` float32. item_embeddings: `[n_items, d]` float32.
        normalize: embeddings that are divided by their norm: "both" for cosine scores, "none" for inner
            products.
        seen: `[n_users, n_items]` CSR: what each user has already.
    """

    user_ids: pa.Array
    item_ids: pa.Array
    user_embeddings: Tensor
    item_embeddings: Tensor
    normalize: Normalize
    seen: scipy.sparse.csr_array

    @classmethod
    def of(
        cls, data: Interactions, embeddings: tuple[Tensor, Tensor], normalize: Normalize
    ) -> FittedModel:
        """Of a model trained on `data`; what was held out for validation is seen, too."""
        user_ids = pa.array(np.arange(data.n_users)) if data.user_ids is None else data.user_ids
        item_ids = pa.array(np.arange(data.n_items)) if data.item_ids is None else data.item_ids
        # copies: training may go on
        u, i = (table.detach().to("cpu", torch.float32, copy=True) for table in embeddings)
        return cls(user_ids, item_ids, u, i, normalize, data.seen)

    def __repr__(self) -> str:
        return (
            f"FittedModel({len(self.user_ids):,} users, {len(self.item_ids):,} items, "
            f"d = {self.item_embeddings.shape[1]})"
        )

    def recommend(
        self, users: Sequence[Any] | None = None, k: int = 10, *, exclude_seen: bool = True
    ) -> pa.Table:
        """The k best items of each user.

        Args:
            users: their ids; default: all of them.
            k: items a user; whoever has fewer candidates gets all of them.
            exclude_seen: leave out what the user has already.

        Returns:
            an Arrow table with columns user, rank (from 1), item, score, users in the order given:
            `.to_pandas()`, `.to_pylist()` and `polars.from_arrow` make something else of it.

        Raises:
            DataError: for a user that the model does not know.
        """
        return pa.Table.from_batches(
            self.recommend_batches(users, k, exclude_seen=exclude_seen), self.schema
        )

    @property
    def schema(self) -> pa.Schema:
        """Of recommendations."""
        types = (self.user_ids.type, pa.int32(), self.item_ids.type, pa.float32())
        return pa.schema(list(zip(RECOMMENDATIONS, types, strict=True)))

    def recommend_batches(
        self, users: Sequence[Any] | None = None, k: int = 10, *, exclude_seen: bool = True
    ) -> Iterator[pa.RecordBatch]:
        """As `recommend`, some users at a time: memory does not grow with their number."""
        if k < 1:
            raise DataError(f"k must be at least 1, got {k}")
        k = min(k, len(self.item_ids))
        rows = np.arange(len(self.user_ids)) if users is None else places(users, self.user_ids, "user")
        index = ItemIndex(self.item_embeddings, normalize=self.normalize)
        for start in range(0, rows.size, _USERS_A_BATCH):
            chosen = rows[start : start + _USERS_A_BATCH]
            seen = csr_pair(self.seen[chosen], torch.device("cpu")) if exclude_seen else None
            best = padded_topk(index, self.user_embeddings[torch.from_numpy(chosen)], k, seen)
            scores, items = (part.numpy() for part in best)
            kept = items >= 0
            counts = kept.sum(1)
            ranks = np.broadcast_to(np.arange(1, k + 1, dtype=np.int32), kept.shape)
            columns = [
                self.user_ids.take(pa.array(np.repeat(chosen, counts))),
                pa.array(ranks[kept]),
                self.item_ids.take(pa.array(items[kept])),
                pa.array(scores[kept]),
            ]
            yield pa.RecordBatch.from_arrays(columns, schema=self.schema)

    def similar_items(self, items: Sequence[Any], k: int = 10) -> pa.Table:
        """The k items with the most similar embeddings, by cosine, to each of some.

        Returns:
            an Arrow table with columns item, rank (from 1), similar, cosine; of a catalogue of one item
            without a row.
        """
        if k < 1:
            raise DataError(f"k must be at least 1, got {k}")
        rows = places(items, self.item_ids, "item")
        k = min(k, len(self.item_ids) - 1)
        index = ItemIndex(self.item_embeddings, normalize="both")
        itself = (np.arange(rows.size + 1), rows)
        if k > 0:
            scores, ids = index.topk(self.item_embeddings[torch.from_numpy(rows)], k, exclude=itself)
        else:
            scores, ids = torch.empty(rows.size, 0), torch.empty(rows.size, 0, dtype=torch.int64)
        return pa.table(
            {
                "item": self.item_ids.take(pa.array(np.repeat(rows, k))),
                "rank": np.tile(np.arange(1, k + 1, dtype=np.int32), rows.size),
                "similar": self.item_ids.take(pa.array(ids.numpy().ravel())),
                "cosine": scores.numpy().ravel(),
            }
        )

    def unit_embeddings(self) -> tuple[Tensor, Tensor]:
        """Users' and items' embeddings whose inner products are the scores."""
        u, i = self.user_embeddings, self.item_embeddings
        if self.normalize in ("both", "user"):
            u = torch.ops.adaptau.unit_rows(u)
        if self.normalize in ("both", "item"):
            i = torch.ops.adaptau.unit_rows(i)
        return u, i

    def save(self, folder: str | Path) -> Path:
        """Writes `users.parquet` (id, embedding, seen), `items.parquet` (id, embedding), `model.json`.

        The folder appears when it is complete; a model that is there is replaced.

        Raises:
            ModelError: if something else is there.
        """
        folder = Path(folder)
        if folder.exists() and not (folder / "model.json").is_file():
            raise ModelError(f"{folder}: something is there that is no model; choose another folder")
        seen = pa.LargeListArray.from_arrays(
            pa.array(self.seen.indptr.astype(np.int64)), pa.array(self.seen.indices.astype(np.int32))
        )
        tables = {
            "users": {"id": self.user_ids, "embedding": _vectors(self.user_embeddings), "seen": seen},
            "items": {"id": self.item_ids, "embedding": _vectors(self.item_embeddings)},
        }
        header = {
            "version": _VERSION,
            "normalize": self.normalize,
            "dim": self.item_embeddings.shape[1],
            "n_users": len(self.user_ids),
            "n_items": len(self.item_ids),
        }
        with durable.folder_beside(folder) as part:
            sums = {}
            for name, columns in tables.items():
                path = part / f"{name}.parquet"
                pyarrow.parquet.write_table(pa.table(columns), path)
                sums[name] = durable.sha256(path)
            text = json.dumps({**header, "sha256": sums}, indent=2) + "\n"
            (part / "model.json").write_text(text)
        return folder

    @classmethod
    def load(cls, folder: str | Path) -> FittedModel:
        """Reads what `save` wrote; nothing in it is executed.

        Raises:
            ModelError: if the folder holds no model, or a file of it has changed since.
        """
        folder = durable.found(Path(folder))
        path = folder / "model.json"
        if not path.is_file():
            raise ModelError(f"{folder}: no model is there; a model is a folder with model.json")
        header = durable.read_json(path, "train again")
        with reading(f"{path}: this is no model's description; the file is damaged", "train again"):
            version, normalize, sums = header["version"], header["normalize"], header["sha256"]
            digests = {name: sums[name] for name in ("users", "items")}
            shape = header["n_users"], header["n_items"], header["dim"]
        if version != _VERSION:
            raise ModelError(f"{path}: a model of version {version}; this package reads {_VERSION}")
        if normalize not in get_args(Normalize):
            raise ModelError(f"{path}: normalize is {normalize!r}; the file is damaged, train again")
        tables = {}
        for name, digest in digests.items():
            part = folder / f"{name}.parquet"
            if not part.is_file() or durable.sha256(part) != digest:
                raise ModelError(f"{part}: missing or changed since it was written; train again")
            tables[name] = part
        with reading(f"{folder}: its tables are not those of a model", "train again"):
            return cls._of_tables(tables["users"], tables["items"], normalize, shape)

    @classmethod
    def _of_tables(
        cls, user_file: Path, item_file: Path, normalize: Normalize, shape: tuple[int, int, int]
    ) -> FittedModel:
        """Checks what a digest cannot know: that whoever wrote the files meant a model."""
        users, items = (
            pyarrow.parquet.read_table(path, memory_map=True).combine_chunks()
            for path in (user_file, item_file)
        )
        for ids in (users["id"], items["id"]):
            if ids.null_count or pa.types.is_nested(ids.type):
                raise ValueError("ids are missing, or lists")
        u, i = _matrix(users["embedding"]), _matrix(items["embedding"])
        if (len(u), len(i), u.shape[1], i.shape[1]) != (*shape, shape[2]):
            raise ValueError("model.json says that there are others")
        if u.dtype != torch.float32 or i.dtype != torch.float32:
            raise ValueError("embeddings must be float32")
        lists = users["seen"].combine_chunks()
        indptr, indices = (part.to_numpy() for part in (lists.offsets, lists.values))
        ones = np.ones(indices.size, np.int8)
        seen = scipy.sparse.csr_array((ones, indices, indptr), shape=shape[:2])
        seen.check_format(full_check=True)
        if not seen.has_canonical_format:
            raise ValueError("items of seen must ascend")
        ids = users["id"].combine_chunks(), items["id"].combine_chunks()
        return cls(*ids, u, i, normalize, seen)


def places(wanted: Sequence[Any], ids: pa.Array, what: str) -> np.ndarray:
    """Rows of ids.

    Raises:
        DataError: for one that is not there.
    """
    if isinstance(wanted, (str, bytes)):
        raise DataError(f"{what}s are a sequence of ids, got {wanted!r}; give [{wanted!r}]")
    try:
        given = pa.array(wanted)
        asked = given if given.type == ids.type else given.cast(ids.type)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError):
        kind = "integers" if pa.types.is_integer(ids.type) else "strings"
        raise DataError(f"{what} ids are {kind} in this model, got {list(wanted)[:3]!r}") from None
    found = pc.index_in(asked, ids)
    if pa.types.is_string(given.type):  # "007" is not 7
        found = pc.if_else(pc.equal(asked.cast(pa.string()), given), found, None)
    if found.null_count:
        first = given[found.is_null().index(True).as_py()].as_py()
        raise DataError(f"{what} {first!r} is not among the {len(ids):,} {what}s of the model")
    return np.asarray(found.to_numpy(), np.int64)


def _vectors(rows: Tensor) -> pa.Array:
    flat = pa.array(rows.contiguous().numpy().ravel())
    return pa.FixedSizeListArray.from_arrays(flat, rows.shape[1])


def _matrix(column: pa.ChunkedArray) -> Tensor:
    array = column.combine_chunks()
    flat = array.flatten().to_numpy()
    return torch.from_numpy(flat.reshape(len(array), array.type.list_size).copy())
