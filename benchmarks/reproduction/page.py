"""The page: what was run, in tables and figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

from adaptau_ext.evaluation import compare

from . import figures, tables
from .arms import ADAPTIVE, BUDGETS, CLEAN, NOISE_TAUS, RATIOS, SEARCH_BUDGET, Row
from .published import Published
from .runs import COMPARED, load, user_metrics
from .tables import Cells, Line

_SHORT = (
    "{epochs} epochs at lr {lr:g} with {n_negatives} negatives and a warm-up of {warmup_epochs} epochs, the same for "
    "every run compared, otherwise the published hyper-parameters: it is the order that counts"
).format(**BUDGETS["short"])
_CONVERGED = (
    "The published hyper-parameters, lr {lr:g}, until {patience} epochs without a better one"
).format(**BUDGETS["converged"])
_ON_TEST = "Chosen on test, as in the paper: the epoch"
TEXT: Mapping[str, tuple[str, str]] = {
    "main": (
        "Adap-tau0 and Adap-tau in full",
        "The published hyper-parameters and number of epochs; the epoch is chosen on test, as it was for the "
        "published numbers (`protocol=paper`). 1/tau: how far the smallest and the largest inverse temperature of a "
        "batch, averaged over an epoch, are from the published ones after epoch 5: the median epoch and the worst; "
        "where they are far, the published ones' own median change from an epoch to the next. "
        "Published seconds are of an unnamed GPU. Nothing is published of how MovieLens-1M was trained: see "
        "[below](#hyper-parameters-for-movielens-1m). The paper's other strategies are compared on Yelp2018 with MF alone.",
    ),
    "seeds": (
        "Inverse temperatures of other seeds",
        "Of the run in which they are farthest from the published ones, and of runs of 112 epochs that differ from it in "
        "the seed alone: the smallest and the largest of a batch, averaged over an epoch, after epoch 5. Their warm-up "
        "ends at epoch 100. What lies as far between two seeds as from the published run is the draw of the seed.",
    ),
    "seconds": (
        "Seconds",
        "Medians of three epochs and of three evaluations of all test users at 10, 20 and 50, on two cores without a "
        "GPU, beside the seconds of the published log, which are of an unnamed GPU.",
    ),
    "search": (
        "Hyper-parameters for MovieLens-1M",
        "None were published. A tenth of train is cut as validation items; at most "
        f"{SEARCH_BUDGET['epochs']} epochs, stopped {SEARCH_BUDGET['patience']} after the best, where no other numbers "
        "are named. x: the best of Adap-tau0 (weight_v0) and of Adap-tau, which the recipes are. LightGCN with negatives "
        "of the batch and inner products as scores, as published for the other data sets, stays far behind MF here; "
        "with negatives of the catalogue (sampled) and cosines (ranking both) it comes close, and its recipes have these.",
    ),
    "clean": (
        "The same by the clean protocol",
        "A part of train is held out as validation items and not trained on; the epoch is chosen on them, and test "
        "is looked at once. These are the numbers that users would see. Beside them the runs above, by the paper's "
        "protocol: trained on a tenth more interactions, and their epoch chosen on test. Training stops "
        f"{CLEAN['patience']} epochs after the best or with the last published epoch.",
    ),
    "strategies": (
        "The other strategies, Yelp2018, MF",
        f"{_CONVERGED}. {_ON_TEST}, and where there is a grid its temperature and weight of the regulariser.",
    ),
    "normalisation": (
        "Which embeddings are normalised: users', items'",
        f"{_CONVERGED}. {_ON_TEST}, and temperature and weight of the regulariser, of a grid. The figures: item norms "
        "without normalisation, by popularity group; shares of popularity groups in recall@20.",
    ),
    "noise": (
        "Interactions that never were",
        f"Yelp2018, MF, {_SHORT}. Ratios {RATIOS[0]:g} to {RATIOS[-1]:g} of train, added in proportion to a user's "
        f"activity or the same for all; fixed temperatures from {', '.join(f'{tau:g}' for tau in NOISE_TAUS)}. "
        f"{_ON_TEST} and the fixed temperature. Published is one of the two, unnamed, and trained for longer.",
    ),
    "curve": ("Recall over fixed temperatures", f"Yelp2018, MF, {_SHORT}. {_ON_TEST}."),
    "trajectories": (
        "500 epochs with and without normalisation",
        f"Last.fm, MF, fixed temperature (0.1 and 1). {_ON_TEST} of the table; the figure has all.",
    ),
}

TABLES: Mapping[str, Callable[[Sequence[Line], Published], list[Cells]]] = {
    "seeds": tables.settling,
    "seconds": tables.seconds,
    "search": tables.search,
    "clean": tables.clean,
}  # of the others: tables.results


def write_page(
    wanted: Mapping[str, list[Row]], records: Path, published: Published, output: Path
) -> str:
    """README.md, a CSV file a table and the figures; returns the page."""
    output.mkdir(parents=True, exist_ok=True)
    parts = ["# The paper's tables and figures, reproduced\n\n`python benchmarks/reproduce.py`\n"]
    for name, rows in wanted.items():
        lines = [line for row in rows if (line := _line(row, records)) is not None]
        if not lines:
            continue
        title, text = TEXT[name]
        cells = TABLES.get(name, tables.results)(lines, published)
        tables.write_csv(cells, output / f"{name}.csv")
        parts.append(f"## {title}\n\n{text}\n\n{tables.markdown(cells)}")
        if name in COMPARED and (tests := _paired(rows, records)):
            tables.write_csv(tests, output / f"{name}-paired.csv")
            parts.append(f"Adap-tau against Adap-tau0, paired over users:\n\n{tables.markdown(tests)}")
        if name in FIGURES:
            by_label = {list(line.row.labels.values())[-1]: line for line in lines}
            drawn = FIGURES[name](by_label, output)
            parts += [f"![{path.stem}]({path.name})\n" for path in drawn]
    whole = "\n".join(parts)
    (output / "README.md").write_text(whole)
    return whole


def _line(row: Row, records: Path) -> Line | None:
    runs = [done for arm in row.arms if (done := load(arm, records)) is not None]
    beside = None if row.beside is None else load(row.beside, records)
    return Line(row, runs, beside) if runs else None


def _paired(rows: list[Row], records: Path) -> list[Cells]:
    """Of runs that follow each other and differ in the strategy alone, if both are done."""
    lines: list[Cells] = []
    for first, second in pairwise(rows):
        where = {k: v for k, v in second.labels.items() if k != "strategy"}
        if where != {k: v for k, v in first.labels.items() if k != "strategy"}:
            continue
        users = [user_metrics(row.arms[0], records) for row in (first, second)]
        if users[0] is None or users[1] is None:
            continue
        for test in compare(users[0], users[1]):
            p_values = {"t test, p": f"{test.t_p:.1e}", "Wilcoxon, p": f"{test.wilcoxon_p:.1e}"}
            means = {"Adap-tau0": f"{test.first:.4f}", "Adap-tau": f"{test.second:.4f}"}
            lines.append({**where, "metric": test.metric, **means, **p_values})
    return lines


def _normalisation(lines: Mapping[str, Line], output: Path) -> list[Path]:
    paths = []
    if "N-N" in lines:
        paths.append(output / "magnitude.png")
        figures.magnitude(lines["N-N"].best, paths[-1])
    paths.append(output / "groups.png")
    figures.groups({name: line.best for name, line in lines.items()}, paths[-1])
    return paths


def _curve(lines: Mapping[str, Line], output: Path) -> list[Path]:
    adaptive = {name: line.best for name, line in lines.items() if name in ADAPTIVE}
    fixed = {float(name): line.best for name, line in lines.items() if name not in ADAPTIVE}
    path = output / "curve.png"
    figures.curve(fixed, adaptive, path)
    scores = output / "positive-scores.png"
    figures.trajectories(
        {f"tau {tau:g}": done for tau, done in fixed.items()},
        adaptive,
        {
            "mean score of training pairs": ("diagnostics", "positive_score"),
            "recall@20": ("metrics", "recall@20"),
        },
        scores,
    )
    return [path, scores]


def _trajectories(lines: Mapping[str, Line], output: Path) -> list[Path]:
    path = output / "trajectories.png"
    figures.trajectories(
        {name: line.best for name, line in lines.items()},
        {},
        {
            "recall@20": ("metrics", "recall@20"),
            "Spearman of item norm and popularity": ("diagnostics", "item_norm_popularity"),
        },
        path,
    )
    return [path]


FIGURES: Mapping[str, Callable[[Mapping[str, Line], Path], list[Path]]] = {
    "normalisation": _normalisation,
    "curve": _curve,
    "trajectories": _trajectories,
}
