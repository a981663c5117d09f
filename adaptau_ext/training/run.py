"""A run in a folder: configuration, metrics by epoch, checkpoint, results, model."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from adaptau_ext.training import checkpoint
from adaptau_ext.training.trainer import EpochResult, Trainer

CHECKPOINT_SECONDS = 60.0  # between checkpoints, at the end of an epoch


class Run:
    """Files of a run. `config.json` is there first, `results.json` last.

    Raises:
        ValueError: if the folder holds a run of another configuration.
    """

    def __init__(self, trainer: Trainer, folder: Path) -> None:
        self.trainer, self.folder = trainer, folder
        folder.mkdir(parents=True, exist_ok=True)
        config, path = trainer.config.model_dump_json(indent=2) + "\n", folder / "config.json"
        if path.exists() and _what_matters(path.read_text()) != _what_matters(config):
            raise ValueError(
                f"{folder} holds a run of another configuration; choose another output folder"
            )
        path.write_text(config)

    @property
    def results(self) -> dict[str, Any] | None:
        """Of a run that is done."""
        path = self.folder / "results.json"
        return json.loads(path.read_text()) if path.exists() else None

    def events(self) -> Iterator[EpochResult | Tensor]:
        """Trains from the last checkpoint on, if there is one; what Trainer.run yields."""
        path = self.folder / "checkpoint.pt"
        if path.exists():
            self.trainer.load_state_dict(checkpoint.load(path))
        done = self.trainer.results
        saved = time.monotonic()
        with (self.folder / "metrics.jsonl").open("w") as file:
            for result in done:
                file.write(json.dumps(asdict(result)) + "\n")
            for event in self.trainer.run():
                if isinstance(event, EpochResult):
                    file.write(json.dumps(asdict(event)) + "\n")
                    file.flush()
                    if time.monotonic() - saved >= CHECKPOINT_SECONDS or self.trainer.finished:
                        checkpoint.save(self.trainer.state_dict(), path)
                        saved = time.monotonic()
                yield event
        self._finish()

    def _finish(self) -> None:
        trainer = self.trainer
        last, best = trainer.results[-1], trainer.results[trainer.best]
        on_test = trainer.config.protocol == "paper"
        results = {
            "data": trainer.data.describe(),
            "protocol": trainer.config.protocol,
            "selected_by": trainer.config.best_metric,
            "selected_on": "test" if on_test else "valid",
            "best_epoch": best.epoch,
            "best": best.metrics,
            "last_epoch": last.epoch,
            "last": last.metrics,
            "train_seconds": sum(r.train_seconds for r in trainer.results),
            "eval_seconds": sum(r.eval_seconds for r in trainer.results),
        }
        trainer.model.load_state_dict(trainer.best_model)
        results["test"] = best.metrics if on_test else trainer.evaluate_test().means()
        torch.save(trainer.best_model, self.folder / "model.pt")
        (self.folder / "results.json").write_text(json.dumps(results, indent=2) + "\n")


def _what_matters(config: str) -> dict[str, Any]:
    """A run may be resumed elsewhere, and for longer."""
    values: dict[str, Any] = json.loads(config)
    for key in ("output", "threads", "device", "epochs", "patience"):
        values.pop(key, None)
    return values
