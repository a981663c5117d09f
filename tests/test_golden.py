"""Whole epochs against a naive trainer written from the paper and its published settings alone."""

from __future__ import annotations

import csv
import math
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import scipy.special
import torch
from torch import Tensor

from adaptau_ext import reference
from adaptau_ext.data import Interactions, read_lightgcn, synthetic
from adaptau_ext.dropout import draw_seed, steps_of
from adaptau_ext.recipes import RECIPES
from adaptau_ext.training import EpochResult, TrainConfig, Trainer
from tests.conftest import PUBLISHED, real_data

EPOCHS, B, N, LR, L2, DROPOUT, T2 = 4, 256, 32, 5e-3, 0.01, 0.1, 0.5


@pytest.fixture(scope="module")
def small() -> Interactions:
    return synthetic(0, n_users=200, n_items=300, n_tastes=8, mean_items=20)


def naive_inv_tau(data: Interactions, losses: np.ndarray | None) -> tuple[float, np.ndarray]:
    """w0 of the first hundred epochs, and w_u of the mean losses of the epoch before."""
    degree = np.diff(data.train.indptr)
    active = degree > np.quantile(degree, 0.2)
    w0 = math.log(active.sum() * data.n_items / (2 * degree[active].sum())) / 0.7
    if losses is None:
        return w0, np.full(data.n_users, w0)
    x = np.clip((losses - losses.mean()) / T2, np.nextafter(-1 / math.e, 0), 1000)
    return w0, w0 * np.exp(-scipy.special.lambertw(x).real)


def naive_recall(u: Tensor, i: Tensor, data: Interactions, k: int = 20) -> float:
    """Of cosine scores: a matrix of all of them."""
    scores = (reference.unit_rows(u) @ reference.unit_rows(i).T).detach().numpy()
    scores[data.train.toarray() > 0] = -np.inf
    best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    test = data.test.toarray() > 0
    hits = np.take_along_axis(test, best, axis=1).sum(1)
    held_out = test.sum(1)
    return float((hits[held_out > 0] / held_out[held_out > 0]).mean())


def test_epochs_of_mf_are_those_of_plain_pytorch(small: Interactions, restore_threads: None) -> None:
    """Adap-tau, sampled negatives, dropout, Adam, in float64: temperatures, losses and recall."""
    torch.set_num_threads(1)
    config = TrainConfig(
        protocol="paper", tau="weight_mean", t2=T2, dim=16, batch_size=B, n_negatives=N, lr=LR, l2=L2,
        dropout=DROPOUT, epochs=EPOCHS, ks=(20,),
    )  # fmt: skip
    trainer = Trainer(config, small)
    tables = [p.detach().double().requires_grad_() for p in trainer.model.parameters()]
    ours = [event for event in trainer.run() if isinstance(event, EpochResult)]

    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(tables, lr=LR)
    users, items = small.pairs()
    losses = None
    for result in ours:
        w0, w = naive_inv_tau(small, losses)
        sums, counts = np.zeros(small.n_users), np.zeros(small.n_users)
        low, high, loss_sum = [], [], 0.0
        for chosen in torch.randperm(len(users), generator=generator).split(B):
            u, i = users[chosen], items[chosen]
            dropped = draw_seed(generator)
            negatives = reference.draw_negatives(len(u), N, small.n_items, draw_seed(generator))
            rows = tables[0][u]
            a = reference.unit_rows(reference.dropout(rows, None, 0, steps_of(DROPOUT), dropped))
            b = reference.unit_rows(tables[1])
            positive = (a * b[i]).sum(1)
            scores = torch.einsum("bd,bnd->bn", a, b[negatives])
            inv_tau = torch.from_numpy(w)[u]
            softmax = -w0 * positive + torch.logsumexp(inv_tau[:, None] * scores, 1)
            used = [rows, tables[1][i], tables[1][negatives]]
            loss = softmax.mean() + L2 * sum(x.square().sum() for x in used) / (2 * len(u))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            unit = (-positive + scores.logsumexp(1)).detach().numpy()
            np.add.at(sums, u, unit)
            np.add.at(counts, u, 1)
            low.append(float(inv_tau.min()))
            high.append(float(inv_tau.max()))
            loss_sum += loss.item()
        losses = sums / counts
        assert result.inv_tau0 == pytest.approx(w0, rel=1e-6)
        assert result.inv_tau_min == pytest.approx(np.mean(low), rel=1e-4)
        assert result.inv_tau_max == pytest.approx(np.mean(high), rel=1e-4)
        assert result.loss_sum == pytest.approx(loss_sum, rel=1e-5)
        assert result.metrics["recall@20"] == pytest.approx(naive_recall(*tables, small), abs=2e-3)
    assert ours[-1].inv_tau_max > 1.2 * ours[-1].inv_tau_min  # temperatures were in it
    assert ours[-1].metrics["recall@20"] > 1.3 * ours[0].metrics["recall@20"]


def test_norms_of_popular_items_grow_fastest_without_normalisation(restore_threads: None) -> None:
    """The paper's figure of magnitudes: rank correlation of norm and popularity in every epoch, and
    growth by group, where tastes say more than popularity does."""
    torch.set_num_threads(1)
    data = synthetic(0, n_users=1500, n_items=1000, mean_items=30, zipf=0.4, affinity=4.0)
    common = {"protocol": "paper", "n_negatives": 64, "l2": 1e-2, "batch_size": 1024, "epochs": 12}

    def looks(**changes: Any) -> tuple[list[float], np.ndarray]:
        run = Trainer(TrainConfig.model_validate({**common, **changes}), data).run()
        found = [e.diagnostics for e in run if isinstance(e, EpochResult)]
        norms = np.array([look["item_norm_by_group"] for look in found])
        return [look["item_norm_popularity"] for look in found], norms[-1] / norms[0]

    spearman, growth = looks(tau=1.0, normalize="none")
    assert spearman[0] > 0.4 and min(spearman[1:]) > 0.75
    assert np.all(growth[1:] > growth[:-1] - 0.1) and growth[-1] > 2 * growth[0]
    with_it, growth = looks(tau=0.1)
    assert max(with_it) < 0.4 and np.all(abs(growth - 1) < 0.1)


def published(name: str) -> list[dict[str, str]]:
    if not PUBLISHED.is_dir():
        pytest.skip(f"published results are not in {PUBLISHED}")
    with (PUBLISHED / f"{name}.csv").open() as file:
        return list(csv.DictReader(file))


def test_recipes_are_the_published_settings() -> None:
    for row in published("official_results"):
        name = f"{row['dataset']}-{row['backbone']}"
        recipe = RECIPES[name + ("-tau0" if row["tau_mode"] == "weight_v0" else "")]
        config = TrainConfig(**recipe)
        assert (config.model, config.tau) == (row["backbone"], row["tau_mode"])
        for key, column in (
            ("batch_size", "batch_size"), ("n_negatives", "n_negatives"), ("lr", "lr"), ("l2", "l2"),
            ("epochs", "epochs_run"),
        ):  # fmt: skip
            assert getattr(config, key) == float(row[column]), (name, key)
        assert config.dropout == (0.1 if row["dropout"] == "True" else 0)
        if config.tau != "weight_v0":
            assert (config.t2 or 1) == float(row["temperature_t2"])
        if config.tau == "weight_ratio":
            assert config.t1 == float(row["temperature_t1"])


def test_first_epoch_of_lightgcn_on_gowalla_is_the_published_one() -> None:
    """w0, loss and accuracy of the log published with the paper's code."""
    data = read_lightgcn(real_data("gowalla"))
    run = {"dataset": "gowalla", "backbone": "lightgcn", "tau_mode": "weight_mean", "epoch": "0"}
    logs = published("official_epochs")
    (log,) = [row for row in logs if all(row[k] == v for k, v in run.items())]
    trainer = Trainer(TrainConfig(**{**RECIPES["gowalla-lightgcn"], "epochs": 1}), data)
    (result,) = [event for event in trainer.run() if isinstance(event, EpochResult)]
    assert result.inv_tau0 == pytest.approx(float(log["w0"]), rel=1e-6)
    assert result.loss_sum == pytest.approx(float(log["loss_sum"]), rel=2e-3)
    for name in ("recall@20", "ndcg@20", "recall@50"):
        assert result.metrics[name] == pytest.approx(float(log[name]), rel=0.02)
