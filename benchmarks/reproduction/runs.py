"""Runs arms; what is done is kept, what was killed goes on where it stopped."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from adaptau_ext.data import Interactions, read_lightgcn
from adaptau_ext.durable import write_text
from adaptau_ext.errors import ConfigError
from adaptau_ext.evaluation import UserMetrics
from adaptau_ext.training import EpochResult, TrainConfig, Trainer
from adaptau_ext.training.finished import FinishedRun
from adaptau_ext.training.run import Run

from .arms import Arm

ROOT = Path(__file__).parents[2]
METRICS = ("recall@20", "ndcg@20")
DIAGNOSTICS = ("item_norm_popularity", "item_norm_by_group", "positive_score", "recall@20_by_group")
COMPARED = ("main", "clean")  # runs whose users' metrics are kept: names that begin so


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty"]
    try:
        found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    except OSError:  # no git
        return ""
    return found.stdout.strip()


COMMIT = _commit()  # that this process has its code from, whatever is checked out while it runs


@dataclass(frozen=True)
class Folders:
    """Where things are.

    Attributes:
        data: data sets by name.
        work: of runs on their way: checkpoints, models, logs.
        records: `<arm>.json` of every finished run, small enough to be kept with the source; `<arm>.npz`
            has its users' values.
    """

    data: Path
    work: Path
    records: Path


@dataclass(frozen=True)
class Done:
    """A finished run: its results, what is kept of each epoch, its provenance."""

    arm: Arm
    results: dict[str, Any]
    epochs: list[dict[str, Any]]
    provenance: dict[str, Any]

    @property
    def test(self) -> dict[str, float]:
        """Metrics on test of the chosen epoch."""
        test: dict[str, float] = self.results["test"]
        return test

    @property
    def chosen_epoch(self) -> dict[str, Any]:
        """What is kept of it."""
        return self.epochs[self.results["best_epoch"]]


@cache
def read(folder: Path) -> Interactions:
    return read_lightgcn(folder, cold_users="drop")


def run(arm: Arm, folders: Folders, threads: int | None) -> Done:
    """The run: read if it is done, trained for otherwise, from its last checkpoint on."""
    found = load(arm, folders.records)
    if found is not None:
        return found
    settings = TrainConfig.model_validate(
        {"threads": threads, **arm.settings, "data": str(folders.data / arm.settings["data"])}
    )
    if threads is not None:
        torch.set_num_threads(threads)
    trainer = Trainer(settings, read(folders.data / arm.settings["data"]))
    one = Run(trainer, folders.work / arm.name)
    if one.results is None:
        _keep_provenance(one.folder / "provenance.json")
    started = time.monotonic()
    for event in one.events():
        if isinstance(event, EpochResult):
            value = event.metrics[settings.best_metric]
            print(
                f"{arm.name}: epoch {event.epoch}, {settings.best_metric} {value:.4f}, "
                f"{time.monotonic() - started:.0f} s",
                file=sys.stderr,
                flush=True,
            )
    record(arm, one, folders.records)
    found = load(arm, folders.records)
    assert found is not None
    return found


def record(arm: Arm, one: Run, records: Path) -> None:
    """Keeps what the tables and figures need of a finished run, six digits of every number."""
    records.mkdir(parents=True, exist_ok=True)
    epochs = [json.loads(line) for line in (one.folder / "metrics.jsonl").read_text().splitlines()]
    for epoch in epochs:
        for name, keys in (("metrics", METRICS), ("diagnostics", DIAGNOSTICS)):
            epoch[name] = {key: epoch[name][key] for key in keys}
    parts = {
        "settings": arm.settings,
        "results": one.results,
        "provenance": json.loads((one.folder / "provenance.json").read_text()),
    }
    if arm.name.startswith(COMPARED):
        tested = FinishedRun.read(one.folder).users()
        values = {name: tested.values[name] for name in METRICS}
        kept = UserMetrics(tested.users, values, tested.held_out)
        kept.save(records / f"{arm.name}.npz")
    lines = [f'"{name}": {json.dumps(_six_digits(part))}' for name, part in parts.items()]
    rows = ",\n".join(json.dumps(_six_digits(epoch)) for epoch in epochs)
    text = "{" + ",\n".join([*lines, f'"epochs": [\n{rows}]']) + "}\n"
    write_text(records / f"{arm.name}.json", text)


def _six_digits(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: _six_digits(part) for key, part in value.items()}
    return [_six_digits(part) for part in value] if isinstance(value, list) else value


def load(arm: Arm, records: Path) -> Done | None:
    """The arm's record, if it is done.

    Raises:
        ConfigError: if the record is of other settings.
    """
    path = records / f"{arm.name}.json"
    if not path.exists():
        return None
    record = json.loads(path.read_text())
    if record["settings"] != json.loads(json.dumps(_six_digits(arm.settings))):
        raise ConfigError(f"{path} is of other settings: remove it to run {arm.name} again")
    return Done(arm, record["results"], record["epochs"], record["provenance"])


def user_metrics(arm: Arm, records: Path) -> UserMetrics | None:
    """METRICS of every test user by the chosen epoch, if they are kept."""
    path = records / f"{arm.name}.npz"
    return UserMetrics.load(path) if path.exists() else None


def _keep_provenance(path: Path) -> None:
    """Of a run that goes on: everything that had a part in it."""
    kept = provenance()
    if path.exists():
        for key, before in json.loads(path.read_text()).items():
            parts = dict.fromkeys([*str(before).split(", "), str(kept[key])])
            kept[key] = before if len(parts) == 1 else ", ".join(parts)
    write_text(path, json.dumps(kept, indent=2) + "\n")


def provenance() -> dict[str, Any]:
    """Commit, PyTorch, instruction set and threads of this process."""
    return {
        "commit": COMMIT,
        "torch": torch.__version__,
        "level": torch.ops.adaptau.cpu_level(),
        "threads": torch.get_num_threads(),
    }
