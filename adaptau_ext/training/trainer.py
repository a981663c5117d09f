"""Training, epoch by epoch: any Recommender, any Temperature, any loss of `objectives`."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse
import torch
from torch import Tensor

from adaptau_ext import cuda
from adaptau_ext.data import Interactions, add_noise
from adaptau_ext.data.interactions import without_rows
from adaptau_ext.distributed import World
from adaptau_ext.errors import ConfigError, DataError, TrainingError, reading
from adaptau_ext.evaluation import Evaluation, evaluate_users, popularity_groups
from adaptau_ext.fitted import FittedModel
from adaptau_ext.graph import BipartiteGraph
from adaptau_ext.models import MF, LightGCN, Recommender
from adaptau_ext.ops import Normalize
from adaptau_ext.temperature import (
    AdaptiveTemperature,
    FixedTemperature,
    LearnedTemperature,
    Temperature,
)
from adaptau_ext.training import checkpoint
from adaptau_ext.training.adam import DeferredAdam
from adaptau_ext.training.config import TrainConfig, what_matters
from adaptau_ext.training.diagnostics import diagnose
from adaptau_ext.training.objectives import objective, splits_batches


@dataclass(frozen=True)
class EpochResult:
    """What one epoch did; `metrics` are measured after it, on the split that epochs are chosen by."""

    epoch: int
    inv_tau0: float  # w0 of Adap-tau, otherwise the batches' mean
    inv_tau_min: float  # smallest of each batch, averaged over batches
    inv_tau_max: float
    loss_sum: float  # of the batches' mean losses, regulariser included
    train_seconds: float
    eval_seconds: float
    metrics: dict[str, float]
    diagnostics: dict[str, float | list[float] | None] = field(default_factory=dict)  # see diagnose()


class Trainer:
    """Trains a model on the interactions; what and how is in `config`.

    Under protocol "clean" the validation items are taken out of train, the best epoch is the best on
    them, and `evaluate_test` measures that epoch on test. Under "paper" everything is trained on and
    the best epoch is the best on test, as published numbers of this field mostly are: they are higher
    than what a system in use would see. Where nothing is held out, nothing is measured, and the best
    epoch is the last.

    Args:
        model: default: the one that `config.model` names. A function of the data makes one of what
            is trained on, without validation items: what looks at interactions, like a graph, needs it.
        temperature: default: the one that `config.tau` names.

    Attributes:
        results: of every epoch so far. best: index of the best of them. best_model: its state_dict.
        digest: of the data as it was given.

    Raises:
        DataError: under "clean", if no validation item is left to choose the epoch by.
        ConfigError: for a model whose graph has other interactions than are trained on.
    """

    adaptive = AdaptiveTemperature

    def __init__(
        self,
        config: TrainConfig,
        data: Interactions,
        model: Recommender | Callable[[Interactions], Recommender] | None = None,
        temperature: Temperature | None = None,
    ) -> None:
        self.config, self.world, self.digest = config, World.current(), data.digest()
        if self.world.size > 1 and not splits_batches(config):
            raise ConfigError(
                f"loss={config.loss} with negatives={config.negatives} compares all rows of a batch: "
                "one process only"
            )
        if config.protocol == "clean":
            if data.valid is None or config.valid_fraction not in (None, data.valid_fraction):
                data = data.cut_valid(config.valid_fraction or 0.1, config.split_seed)
            data = data.without_valid()
            if data.valid is None or data.valid.nnz == 0:
                raise DataError(
                    f"{data.name}: no validation item is left to choose the epoch by; take a larger "
                    "valid_fraction, or another split"
                )
        if config.noise > 0:
            data = add_noise(data, config.noise, by=config.noise_by, seed=config.split_seed)
        self.data = data
        no_gpu = cuda.why_no_gpu()
        self.device = torch.device(config.device or ("cpu" if no_gpu else "cuda"))
        if self.device.type == "cuda" and no_gpu:
            raise ConfigError(f"device={self.device}: {no_gpu}")
        self.users, self.items = data.pairs()
        self.popularity = np.bincount(data.train.indices, minlength=data.n_items)
        self.groups = popularity_groups(self.popularity)
        if model is None:
            model = make_model(config, data)
        elif not isinstance(model, Recommender):
            model = model(data)
        self._refuse_other_graphs(model)
        self.model = model.to(self.device)
        temperature = temperature or make_temperature(config, data, self.adaptive)
        self.temperature = temperature.to(self.device)
        self.objective = objective(config)
        # of several processes the gradients are added up, dense
        self.sparse = self.device.type == "cpu" and self.world.size == 1
        self.optimizer = DeferredAdam(self.model.parameters(), lr=config.lr)
        learned = list(self.temperature.parameters())
        if learned:
            self.optimizer.add_param_group({"params": learned, "lr": config.tau_lr or config.lr})
        self.generator = torch.Generator().manual_seed(config.seed)
        self.results: list[EpochResult] = []
        self.best = 0
        self.best_model: dict[str, Tensor] = {}
        self._within_epoch = False

    def _refuse_other_graphs(self, model: Recommender) -> None:
        """A graph over validation items would look better on them than it is."""
        for part in model.modules():
            graph = getattr(part, "graph", None)
            if isinstance(graph, BipartiteGraph) and graph.n_interactions != self.data.train.nnz:
                raise ConfigError(
                    f"the model's graph has {graph.n_interactions:,} interactions, trained on are "
                    f"{self.data.train.nnz:,}, without validation items and with noise; give a "
                    "function of the data: Trainer(config, data, lambda data: LightGCN(data.train))"
                )

    @property
    def n_batches(self) -> int:
        """Steps an epoch."""
        return len(self._batch_sizes())

    def _batch_sizes(self) -> list[int]:
        """The last batch may be smaller. If rows are each other's negatives, a rest of one row joins
        the batch before it."""
        n, size = self.users.numel(), self.config.batch_size
        sizes = [size] * (n // size) + [n % size] * (n % size > 0)
        if self.config.negatives == "in_batch" and sizes[-1] == 1 and len(sizes) > 1:
            sizes[-2:] = [size + 1]
        return sizes

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The training pairs in random order, `[B]` users and items at a time."""
        order = torch.randperm(self.users.numel(), generator=self.generator)
        for chosen in order.split(self._batch_sizes()):
            yield self.users[chosen].to(self.device), self.items[chosen].to(self.device)

    def step(self, users: Tensor, items: Tensor) -> Tensor:
        """One optimiser step; returns the loss, regulariser included.

        Of several processes each computes its part of the batch, and all take the same step.
        """
        self.optimizer.zero_grad()
        n, part = len(users), self.world.part(len(users))
        own_users, own_items = users[part], items[part]
        catalogue = self.config.negatives != "in_batch"
        if self.sparse:
            for table, used in self.model.lookups(own_users, own_items, catalogue=catalogue):
                self.optimizer.catch_up(table, used)
        before, self.model.sparse = self.model.sparse, self.sparse
        try:
            rows = self.model.rows(own_users, own_items, catalogue=catalogue, generator=self.generator)
        finally:
            self.model.sparse = before
        seed = int(torch.randint(2**62, (), generator=self.generator)) + self.world.rank
        if len(own_users) or self.config.negatives == "in_batch":  # everybody's batch needs everybody
            loss, unit_loss = self.objective(rows, own_users, own_items, self.temperature, seed)
        else:
            loss, unit_loss = 0 * rows.u.sum(), rows.u.new_empty(0)
        loss = loss * (len(own_users) / n)  # this rank's share of the mean
        loss.backward()
        self.world.sum_gradients(p for group in self.optimizer.param_groups for p in group["params"])
        self.optimizer.step()
        if unit_loss is not None and self.temperature.needs_unit_loss:
            self.temperature.record(users, self.world.gathered(unit_loss, n))
        return self.world.summed(loss.detach())

    def run(self) -> Iterator[EpochResult | Tensor]:
        """Yields the loss of each step, then the EpochResult of each epoch, until done.

        Raises:
            TrainingError: at the end of an epoch whose loss or embeddings are not finite; or if an
                epoch was left before its end, after which nothing is as the next one needs it.

        Warns:
            UserWarning: under "paper": epochs are chosen on the test items.
        """
        if self.held_out.nnz:
            self._warn_of_test()
        return self._epochs()

    def _epochs(self) -> Iterator[EpochResult | Tensor]:
        """`run`, for those who say themselves what epochs are chosen on."""
        while not self.finished:
            if self._within_epoch:
                raise TrainingError(
                    f"epoch {len(self.results)} was left before its end; go on from a state_dict that "
                    "was saved or copied at the end of an epoch, with load_state_dict"
                )
            self._within_epoch = True
            epoch = len(self.results)
            started = time.perf_counter()
            self.temperature.start_epoch(epoch, *self.embeddings())
            self.model.train()
            totals = torch.zeros(4, dtype=torch.float64, device=self.device)
            for users, items in self.batches():
                with torch.no_grad():
                    inv_tau = 1 / self.temperature.of(users).double()
                loss = self.step(users, items)
                totals += torch.stack([inv_tau.mean(), inv_tau.min(), inv_tau.max(), loss.double()])
                yield loss
            mean, low, high, loss_sum = totals.tolist()
            trained = time.perf_counter()
            embeddings = self.embeddings()
            self._refuse_nan(loss_sum, embeddings)
            evaluation = self.evaluate(embeddings) if self.held_out.nnz else None
            metrics = {} if evaluation is None else evaluation.means()
            evaluated = time.perf_counter()
            result = EpochResult(
                epoch,
                getattr(self.temperature, "inv_tau0", mean / self.n_batches),
                low / self.n_batches,
                high / self.n_batches,
                loss_sum,
                trained - started,
                evaluated - trained,
                metrics,
                self._diagnose(embeddings, evaluation),
            )
            self.results.append(result)
            by = self.config.best_metric
            if not metrics or epoch == 0 or metrics[by] > self.results[self.best].metrics[by]:
                self.best = epoch
                self.best_model = {k: v.detach().clone() for k, v in self.model.state_dict().items()}
            self._within_epoch = False
            yield result

    def _refuse_nan(self, loss_sum: float, embeddings: tuple[Tensor, Tensor]) -> None:
        """The checkpoint of the epoch before stays the last.

        Raises:
            TrainingError: on all ranks, if the loss or an embedding is infinite or NaN.
        """
        finite = torch.stack([table.isfinite().all() for table in embeddings]).all()
        if not math.isfinite(loss_sum) or self.world.summed((~finite).float()):
            raise TrainingError(
                f"epoch {len(self.results)} diverged: its loss is {loss_sum:g}, or an embedding is not "
                "finite; take a smaller lr, a larger tau or normalize=both, and another output folder"
            )

    @property
    def finished(self) -> bool:
        """All epochs done, or no better one for `patience` epochs."""
        done, patience = len(self.results), self.config.patience
        if done >= self.config.epochs:
            return True
        return patience is not None and done > 0 and done - 1 - self.best >= patience

    def embeddings(self) -> tuple[Tensor, Tensor]:
        """All users' and items' of the model as it is, without gradients or dropout."""
        self.optimizer.catch_up()
        training = self.model.training
        self.model.eval()
        with torch.no_grad():
            u, i = self.model.embeddings()
        self.model.train(training)
        if (len(u), len(i)) != (self.data.n_users, self.data.n_items):
            raise ValueError(
                f"the model has embeddings of {len(u)} users and {len(i)} items, the data is of "
                f"{self.data.n_users} users and {self.data.n_items} items"
            )
        return u.detach(), i.detach()

    def load_best(self) -> None:
        """The model as it was after its best epoch."""
        self.optimizer.catch_up()  # no step that a row has missed is for these
        self.model.load_state_dict(self.best_model)

    def best_state(self, fitted: FittedModel) -> dict[str, Tensor]:
        """The state_dict of the best epoch's model, which `fitted` is of."""
        return self.best_model

    @property
    def held_out(self) -> scipy.sparse.csr_array:
        """The split that epochs are chosen by."""
        chosen = self.data.test if self.config.protocol == "paper" else self.data.valid
        assert chosen is not None
        return chosen

    @property
    def ranking(self) -> Normalize:
        """How embeddings are scored: the setting, or the model's own way, or the loss's."""
        return self.config.ranking or self.model.ranking or self.config.normalize

    def evaluate(self, embeddings: tuple[Tensor, Tensor] | None = None) -> Evaluation:
        """Evaluates the model as it is, on the split that epochs are chosen by.

        Args:
            embeddings: `self.embeddings()`, where they are there already.
        """
        return self._evaluate(embeddings or self.embeddings(), self.held_out, self.data.train)

    def evaluate_test(self) -> Evaluation:
        """Evaluates the model as it is, on test; items of train and valid are not candidates.

        Warns:
            UserWarning: under "paper": the best epoch was chosen on the same items.
        """
        self._warn_of_test()
        return self._tested()

    def _warn_of_test(self) -> None:
        if self.config.protocol == "paper":
            warnings.warn(
                "protocol=paper: the best epoch is chosen on the test items; what it has there is "
                "higher than users would see",
                stacklevel=3,
            )

    def _tested(self) -> Evaluation:
        return self._evaluate(self.embeddings(), self.data.test, self.data.seen)

    def _evaluate(self, embeddings: tuple[Tensor, Tensor], held_out: Any, exclude: Any) -> Evaluation:
        """Of several processes each evaluates its part of the users, all know the whole."""
        if self.world.size > 1:
            others = np.ones(self.data.n_users, bool)
            others[self.world.part(self.data.n_users)] = False
            held_out = without_rows(held_out, others)
        own = None
        if held_out.nnz:
            own = evaluate_users(
                *embeddings, held_out, exclude=exclude, ks=self.config.ks, normalize=self.ranking
            )
        parts = [part for part in self.world.collected(own) if part is not None]
        if not parts:
            raise DataError(f"{self.data.name}: there is nothing held out to evaluate on")
        return Evaluation.joined(parts)

    def fitted(self) -> FittedModel:
        """The model as it is, for use without this package's training."""
        return FittedModel.of(self.data, self.embeddings(), self.ranking)

    def _diagnose(
        self, embeddings: tuple[Tensor, Tensor], evaluation: Evaluation | None
    ) -> dict[str, float | list[float] | None]:
        with torch.no_grad():
            inv_tau = 1 / self.temperature.of(torch.arange(self.data.n_users, device=self.device))
        k = int(self.config.best_metric.partition("@")[2])
        return diagnose(
            embeddings,
            (self.users, self.items),
            self.popularity,
            self.groups,
            self.config.normalize,
            inv_tau,
            evaluation,
            k,
        )

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next epoch depends on, at the end of one; for torch.save.

        Its tensors are those in use, which the next step changes: copy.deepcopy keeps them as they are.
        """
        self.optimizer.catch_up()
        return {
            "config": self.config.model_dump_json(),
            "model": self.model.state_dict(),
            "temperature": self.temperature.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
            "results": [asdict(result) for result in self.results],
            "best": self.best,
            "best_model": self.best_model,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on where `state_dict` was taken: the same bits as without the interruption.

        Raises:
            ValueError: for the state of another configuration; epochs and patience may differ.
        """
        if what_matters(state["config"]) != what_matters(self.config.model_dump_json()):
            raise ValueError("the state is one of another configuration")
        for name in ("model", "temperature", "optimizer"):
            getattr(self, name).load_state_dict(state[name])
        self.generator.set_state(state["generator"])
        self.results = [EpochResult(**result) for result in state["results"]]
        self.best, self.best_model = state["best"], state["best_model"]
        self._within_epoch = False

    def keep(self, folder: Path) -> None:
        """Writes `state_dict` into a run's folder."""
        if self.world.is_first:
            checkpoint.save(self.state_dict(), folder / "checkpoint.pt")
        self.world.collected(None)  # nobody counts it as kept before it is

    def restore(self, folder: Path) -> None:
        """Goes on from what `keep` wrote, if there is anything.

        Raises:
            ModelError: if that is damaged, or of another model or configuration.
        """
        path = folder / "checkpoint.pt"
        if not path.exists():
            return
        state = checkpoint.load(path)
        failure = f"{path}: a checkpoint of another model or version"
        with reading(failure, "remove it to start again"):
            self.load_state_dict(state)


def make_model(config: TrainConfig, data: Interactions) -> Recommender:
    """An untrained model."""
    if config.model == "lightgcn":
        return LightGCN(
            data.train, config.dim, config.n_layers, hop_dropout=config.dropout, seed=config.seed
        )
    return MF(data.n_users, data.n_items, config.dim, user_dropout=config.dropout, seed=config.seed)


def make_temperature(
    config: TrainConfig, data: Interactions, adaptive: type[AdaptiveTemperature] = AdaptiveTemperature
) -> Temperature:
    """The strategy that `config.tau` names, before the first epoch."""
    denominator = config.denominator or "all"
    if isinstance(config.tau, float):
        return FixedTemperature(config.tau, denominator=denominator)
    if config.tau == "learned":
        return LearnedTemperature(initial=config.initial_tau, denominator=denominator)
    if config.tau == "learned_per_user":
        return LearnedTemperature(data.n_users, initial=config.initial_tau, denominator=denominator)
    return adaptive(
        *data.pairs(),
        data.n_users,
        data.n_items,
        mode=config.mode,
        strategy=config.tau,
        t1=config.t1,
        t2=config.t2,
        variance=config.variance,
        warmup_epochs=config.warmup_epochs,
    )
