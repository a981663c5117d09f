"""Training with tables that lie on different ranks: catalogues that do not fit one machine."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import embedding

from adaptau_ext.data import Interactions
from adaptau_ext.distributed import checkpoint
from adaptau_ext.distributed.collectives import gather_rows
from adaptau_ext.distributed.retrieval import topk
from adaptau_ext.distributed.softmax import sharded_softmax
from adaptau_ext.distributed.tables import ShardedTable
from adaptau_ext.distributed.temperature import ShardedAdaptiveTemperature
from adaptau_ext.distributed.world import World
from adaptau_ext.dropout import draw_seed, dropout
from adaptau_ext.errors import ConfigError
from adaptau_ext.evaluation import Evaluation
from adaptau_ext.evaluation.ranking import USERS_A_CHUNK, evaluate_found
from adaptau_ext.fitted import FittedModel
from adaptau_ext.models import Recommender, Rows
from adaptau_ext.models.recommender import half_squares
from adaptau_ext.ops import as_pair
from adaptau_ext.training import EpochResult, TrainConfig, Trainer


class ShardedMF(Recommender):
    """Matrix factorisation, of which each rank has a part of the users and of the items.

    Initialised as MF is by the same seed, whatever the number of ranks.
    """

    user_table: ShardedTable
    item_table: ShardedTable

    def __init__(
        self, n_users: int, n_items: int, dim: int, seed: int, user_dropout: float = 0.0
    ) -> None:
        super().__init__()
        generator, world = torch.Generator().manual_seed(seed), World.current()
        self.user_table = ShardedTable.xavier(n_users, dim, generator, world)
        self.item_table = ShardedTable.xavier(n_items, dim, generator, world)
        self.user_dropout = user_dropout

    def rows(
        self,
        users: Tensor,
        items: Tensor,
        *,
        catalogue: bool,
        generator: torch.Generator | None = None,
    ) -> Rows:
        """Rows of users that are here, all items that are, and squares of those given that are."""
        u = embedding(users - self.user_table.first, self.user_table)
        positives = items[self.item_table.holds(items)] - self.item_table.first
        return Rows(
            dropout(u, self.user_dropout if self.training else 0, generator),
            self.item_table,
            half_squares(u),
            half_squares(embedding(positives, self.item_table)),
        )

    def embeddings(self) -> tuple[Tensor, Tensor]:
        """This rank's rows of both tables."""
        return self.user_table, self.item_table


class ShardedTrainer(Trainer):
    """Trainer of a ShardedMF: full soft-max over the catalogue, batches as one process would have them.

    A row of a batch belongs to the rank that has its user. Everybody knows all interactions.

    Raises:
        ConfigError: for anything but model=mf, loss=softmax, negatives=full.
    """

    adaptive = ShardedAdaptiveTemperature

    def __init__(self, config: TrainConfig, data: Interactions) -> None:
        wanted = {"model": "mf", "loss": "softmax", "negatives": "full"}
        for name, value in wanted.items():
            if getattr(config, name) != value:
                raise ConfigError(f"shard=true needs {name}={value}, got {getattr(config, name)}")
        model = ShardedMF(data.n_users, data.n_items, config.dim, config.seed, config.dropout)
        super().__init__(config, data, model)
        self.sharded = model

    def step(self, users: Tensor, items: Tensor) -> Tensor:
        """One optimiser step on a batch that all ranks are given; returns the loss."""
        self.optimizer.zero_grad()
        n = len(users)
        here = self.sharded.user_table.holds(users)
        own = users[here]
        rows = self.sharded.rows(own, items, catalogue=True, generator=self.generator)
        draw_seed(self.generator)  # which Trainer draws negatives by: batches stay the same
        assert rows.item_squares is not None
        found = sharded_softmax(
            rows.u,
            rows.i,
            self.temperature.of(own),
            items[here],
            first_item=self.sharded.item_table.first,
            positive_tau=self.temperature.of_positives(own),
            denominator=self.temperature.denominator,
            normalize=self.config.normalize,
            precision=self.config.precision,
            reduction="sum",
            return_unit_loss=self.temperature.needs_unit_loss,
        )
        loss, unit_loss = as_pair(found)
        loss = (loss + self.config.l2 * (rows.user_squares + rows.item_squares)) / n
        loss.backward()
        self.world.sum_gradients(self.temperature.parameters())
        self.optimizer.step()
        if unit_loss is not None:
            counts = self._counts(len(own))
            self.temperature.record(gather_rows(own, counts), gather_rows(unit_loss, counts))
        return self.world.summed(loss.detach())

    def _counts(self, n: int) -> list[int]:
        counts = torch.zeros(self.world.size, dtype=torch.int64, device=self.device)
        counts[self.world.rank] = n
        found: list[int] = self.world.summed(counts).tolist()
        return found

    def embeddings(self) -> tuple[Tensor, Tensor]:
        """This rank's rows."""
        u, i = self.sharded.embeddings()
        return u.detach(), i.detach()

    def _evaluate(self, embeddings: tuple[Tensor, Tensor], held_out: Any, exclude: Any) -> Evaluation:
        u, i = embeddings
        first = self.sharded.user_table.first

        def search(users: np.ndarray, k: int) -> np.ndarray:
            rows = torch.from_numpy(users - first)
            ids = topk(
                u[rows],
                i,
                k,
                first_item=self.sharded.item_table.first,
                exclude=exclude[users],
                normalize=self.ranking,
            )[1]
            return np.asarray(ids.cpu())

        mine = np.diff(held_out.indptr).nonzero()[0]
        mine = mine[(mine >= first) & (mine < self.sharded.user_table.last)]
        n = max(self.world.collected(-(-mine.size // USERS_A_CHUNK)))
        chunks = [mine[c * USERS_A_CHUNK : (c + 1) * USERS_A_CHUNK] for c in range(n)]
        own = evaluate_found(search, chunks, held_out, self.config.ks)
        return Evaluation.joined(self.world.collected(own))

    def fitted(self) -> FittedModel:
        """The whole model, on every rank: for catalogues that fit one after all."""
        world, data = self.world, self.data
        tables = zip(self.embeddings(), (data.n_users, data.n_items), strict=True)
        u, i = (world.gathered(own, n) for own, n in tables)
        return FittedModel.of(data, (u, i), self.ranking)

    def best_state(self, fitted: FittedModel) -> dict[str, Tensor]:
        """Of all ranks' rows together: that of an `MF`."""
        return {"user_table": fitted.user_embeddings, "item_table": fitted.item_embeddings}

    def keep(self, folder: Path) -> None:
        """Every rank writes its rows, see `checkpoint`."""
        state = {
            "results": [asdict(result) for result in self.results],
            "best": self.best,
            "temperature": getattr(self.temperature, "inv_tau0", None),
            "step": self._step,
        }
        checkpoint.save(folder / "checkpoint", self._tables(), self._replicated(), state)

    def restore(self, folder: Path) -> None:
        """Goes on from what `keep` wrote on any number of ranks."""
        tables, replicated = self._tables(), self._replicated()
        state = checkpoint.load(folder / "checkpoint", tables, replicated)
        if state is None:
            return
        self.generator.set_state(replicated["generator"])
        self.results = [EpochResult(**result) for result in state["results"]]
        self.best = state["best"]
        if state["temperature"] is not None:
            self.temperature.set_extra_state(state["temperature"])
        for parameter in self._parameters():
            self.optimizer.state[parameter]["step"].fill_(state["step"])
        best = {name: tables[f"best.{name}"][0] for name in ("user_table", "item_table")}
        self.best_model = {name: rows.clone() for name, rows in best.items()}

    def _parameters(self) -> list[nn.Parameter]:
        return [p for group in self.optimizer.param_groups for p in group["params"]]

    @property
    def _step(self) -> float:
        return float(self.optimizer.state[self.sharded.user_table]["step"])

    def _moments(self, parameter: nn.Parameter) -> dict[str, Tensor]:
        """Adam's state, which is not there before the first step."""
        state = self.optimizer.state[parameter]
        if not state:
            step = torch.zeros((), device=parameter.device)
            zeros = (torch.zeros_like(parameter) for _ in range(2))
            state.update(step=step, exp_avg=next(zeros), exp_avg_sq=next(zeros))
        return {name: state[name] for name in ("exp_avg", "exp_avg_sq")}

    def _tables(self) -> checkpoint.Sharded:
        """This rank's rows of whatever has a row for each user or item."""
        found: checkpoint.Sharded = {}
        for name in ("user_table", "item_table"):
            table: ShardedTable = getattr(self.sharded, name)
            rows = {
                name: table.detach(),
                f"best.{name}": self.best_model.get(name, table.detach().clone()),
            }
            rows |= {f"{name}.{moment}": x for moment, x in self._moments(table).items()}
            found |= {key: (x, table.n_rows) for key, x in rows.items()}
        return found

    def _replicated(self) -> dict[str, Tensor]:
        """What all ranks have the same of."""
        found = {"generator": self.generator.get_state()}
        found |= {f"temperature.{name}": x for name, x in self.temperature.named_buffers()}
        for name, parameter in self.temperature.named_parameters():
            found[f"temperature.{name}"] = parameter.detach()
            moments = self._moments(parameter).items()
            found |= {f"temperature.{name}.{moment}": x for moment, x in moments}
        return found

    def _diagnose(
        self, embeddings: tuple[Tensor, Tensor], evaluation: Evaluation | None
    ) -> dict[str, float | list[float] | None]:
        """Nothing: it would need all embeddings."""
        return {}
