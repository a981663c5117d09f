"""A run in a folder: configuration, metrics by epoch, checkpoint, results, model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from adaptau_ext import durable
from adaptau_ext.errors import ConfigError, InputError
from adaptau_ext.evaluation import beyond_accuracy, group_recall, popularity_groups
from adaptau_ext.training import checkpoint
from adaptau_ext.training.config import what_matters
from adaptau_ext.training.finished import data_digest
from adaptau_ext.training.lock import Lock
from adaptau_ext.training.trainer import EpochResult, Trainer


class Run:
    """Files of a run. `data.json` and `config.json` are there first, `results.json` last.

    ::

        data.json        the data that it is trained on: a line for people, SHA-256 of it
        config.json      what else the run depends on
        metrics.jsonl    a line an epoch
        checkpoint.pt    what the next epoch depends on
        model.pt         the state_dict of the best epoch
        model/           the same as embeddings with ids, see FittedModel
        users.npz        the best epoch's metrics of every test user, see UserMetrics
        results.json     the best epoch on test
        .lock            held while somebody trains, see Lock

    Each of them is whole at any moment, but for metrics.jsonl, of which a crash may leave a part of the
    last line; the next start makes it anew of the checkpoint. Of several processes the first one writes
    them; all of them read the checkpoint.

    Attributes:
        kept: epochs in the checkpoint.

    Raises:
        ConfigError: if the folder holds a run of another configuration, or on other data.
        TrainingError: if another process trains there.
        OSError: if nothing can be written there. All of these on all ranks.
    """

    def __init__(self, trainer: Trainer, folder: Path) -> None:
        self.trainer, self.folder, self.kept = trainer, folder, 0
        self._lock: Lock | None = None
        problem: Exception | None = None
        if trainer.world.is_first:
            try:
                self._open()
            except (InputError, OSError) as found:
                problem = found
                self._release()  # the error holds this object for as long as it is looked at
        problem = trainer.world.collected(problem)[0]
        if problem is not None:
            raise problem

    def _open(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = Lock(self.folder)
        for part in filter(durable.is_part, self.folder.glob("*.part")):  # a kill -9 left it
            shutil.rmtree(part) if part.is_dir() else part.unlink()
        path = self.folder / "config.json"
        if path.exists():
            other = None
            config = self.trainer.config.model_dump_json()
            if what_matters(path.read_text("utf-8")) != what_matters(config):
                other = "of another configuration"
            elif data_digest(self.folder) != self.trainer.digest:
                other = f"on other data than {self.trainer.config.data} holds now"
            if other is not None:
                raise ConfigError(f"{self.folder} holds a run {other}; choose another output folder")
        data = {"data": self.trainer.data.describe(), "sha256": self.trainer.digest}
        durable.write_text(self.folder / "data.json", json.dumps(data, indent=2) + "\n")
        if not path.exists():
            self._write_config()

    def _write_config(self) -> None:
        text = self.trainer.config.model_dump_json(indent=2) + "\n"
        durable.write_text(self.folder / "config.json", text)

    @property
    def results(self) -> dict[str, Any] | None:
        """Of a run that is done."""
        path = self.folder / "results.json"
        return json.loads(path.read_bytes()) if path.exists() else None

    def events(self) -> Iterator[EpochResult | Tensor]:
        """Trains from the last checkpoint on, if there is one; what Trainer.run yields.

        Raises:
            ModelError: for a checkpoint that is damaged.
            ConfigError: for one of more epochs than are to be trained.
            OSError: if the disk is full; what was kept is whole.
        """
        try:
            self.trainer.restore(self.folder)
            self.kept = len(self.trainer.results)
            most = self.trainer.config.epochs
            if self.kept > most:
                raise ConfigError(
                    f"{self.folder} holds a run of {self.kept} epochs, more than epochs={most}; choose "
                    "another output folder"
                )
            if not self.trainer.world.is_first:
                yield from self._train(lambda _: None)
            else:
                self._write_config()
                if not self.trainer.finished:  # it may have been, of fewer epochs
                    (self.folder / "results.json").unlink(missing_ok=True)
                path = self.folder / "metrics.jsonl"
                durable.write_text(path, "".join(map(_line, self.trainer.results)))
                with path.open("a", buffering=1) as file:
                    yield from self._train(lambda result: file.write(_line(result)))
            self._finish()
        finally:
            self._release()

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.release()

    def _train(self, log: Callable[[EpochResult], object]) -> Iterator[EpochResult | Tensor]:
        for event in self.trainer._epochs():
            if isinstance(event, EpochResult):
                self.trainer.keep(self.folder)
                self.kept = len(self.trainer.results)
                log(event)
            yield event

    def _finish(self) -> None:
        trainer = self.trainer
        last, best = trainer.results[-1], trainer.results[trainer.best]
        trainer.load_best()
        tested, fitted = trainer._tested(), trainer.fitted()
        if not trainer.world.is_first:
            return
        popularity = np.bincount(trainer.data.seen.indices, minlength=trainer.data.n_items)
        groups = popularity_groups(popularity)
        ks = trainer.config.ks
        results = {
            "data": trainer.data.describe(),
            "protocol": trainer.config.protocol,
            "selected_by": trainer.config.best_metric,
            "selected_on": "test" if trainer.config.protocol == "paper" else "valid",
            "best_epoch": best.epoch,
            "best": best.metrics,
            "last_epoch": last.epoch,
            "last": last.metrics,
            "train_seconds": sum(r.train_seconds for r in trainer.results),
            "eval_seconds": sum(r.eval_seconds for r in trainer.results),
            "test": tested.means(),
            "beyond": {k: v for cut in ks for k, v in beyond_accuracy(tested, popularity, cut).items()},
            "groups": {f"recall@{k}": group_recall(tested, groups, k).tolist() for k in ks},
        }
        checkpoint.save(trainer.best_state(fitted), self.folder / "model.pt")
        fitted.save(self.folder / "model")
        durable.write_sealed(self.folder / "users.npz", tested.save)
        durable.write_text(self.folder / "results.json", json.dumps(results, indent=2) + "\n")


def _line(result: EpochResult) -> str:
    return json.dumps(asdict(result)) + "\n"
