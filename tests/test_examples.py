"""The examples run, and show what they say."""

from __future__ import annotations

import argparse
import re
import runpy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from adaptau_ext import reference
from adaptau_ext.data import Interactions, synthetic
from adaptau_ext.evaluation import evaluate
from adaptau_ext.temperature import AdaptiveTemperature
from tests.budget import LossBudget, assert_within
from tests.conftest import write_lightgcn

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture(autouse=True)
def _one_thread(restore_threads: None) -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def data() -> Interactions:
    return synthetic(0, n_users=300, n_items=200, n_tastes=8)


@pytest.fixture(scope="module")
def folder(data: Interactions, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data in LightGCN's format, and all of it as RecBole's tiny.inter."""
    folder = write_lightgcn(data, tmp_path_factory.mktemp("data") / "tiny")
    users, items = (data.train + data.test).nonzero()
    lines = [f"u{user}\ti{item}" for user, item in zip(users, items, strict=True)]
    (folder / "tiny.inter").write_text("\n".join(["user_id:token\titem_id:token", *lines]) + "\n")
    return folder


def popularity(data: Interactions) -> float:
    """recall@20 of the most popular items, the same for all users."""
    count = torch.from_numpy(np.bincount(data.train.indices, minlength=data.n_items)).float()
    ones = torch.ones(data.n_users, 1)
    return evaluate(ones, count[:, None], data.test, exclude=data.train)["recall@20"]


def assert_is_sampled_loss(
    loss: Tensor, u: Tensor, i: Tensor, positives: Tensor, options: dict[str, Any]
) -> None:
    """The mean loss of cosines is that of the twin in float64, l2 of `item_l2` included."""
    u, i = u.detach(), i.detach()
    exact = reference.sampled_adaptive_softmax(u.double(), i.double(), None, positives, **options)
    assert isinstance(exact, Tensor)
    budget = LossBudget.of(torch.float32, u, i, options["tau"], "both", i.shape[0])
    assert_within(loss.detach(), exact, budget.loss)


def adaptive(data: Interactions, u: Tensor, i: Tensor) -> AdaptiveTemperature:
    """Temperatures that are not the same for all users."""
    tau = AdaptiveTemperature(*data.pairs(), data.n_users, data.n_items)
    users = torch.arange(data.n_users)
    tau.record(users, torch.linspace(3, 5, data.n_users))
    tau.start_epoch(1, u.detach(), i.detach())
    assert tau.of(users).std() > 0.01
    return tau


def test_two_tower(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Towers over features find new items, which matrix factorisation cannot tell apart."""
    monkeypatch.setattr(
        sys, "argv", ["two_tower.py", "--epochs", "2", "--users", "800", "--items", "600"]
    )
    runpy.run_path(str(EXAMPLES / "two_tower.py"), run_name="__main__")
    rows = re.findall(r"recall@20 (\S+), among new items (\S+)", capsys.readouterr().out)
    (_, factorisation), (_, towers) = [(float(a), float(b)) for a, b in rows]
    assert factorisation < 0.5 and towers > 1.5 * factorisation


def test_published_layout(data: Interactions, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The drop-in trains like the loop that gathers, step by step, temperatures of all epochs included."""
    example = runpy.run_path(str(EXAMPLES / "published_layout.py"))
    found = {}
    for loss in ("gathered", "fused"):
        options = ["--loss", loss, "--epochs", "6", "--negatives", "32", "--lr", "0.02"]
        example["main"]([str(folder), *options])
        line = capsys.readouterr().out
        numbers = re.search(r"loss (\S+) -> (\S+), recall@20 (\S+),", line)
        assert numbers, line
        found[loss] = [float(number) for number in numbers.groups()]
    first, last, recall = found["fused"]
    assert last < 0.9 * first and recall > 1.2 * popularity(data)
    assert found["gathered"][0] == pytest.approx(first, abs=2e-5)  # five digits, printed
    # Adam's first steps are signs of gradients: those that are all but zero go either way
    assert found["gathered"][1:] == pytest.approx([last, recall], rel=0.01)


def test_published_layout_losses(data: Interactions) -> None:
    """`Gathered`, `Fused` and `in_batch` are what the twins say they are; gradients agree."""
    example = runpy.run_path(str(EXAMPLES / "published_layout.py"))
    batch = next(example["batches"](data, 64, 16))
    users, positives = batch["users"], batch["positives"]
    models = [example[name](data.n_users, data.n_items, 8, 0.1) for name in ("Gathered", "Fused")]
    models[1].load_state_dict(models[0].state_dict())
    tau = adaptive(data, models[0].users, models[0].items)
    options = {
        "tau": tau.of(users),
        "positive_tau": tau.of_positives(users),
        "negatives": batch["negatives"],
        "item_l2": 0.1,
    }
    u = models[0].users[users]
    for model in models:
        loss, unit_loss = model(batch, tau)
        loss.backward()
        assert_is_sampled_loss(
            loss - 0.05 * u.square().sum() / len(u), u, model.items, positives, options
        )
        assert unit_loss.shape == users.shape and not unit_loss.requires_grad
    for a, b in zip(*(model.parameters() for model in models), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-6)

    i = models[0].items[positives]
    u, i = u.detach(), i.detach()
    loss, _ = example["in_batch"](u, i, users, tau)
    exact = reference.fused_adaptive_softmax(
        u.double(),
        i.double(),
        tau.of(users),
        positive_tau=tau.of_positives(users),
        denominator="negatives",
    )
    assert isinstance(exact, Tensor)
    assert_within(loss, exact, LossBudget.of(torch.float32, u, i, tau.of(users), "both", len(i)).loss)


def test_recbole(
    data: Interactions,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """RecBole trains with the loss that the twin says, on its ids less one, and beats popularity."""
    pytest.importorskip("recbole", reason="RecBole is not installed")
    from recbole.data import create_dataset, data_preparation

    monkeypatch.chdir(tmp_path)  # RecBole leaves log folders
    monkeypatch.setattr(sys, "argv", ["recbole_loss.py"])  # RecBole reads it
    example = runpy.run_path(str(EXAMPLES / "recbole_loss.py"))
    config = example["settings"](argparse.Namespace(data=folder, epochs=1), example["AdapTauMF"])
    train, _, _ = data_preparation(config, create_dataset(config))
    model = example["AdapTauMF"](config, train.dataset)
    assert (model.tau.n_users, model.tau.n_items) == (data.n_users, data.n_items)
    batch = next(iter(train))
    torch.manual_seed(1)
    loss = model.calculate_loss(batch)
    torch.manual_seed(1)
    users, positives = batch["user_id"], batch["item_id"] - 1
    tau = torch.full(users.shape, model.tau.tau0)
    u = model.user_embedding.weight[users]
    assert_is_sampled_loss(
        loss, u, model.item_embedding.weight[1:], positives, {"tau": tau, "n_negatives": 256}
    )
    scores = model.full_sort_predict(batch).view(len(users), -1)
    assert float(scores.detach().abs().max()) <= 1 + 1e-6

    example["main"]([str(folder), "--epochs", "15"])
    recall = dict(re.findall(r"(\w+) +recall@20 (\S+),", capsys.readouterr().out))
    assert float(recall["AdapTauMF"]) > 1.2 * popularity(data)


def test_lightning(data: Interactions, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Lightning's steps have the loss that the twin says, and training beats popularity."""
    pytest.importorskip("lightning", reason="Lightning is not installed")
    example = runpy.run_path(str(EXAMPLES / "lightning_mf.py"))
    model = example["MF"](data, 8, 16, lr=0.02, l2=0.1)
    model.log = lambda *arguments, **options: None  # there is no trainer
    model.tau = adaptive(data, model.users, model.items)
    users, positives = next(iter(example["batches"](data, 64)))
    assert users.shape == (64,)
    torch.manual_seed(1)
    loss = model.training_step([users, positives], 0)
    torch.manual_seed(1)
    options = {
        "tau": model.tau.of(users),
        "positive_tau": model.tau.of_positives(users),
        "n_negatives": 16,
        "item_l2": 0.1,
    }
    u = model.users[users]
    assert_is_sampled_loss(loss - 0.05 * u.square().sum() / len(u), u, model.items, positives, options)

    example["main"]([str(folder), "--epochs", "6", "--negatives", "32", "--lr", "0.02"])
    recall = float(re.findall(r"recall@20 (\S+),", capsys.readouterr().out)[-1])
    assert recall > 1.2 * popularity(data)


def test_optuna(data: Interactions, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Both the study's best and Adap-tau beat popularity, on test."""
    pytest.importorskip("optuna", reason="Optuna is not installed")
    example = runpy.run_path(str(EXAMPLES / "optuna_tau.py"))
    example["main"]([str(folder), "--trials", "3", "--epochs", "40"])
    output = capsys.readouterr().out
    rows = re.findall(r"recall@20 (\S+) on test, (\S+) on valid", output)
    assert len(rows) == 2 and "of 3 tried" in output
    assert min(float(test) for test, _ in rows) > 1.2 * popularity(data)
