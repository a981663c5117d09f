"""Tables of ours beside published, as Markdown and CSV."""

from __future__ import annotations

import csv
from pathlib import Path
from statistics import median
from typing import Any

from .arms import Row
from .published import Published
from .runs import Done

Cells = dict[str, Any]


def line(row: Row, runs: list[Done], published: Published) -> Cells:
    """One line of a table, by the best of the row's finished runs."""
    done = best(runs)
    theirs, log = published.of(row), published.log(row)
    cells: Cells = dict(row.labels)
    if len(row.arms) > 1:
        chosen = done.arm.settings
        cells["chosen"] = f"tau {chosen['tau']:g}, l2 {chosen['l2']:g} of {len(runs)}"
    for name, ours in (("recall", done.test["recall@20"]), ("ndcg", done.test["ndcg@20"])):
        cells[f"{name}@20"] = f"{ours:.4f}"
        if theirs is not None:
            target = getattr(theirs, name)
            cells[f"{name} published"] = f"{target:.4f}"
            cells[f"{name} difference"] = f"{100 * (ours / target - 1):+.1f} %"
    cells["published in"] = "" if theirs is None else theirs.source
    cells["epoch"] = done.results["best_epoch"]
    cells["1/tau differs by"] = temperatures(done, log)
    cells["threads"] = done.provenance.get("threads", "")
    cells["s/epoch"] = f"{median(e['train_seconds'] for e in done.epochs):.1f}"
    cells["s/epoch published"] = f"{median(float(e['train_seconds']) for e in log):.1f}" if log else ""
    cells["seconds"] = f"{done.results['train_seconds'] + done.results['eval_seconds']:.0f}"
    cells["commit"] = done.provenance.get("commit", "")
    return cells


def validation(row: Row, runs: list[Done], published: Published) -> Cells:
    """What hyper-parameters are chosen by: nothing of test."""
    done = best(runs)
    names = ("recall@20", "ndcg@20")
    metrics = {f"{name} of validation items": f"{done.results['best'][name]:.4f}" for name in names}
    return {
        **row.labels,
        **metrics,
        "epoch": done.results["best_epoch"],
        "commit": done.provenance["commit"],
    }


def settling(row: Row, runs: list[Done], published: Published) -> Cells:
    """Largest inverse temperatures of the epochs after the warm-up, and how far from the published."""
    ours, log = runs[0].epochs, published.log(row)
    cells: Cells = dict(row.labels)
    for epoch in (50, 99, 100, 102, 104, 106, 108, 110):
        value, theirs = ours[epoch]["inv_tau_max"], float(log[epoch]["inv_tau_max"])
        cells[f"epoch {epoch}"] = f"{value:.2f} ({100 * (value / theirs - 1):+.1f} %)"
    return cells


def seconds(row: Row, runs: list[Done], published: Published) -> Cells:
    """Time of an epoch and of an evaluation beside the published log's, which has two of the latter."""
    done, log = best(runs), published.log(row)
    cells: Cells = dict(row.labels)
    cells["threads"] = done.provenance["threads"]
    for name, key, count in (("epoch", "train_seconds", 1), ("evaluation", "eval_seconds", 2)):
        ours = median(e[key] for e in done.epochs)
        theirs = median(float(e[key]) for e in log) / count
        cells[f"{name}, s"] = f"{ours:.2f}"
        cells[f"{name}, published"] = f"{theirs:.2f}"
        cells[f"{name}, times"] = f"{ours / theirs:.2f}"
    cells["commit"] = done.provenance["commit"]
    return cells


def best(runs: list[Done]) -> Done:
    """By recall@20 on test, as the paper chose temperatures."""
    return max(runs, key=lambda done: done.test["recall@20"])


def temperatures(done: Done, log: list[dict[str, str]]) -> str:
    """Relative differences of the batches' smallest and largest inverse temperature after epoch 5: of
    the median epoch, and of the worst."""
    cells = []
    for name in ("inv_tau_min", "inv_tau_max"):
        differences = [
            abs(ours[name] / float(theirs[name]) - 1)
            for ours, theirs in zip(done.epochs, log, strict=False)
            if ours["epoch"] > 5
        ]
        if differences:
            cells.append(f"{100 * median(differences):.1f} % (at most {100 * max(differences):.1f} %)")
    return ", ".join(cells)


def markdown(rows: list[Cells]) -> str:
    """A table; columns that are empty everywhere are left out."""
    names = [
        n for n in dict.fromkeys(n for r in rows for n in r) if any(r.get(n, "") != "" for r in rows)
    ]
    lines = ["| " + " | ".join(names) + " |", "| " + " | ".join("---" for _ in names) + " |"]
    lines += ["| " + " | ".join(str(r.get(n, "")) for n in names) + " |" for r in rows]
    return "\n".join(lines) + "\n"


def write_csv(rows: list[Cells], path: Path) -> None:
    names = list(dict.fromkeys(n for r in rows for n in r))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)
