"""A trained model in use: recommendations, files, estimator, exports."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest
import scipy.sparse
import torch

from adaptau_ext import AdapTau, FittedModel, reference
from adaptau_ext.data import DataError, Interactions, synthetic
from adaptau_ext.errors import ConfigError, InputError, ModelError
from adaptau_ext.export import FORMATS
from adaptau_ext.ops import Normalize
from adaptau_ext.recipes import RECIPES


@pytest.fixture(autouse=True)
def _one_thread(restore_threads: None) -> None:
    torch.set_num_threads(1)


def model_of(normalize: Normalize = "both", n_users: int = 30, n_items: int = 50) -> FittedModel:
    generator = torch.Generator().manual_seed(0)
    u, i = (torch.randn(n, 16, generator=generator) for n in (n_users, n_items))
    rng = np.random.default_rng(0)
    seen = scipy.sparse.csr_array((rng.random((n_users, n_items)) < 0.2).astype(np.int8))
    seen.sort_indices()
    users = pa.array([f"user {n:02d}" for n in range(n_users)])
    return FittedModel(users, pa.array(range(100, 100 + n_items)), u, i, normalize, seen)


@pytest.mark.parametrize("normalize", ["both", "user", "item", "none"])
def test_recommendations_are_the_best_unseen_items(normalize: Normalize) -> None:
    model = model_of(normalize)
    rows = model.recommend(["user 07", "user 03"], k=5).to_pylist()
    assert [row["user"] for row in rows] == ["user 07"] * 5 + ["user 03"] * 5
    assert [row["rank"] for row in rows] == [1, 2, 3, 4, 5] * 2
    u, i = model.user_embeddings.double(), model.item_embeddings.double()
    if normalize in ("both", "user"):
        u = u / u.norm(dim=1, keepdim=True)
    if normalize in ("both", "item"):
        i = i / i.norm(dim=1, keepdim=True)
    for user, start in ((7, 0), (3, 5)):
        scores = (u[user] @ i.T).numpy()
        scores[model.seen[[user]].indices] = -np.inf
        best = np.argsort(-scores)[:5]
        assert [row["item"] - 100 for row in rows[start : start + 5]] == best.tolist()
        assert [row["score"] for row in rows[start : start + 5]] == pytest.approx(
            scores[best], rel=1e-5
        )


def test_whoever_has_fewer_candidates_gets_them_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adaptau_ext.fitted._USERS_A_BATCH", 7)
    model = model_of()
    table = model.recommend(k=45).to_pandas()
    left = 50 - np.diff(model.seen.indptr)
    assert table.groupby("user").size().tolist() == np.minimum(left, 45).tolist()
    everything = model.recommend(k=60, exclude_seen=False).to_pandas()
    assert (everything.groupby("user").size() == 50).all()
    assert everything.groupby("user")["item"].nunique().eq(50).all()


def test_similar_items_are_not_the_item_itself() -> None:
    model = model_of("none")
    table = model.similar_items([103, 149], k=4).to_pandas()
    unit = torch.nn.functional.normalize(model.item_embeddings.double(), dim=1).numpy()
    for item, rows in table.groupby("item"):
        cosine = unit @ unit[item - 100]
        cosine[item - 100] = -1
        best = np.argsort(-cosine)[:4]
        assert rows.similar.tolist() == (best + 100).tolist()
        assert rows.cosine.tolist() == pytest.approx(cosine[best], abs=1e-6)


def test_similar_items_of_a_catalogue_of_one() -> None:
    model = model_of()
    with pytest.raises(DataError, match="k must be at least 1, got 0"):
        model.similar_items([100], k=0)
    one = replace(
        model, item_ids=model.item_ids[:1], item_embeddings=model.item_embeddings[:1],
        seen=model.seen[:, :1],
    )  # fmt: skip
    assert one.similar_items([100]).num_rows == 0


def test_unknown_ids_are_named() -> None:
    model = model_of()
    with pytest.raises(DataError, match="user 'bob' is not among the 30 users"):
        model.recommend(["user 01", "bob"])
    with pytest.raises(DataError, match=r"users are a sequence of ids, got 'bob'; give \['bob'\]"):
        model.recommend("bob")
    with pytest.raises(DataError, match="item 7 is not among the 50 items"):
        model.similar_items([7])
    with pytest.raises(DataError, match=r"item ids are integers in this model, got \['x'\]"):
        model.similar_items(["x"])
    with pytest.raises(DataError, match="k must be at least 1, got 0"):
        model.recommend(k=0)


def test_text_that_is_no_id_of_integers() -> None:
    model = model_of()
    integers = replace(model, user_ids=pa.array(range(len(model.user_ids))))
    assert integers.recommend(["7"], k=1).equals(integers.recommend([7], k=1))
    with pytest.raises(DataError, match="user '007' is not among the 30 users"):
        integers.recommend(["7", "007"])


def test_saved_is_the_same(tmp_path: Path) -> None:
    model = model_of()
    model.save(tmp_path / "m")
    loaded = FittedModel.load(tmp_path / "m")
    assert loaded.recommend(k=7).equals(model.recommend(k=7))
    assert loaded.user_ids.equals(model.user_ids) and loaded.normalize == "both"
    assert torch.equal(loaded.item_embeddings, model.item_embeddings)
    assert (loaded.seen != model.seen).nnz == 0
    model_of("none").save(tmp_path / "m")  # replaces it
    assert FittedModel.load(tmp_path / "m").normalize == "none"
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


@pytest.mark.parametrize("name", ["users.parquet", "items.parquet"])
def test_damage_is_found(tmp_path: Path, name: str) -> None:
    folder = model_of().save(tmp_path / "m")
    path = folder / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ModelError, match=f"{name}: missing or changed since it was written"):
        FittedModel.load(folder)
    path.unlink()
    with pytest.raises(ModelError, match=f"{name}: missing"):
        FittedModel.load(folder)


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no model is there"):
        FittedModel.load(tmp_path)
    folder = model_of().save(tmp_path / "m")
    header = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps({**header, "version": 99}))
    with pytest.raises(ModelError, match="a model of version 99; this package reads 1"):
        FittedModel.load(folder)
    (folder / "model.json").write_text("{")
    with pytest.raises(ModelError, match="the file is damaged"):
        FittedModel.load(folder)


@pytest.mark.parametrize("normalize", ["both", "none"])
@pytest.mark.parametrize("name", list(FORMATS))
def test_exports_rank_as_the_model_does(tmp_path: Path, name: str, normalize: Normalize) -> None:
    make, modules = FORMATS[name]
    for module in modules:
        pytest.importorskip(module)
    model, k = model_of(normalize, n_items=500), 8
    paths = make(model, tmp_path)
    assert all(path.is_file() for path in paths)
    expected = reference.topk(*model.unit_embeddings(), k)[1].numpy()
    ids = [] if name == "parquet" else np.load(tmp_path / "item_ids.npy")
    users = model.unit_embeddings()[0].numpy()
    if name == "numpy":
        scores = np.load(tmp_path / "users.npy") @ np.load(tmp_path / "items.npy").T
        found = np.argsort(-scores, kind="stable")[:, :k]
        assert np.load(tmp_path / "user_ids.npy").tolist() == model.user_ids.to_pylist()
    elif name == "parquet":
        tables = [
            pyarrow.parquet.read_table(tmp_path / f"{side}.parquet") for side in ("users", "items")
        ]
        u, i = (np.stack(table["embedding"].to_pylist()) for table in tables)
        found = np.argsort(-(u @ i.T), kind="stable")[:, :k]
        ids = tables[1]["id"].to_numpy()
    elif name == "faiss":
        import faiss

        found = faiss.read_index(str(tmp_path / "items.faiss")).search(users, k)[1]
    elif name == "hnswlib":
        import hnswlib

        index = hnswlib.Index(space="ip", dim=users.shape[1])
        index.load_index(str(tmp_path / "items.hnsw"))
        index.set_ef(200)  # as the docstring says: it is not kept
        found = index.knn_query(users, k)[0].astype(np.int64)
    else:
        onnxruntime = pytest.importorskip("onnxruntime")
        session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
        asked = {"users": np.arange(30), "k": np.array([k])}
        scores, found = session.run(["scores", "items"], asked)
        assert scores == pytest.approx(reference.topk(*model.unit_embeddings(), k)[0].numpy(), rel=1e-5)
    assert np.array_equal(found, expected)
    assert np.array_equal(np.asarray(ids), model.item_ids.to_numpy())


def test_exports_rank_short_embeddings_as_the_model_does() -> None:
    model = model_of("both")
    for scale in (1e-13, 1e-16, 1e-30):
        model.item_embeddings[7] *= scale
        u, i = model.unit_embeddings()
        ids = reference.topk(u, i, 5, exclude=model.seen)[1]
        found = model.recommend(k=5).to_pandas()
        assert found.item.tolist() == model.item_ids.take(pa.array(ids.flatten().numpy())).to_pylist()
        assert i[7].norm().item() == pytest.approx(1)
        model.item_embeddings[7] /= scale


def test_large_models_as_onnx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside the file; again over the one before."""
    pytest.importorskip("onnx")
    session = pytest.importorskip("onnxruntime")
    monkeypatch.setattr("adaptau_ext.export._LARGE", 1000)
    model = model_of("both", n_items=500)
    for _ in range(2):
        paths = FORMATS["onnx"][0](model, tmp_path)
        assert [path.name for path in paths] == ["model.onnx", "model.onnx.data", "item_ids.npy"]
    tables = sum(table.nbytes for table in model.unit_embeddings())
    assert (tmp_path / "model.onnx.data").stat().st_size == tables
    asked = {"users": np.arange(30), "k": np.array([5])}
    found = session.InferenceSession(tmp_path / "model.onnx").run(["items"], asked)[0]
    assert np.array_equal(found, reference.topk(*model.unit_embeddings(), 5)[1].numpy())


def frame_of(data: Interactions) -> pd.DataFrame:
    users, items = (part.numpy() for part in data.pairs())
    return pd.DataFrame({"user": [f"u{u}" for u in users], "item": [f"i{i}" for i in items]})


SMALL = {"dim": 8, "n_negatives": 16, "batch_size": 256, "lr": 0.02, "epochs": 3}


def test_estimator_fits_frames_matrices_and_files(tmp_path: Path) -> None:
    data = synthetic(0, n_users=60, n_items=80, n_tastes=4, mean_items=12)
    frame = frame_of(data)
    frame.to_csv(tmp_path / "log.csv", index=False)
    fitted = [AdapTau(**SMALL).fit(x) for x in (frame, tmp_path / "log.csv")]
    assert fitted[0].recommend(["u3"], k=5).equals(fitted[1].recommend(["u3"], k=5))
    assert len(fitted[0].history_) == 3 and fitted[0].history_[0].metrics == {}
    matrix = AdapTau(**SMALL).fit(data.train)
    items = matrix.recommend([3], k=80).to_pandas().item
    assert not set(items) & set(data.train[[3]].indices)
    assert matrix.fitted_.user_embeddings.shape == (60, 8)
    same = AdapTau(**SMALL).fit(data)
    assert same.recommend(k=3).equals(matrix.recommend(k=3))


def test_estimator_holds_out_items_to_stop_early() -> None:
    data = synthetic(0, n_users=60, n_items=80, n_tastes=4, mean_items=12)
    model = AdapTau(**{**SMALL, "epochs": 40, "patience": 2}).fit(frame_of(data))
    by = [result.metrics["recall@20"] for result in model.history_]
    assert len(by) < 40 and by.index(max(by)) == len(by) - 3
    seen = model.fitted_.seen
    assert seen.nnz == data.train.nnz  # what was held out is not recommended either
    cut = data.cut_valid(0.1).without_valid()
    again = AdapTau(**{**SMALL, "patience": 2}).fit(cut)
    assert max(result.metrics["recall@20"] for result in again.history_) > 0


def test_estimator_follows_conventions(tmp_path: Path) -> None:
    model = AdapTau(**SMALL)
    assert model.get_params() == SMALL and AdapTau(**model.get_params()).get_params() == SMALL
    assert model.set_params(lr=0.5) is model and model.get_params()["lr"] == 0.5
    for name, values in RECIPES.items():  # also of what has defaults of its own
        found = AdapTau(recipe=name, dim=8)._config()
        assert (found.epochs, found.patience) == (values["epochs"], values["patience"])
        assert (found.dim, AdapTau(recipe=name, epochs=3)._config().epochs) == (8, 3)
    stopped = AdapTau(recipe="gowalla-mf", patience=5, valid_fraction=0.2)._config()
    assert (stopped.protocol, stopped.patience, stopped.valid_fraction) == ("clean", 5, 0.2)
    assert AdapTau(recipe=None)._config() == AdapTau()._config()
    assert AdapTau(recipe="gowalla-mf", loss="direct_au")._config().tau == 1
    sklearn = pytest.importorskip("sklearn.base")
    assert sklearn.clone(model).get_params() == model.get_params()
    with pytest.raises(InputError, match="not fitted yet: call fit"):
        model.recommend(["a"])
    with pytest.raises(ConfigError, match="unknown key 'learning_rate'"):
        AdapTau(learning_rate=1)
    with pytest.raises(ConfigError, match="lr: Input should be greater than 0, got -1"):
        AdapTau(lr=-1)
    with pytest.raises(ConfigError, match="lr: Input should be greater than 0"):
        model.set_params(lr=-1)
    assert model.get_params()["lr"] == 0.5
    for setting in ({"data": "x.csv"}, {"split": "temporal"}, {"threads": 1}, {"shard": True}):
        with pytest.raises(InputError, match=f"{next(iter(setting))} is no setting of AdapTau"):
            AdapTau(**setting)
    with pytest.raises(InputError, match="valid_fraction is held out to stop by: give patience, too"):
        AdapTau(valid_fraction=0.2)
    data = synthetic(0, n_users=60, n_items=80, n_tastes=4, mean_items=12)
    model.set_params(lr=0.02).fit(data).save(tmp_path / "m")
    assert AdapTau.load(tmp_path / "m").recommend(k=3).equals(model.recommend(k=3))
