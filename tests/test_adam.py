"""Adam that makes up for missed steps against PyTorch's dense Adam."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import embedding

from adaptau_ext.data import Interactions
from adaptau_ext.training import TrainConfig, Trainer
from adaptau_ext.training.adam import DeferredAdam
from tests.budget import assert_within, roundoff
from tests.fuzz.tensors import threads


def budget(dtype: torch.dtype, steps: int, size: float) -> float:
    """Of numbers up to `size` after steps that round each of them some ten times, in both optimisers,
    this way or that: they add up as a random walk does.

    The operator itself is held to much less, step by step, by tests/fuzz/adam.py.
    """
    return 2 * 10 * steps**0.5 * roundoff(dtype) * size


def pair(n: int, d: int, dtype: torch.dtype, **options: Any) -> tuple[Any, Any, Any, Any]:
    table = nn.Parameter(torch.randn(n, d, dtype=dtype))
    dense = nn.Parameter(table.detach().clone())
    table.sparse, dense.sparse = True, False  # type: ignore[attr-defined]
    ours = DeferredAdam([table], **options)
    return table, dense, ours, torch.optim.Adam([dense], **options)


def step(tables: list[tuple[Any, Any]], rows: Tensor, weight: Tensor) -> None:
    for table, optimizer in tables:
        optimizer.zero_grad()
        if table.sparse:
            optimizer.catch_up(table, rows)
        (embedding(rows, table, sparse=table.sparse) * weight).sum().backward()
        optimizer.step()


def same(table: Any, dense: Any, ours: Any, theirs: Any) -> None:
    ours.catch_up()
    found, expected = ours.state_dict()["state"][0], theirs.state_dict()["state"][0]
    assert found["step"] == expected["step"]
    pairs = {"table": (table, dense)}
    pairs |= {name: (found[name], expected[name]) for name in ("exp_avg", "exp_avg_sq")}
    for name, (one, other) in pairs.items():
        size = float(other.detach().abs().max())
        assert_within(one.detach(), other.detach(), budget(table.dtype, int(found["step"]), size), name)


@pytest.mark.parametrize("d", [1, 3, 8, 17, 64])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equals_the_dense_optimiser(dtype: torch.dtype, d: int) -> None:
    """Rows used often, seldom, twice in a step, never; steps that use none."""
    table, dense, ours, theirs = pair(40, d, dtype, lr=1e-2)
    for turn in range(400):
        size = int(torch.randint(0, 6, ()))
        rows = torch.randint(0, 3 if turn > 250 else 30, (size,))
        step([(table, ours), (dense, theirs)], rows, torch.randn(size, d, dtype=dtype))
        if turn % 100 == 50:
            same(table, dense, ours, theirs)
    assert torch.equal(table[30:], dense[30:])
    same(table, dense, ours, theirs)


@pytest.mark.parametrize("betas", [(0.0, 0.9), (0.5, 0.5), (0.99, 0.9999)])
def test_other_settings(betas: tuple[float, float]) -> None:
    table, dense, ours, theirs = pair(9, 4, torch.float64, lr=3e-2, betas=betas, eps=1e-3)
    for turn in range(300):
        rows = torch.randint(0, 9 if turn < 20 or turn > 280 else 2, (3,))
        step([(table, ours), (dense, theirs)], rows, torch.randn(3, 4, dtype=torch.float64))
    same(table, dense, ours, theirs)


def test_rows_wait_until_they_are_asked_for() -> None:
    table, _, ours, _ = pair(5, 4, torch.float64, lr=1e-2)
    first = torch.arange(5)
    step([(table, ours)], first, torch.randn(5, 4, dtype=torch.float64))
    before = table.detach().clone()
    for _ in range(3):
        step([(table, ours)], torch.tensor([0]), torch.randn(1, 4, dtype=torch.float64))
    assert torch.equal(table[1:], before[1:])
    ours.catch_up(table, torch.tensor([1, 1]))
    assert not torch.equal(table[1], before[1]) and torch.equal(table[2:], before[2:])
    moved = table[1].detach().clone()
    ours.catch_up()
    assert torch.equal(table[1], moved) and not torch.equal(table[2:], before[2:])


def test_a_closure_is_called() -> None:
    x = torch.nn.Parameter(torch.ones(3))
    optimizer = DeferredAdam([x], lr=0.1)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = x.square().sum()
        loss.backward()
        return loss

    with torch.no_grad():
        assert float(optimizer.step(closure)) == 3
    assert x.tolist() == pytest.approx([0.9] * 3) and optimizer.step() is None


def test_a_learning_rate_that_changes_and_a_dense_gradient_between() -> None:
    table, dense, ours, theirs = pair(20, 5, torch.float64, lr=1e-2)
    for turn in range(60):
        for optimizer in (ours, theirs):
            optimizer.param_groups[0]["lr"] = 1e-2 / (1 + turn // 10)
        if turn in (25, 26, 40):
            for one, optimizer in ((table, ours), (dense, theirs)):
                optimizer.zero_grad()
                if one is table:
                    optimizer.catch_up()
                one.square().sum().backward()
                optimizer.step()
        else:
            rows = torch.randint(0, 20, (4,))
            step([(table, ours), (dense, theirs)], rows, torch.randn(4, 5, dtype=torch.float64))
    same(table, dense, ours, theirs)


def test_state_is_exchanged_with_the_dense_optimiser() -> None:
    table, dense, ours, theirs = pair(20, 5, torch.float64, lr=1e-2)
    for turn in range(60):
        rows = torch.randint(0, 20, (4,))
        step([(table, ours), (dense, theirs)], rows, torch.randn(4, 5, dtype=torch.float64))
        if turn == 30:
            saved = ours.state_dict(), theirs.state_dict()
            theirs.load_state_dict(saved[0]), ours.load_state_dict(saved[1])
    same(table, dense, ours, theirs)


def test_the_same_bits_on_any_number_of_threads() -> None:
    found = []
    for count in (1, 2, 3):
        torch.manual_seed(5)
        table, _, ours, _ = pair(300, 17, torch.float32, lr=1e-2)
        with threads(count):
            for _ in range(20):
                step([(table, ours)], torch.randint(0, 300, (200,)), torch.randn(200, 17))
            ours.catch_up()
        found.append(table.detach())
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": torch.tensor([3])}, r"rows must lie in \[0, 3\)"),
        ({"rows": torch.tensor([0.0])}, "rows must be int64"),
        ({"rows": None}, "gradient needs rows"),
        ({"gradient": torch.zeros(1, 2)}, "gradient must have 2 rows"),
        ({"gradient": torch.zeros(2, 3)}, "same number of columns"),
        ({"gradient": torch.zeros(2, 2).T}, "gradient must be contiguous"),
        ({"mean": torch.zeros(2, 2)}, "mean must have 3 rows"),
        ({"square": torch.zeros(3, 2).double()}, "same dtype"),
        ({"square": torch.zeros(2, 3).T}, "square must be contiguous"),
        ({"last_step": torch.tensor([0, 4, 0])}, r"last_step must lie in \[0, 3\], got 4"),
        ({"last_step": torch.zeros(2, dtype=torch.int64)}, r"last_step must have shape \[3\]"),
        ({"step": 0}, "step must be >= 1"),
        ({"last_step": torch.tensor([0, 1, 0]), "step": 2**25}, "catch up more often"),
        ({"beta2": 1.0}, r"beta2 must be in \[0, 1\)"),
        ({"lr": float("nan")}, "lr must be finite and >= 0"),
        ({"epsilon": -1e-8}, "epsilon must be finite and >= 0"),
        ({"parameter": torch.zeros(3, 2).half()}, "parameter must be float32 or float64"),
    ],
)
def test_wrong_arguments(change: dict[str, Any], message: str) -> None:
    given = {
        "parameter": torch.zeros(3, 2),
        "mean": torch.zeros(3, 2),
        "square": torch.zeros(3, 2),
        "last_step": torch.zeros(3, dtype=torch.int64),
        "rows": torch.tensor([1, 0]),
        "gradient": torch.ones(2, 2),
        "step": 4,
        "lr": 0.1,
        "beta1": 0.9,
        "beta2": 0.999,
        "epsilon": 1e-8,
    }
    with pytest.raises(RuntimeError, match=message):
        torch.ops.adaptau.adam_rows_(**{**given, **change})
    torch.ops.adaptau.adam_rows_(**given)


def test_operator_is_registered_right() -> None:
    tables = [torch.rand(3, 2) for _ in range(3)]
    torch.library.opcheck(
        torch.ops.adaptau.adam_rows_.default,
        (*tables, torch.zeros(3, dtype=torch.int64), torch.tensor([1]), torch.ones(1, 2), 4, 0.1, 0.9,
         0.999, 1e-8),
    )  # fmt: skip


@pytest.mark.parametrize("negatives", ["sampled", "in_batch"])
def test_training_is_that_of_the_dense_optimiser(negatives: str) -> None:
    pairs = np.divmod(np.random.default_rng(0).permutation(60 * 80)[:1000], 80)
    train, test = ((pairs[0][part], pairs[1][part]) for part in (slice(900), slice(900, None)))
    data = Interactions.from_pairs("random", train, test)
    config = TrainConfig(
        data="none", negatives=negatives, n_negatives=20, epochs=3, batch_size=64, dim=16, lr=1e-2, l2=1e-2,
        patience=None, protocol="paper",
    )  # fmt: skip
    trained = []
    for sparse in (True, False):
        trainer = Trainer(config, data)
        assert trainer.sparse
        trainer.sparse = sparse
        for _ in trainer.run():
            pass
        trained.append(trainer.embeddings())
    for ours, dense in zip(*trained, strict=True):
        limit = budget(ours.dtype, config.epochs * trainer.n_batches, float(dense.abs().max()))
        assert not torch.equal(ours, dense)
        assert_within(ours, dense, limit)


def used(table: Any) -> None:
    (embedding(torch.tensor([1, 2]), table, sparse=True) ** 2).sum().backward()


@pytest.mark.parametrize("name", ["lr", "betas", "eps"])
def test_settings_may_change_while_rows_wait(name: str) -> None:
    table, dense, ours, theirs = pair(6, 4, torch.float64, lr=0.1)
    values = {"lr": (0.02, 0.3), "betas": ((0.5, 0.9), (0.8, 0.99)), "eps": (1e-2, 1e-1)}[name]
    for count in range(9):
        if count % 3 == 2:
            for optimizer in (ours, theirs):
                optimizer.param_groups[0][name] = values[count // 3 % 2]
        step([(table, ours), (dense, theirs)], torch.tensor([count % 6, 5]), torch.randn(2, 4).double())
    same(table, dense, ours, theirs)


@pytest.mark.parametrize("setting", [{"weight_decay": 0.1}, {"amsgrad": True}, {"maximize": True}])
def test_what_it_has_not_is_refused(setting: dict[str, Any]) -> None:
    table = nn.Parameter(torch.randn(6, 4))
    (name,) = setting
    with pytest.raises(ValueError, match=f"DeferredAdam has no {name}"):
        DeferredAdam([{"params": [table], **setting}])
    ours = DeferredAdam([table])
    with pytest.raises(ValueError, match=f"DeferredAdam has no {name}"):
        ours.load_state_dict(torch.optim.Adam([table], **setting).state_dict())


def test_a_step_is_seen_by_autograd() -> None:
    table = nn.Parameter(torch.randn(6, 4))
    ours = DeferredAdam([table], lr=0.1)
    used(table)
    ours.step()
    for change in (lambda: (used(table), ours.step()), ours.catch_up):
        kept = (table * torch.ones(4, requires_grad=True)).sum()
        change()
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            kept.backward()


def test_copies_are_whole() -> None:
    table, dense, ours, theirs = pair(6, 4, torch.float64, lr=0.1)
    for rows in ([0, 1], [1, 2], [4, 4]):
        step([(table, ours), (dense, theirs)], torch.tensor(rows), torch.randn(2, 4).double())
    for copied in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):
        found, expected = copied.state_dict()["state"][0], theirs.state_dict()["state"][0]
        for name in ("exp_avg", "exp_avg_sq"):
            assert_within(found[name], expected[name], 1e-12)
        (again,) = copied.param_groups[0]["params"]
        used(again)
        copied.step()


def test_hooks_are_called_once() -> None:
    table = nn.Parameter(torch.randn(6, 4))
    torch.optim.Adam([table])  # makes PyTorch wrap its class's step
    ours, calls = DeferredAdam([table]), []
    ours.register_step_pre_hook(lambda *_: calls.append("pre"))
    ours.register_step_post_hook(lambda *_: calls.append("post"))
    table.grad = torch.ones(6, 4)
    ours.step()
    assert calls == ["pre", "post"]
