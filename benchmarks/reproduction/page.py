"""The page: what was run, in tables and figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

from adaptau_ext.durable import write_text
from adaptau_ext.errors import ConfigError
from adaptau_ext.evaluation import compare
from adaptau_ext.recipes import RECIPES

from . import figures, tables
from .arms import (
    ADAPTIVE,
    BEST_TAUS,
    BUDGETS,
    CLEAN,
    NOISE_TAUS,
    RATIOS,
    SEARCH_BUDGET,
    SHORT_WARMUP,
    Arm,
    Row,
)
from .published import Published
from .runs import Done, load, user_metrics
from .tables import Cells, Line

_SHORT = (
    "{epochs} epochs at lr {lr:g} with {n_negatives} negatives, the same for every run compared, otherwise the published "
    "hyper-parameters: it is the order that counts. All epochs are of the warm-up (adap_tau_early's apart), as on "
    "Yelp2018 most are until the best of a published run"
).format(**BUDGETS["short"])
_CONVERGED = (
    "The published hyper-parameters, but lr {lr:g} and a warm-up of {warmup_epochs} epochs, until {patience} epochs "
    "without a better one, of at most {epochs}"
).format(**BUDGETS["converged"])
_ON_TEST = "Chosen on test, as in the paper: the epoch"
_DENOMINATOR = (
    "Adap-tau's softmax has no positive in its denominator, as in the published code; fixed temperatures are tried "
    "with it (all), as the softmax of the paper's text, and without (negatives)"
)


def _taus(denominator: str) -> str:
    return ", ".join(f"{tau:g}" for tau in NOISE_TAUS[denominator])


TEXT: Mapping[str, tuple[str, str]] = {
    "main": (
        "Adap-tau0 and Adap-tau in full",
        "The published hyper-parameters and number of epochs; the epoch is chosen on test, as it was for the "
        "published numbers (`protocol=paper`). Published: the log's last row where there is a log, which is not always "
        "what the paper's table says of the same run (in the paper). 1/tau: the smallest and the largest inverse temperature of a batch, "
        "averaged over the best epoch, and how far they are from the published ones after epoch 5: the median epoch and "
        "the worst; where they are far, the published ones' own median change from an epoch to the next. "
        "Seconds are of training and evaluation, with another run beside on the same processor. Nothing is published of "
        "how MovieLens-1M was trained: see [below](#hyper-parameters-for-movielens-1m); it stops "
        f"{RECIPES['ml-1m-mf']['patience']} epochs after the best, and its LightGCN, with other negatives and scores than "
        "on the other data sets, comes out above the published numbers. The paper's other strategies are compared on "
        "Yelp2018 with MF alone.",
    ),
    "fixed": (
        "One temperature for all by the published recipe",
        "The run of Adap-tau on Yelp2018 with MF above, and the same with one temperature for all users, a "
        f"constant: {' or '.join(f'{tau:g}' for tau in BEST_TAUS)}, the best ones of the "
        "[curve](#recall-over-fixed-temperatures), in Adap-tau's form of the softmax. The temperature is chosen on test, "
        "as is the epoch.",
    ),
    "seeds": (
        "Inverse temperatures of other seeds",
        "Of the run in which they are farthest from the published ones, and of another, of 112 epochs, that differs from it in "
        "the seed alone: the smallest and the largest of a batch, averaged over an epoch, after epoch 5. Their warm-up "
        "ends at epoch 100. What lies as far between the two as from the published run is the draw of the seed.",
    ),
    "seconds": (
        "Seconds",
        "Medians of three epochs and of three evaluations of all test users at 10, 20 and 50, on two cores without a "
        "GPU, beside the medians of the published log, which are of an unnamed GPU; an evaluation is half of what an "
        "epoch of the log has, which is two. LightGCN's propagation of all rows is a part of its evaluation.",
    ),
    "search": (
        "Hyper-parameters for MovieLens-1M",
        "None were published. A tenth of train is cut as validation items, and every step of the search is by them. "
        "When to stop it was not: a first recipe of Adap-tau with MF (weight_mean, t2 2) had been run in full and tested, "
        "recall .2737 and NDCG .2589, 2.8 % and 3.1 % below the published ones, before weight_ratio and longer runs "
        "were tried. At most "
        f"{SEARCH_BUDGET['epochs']} epochs, stopped {SEARCH_BUDGET['patience']} after the best, where no other numbers "
        "are named. x: the best of Adap-tau0 (weight_v0) and of Adap-tau, which the recipes are; these train longer. "
        "LightGCN with negatives of the batch and inner products as scores, as published for the other data sets, stays "
        "far behind MF here; with negatives of the catalogue (sampled) and cosines (ranking both) it comes close, and its "
        "recipes have these.",
    ),
    "clean": (
        "The same by the clean protocol",
        "A part of train is held out as validation items and not trained on; the epoch is chosen on them, and test "
        "is looked at once. Beside them the runs above, by the paper's protocol: trained on a ninth more interactions, "
        f"and their epoch chosen on test. Training stops {CLEAN['patience']} epochs after the best, or with the last "
        "published epoch where there is one. What is lower is lower for both reasons, which these runs do not tell "
        "apart: who trains again on train and validation items has the first back. Hyper-parameters are those of the "
        "runs above: published ones, chosen on test there, except for MovieLens-1M's.",
    ),
    "strategies": (
        "All strategies, Yelp2018, MF",
        f"{_CONVERGED}; the same for all. {_ON_TEST}, and where there is a grid its temperature, weight of the "
        "regulariser, or learning rate of the temperature: learned ones (C-tau, Cu-tau) begin at 0.1, rise a little and "
        "then fall as long as they are trained, because that lowers the loss of positives that are pulled up already, "
        "so that the rate says how far. 1/tau: the smallest and the largest of a batch, averaged over the best epoch. "
        "The softmax of Adap-tau has no positive in its denominator, as in the published code, that of the others has; "
        "fixed temperatures are tried with it (all) and without (negatives), learned ones with it alone. Without, the best "
        "of the fixed ones is as good as Adap-tau in this shorter budget, unlike in the published order; but there are "
        "several to choose from, and the rule that stops all runs stops Adap-tau a few epochs after its warm-up. The "
        "hyper-parameters that all share were published as Adap-tau's.",
    ),
    "normalisation": (
        "Which embeddings are normalised",
        f"Y-N: users' are, items' are not. Yelp2018, MF. {_CONVERGED}. {_ON_TEST}, and temperature and weight of the "
        "regulariser, of a grid. Popularity groups have as many interactions each, so that the tenth has few items.",
    ),
    "noise": (
        "Interactions that never were",
        f"Yelp2018, MF, {_SHORT}. Ratios {RATIOS[0]:g} to {RATIOS[-1]:g} of train, added in proportion to a user's "
        f"activity or the same for all. {_DENOMINATOR}, under noise from {_taus('all')} with it and {_taus('negatives')} "
        f"without. {_ON_TEST}, and the fixed temperature with its denominator. Published is one of the two ways, "
        f"unnamed, and trained for longer. adap_tau_early: with a warm-up of {SHORT_WARMUP} epochs, after which "
        "mu+ - mu is measured: noise makes it smaller, and with it the temperature, which is not for the better here. Its "
        "best epoch is then often the last of the warm-up. This warm-up was tried first, and the long one when it had "
        "been seen to be below fixed temperatures on test: what is shown to stand noise better than one temperature for "
        "all is the temperature of each user that comes from their losses, around a constant, not the part that is "
        "measured.",
    ),
    "curve": ("Recall over fixed temperatures", f"Yelp2018, MF, {_SHORT}. {_ON_TEST}. {_DENOMINATOR}."),
    "trajectories": (
        "500 epochs with and without normalisation",
        "Last.fm, MF, lr 0.001, users' and items' embeddings normalised (Y-Y) or not (N-N). Chosen on test: the epoch, "
        "and temperature and weight of the regulariser, of a grid. The figure has all epochs of the chosen ones.",
    ),
}

TABLES: Mapping[str, Callable[[Sequence[Line], Published], list[Cells]]] = {
    "seeds": tables.settling,
    "seconds": tables.seconds,
    "search": tables.search,
    "clean": tables.clean,
}  # of the others: tables.results
PAIRED = ("main", "fixed", "clean")  # tables whose users are compared one by one
PAIRS = (
    "The two strategies, paired over users: p of a chance that is in who the users are. Another seed moves a mean, too, "
    "by 0.3 % of recall in the one case tried (Gowalla, MF, the best of 112 epochs), and no p here knows of that, of how "
    "epochs were chosen, or of how many pairs are looked at:"
)


def write_page(
    wanted: Mapping[str, list[Row]], records: Path, published: Published, output: Path
) -> str:
    """README.md, a CSV file a table and the figures; returns the page."""
    output.mkdir(parents=True, exist_ok=True)
    parts = ["# The paper's tables and figures, reproduced\n\n`python benchmarks/reproduce.py all`\n"]
    for name, rows in wanted.items():
        lines = [line for row in rows if (line := _line(row, records)) is not None]
        if not lines:
            continue
        title, text = TEXT[name]
        cells = TABLES.get(name, tables.results)(lines, published)
        tables.write_csv(cells, output / f"{name}.csv")
        if missing := len(rows) - len(lines):
            text += f" Rows still to come: {missing} of {len(rows)}."
        parts.append(f"## {title}\n\n{text}\n\n{tables.markdown(cells)}")
        if name in PAIRED and (tests := _paired(lines, records)):
            tables.write_csv(tests, output / f"{name}-paired.csv")
            parts.append(f"{PAIRS}\n\n{tables.markdown(tests)}")
        if name in FIGURES:
            drawn = FIGURES[name](lines, output)
            parts += [f"![{path.stem}]({path.name})\n\n{caption}\n" for path, caption in drawn.items()]
    whole = "\n".join(parts)
    write_text(output / "README.md", whole)
    return whole


def _line(row: Row, records: Path) -> Line | None:
    runs = [done for arm in row.arms if (done := _done(arm, records)) is not None]
    beside = None if row.beside is None else _done(row.beside, records)
    return Line(row, runs, beside) if runs else None


def _done(arm: Arm, records: Path) -> Done | None:
    """A record of other settings, which whoever asks for the run is told of, is none."""
    try:
        return load(arm, records)
    except ConfigError:
        return None


def _paired(lines: Sequence[Line], records: Path) -> list[Cells]:
    """Of lines that follow each other and differ in the strategy alone."""
    rows: list[Cells] = []
    for pair in pairwise(lines):
        labels = [dict(line.row.labels) for line in pair]
        names = [of_line.pop("strategy") for of_line in labels]
        users = [user_metrics(line.best.arm, records) for line in pair]
        if labels[0] != labels[1] or users[0] is None or users[1] is None:
            continue
        for test in compare(users[0], users[1]):
            p_values = {"t test, p": f"{test.t_p:.1e}", "Wilcoxon, p": f"{test.wilcoxon_p:.1e}"}
            means = dict(zip(names, (f"{test.first:.4f}", f"{test.second:.4f}"), strict=True))
            rows.append({**labels[0], "metric": test.metric, **means, **p_values})
    return rows


def _by_label(lines: Sequence[Line]) -> dict[str, Line]:
    """By the label that differs."""
    return {list(line.row.labels.values())[-1]: line for line in lines}


def _normalisation(lines: Sequence[Line], output: Path) -> dict[Path, str]:
    found = _by_label(lines)
    drawn = {}
    if "N-N" in found:
        path = output / "magnitude.png"
        figures.magnitude(found["N-N"].best, path)
        drawn[path] = (
            "Without normalisation (N-N): the length of item embeddings by popularity group, and how closely it "
            "follows popularity."
        )
    path = output / "groups.png"
    figures.groups({name: line.best for name, line in found.items()}, path)
    drawn[path] = "What popularity groups add to recall@20: the sum over groups is recall@20."
    return drawn


def _noise(lines: Sequence[Line], output: Path) -> dict[Path, str]:
    recall: dict[str, dict[str, dict[float, float]]] = {}
    for line in lines:
        labels = line.row.labels
        of_strategy = recall.setdefault(labels["noise_by"], {}).setdefault(labels["strategy"], {})
        of_strategy[float(labels["noise_ratio"])] = line.best.test["recall@20"]
    path = output / "noise.png"
    figures.noise(recall, path)
    return {path: "Recall@20 over the share of train that is added."}


def _curve(lines: Sequence[Line], output: Path) -> dict[Path, str]:
    adaptive: dict[str, Done] = {}
    kinds: dict[str, dict[float, Done]] = {}
    for line in lines:
        tau, denominator = line.row.labels["tau"], line.row.labels["denominator"]
        if tau in ADAPTIVE:
            adaptive[tau] = line.best
        else:
            kinds.setdefault(f"fixed, denominator {denominator}", {})[float(tau)] = line.best
    path = output / "curve.png"
    figures.curve(kinds, adaptive, path)
    fixed = next(iter(kinds.values()), {})
    scores = output / "positive-scores.png"
    figures.trajectories(
        {f"tau {tau:g}": done for tau, done in list(fixed.items())[::2]},
        adaptive,
        {
            "mean cosine of training pairs": ("diagnostics", "positive_score"),
            "recall@20": ("metrics", "recall@20"),
        },
        scores,
    )
    return {
        path: "Recall@20 over fixed temperatures, and of adaptive ones, which have other things to choose: a mode, T1, T2 "
        "and a warm-up, here the published ones for Yelp2018.",
        scores: "Every other fixed temperature, with the positive in the denominator, and adaptive ones: how far "
        "positives are pulled up.",
    }


def _trajectories(lines: Sequence[Line], output: Path) -> dict[Path, str]:
    path = output / "trajectories.png"
    figures.trajectories(
        {name: line.best for name, line in _by_label(lines).items()},
        {},
        {
            "recall@20": ("metrics", "recall@20"),
            "Spearman of item norm and popularity": ("diagnostics", "item_norm_popularity"),
        },
        path,
    )
    return {
        path: "Recall@20, and how closely the length of item embeddings follows popularity: of Y-Y as they are "
        "before they are normalised, which no score uses."
    }


FIGURES: Mapping[str, Callable[[Sequence[Line], Path], dict[Path, str]]] = {
    "normalisation": _normalisation,
    "noise": _noise,
    "curve": _curve,
    "trajectories": _trajectories,
}  # name of a table -> what is drawn and its caption
