"""Models against dense algebra in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from adaptau_ext import reference
from adaptau_ext.data import Interactions, synthetic
from adaptau_ext.dropout import draw_seed, dropout, steps_of
from adaptau_ext.models import MF, LightGCN


@pytest.fixture(autouse=True)
def _one_thread(restore_threads: None) -> None:
    """The tensors are small: threads would cost more than they bring."""
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def data() -> Interactions:
    return synthetic(0, n_users=40, n_items=60, n_tastes=4, mean_items=10)


def dense_adjacency(data: Interactions) -> torch.Tensor:
    r = torch.from_numpy(data.train.toarray()).double()
    a = torch.zeros(data.n_users + data.n_items, data.n_users + data.n_items, dtype=torch.float64)
    a[: data.n_users, data.n_users :] = r
    a[data.n_users :, : data.n_users] = r.T
    root = a.sum(1).clamp(min=1).rsqrt()
    return root[:, None] * a * root


@pytest.mark.parametrize("catalogue", [False, True])
@pytest.mark.parametrize("hop_dropout", [0.0, 0.25])
def test_lightgcn_is_dense_algebra(data: Interactions, hop_dropout: float, catalogue: bool) -> None:
    model = LightGCN(data.train, 8, 3, hop_dropout=hop_dropout, seed=0)
    users, items = torch.tensor([3, 3, 0, 39]), torch.tensor([5, 59, 5, 5])
    rows = model.rows(users, items, catalogue=catalogue, generator=torch.Generator().manual_seed(7))
    weights = [torch.randn(x.shape) for x in rows[:2]]
    value = sum((w * x).sum() for w, x in zip(weights, rows[:2], strict=True))
    (value + rows.user_squares + 2 * rows.item_squares).backward()

    seed = draw_seed(torch.Generator().manual_seed(7))
    a = dense_adjacency(data)
    tables = [p.detach().double().requires_grad_() for p in (model.user_table, model.item_table)]
    e = [torch.cat(tables)]
    for hop in (1, 2, 3):
        e.append(reference.dropout(a @ e[-1], None, 0, steps_of(hop_dropout), seed + hop))
    layers = torch.stack(e)
    u, i = layers[:, users], layers[:, data.n_users :][:, items]
    expected = u.mean(0), (layers[:, data.n_users :] if catalogue else i).mean(0)
    for got, exact in zip(rows[:2], expected, strict=True):
        torch.testing.assert_close(got.double(), exact, rtol=1e-5, atol=1e-6)
    value = sum((w * x).sum() for w, x in zip(weights, expected, strict=True))
    squares = [x.square().sum() / 2 for x in (u, i)]
    torch.testing.assert_close(rows.user_squares.double(), squares[0], rtol=1e-5, atol=0)
    torch.testing.assert_close(rows.item_squares.double(), squares[1], rtol=1e-5, atol=0)
    (value + squares[0] + 2 * squares[1]).backward()
    for p, exact in zip((model.user_table, model.item_table), tables, strict=True):
        torch.testing.assert_close(p.grad.double(), exact.grad, rtol=1e-4, atol=1e-5)


def test_embeddings_are_without_dropout(data: Interactions) -> None:
    model = LightGCN(data.train, 8, 3, hop_dropout=0.5, seed=0)
    u, i = model.embeddings()
    a = dense_adjacency(data)
    e = torch.cat([model.user_table, model.item_table]).detach().double()
    exact = (e + a @ e + a @ a @ e + a @ a @ a @ e) / 4
    torch.testing.assert_close(torch.cat([u, i]).double(), exact, rtol=1e-5, atol=1e-6)
    model.eval()
    users, items = torch.arange(40), torch.arange(40)
    rows = model.rows(users, items, catalogue=False)
    torch.testing.assert_close(rows.u.double(), exact[:40], rtol=1e-5, atol=1e-6)


def test_mf_regularises_rows_before_dropout() -> None:
    model = MF(5, 7, 16, user_dropout=0.5, seed=1)
    users, items = torch.tensor([0, 4, 4]), torch.tensor([6, 6, 1])
    rows = model.rows(users, items, catalogue=False, generator=torch.Generator().manual_seed(0))
    assert (rows.u == 0).any() and rows.u.shape == (3, 16)
    assert rows.user_squares.item() == pytest.approx(model.user_table[users].square().sum().item() / 2)
    assert rows.item_squares.item() == pytest.approx(model.item_table[items].square().sum().item() / 2)
    whole = model.rows(users, items, catalogue=True)
    assert whole.i is model.item_table and whole.item_squares is None
    model.eval()
    assert torch.equal(model.rows(users, items, catalogue=True).u, model.user_table[users])


def test_seeds() -> None:
    assert torch.equal(MF(3, 4, 8, seed=1).user_table, MF(3, 4, 8, seed=1).user_table)
    assert not torch.equal(MF(3, 4, 8, seed=1).user_table, MF(3, 4, 8, seed=2).user_table)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_dropout_keeps_the_mean(p: float) -> None:
    x = torch.ones(1000, 1001)
    out = dropout(x, p, torch.Generator().manual_seed(0))
    values = out.unique()
    assert len(values) == 2 and values[0] == 0
    assert float(values[1]) == pytest.approx(1 / (1 - p), rel=1e-4)
    spread = np.sqrt(p / (1 - p) / x.numel())  # of the mean
    assert abs(float(out.double().mean()) - 1) < 5 * spread
    pairs = out.view(-1)[:-1] * out.view(-1)[1:]  # neighbours are independent
    assert float(pairs.double().mean()) == pytest.approx(1, abs=10 * spread / (1 - p))
    assert torch.equal(out, dropout(x, p, torch.Generator().manual_seed(0)))


def test_dropout_refuses() -> None:
    with pytest.raises(ValueError, match=r"p must be in \[0, 1\), got 1"):
        dropout(torch.ones(3), 1.0)
    x = torch.ones(3)
    assert dropout(x, 0.0) is x
    for shape in ((), (3,), (0,), (2, 0), (2, 3, 4)):
        assert dropout(torch.ones(shape, dtype=torch.bfloat16), 0.5).shape == shape
