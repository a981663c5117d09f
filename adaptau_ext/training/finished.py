"""What a run left in its folder."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adaptau_ext import durable
from adaptau_ext.data import Interactions
from adaptau_ext.errors import DataError, ModelError, reading
from adaptau_ext.evaluation import UserMetrics
from adaptau_ext.fitted import FittedModel
from adaptau_ext.training.config import TrainConfig


@dataclass(frozen=True)
class FinishedRun:
    """A run that is done."""

    folder: Path
    config: TrainConfig
    results: dict[str, Any]
    epochs: list[dict[str, Any]]

    @classmethod
    def read(cls, folder: Path) -> FinishedRun:
        """Reads a run's files.

        Raises:
            ModelError: if there is no run, or it is not done.
        """
        if not (folder / "config.json").is_file():
            raise ModelError(f"{folder}: no run is there; a run is a folder written by `adaptau train`")
        if not (folder / "results.json").is_file():
            raise ModelError(
                f"{folder}: the run is not done; the command that started it goes on with it"
            )
        with reading(f"{folder}: a file of the run is damaged", "train again"):
            config = TrainConfig.model_validate_json((folder / "config.json").read_bytes())
            results = json.loads((folder / "results.json").read_bytes())
            lines = (folder / "metrics.jsonl").read_bytes().splitlines()
            epochs = [json.loads(line) for line in lines]
            if not all(isinstance(part, dict) for part in (results, *epochs)):
                raise ValueError("results.json and lines of metrics.jsonl must be objects")
        return cls(folder, config, results, epochs)

    @property
    def name(self) -> str:
        """For people: the folder's."""
        return self.folder.resolve().name

    def check_data(self, data: Interactions) -> None:
        """Refuses other data than the run was trained on.

        Raises:
            DataError: if a pair or an id is another.
        """
        if data_digest(self.folder) != data.digest():
            raise DataError(
                f"{self.config.data} has changed since {self.folder} was trained on it: what is test "
                "now, it may have been trained on; train again"
            )

    def model(self) -> FittedModel:
        """The best epoch's."""
        return FittedModel.load(self.folder / "model")

    def users(self) -> UserMetrics:
        """The best epoch's metrics of every test user."""
        path = self.folder / "users.npz"
        with durable.opened(path, "the `adaptau train` command of this run writes it again") as file:
            return UserMetrics.load(file)


def data_digest(folder: Path) -> str:
    """`Interactions.digest` of a run's data.

    Raises:
        ModelError: if it is not there.
    """
    path = folder / "data.json"
    if not path.is_file():
        raise ModelError(f"{path}: no such file; train again, in another folder")
    found = durable.read_json(path, "train again, in another folder")
    with reading(f"{path}: the file is damaged", "train again, in another folder"):
        return str(found["sha256"])


def fitted_model(folder: Path) -> FittedModel:
    """Of a run's folder, or of one that `FittedModel.save` wrote."""
    if (durable.found(folder) / "model.json").is_file():
        return FittedModel.load(folder)
    return FinishedRun.read(folder).model()
