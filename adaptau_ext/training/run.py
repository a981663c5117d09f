"""A run in a folder: configuration, metrics by epoch, checkpoint, results, model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from adaptau_ext.evaluation import beyond_accuracy, group_recall
from adaptau_ext.training import checkpoint
from adaptau_ext.training.config import TrainConfig
from adaptau_ext.training.trainer import EpochResult, Trainer


class Run:
    """Files of a run. `config.json` is there first, `results.json` last.

    ::

        config.json      what the run depends on
        metrics.jsonl    a line an epoch
        checkpoint.pt    what the next epoch depends on
        model.pt         the state_dict of the best epoch
        model/           the same as embeddings with ids, see FittedModel
        users.npz        the best epoch's metrics of every test user, see UserMetrics
        results.json     the best epoch on test

    Of several processes the first one writes them; all of them read the checkpoint.

    Raises:
        ValueError: if the folder holds a run of another configuration.
    """

    def __init__(self, trainer: Trainer, folder: Path) -> None:
        self.trainer, self.folder = trainer, folder
        if not trainer.world.is_first:
            return
        folder.mkdir(parents=True, exist_ok=True)
        config, path = trainer.config.model_dump_json(indent=2) + "\n", folder / "config.json"
        if path.exists() and _what_matters(path.read_text()) != _what_matters(config):
            raise ValueError(
                f"{folder} holds a run of another configuration; choose another output folder"
            )
        checkpoint.write_text(path, config)

    @property
    def results(self) -> dict[str, Any] | None:
        """Of a run that is done."""
        path = self.folder / "results.json"
        return json.loads(path.read_text()) if path.exists() else None

    def events(self) -> Iterator[EpochResult | Tensor]:
        """Trains from the last checkpoint on, if there is one; what Trainer.run yields."""
        self.trainer.restore(self.folder)
        first, done = self.trainer.world.is_first, self.trainer.results
        with (self.folder / "metrics.jsonl").open("w") if first else nullcontext() as file:
            if file is not None:
                file.writelines(_line(result) for result in done)
            for event in self.trainer.run():
                if isinstance(event, EpochResult):
                    self.trainer.keep(self.folder)
                    if file is not None:
                        file.write(_line(event))
                        file.flush()
                yield event
        self._finish()

    def _finish(self) -> None:
        trainer = self.trainer
        last, best = trainer.results[-1], trainer.results[trainer.best]
        trainer.model.load_state_dict(trainer.best_model)
        tested, fitted = trainer.evaluate_test(), trainer.fitted()
        if not trainer.world.is_first:
            return
        popularity = np.bincount(trainer.data.train.indices, minlength=trainer.data.n_items)
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
            "groups": {f"recall@{k}": group_recall(tested, trainer.groups, k).tolist() for k in ks},
        }
        torch.save(trainer.best_model, self.folder / "model.pt")
        fitted.save(self.folder / "model")
        tested.save(self.folder / "users.npz")
        checkpoint.write_text(self.folder / "results.json", json.dumps(results, indent=2) + "\n")


def _line(result: EpochResult) -> str:
    return json.dumps(asdict(result)) + "\n"


def _what_matters(config: str) -> dict[str, Any]:
    """A run may be resumed elsewhere, and for longer."""
    try:
        values = TrainConfig.model_validate_json(config).model_dump()  # with keys that came later
    except ValueError:
        return {}
    for key in ("output", "threads", "device", "epochs", "patience"):
        values.pop(key, None)
    return values
