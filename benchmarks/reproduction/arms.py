"""What is run: training configurations, and the rows of tables that they fill."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from adaptau_ext.recipes import RECIPES

DATASETS = ("yelp2018", "gowalla", "ml-1m")
BACKBONES = ("mf", "lightgcn")
RATIOS = (0.1, 0.2, 0.3, 0.4, 0.5)
TAUS = (0.04, 0.06, 0.08, 0.1, 0.12, 0.16, 0.2, 0.3, 0.5, 1.0)
MODES = {"Y-Y": "both", "Y-N": "user", "N-Y": "item", "N-N": "none"}

# All that is not among the full runs has one budget, the same for whatever is compared.
SHORT: dict[str, Any] = {"epochs": 30, "lr": 3e-4}
# Fixed temperatures tried where an embedding is not normalised, whose length is a temperature too.
GRID: dict[str, Sequence[float]] = {
    "Y-Y": TAUS,
    "Y-N": (0.06, 0.1, 0.16),
    "N-Y": (0.06, 0.1, 0.16),
    "N-N": (0.1, 0.3, 1.0),
}
NOISE_TAUS = (0.08, 0.1, 0.12)
# ml-1m has no published hyper-parameters: chosen on a tenth of train, cut as validation items.
SEARCH: dict[str, dict[str, Sequence[float]]] = {
    "mf": {"lr": (1e-3, 1e-4), "l2": (1e-7, 1e-3, 1e-1), "dropout": (0.0, 0.1)},
    "lightgcn": {"lr": (1e-3,), "l2": (1e-5, 1e-3, 1e-1), "dropout": (0.0, 0.1)},
}
SEARCH_BUDGET: dict[str, Any] = {
    "protocol": "clean", "valid_fraction": 0.1, "epochs": 100, "patience": 10
}  # fmt: skip
LONG: dict[str, Any] = {"epochs": 500}  # on a small data set


@dataclass(frozen=True)
class Arm:
    """A run: its folder's name and its settings of TrainConfig, `data` being a data set's name."""

    name: str
    settings: dict[str, Any]


@dataclass(frozen=True)
class Row:
    """A line of a table: the best of its arms, by recall@20 on test as in the paper.

    Attributes:
        labels: columns that name the line; those that are columns of the published files find its
            published numbers.
    """

    table: str
    labels: dict[str, str]
    arms: tuple[Arm, ...]


def full(dataset: str, backbone: str, strategy: str, protocol: str = "paper") -> Arm:
    """Adap-tau0 or Adap-tau with the published hyper-parameters, for as many epochs as published."""
    recipe = f"{dataset}-{backbone}" + ("-tau0" if strategy == "adap_tau0" else "")
    prefix = "main" if protocol == "paper" else protocol
    settings = {"data": dataset, **RECIPES[recipe], "protocol": protocol}
    return Arm(f"{prefix}-{dataset}-{backbone}-{strategy}", settings)


def short(name: str, dataset: str = "yelp2018", backbone: str = "mf", **changes: Any) -> Arm:
    """The short budget, otherwise the published hyper-parameters of Adap-tau."""
    settings = {"data": dataset, **RECIPES[f"{dataset}-{backbone}"], **SHORT, **changes}
    return Arm(f"short-{dataset}-{backbone}-{name}", settings)


def fixed(mode: str, tau: float, **where: str) -> Arm:
    """One temperature for everybody; mode: which embeddings are normalised, users' and items'."""
    return short(f"{mode}-{tau:g}", tau=tau, normalize=MODES[mode], **where)


def grid(mode: str, **where: str) -> tuple[Arm, ...]:
    """Temperatures of which the best is chosen."""
    return tuple(fixed(mode, tau, **where) for tau in GRID[mode])


def strategy(name: str, **where: str) -> tuple[Arm, ...]:
    """A row of the paper's main table in the short budget."""
    if name in ("no_norm", "grid_tau"):
        return grid("N-N" if name == "no_norm" else "Y-Y", **where)
    tau = {
        "c_tau": "learned",
        "cu_tau": "learned_per_user",
        "adap_tau0": "weight_v0",
        "adap_tau": "weight_mean",
    }
    return (short(name, tau=tau[name], **where),)


def noisy(by: str, ratio: float, name: str) -> tuple[Arm, ...]:
    """A share of interactions that never were, added in one of two ways."""
    taus = NOISE_TAUS if name == "grid_tau" else ("weight_mean",)
    return tuple(short(f"{by}-{ratio:g}-{tau}", tau=tau, noise=ratio, noise_by=by) for tau in taus)


def long(mode: str) -> Arm:
    """With and without normalisation, for long, on a small data set; tau as in the short grids."""
    settings = {"data": "lastfm", "tau": 0.1 if mode == "Y-Y" else 1.0, "normalize": MODES[mode]}
    return Arm(f"long-lastfm-mf-{mode}", {"protocol": "paper", "lr": 1e-3, **settings, **LONG})


def _full(protocol: str, table: str) -> list[Row]:
    return [
        Row(
            table,
            {"dataset": dataset, "backbone": backbone, "strategy": name},
            (full(dataset, backbone, name, protocol),),
        )
        for dataset in DATASETS
        for backbone in BACKBONES
        for name in ("adap_tau0", "adap_tau")
        if f"{dataset}-{backbone}" in RECIPES
    ]


def main() -> list[Row]:
    """Adap-tau0 and Adap-tau in full."""
    return _full("paper", "main")


def seconds() -> list[Row]:
    """A few epochs of the published runs: their time. On a machine with nothing else to do."""
    labels = [
        (dataset, backbone, "adap_tau") for dataset in ("yelp2018", "gowalla") for backbone in BACKBONES
    ]
    rows = []
    for dataset, backbone, name in labels:
        settings = {**full(dataset, backbone, name).settings, "epochs": 3}
        row = {"dataset": dataset, "backbone": backbone, "strategy": name}
        rows.append(Row("seconds", row, (Arm(f"seconds-{dataset}-{backbone}", settings),)))
    return rows


def search() -> list[Row]:
    """Hyper-parameters for ml-1m, with one temperature for all users."""
    rows = []
    for backbone, grid in SEARCH.items():
        for values in product(*grid.values()):
            chosen = dict(zip(grid, values, strict=True))
            labels = {name: f"{value:g}" for name, value in chosen.items()}
            settings = {
                "data": "ml-1m",
                "model": backbone,
                "tau": "weight_v0",
                **SEARCH_BUDGET,
                **chosen,
            }
            name = "-".join(["search-ml-1m", backbone, *labels.values()])
            rows.append(Row("search", {"backbone": backbone, **labels}, (Arm(name, settings),)))
    return rows


def clean() -> list[Row]:
    """The same, chosen on validation items that are not trained on."""
    return _full("clean", "clean")


def strategies() -> list[Row]:
    """All strategies of the main table in the short budget."""
    names = ("no_norm", "grid_tau", "c_tau", "cu_tau", "adap_tau0", "adap_tau")
    labels = {"dataset": "yelp2018", "backbone": "mf"}
    return [Row("main", {**labels, "strategy": name}, strategy(name)) for name in names]


def normalisation() -> list[Row]:
    """Which embeddings are normalised."""
    labels = {"dataset": "yelp2018", "backbone": "mf"}
    return [Row("normalisation", {**labels, "strategy": mode}, grid(mode)) for mode in MODES]


def noise() -> list[Row]:
    """Fixed and adaptive temperatures under noise."""
    labels = {"dataset": "yelp2018", "backbone": "mf"}
    return [
        Row(
            "noise",
            {**labels, "noise by": by, "noise_ratio": f"{ratio:g}", "strategy": name},
            noisy(by, ratio, name),
        )
        for by in ("activity", "user")
        for ratio in RATIOS
        for name in ("grid_tau", "adap_tau")
    ]


def curve() -> list[Row]:
    """Recall over fixed temperatures, and adaptive ones without any to choose."""
    rows = [Row("curve", {"tau": f"{tau:g}"}, (fixed("Y-Y", tau),)) for tau in TAUS]
    return rows + [Row("curve", {"tau": name}, strategy(name)) for name in ("adap_tau0", "adap_tau")]


def trajectories() -> list[Row]:
    """500 epochs with and without normalisation."""
    return [Row("trajectories", {"strategy": mode}, (long(mode),)) for mode in ("Y-Y", "N-N")]
