"""Training of matrix factorisation with Adap-tau, epoch by epoch."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from adaptau_ext.data import Interactions
from adaptau_ext.evaluation import evaluate
from adaptau_ext.models import MF
from adaptau_ext.ops import sampled_adaptive_softmax
from adaptau_ext.temperature import AdaptiveTemperature, Strategy

Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]


class TrainConfig(BaseModel):
    """Everything a run depends on. Defaults are those of the built-in data set."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    data: str = Field("synthetic", description='a LightGCN-format folder, or "synthetic"')
    model: Literal["mf"] = Field("mf", description="matrix factorisation")
    tau: Strategy | Positive = Field(
        "weight_mean",
        description="weight_v0 (Adap-tau0), weight_mean or weight_ratio (Adap-tau), or a fixed number",
    )
    t1: Annotated[float, Field(ge=0, le=1)] = Field(1.0, description="quantile of weight_ratio")
    t2: Positive = Field(1.0, description="spread of the users' temperatures: larger = more alike")
    dim: Count = Field(64, description="embedding size d")
    batch_size: Count = Field(2048, description="interactions a step")
    n_negatives: Count = Field(1024, description="negatives drawn for each interaction")
    lr: Positive = Field(1e-3, description="Adam's learning rate")
    l2: Annotated[float, Field(ge=0)] = Field(1e-7, description="weight of the rows used, squared")
    user_dropout: Annotated[float, Field(ge=0, lt=1)] = Field(0.0, description="on user rows")
    epochs: Count = Field(20, description="passes over the training interactions")
    ks: tuple[Count, ...] = Field((10, 20, 50), description="evaluation cut-offs")
    seed: int = Field(0, description="of initialisation, order, negatives and dropout")
    cold_users: Literal["error", "drop", "keep"] = Field("error", description="no training items")
    duplicates: Literal["error", "merge"] = Field("error", description="repeated pairs")
    threads: Count | None = Field(None, description="CPU threads; default: PyTorch's")
    output: Path | None = Field(
        None, description="folder for config.json, metrics.jsonl, model.pt; default: a new one in runs/"
    )


@dataclass(frozen=True)
class EpochResult:
    """What one epoch did; `metrics` are measured after it."""

    epoch: int
    inv_tau0: float
    inv_tau_min: float  # smallest of each batch, averaged over batches
    inv_tau_max: float
    loss_sum: float  # of the batches' mean losses, regulariser included
    train_seconds: float
    eval_seconds: float
    metrics: dict[str, float]


class MFTrainer:
    """Sampled soft-max over MF embeddings with the temperatures of `config.tau`.

    ::

        L = mean_b(-w0 s_b+ + log sum_n exp(w_u s_bn)) + l2 / (2 B) * |rows used|^2
    """

    def __init__(self, config: TrainConfig, data: Interactions) -> None:
        self.config, self.data = config, data
        self.users, self.items = data.pairs()
        self.model = MF(data.n_users, data.n_items, config.dim, seed=config.seed)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=config.lr, fused=True)
        self.generator = torch.Generator().manual_seed(config.seed)
        self.fixed_tau = config.tau if isinstance(config.tau, float) else None
        self.temperature = AdaptiveTemperature(
            self.users,
            self.items,
            data.n_users,
            data.n_items,
            strategy="weight_v0" if isinstance(config.tau, float) else config.tau,
            t1=config.t1,
            t2=config.t2,
        )

    @property
    def n_batches(self) -> int:
        """Steps an epoch; the last batch may be smaller."""
        return -(-self.users.numel() // self.config.batch_size)

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The training pairs in random order, `[B]` users and items at a time."""
        order = torch.randperm(self.users.numel(), generator=self.generator)
        for chosen in order.split(self.config.batch_size):
            yield self.users[chosen], self.items[chosen]

    def step(self, users: Tensor, items: Tensor) -> Tensor:
        """One optimiser step; returns the loss, regulariser included."""
        config, model = self.config, self.model
        self.optimizer.zero_grad()
        rows = torch.nn.functional.embedding(users, model.user_table)
        dropped = rows
        if config.user_dropout > 0:
            keep = 1 - config.user_dropout
            mask = torch.empty(rows.shape).bernoulli_(keep, generator=self.generator)
            dropped = rows * mask.div_(keep)
        loss, unit_loss = sampled_adaptive_softmax(
            dropped,
            model.item_table,
            None,
            items,
            self.fixed_tau or self.temperature.of(users),
            positive_tau=self.fixed_tau or self.temperature.tau0,
            n_negatives=config.n_negatives,
            seed=int(torch.randint(2**62, (), generator=self.generator)),
            item_l2=config.l2,
            return_unit_loss=True,
        )
        loss = loss + config.l2 / (2 * users.numel()) * rows.square().sum()
        loss.backward()
        self.optimizer.step()
        self.temperature.record(users, unit_loss)
        return loss.detach()

    def evaluate(self) -> dict[str, float]:
        """Metrics on the test items by cosine score, training items masked."""
        with torch.no_grad():
            return evaluate(
                *self.model.embeddings(),
                self.data.test,
                exclude=self.data.train,
                ks=self.config.ks,
                normalize="both",
            )

    def run(self) -> Iterator[EpochResult | float]:
        """Yields the loss of each step, then the EpochResult of each epoch."""
        for epoch in range(self.config.epochs):
            self.temperature.start_epoch(epoch, *self.model.embeddings())
            started = time.perf_counter()
            loss_sum = low = high = 0.0
            for users, items in self.batches():
                inv_tau = self.temperature.inv_tau[users]
                low += float(inv_tau.min()) / self.n_batches
                high += float(inv_tau.max()) / self.n_batches
                loss = float(self.step(users, items))
                loss_sum += loss
                yield loss
            trained = time.perf_counter()
            metrics = self.evaluate()
            yield EpochResult(
                epoch,
                self.temperature.inv_tau0,
                low,
                high,
                loss_sum,
                trained - started,
                time.perf_counter() - trained,
                metrics,
            )
