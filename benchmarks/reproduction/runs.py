"""Runs arms one after another; what is done is kept, what was killed goes on where it stopped."""

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
from adaptau_ext.evaluation import Evaluation
from adaptau_ext.training import EpochResult, TrainConfig, Trainer
from adaptau_ext.training.run import Run

from .arms import Arm

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Done:
    """A finished arm: `results.json`, one line of `metrics.jsonl` an epoch, `provenance.json`."""

    arm: Arm
    results: dict[str, Any]
    epochs: list[dict[str, Any]]
    provenance: dict[str, Any]

    @property
    def test(self) -> dict[str, float]:
        """Metrics on test of the chosen epoch."""
        test: dict[str, float] = self.results["test"]
        return test


@cache
def read(folder: Path) -> Interactions:
    return read_lightgcn(folder, cold_users="drop")


def config(arm: Arm, data: Path, threads: int | None) -> TrainConfig:
    settings = {"threads": threads, **arm.settings}
    return TrainConfig.model_validate({**settings, "data": str(data / settings["data"])})


def run(arm: Arm, data: Path, runs: Path, threads: int | None) -> Done:
    """The arm's results: read if it is done, trained for otherwise."""
    folder = runs / arm.name
    found = load(arm, runs)
    if found is not None:
        return found
    settings = config(arm, data, threads)
    if threads is not None:
        torch.set_num_threads(threads)
    trainer = Trainer(settings, read(data / arm.settings["data"]))
    one = Run(trainer, folder)
    (folder / "provenance.json").write_text(json.dumps(provenance(), indent=2) + "\n")
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
    found = load(arm, runs)
    assert found is not None
    return found


def load(arm: Arm, runs: Path) -> Done | None:
    """What is in the arm's folder, if it is done."""
    folder = runs / arm.name
    if not (folder / "results.json").exists():
        return None
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    results, provenance = (
        json.loads((folder / name).read_text()) for name in ("results.json", "provenance.json")
    )
    return Done(arm, results, [json.loads(line) for line in lines], provenance)


def evaluate(arm: Arm, data: Path, runs: Path) -> Evaluation:
    """Of every test user, by the chosen epoch of an arm that is done."""
    trainer = Trainer(config(arm, data, None), read(data / arm.settings["data"]))
    trainer.model.load_state_dict(torch.load(runs / arm.name / "model.pt", weights_only=True))
    return trainer.evaluate_test()


def provenance() -> dict[str, Any]:
    """Commit, PyTorch, instruction set and threads of this process."""
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()
    return {
        "commit": commit,
        "torch": torch.__version__,
        "level": torch.ops.adaptau.cpu_level(),
        "threads": torch.get_num_threads(),
    }
