"""What is run: training configurations, and the rows of tables that they fill."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from adaptau_ext.recipes import RECIPES

DATASETS = ("yelp2018", "gowalla", "ml-1m")
BACKBONES = ("mf", "lightgcn")
YELP_MF = {"dataset": "yelp2018", "backbone": "mf"}
RATIOS = (0.1, 0.2, 0.3, 0.4, 0.5)
TAUS = (0.04, 0.06, 0.08, 0.1, 0.12, 0.16, 0.2, 0.3, 0.5, 1.0)
NORMALIZE = {"Y-Y": "both", "Y-N": "user", "N-Y": "item", "N-N": "none"}

BUDGETS: dict[str, dict[str, Any]] = {
    # Where only the order counts: a tenth of the steps at ten times the learning rate, a quarter of the
    # negatives. They are steps of the warm-up: the published runs on Yelp2018 are best before it ends, or
    # three epochs later.
    "short": {"epochs": 15, "lr": 1e-3, "n_negatives": 256},
    # Where values count: until nothing has got better for a while, at three times the learning rate, the
    # warm-up a third.
    "converged": {"epochs": 200, "patience": 10, "lr": 3e-4, "warmup_epochs": 33},
}
# Temperatures to choose from, and where an embedding keeps its length weights that hold it: there another
# temperature is another weight, and another learning rate, for embeddings in other units. A tenth of 1 was
# ten times too fast (N-Y: .066 at epoch 14, and worse from then on). Items are held as often as they are
# drawn as negatives, a thousand times a positive, users once.
GRID: dict[str, Sequence[tuple[float, float]]] = {  # (tau, l2)
    "Y-Y": tuple(product((0.1, 0.12, 0.14), (1e-3,))),
    "Y-N": tuple(product((1.0,), (1e-5, 1e-4))),
    "N-Y": tuple(product((1.0,), (1e-3, 1e-2))),
    "N-N": tuple(product((1.0,), (1e-3, 3e-3))),
}
# Of fixed temperatures under noise, by the softmax's denominator: with the positive, or without it as
# Adap-tau has it in the published code. The best ones are among the latter, from 0.1 to 0.14 by ratio.
NOISE_TAUS = {"all": (0.12, 0.14, 0.16), "negatives": (0.08, 0.1, 0.12, 0.14, 0.16)}
SHORT_WARMUP = 5  # of "adap_tau_early", which shows what comes after the warm-up
ADAPTIVE = {"adap_tau0": "weight_v0", "adap_tau": "weight_mean"}
LEARNED = {"c_tau": "learned", "cu_tau": "learned_per_user"}
# The lower a temperature, the lower the loss of positives that are pulled up already: how far a learned one
# falls until the best epoch is a matter of how fast it is learned. The embeddings' learning rate, and a tenth.
TAU_LRS = (3e-4, 3e-5)
# Temperatures for everybody beside Adap-tau's, in its form of the softmax: the best ones of the curve.
BEST_TAUS = (0.1, 0.12)
LONGER: dict[str, Sequence[Any]] = {"epochs": (200,), "patience": (25,)}
COSINE: dict[str, Sequence[Any]] = {"negatives": ("sampled",), "ranking": ("both",)}
# ml-1m has no published hyper-parameters: chosen on a tenth of train, cut as validation items. One
# temperature for all users comes first; those of each user are searched around the best of it.
SEARCH: dict[str, tuple[dict[str, Sequence[Any]], ...]] = {
    "mf": (
        {"tau": ("weight_v0",), "warmup_epochs": (100,), "lr": (1e-3,), "l2": (1e-7, 1e-3), "dropout": (0.0, 0.1)},
        {"tau": ("weight_v0",), "warmup_epochs": (10,), "lr": (1e-3, 3e-4), "l2": (1e-7,), "dropout": (0.0,)},
        {"tau": ("weight_mean",), "warmup_epochs": (10,), "lr": (1e-3,), "l2": (1e-7,), "dropout": (0.0,), "t2": (0.5, 1.0, 2.0, 4.0)},
        {"tau": ("weight_ratio",), "warmup_epochs": (10,), "lr": (1e-3,), "l2": (1e-7,), "dropout": (0.0,), "t2": (1.0, 2.0, 4.0), "t1": (0.9,)},
        # around the best so far, not stopped as soon
        {"tau": ("weight_v0",), "warmup_epochs": (10,), "lr": (1e-3, 3e-4), "l2": (1e-7,), "dropout": (0.0,), **LONGER},
        {"tau": ("weight_ratio",), "warmup_epochs": (10,), "lr": (1e-3,), "l2": (1e-7,), "dropout": (0.0,), "t2": (0.5, 1.0, 2.0), "t1": (0.9,), **LONGER},
    ),
    "lightgcn": (
        {"tau": ("weight_v0",), "warmup_epochs": (10,), "lr": (1e-3,), "l2": (1e-5, 1e-1), "dropout": (0.0,)},
        # of the catalogue, as for MF: those of a batch are as popular as positives, and so hold popular items down
        {"tau": ("weight_v0",), "warmup_epochs": (10,), "lr": (1e-3,), "l2": (1e-5,), "dropout": (0.0,), "negatives": ("sampled",)},
        # and ranked as they are trained, by cosine
        {"tau": ("weight_v0",), "warmup_epochs": (10,), "lr": (1e-3,), "l2": (1e-5,), "dropout": (0.0,), **COSINE},
        # smoothed less: MF, not smoothed at all, is better here
        {"tau": ("weight_v0",), "warmup_epochs": (10,), "lr": (1e-3,), "l2": (1e-5,), "dropout": (0.0,), **COSINE, "n_layers": (1,)},
        {"tau": ("weight_ratio",), "warmup_epochs": (10,), "lr": (1e-3,), "l2": (1e-5,), "dropout": (0.0,), **COSINE, "t2": (1.0, 2.0, 4.0), "t1": (0.9,)},
        # slower, and not stopped as soon
        {"tau": ("weight_v0",), "warmup_epochs": (10,), "lr": (3e-4,), "l2": (1e-5,), "dropout": (0.0,), **COSINE, **LONGER},
        {"tau": ("weight_ratio",), "warmup_epochs": (10,), "lr": (3e-4,), "l2": (1e-5,), "dropout": (0.0,), **COSINE, "t2": (4.0,), "t1": (0.9,), **LONGER},
    ),
}  # fmt: skip
SEARCH_BUDGET: dict[str, Any] = {
    "protocol": "clean", "valid_fraction": 0.1, "epochs": 100, "patience": 10
}  # fmt: skip
# As published, but of validation items. Fewer would end Adap-tau on Gowalla, MF, at epoch 8, which is the
# best for 34 epochs, long before the temperatures of users take over.
CLEAN: dict[str, Any] = {"patience": 51}
LONG: dict[str, Any] = {"epochs": 500, "patience": None}  # on a small data set


@dataclass(frozen=True)
class Arm:
    """A run: its folder's name and its settings of TrainConfig, `data` being a data set's name."""

    name: str
    settings: dict[str, Any]


@dataclass(frozen=True)
class Row:
    """A line of a table: the best of its arms, by recall@20 on test as in the paper.

    Attributes:
        table: of the published file, whose numbers stand beside.
        labels: columns that name the line; those that are columns of the published files find its
            published numbers.
        beside: a run of ours whose numbers stand beside.
    """

    table: str
    labels: dict[str, str]
    arms: tuple[Arm, ...]
    beside: Arm | None = None


def full(dataset: str, backbone: str, strategy: str, protocol: str = "paper") -> Arm:
    """Adap-tau0 or Adap-tau as its recipe says: as published, except for ml-1m."""
    recipe = f"{dataset}-{backbone}" + ("-tau0" if strategy == "adap_tau0" else "")
    prefix = "main" if protocol == "paper" else protocol
    settings = {"data": dataset, **RECIPES[recipe], "protocol": protocol}
    if protocol == "clean":
        settings |= CLEAN
    return Arm(f"{prefix}-{dataset}-{backbone}-{strategy}", settings)


def arm(budget: str, name: str, **changes: Any) -> Arm:
    """Yelp2018, MF, one of BUDGETS; otherwise the published hyper-parameters of Adap-tau."""
    settings = {"data": "yelp2018", **RECIPES["yelp2018-mf"], **BUDGETS[budget], **changes}
    return Arm(f"{budget}-yelp2018-mf-{name}", settings)


def grid(mode: str) -> tuple[Arm, ...]:
    """One temperature for everybody, of which the best is chosen; mode: which embeddings are
    normalised, users' and items'."""
    return tuple(
        arm("converged", f"{mode}-{tau:g}-{l2:g}", tau=tau, l2=l2, normalize=NORMALIZE[mode])
        for tau, l2 in GRID[mode]
    )


def fixed_tau(tau: float, denominator: str, name: str, *, budget: str = "short", **changes: Any) -> Arm:
    """One temperature for everybody, with ("all") or without ("negatives") the positive in the
    softmax's denominator."""
    if denominator == "all":  # the default
        return arm(budget, f"{name}-{tau:g}", tau=tau, **changes)
    changes["denominator"] = denominator
    return arm(budget, f"{name}-{tau:g}-{denominator}", tau=tau, **changes)


def noisy(by: str, ratio: float, name: str) -> tuple[Arm, ...]:
    """A share of interactions that never were, added in one of two ways."""
    common = {"noise": ratio, "noise_by": by}
    if name == "grid_tau":
        return tuple(
            fixed_tau(tau, denominator, f"{by}-{ratio:g}", **common)
            for denominator, taus in NOISE_TAUS.items()
            for tau in taus
        )
    changes = {"warmup_epochs": SHORT_WARMUP} if name == "adap_tau_early" else {}
    return (arm("short", f"{by}-{ratio:g}-{name}", tau=ADAPTIVE["adap_tau"], **common, **changes),)


def long(mode: str) -> tuple[Arm, ...]:
    """As `grid`, for long, on a small data set."""
    fixed = {"data": "lastfm", "protocol": "paper", "lr": 1e-3, "normalize": NORMALIZE[mode], **LONG}
    return tuple(
        Arm(f"long-lastfm-mf-{mode}-{tau:g}-{l2:g}", {**fixed, "tau": tau, "l2": l2})
        for tau, l2 in GRID[mode]
    )


def main() -> list[Row]:
    """Adap-tau0 and Adap-tau in full."""
    return [
        Row(
            "main",
            {"dataset": dataset, "backbone": backbone, "strategy": name},
            (full(dataset, backbone, name),),
        )
        for dataset in DATASETS
        for backbone in BACKBONES
        if f"{dataset}-{backbone}" in RECIPES
        for name in ADAPTIVE
    ]


def fixed() -> list[Row]:
    """One temperature for everybody beside Adap-tau, everything else as in its published run."""
    adaptive = full(**YELP_MF, strategy="adap_tau")
    changes = {"denominator": "negatives"}
    taus = tuple(
        Arm(f"main-yelp2018-mf-{tau:g}-negatives", {**adaptive.settings, "tau": tau, **changes})
        for tau in BEST_TAUS
    )
    tried = {"grid_tau": taus, "adap_tau": (adaptive,)}
    return [Row("main", {**YELP_MF, "strategy": name}, arms) for name, arms in tried.items()]


def seconds() -> list[Row]:
    """A few epochs of the published runs: their time. On a machine with nothing else to do."""
    rows = []
    for row in main():
        dataset, backbone, name = row.labels.values()
        if name == "adap_tau" and dataset != "ml-1m":  # which has no published seconds
            timed = Arm(f"seconds-{dataset}-{backbone}", {**row.arms[0].settings, "epochs": 3})
            rows.append(Row("seconds", row.labels, (timed,)))
    return rows


def seeds() -> list[Row]:
    """The published run whose temperatures move most, by another seed, beside the first."""
    where = {"dataset": "gowalla", "backbone": "mf", "strategy": "adap_tau"}
    first = full(*where.values())
    other = Arm("seeds-gowalla-mf-1", {**first.settings, "epochs": 112, "seed": 1})
    return [
        Row("seeds", {**where, "seed": str(one.settings.get("seed", 0))}, (one,), beside=first)
        for one in (first, other)
    ]


def search() -> list[Row]:
    """Hyper-parameters for ml-1m."""
    searched = list(dict.fromkeys(name for grids in SEARCH.values() for grid in grids for name in grid))
    rows = []
    for backbone, grids in SEARCH.items():
        for values in (dict(zip(g, v, strict=True)) for g in grids for v in product(*g.values())):
            labels = {name: str(values.get(name, "")) for name in searched}
            settings = {"data": "ml-1m", "model": backbone, **SEARCH_BUDGET, **values}
            name = "-".join(["search-ml-1m", backbone, *map(str, values.values())])
            rows.append(Row("search", {"backbone": backbone, **labels}, (Arm(name, settings),)))
    return rows


def clean() -> list[Row]:
    """The same, chosen on validation items that are not trained on."""
    return [
        Row("clean", row.labels, (full(*row.labels.values(), protocol="clean"),), beside=row.arms[0])
        for row in main()
    ]


def strategies() -> list[Row]:
    """All strategies of the main table."""
    learned = {
        name: tuple(arm("converged", f"{name}-{lr:g}", tau=tau, tau_lr=lr) for lr in TAU_LRS)
        for name, tau in LEARNED.items()
    }
    adaptive = {name: (arm("converged", name, tau=tau),) for name, tau in ADAPTIVE.items()}
    in_its_form = tuple(
        fixed_tau(tau, "negatives", "Y-Y", budget="converged", normalize="both") for tau in BEST_TAUS
    )
    fixed = {"no_norm": grid("N-N"), "grid_tau": grid("Y-Y") + in_its_form}
    tried = {**fixed, **learned, **adaptive}
    return [Row("main", {**YELP_MF, "strategy": name}, arms) for name, arms in tried.items()]


def normalisation() -> list[Row]:
    """Which embeddings are normalised."""
    return [Row("normalisation", {**YELP_MF, "strategy": mode}, grid(mode)) for mode in NORMALIZE]


def noise() -> list[Row]:
    """Fixed and adaptive temperatures under noise."""
    return [
        Row(
            "noise",
            {**YELP_MF, "noise_by": by, "noise_ratio": f"{ratio:g}", "strategy": name},
            noisy(by, ratio, name),
        )
        for by in ("activity", "user")
        for ratio in RATIOS
        for name in ("grid_tau", "adap_tau", "adap_tau_early")
    ]


def curve() -> list[Row]:
    """Recall over fixed temperatures, and adaptive ones without any to choose."""
    fixed = [
        Row(
            "curve",
            {"tau": f"{tau:g}", "denominator": denominator},
            (fixed_tau(tau, denominator, "tau"),),
        )
        for denominator in NOISE_TAUS
        for tau in TAUS
    ]
    adaptive = [
        Row("curve", {"tau": name, "denominator": "negatives"}, (arm("short", f"tau-{name}", tau=tau),))
        for name, tau in ADAPTIVE.items()
    ]
    return fixed + adaptive


def trajectories() -> list[Row]:
    """500 epochs with and without normalisation."""
    return [Row("trajectories", {"strategy": mode}, long(mode)) for mode in ("Y-Y", "N-N")]
