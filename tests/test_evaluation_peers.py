"""The benchmark of evaluation: what it writes, and that peers who are installed agree."""

from __future__ import annotations

import json
from pathlib import Path

import evaluation_peers
import numpy as np
import pytest
import torch

from adaptau_ext.data import synthetic
from adaptau_ext.evaluation import evaluate
from tests.conftest import write_lightgcn


def test_rows_of_everybody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, restore_threads: None
) -> None:
    """Ours are `evaluate`'s values; a peer has the same on its users, or a row that says why not."""
    torch.set_num_threads(1)
    data = synthetic(0, n_users=120, n_items=150, n_tastes=6)
    folder = write_lightgcn(data, tmp_path / "tiny")
    monkeypatch.chdir(tmp_path)  # RecBole leaves log folders
    options = [
        "--repeats",
        "2",
        "--threads",
        "1",
        "--recbole-batches",
        "0",
        "7",
        "--cornac-users",
        "20",
    ]
    places = ["--cache", "cache", "--output", "results"]
    assert evaluation_peers.main([str(folder), *options, *places]) == 0

    saved = json.loads((tmp_path / "results" / "evaluation_peers.json").read_text())
    rows = {row["contender"]: row for row in saved["rows"]}
    assert list(rows) == ["adaptau_ext", "recbole", "cornac"]
    with np.load(tmp_path / "cache" / "embeddings.npz") as tables:
        u, i = (torch.from_numpy(tables[name]) for name in ("users", "items"))
    found = evaluate(u, i, data.test, exclude=data.train)
    assert rows["adaptau_ext"]["values"] == {name: found[f"{name}@20"] for name in ("recall", "ndcg")}
    assert rows["adaptau_ext"]["n_users"] == 120 and len(rows["adaptau_ext"]["seconds"]) == 2
    table = (tmp_path / "results" / "evaluation_peers.md").read_text()
    for name, n_users in (("recbole", 120), ("cornac", 20)):
        if "failure" in rows[name]:
            assert rows[name]["failure"].startswith("not installed") and "not installed" in table
        else:
            assert rows[name]["n_users"] == n_users
            assert max(rows[name]["differences"].values()) < 1e-6


def test_another_value_is_noticed(tmp_path: Path) -> None:
    """A row whose values are not those of the same users differs by as much."""
    values = {"recall@20": np.array([0.5, 0.0, 1.0]), "ndcg@20": np.array([0.25, 0.0, 1.0])}
    evaluation_peers.UserMetrics(np.array([0, 2, 5]), values, held_out=0).save(tmp_path / "ours.npz")
    np.save(tmp_path / "sample.npy", np.array([0, 5]))
    row = {"values": {"recall": 0.75, "ndcg": 0.5}}
    apart = evaluation_peers.differences(row, tmp_path, sampled=True)
    assert apart == pytest.approx({"recall": 0.0, "ndcg": 0.125})


def test_without_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is measured, nothing is written, and it says so."""
    assert evaluation_peers.main([str(tmp_path / "none"), "--output", str(tmp_path / "results")]) == 0
    assert "nothing measured" in capsys.readouterr().err and not (tmp_path / "results").exists()
