"""What is run: every row of every table, as a training configuration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from adaptau_ext.recipes import RECIPES

DATASETS = ("yelp2018", "gowalla", "ml-1m")
BACKBONES = ("mf", "lightgcn")
RATIOS = (0.1, 0.2, 0.3, 0.4, 0.5)
TAUS = (0.04, 0.06, 0.08, 0.1, 0.12, 0.16, 0.2, 0.3, 0.5, 1.0)

# One budget for every arm of a table but the twelve full runs: a tenth of the steps at ten times the
# published learning rate.
SHORT = {"epochs": 20, "patience": None, "lr": 1e-3}
STRATEGIES: dict[str, dict[str, Any]] = {
    "no_norm": {"tau": 1.0, "normalize": "none"},
    "grid_tau": {},
    "c_tau": {"tau": "learned"},
    "cu_tau": {"tau": "learned_per_user"},
    "adap_tau0": {"tau": "weight_v0"},
    "adap_tau": {},
}


@dataclass(frozen=True)
class Arm:
    """A run, and where its number stands in the paper.

    Attributes:
        table: main, normalisation, noise, tau or magnitude.
        labels: what tells the arm from the others of its table.
        settings: of TrainConfig; `data` is a data set's name.
    """

    table: str
    labels: dict[str, str]
    settings: dict[str, Any]

    @property
    def name(self) -> str:
        """Of its folder."""
        return "-".join([self.table, *self.labels.values()])


def recipe(dataset: str, backbone: str, strategy: str) -> dict[str, Any]:
    """The published hyper-parameters nearest to a row of the main table."""
    name = f"{dataset}-{backbone}" + ("-tau0" if strategy == "adap_tau0" else "")
    return {"data": dataset, **RECIPES[name]}


def full_runs() -> list[Arm]:
    """Adap-tau0 and Adap-tau on everything, as published: same steps, same stopping."""
    return [
        Arm(
            "main",
            {"dataset": dataset, "backbone": backbone, "strategy": strategy},
            recipe(dataset, backbone, strategy),
        )
        for dataset in DATASETS
        for backbone in BACKBONES
        for strategy in ("adap_tau0", "adap_tau")
        if f"{dataset}-{backbone}" in RECIPES
    ]
