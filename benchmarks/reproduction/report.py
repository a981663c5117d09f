"""The page: what was run, in tables and figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path

from adaptau_ext.evaluation import compare

from . import figures, page
from .arms import CLEAN, CONVERGED, NOISE_TAUS, RATIOS, SEARCH_BUDGET, SHORT, Row
from .published import Published
from .runs import Done, load, user_metrics

_SHORT = (
    f"{SHORT['epochs']} epochs at lr {SHORT['lr']:g} with {SHORT['n_negatives']} negatives, temperatures of users "
    f"from epoch {SHORT['warmup_epochs']}, the same for every run compared, otherwise the published "
    "hyper-parameters: it is the order that counts"
)
_CONVERGED = f"The published hyper-parameters, lr {CONVERGED['lr']:g}, until {CONVERGED['patience']} epochs without a better one"
TEXT: Mapping[str, tuple[str, str]] = {
    "main": (
        "Adap-tau0 and Adap-tau in full",
        "The published hyper-parameters and number of epochs; the epoch is chosen on test, as it was for the "
        "published numbers (`protocol=paper`). Published seconds are of an unnamed GPU.",
    ),
    "seeds": (
        "Inverse temperatures while they settle",
        "The largest of a batch, averaged over an epoch, of runs that differ in the seed, and how far each is from "
        "the published run. The warm-up of 100 epochs has one w0 for all; the first that is estimated comes from "
        "where each run happens to be.",
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
        "are named.",
    ),
    "clean": (
        "The same by the clean protocol",
        "A part of train is held out as validation items and not trained on; the epoch is chosen on them, and test "
        "is looked at once. These are the numbers that users would see; the published ones are not comparable. "
        f"Training stops {CLEAN['patience']} epochs after the best.",
    ),
    "strategies": (
        "The other strategies, Yelp2018, MF",
        f"{_CONVERGED}. Temperature and weight of the regulariser are the best of a grid, chosen on test as in the paper.",
    ),
    "normalisation": (
        "Which embeddings are normalised: users', items'",
        f"{_CONVERGED}. Temperature and weight of the regulariser are the best of a grid, chosen on test.",
    ),
    "noise": (
        "Interactions that never were",
        f"Yelp2018, MF, {_SHORT}. Ratios {RATIOS[0]:g} to {RATIOS[-1]:g} of train, added in proportion to a user's "
        f"activity or the same for all; fixed temperatures from {', '.join(f'{tau:g}' for tau in NOISE_TAUS)}.",
    ),
    "curve": ("Recall over fixed temperatures", f"Yelp2018, MF, {_SHORT}."),
    "trajectories": (
        "500 epochs with and without normalisation",
        "Last.fm, MF, fixed temperature (0.1 and 1).",
    ),
}

Rows = dict[str, list[Done]]  # finished runs by the last label of their row


def write_page(
    tables: Mapping[str, list[Row]], records: Path, published: Published, output: Path
) -> str:
    """README.md, a CSV file a table and the figures; returns the page."""
    output.mkdir(parents=True, exist_ok=True)
    parts = ["# The paper's tables and figures, reproduced\n\n`python benchmarks/reproduce.py`\n"]
    for name, rows in tables.items():
        done = {
            id(row): [d for arm in row.arms if (d := load(arm, records)) is not None] for row in rows
        }
        line = {"seconds": page.seconds, "seeds": page.settling, "search": page.validation}.get(
            name, page.line
        )
        lines = [line(row, done[id(row)], published) for row in rows if done[id(row)]]
        if not lines:
            continue
        title, text = TEXT[name]
        page.write_csv(lines, output / f"{name}.csv")
        parts.append(f"## {title}\n\n{text}\n\n{page.markdown(lines)}")
        if name in PAIRED and (tests := _paired(rows, records)):
            page.write_csv(tests, output / f"{name}-paired.csv")
            parts.append(f"Adap-tau against Adap-tau0, paired over users:\n\n{page.markdown(tests)}")
        if name in FIGURES:
            by_label = {list(row.labels.values())[-1]: done[id(row)] for row in rows if done[id(row)]}
            drawn = FIGURES[name](by_label, output)
            parts += [f"![{path.stem}]({path.name})\n" for path in drawn]
    text = "\n".join(parts)
    (output / "README.md").write_text(text)
    return text


PAIRED = ("main", "clean")


def _paired(rows: list[Row], records: Path) -> list[page.Cells]:
    """Of runs that follow each other and differ in the strategy alone, if both are done."""
    lines: list[page.Cells] = []
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


def _normalisation(rows: Rows, output: Path) -> list[Path]:
    paths = []
    if "N-N" in rows:
        paths.append(output / "magnitude.png")
        figures.magnitude(page.best(rows["N-N"]), paths[-1])
    paths.append(output / "groups.png")
    figures.groups({name: page.best(runs) for name, runs in rows.items()}, paths[-1])
    return paths


def _curve(rows: Rows, output: Path) -> list[Path]:
    adaptive = {name: runs[0] for name, runs in rows.items() if name.startswith("adap")}
    fixed = {float(name): runs[0] for name, runs in rows.items() if name not in adaptive}
    path = output / "curve.png"
    figures.curve(fixed, adaptive, path)
    scores = output / "positive-scores.png"
    figures.trajectories(
        {f"tau {tau:g}": done for tau, done in fixed.items()} | adaptive,
        {
            "mean score of training pairs": ("diagnostics", "positive_score"),
            "recall@20": ("metrics", "recall@20"),
        },
        scores,
    )
    return [path, scores]


def _trajectories(rows: Rows, output: Path) -> list[Path]:
    path = output / "trajectories.png"
    figures.trajectories(
        {name: runs[0] for name, runs in rows.items()},
        {
            "recall@20": ("metrics", "recall@20"),
            "Spearman of item norm and popularity": ("diagnostics", "item_norm_popularity"),
        },
        path,
    )
    return [path]


FIGURES: Mapping[str, Callable[[Rows, Path], list[Path]]] = {
    "normalisation": _normalisation,
    "curve": _curve,
    "trajectories": _trajectories,
}
