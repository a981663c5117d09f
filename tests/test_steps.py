"""One step of the Trainer, for every setting that its loss depends on, against dense float64 PyTorch."""

from __future__ import annotations

import math
from itertools import product
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize, softplus

from adaptau_ext import reference
from adaptau_ext.data import Interactions, synthetic
from adaptau_ext.training import TrainConfig, Trainer

B, N, L2, LAYERS = 64, 8, 0.1, 2
NORMALIZE = ("both", "user", "item", "none")
STRATEGIES: dict[str, dict[str, Any]] = {
    "official": {"tau": "weight_mean"},
    "paper": {"tau": "weight_mean", "mode": "paper"},
    "fixed": {"tau": 0.3},
    "fixed, negatives": {"tau": 0.3, "denominator": "negatives"},
    "learned": {"tau": "learned", "tau_lr": 0.5},
    "learned, negatives": {"tau": "learned", "denominator": "negatives"},
    "learned_per_user": {"tau": "learned_per_user"},
}
LOSSES: dict[str, dict[str, Any]] = {
    "bpr": {"tau": 0.3},
    "bce": {"tau": 0.3},
    "mse": {},
    "ccl": {"margin": 0.1, "negative_weight": 3.0},
    "direct_au": {"gamma": 2.0},
    "bsl": {"tau": 0.3, "positive_tau": 0.2},
}
IN_BATCH_ONLY = ("direct_au", "bsl")


@pytest.fixture(autouse=True)
def _one_thread(restore_threads: None) -> None:
    """The tensors are small: threads would cost more than they bring."""
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def tiny() -> Interactions:
    return synthetic(0, n_users=60, n_items=80, n_tastes=4, mean_items=12)


def config(**changes: Any) -> TrainConfig:
    fixed = {"protocol": "paper", "batch_size": B, "n_negatives": N, "dim": 8, "l2": L2, "lr": 0.01}
    return TrainConfig.model_validate({**fixed, "n_layers": LAYERS, **changes})


def smoothed(tables: list[Tensor], data: Interactions) -> Tensor:
    """The layers of LightGCN, `[n_layers + 1, n_users + n_items, d]`, by a dense matrix."""
    n = data.n_users
    adjacency = torch.zeros(n + data.n_items, n + data.n_items, dtype=torch.float64)
    adjacency[:n, n:] = torch.from_numpy(data.train.toarray())
    adjacency[n:, :n] = adjacency[:n, n:].T.clone()
    scale = adjacency.sum(1).clamp(min=1).rsqrt()
    layers = [torch.cat(tables)]
    for _ in range(LAYERS):
        layers.append(scale[:, None] * adjacency * scale @ layers[-1])
    return torch.stack(layers)


class Naive(NamedTuple):
    """A batch in float64: rows as they are scored, and what the regulariser is of."""

    u: Tensor
    positives: Tensor
    candidates: Tensor  # [B, n, d]
    kept: Tensor  # [B, n]: without the positive
    squares: Tensor

    @property
    def positive(self) -> Tensor:
        return (self.u * self.positives).sum(1)

    @property
    def negative(self) -> Tensor:
        return torch.einsum("bd,bnd->bn", self.u, self.candidates)


def batch(
    settings: TrainConfig,
    data: Interactions,
    tables: list[Tensor],
    pairs: tuple[Tensor, Tensor],
    seed: int,
) -> Naive:
    users, items = pairs
    if settings.model == "lightgcn":
        layers = smoothed(tables, data)
        u_layers, i_layers = layers[:, : data.n_users], layers[:, data.n_users :]
        user_rows, item_rows = u_layers.mean(0), i_layers.mean(0)
        squares = u_layers[:, users].square().sum() + i_layers[:, items].square().sum()
    else:
        user_rows, item_rows = tables
        squares = user_rows[users].square().sum() + item_rows[items].square().sum()
    u = normalize(user_rows, dim=1) if settings.normalize in ("both", "user") else user_rows
    i = normalize(item_rows, dim=1) if settings.normalize in ("both", "item") else item_rows
    if settings.negatives == "in_batch":
        candidates, kept = i[items].expand(len(users), -1, -1), ~torch.eye(len(users), dtype=torch.bool)
    elif settings.negatives == "full":
        candidates = i.expand(len(users), -1, -1)
        kept = torch.arange(data.n_items) != items[:, None]
    else:
        drawn = reference.draw_negatives(len(users), N, data.n_items, seed)
        candidates, kept = i[drawn], torch.ones(len(users), N, dtype=torch.bool)
        if settings.model == "mf":
            squares = squares + item_rows[drawn].square().sum()
    return Naive(u[users], i[items], candidates, kept, squares)


def softmax(one: Naive, inv_tau: Tensor, positive_inv_tau: Tensor, whole: bool) -> Tensor:
    """`[B]`; whole: with the positive in the denominator."""
    z = (inv_tau[:, None] * one.negative).masked_fill(~one.kept, -math.inf)
    positive = positive_inv_tau * one.positive
    if whole:
        z = torch.cat([z, positive[:, None]], 1)
    return z.logsumexp(1) - positive


def check(trainer: Trainer, loss: Tensor, exact: Tensor, tables: list[Tensor]) -> None:
    assert loss.item() == pytest.approx(exact.item(), rel=1e-5)
    exact.backward()
    for parameter, table in zip(trainer.model.parameters(), tables, strict=True):
        assert parameter.grad is not None and table.grad is not None
        found = parameter.grad.to_dense().double()
        atol = 1e-4 * float(table.grad.abs().max())
        torch.testing.assert_close(found, table.grad, rtol=1e-4, atol=atol)


def before_step(trainer: Trainer) -> tuple[tuple[Tensor, Tensor], list[Tensor], int]:
    """A batch, the tables in float64, and the seed of the negatives that the step will draw."""
    pairs = next(trainer.batches())
    generator = torch.Generator()
    generator.set_state(trainer.generator.get_state())
    tables = [p.detach().double().clone().requires_grad_() for p in trainer.model.parameters()]
    return pairs, tables, int(torch.randint(2**62, (), generator=generator))


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("negatives", ["in_batch", "full", "sampled"])
@pytest.mark.parametrize("model", ["mf", "lightgcn"])
def test_softmax(tiny: Interactions, model: str, negatives: str, strategy: str) -> None:
    adaptive = strategy in ("official", "paper")
    whole = strategy != "official" and "negatives" not in strategy
    for mode in NORMALIZE[:1] if adaptive else NORMALIZE:  # closed forms are of cosines
        settings = config(model=model, negatives=negatives, normalize=mode, **STRATEGIES[strategy])
        trainer = Trainer(settings, tiny)
        temperature = trainer.temperature
        if adaptive:
            temperature.inv_tau += torch.rand(tiny.n_users)
        for parameter in temperature.parameters():
            parameter.data += torch.rand(parameter.shape)
        pairs, tables, seed = before_step(trainer)
        logs = [p.detach().double().requires_grad_() for p in temperature.parameters()]
        loss = trainer.step(*pairs)

        users = pairs[0]
        if adaptive:
            inv_tau = temperature.inv_tau[users]
        elif logs:
            inv_tau = (-(logs[0] if len(logs[0]) == 1 else logs[0][users])).exp().expand(B)
        else:
            inv_tau = torch.full((B,), 1 / 0.3, dtype=torch.float64)
        of_positives = torch.full((B,), temperature.inv_tau0) if strategy == "official" else inv_tau
        one = batch(settings, tiny, tables, pairs, seed)
        rows = softmax(one, inv_tau, of_positives, whole)
        check(trainer, loss, rows.mean() + L2 / (2 * B) * one.squares, tables)
        for parameter, log in zip(temperature.parameters(), logs, strict=True):
            assert parameter.grad is not None and log.grad is not None
            torch.testing.assert_close(parameter.grad.double(), log.grad, rtol=1e-3, atol=1e-5)
        if adaptive:  # what temperatures of the next epoch are of
            ones = torch.ones(B, dtype=torch.float64)
            exact = torch.zeros(tiny.n_users, dtype=torch.float64)
            exact.index_add_(0, users, softmax(one, ones, ones, whole).detach())
            torch.testing.assert_close(temperature._loss_sum.double(), exact, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("model", "name", "negatives"),
    [
        (model, name, negatives)
        for model, name, negatives in product(("mf", "lightgcn"), LOSSES, ("in_batch", "sampled"))
        if negatives == "in_batch" or name not in IN_BATCH_ONLY
    ],
)
def test_other_losses(tiny: Interactions, model: str, name: str, negatives: str) -> None:
    for mode in NORMALIZE[:1] if name in IN_BATCH_ONLY else NORMALIZE:
        settings = config(model=model, loss=name, negatives=negatives, normalize=mode, **LOSSES[name])
        trainer = Trainer(settings, tiny)
        pairs, tables, seed = before_step(trainer)
        loss = trainer.step(*pairs)
        one = batch(settings, tiny, tables, pairs, seed)
        positive, negative = one.positive, one.negative[one.kept].view(B, -1)
        if name == "bpr":
            exact = softplus((negative - positive[:, None]) / 0.3).mean()
        elif name == "bce":
            exact = softplus(-positive / 0.3).mean() + softplus(negative / 0.3).mean()
        elif name == "mse":
            exact = (1 - positive).square().mean() + negative.square().mean()
        elif name == "ccl":
            exact = (1 - positive).mean() + 3 * (negative - 0.1).clamp(min=0).mean()
        elif name == "direct_au":
            uniform = [torch.pdist(x).square().mul(-2).exp().mean().log() for x in one[:2]]
            exact = (one.u - one.positives).square().sum(1).mean() + sum(uniform)
        else:
            same = pairs[0][:, None] == pairs[0]
            own = (positive / 0.2).expand(B, B).masked_fill(~same, -math.inf).logsumexp(1)
            exact = -0.2 * (own - same.sum(1).log()).mean()
            exact = exact + 0.3 * ((negative / 0.3).logsumexp(1) - math.log(B - 1)).mean()
        check(trainer, loss, exact + L2 / (2 * B) * one.squares, tables)


def test_learned_temperatures_have_a_learning_rate_of_their_own(tiny: Interactions) -> None:
    trainer = Trainer(config(tau="learned", tau_lr=0.5), tiny)
    before = [p.detach().clone() for p in (trainer.temperature.log_tau, trainer.model.item_table)]
    trainer.step(*next(trainer.batches()))
    trainer.optimizer.catch_up()
    after = [p.detach() for p in (trainer.temperature.log_tau, trainer.model.item_table)]
    moved = [float((a - b).abs().max()) for a, b in zip(after, before, strict=True)]
    assert moved == pytest.approx([0.5, 0.01], rel=1e-3)  # Adam's first step is as long as the rate


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_precision_is_the_products(tiny: Interactions, precision: str) -> None:
    losses = [
        float(Trainer(config(negatives="full", precision=p, tau=0.1), tiny).step(*tiny_batch(tiny)))
        for p in ("float32", precision)
    ]
    has_bf16 = torch.ops.adaptau.cpu_level() in ("avx512bf16", "avx512amx")
    assert (losses[0] == losses[1]) == (precision == "float32" or not has_bf16)
    assert losses[0] == pytest.approx(losses[1], rel=1e-2)


def tiny_batch(data: Interactions) -> tuple[Tensor, Tensor]:
    users, items = data.pairs()
    return users[:B], items[:B]


@pytest.mark.parametrize("name", ["softmax", *LOSSES])
@pytest.mark.parametrize("model", ["mf", "lightgcn"])
def test_a_rest_of_one_row_has_no_negatives_of_its_own(
    tiny: Interactions, model: str, name: str
) -> None:
    """It joins the batch before it."""
    size = next(size for size in range(2, 200) if tiny.train.nnz % size == 1)
    changes = LOSSES.get(name, {"tau": "weight_mean"})
    settings = config(
        model=model, loss=name, negatives="in_batch", batch_size=size, epochs=1, **changes
    )
    trainer = Trainer(settings, tiny)
    sizes = [len(users) for users, _ in trainer.batches()]
    assert sizes == [size] * (len(sizes) - 1) + [size + 1] and sum(sizes) == tiny.train.nnz
    assert len(sizes) == trainer.n_batches
    steps = [float(event) for event in trainer.run() if isinstance(event, Tensor)]
    assert len(steps) == len(sizes) and all(map(math.isfinite, steps))
    if name not in IN_BATCH_ONLY:
        sampled = Trainer(settings.model_copy(update={"negatives": "sampled"}), tiny)
        assert [len(users) for users, _ in sampled.batches()][-2:] == [size, 1]
