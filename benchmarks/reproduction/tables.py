"""Tables of ours beside published, as Markdown and CSV."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from .arms import Row
from .published import Published
from .runs import Done

Cells = dict[str, Any]
METRICS = {"recall": "recall@20", "ndcg": "ndcg@20"}
SIDES = {"smallest": "inv_tau_min", "largest": "inv_tau_max"}


@dataclass(frozen=True)
class Line:
    """A row and what is finished of it: at least one of its arms, and the run beside, if there is one."""

    row: Row
    runs: list[Done]
    beside: Done | None

    @property
    def best(self) -> Done:
        """By recall@20 on test, as the paper chose temperatures."""
        return max(self.runs, key=lambda done: done.test["recall@20"])


def results(lines: Sequence[Line], published: Published) -> list[Cells]:
    """Metrics on test beside the published ones, inverse temperatures, seconds and origin."""
    return [_result(line, published) for line in lines]


def _result(line: Line, published: Published) -> Cells:
    done, theirs, log = line.best, published.of(line.row), published.log(line.row)
    cells: Cells = {**line.row.labels, **_chosen(line)}
    for name, metric in METRICS.items():
        cells[metric] = f"{done.test[metric]:.4f}"
        if theirs is not None:
            cells |= _beside(name, "published", done.test[metric], getattr(theirs, name))
    cells["published in"] = "" if theirs is None else theirs.source
    paper = published.in_paper(line.row)
    if paper is not None and paper != theirs:
        cells["in the paper"] = f"{paper.recall:.4f}, {paper.ndcg:.4f}"
    cells["epoch"] = done.results["best_epoch"]
    cells["1/tau"] = " to ".join(
        dict.fromkeys(f"{done.chosen_epoch[key]:.1f}" for key in SIDES.values())
    )
    for side, key in SIDES.items():
        cells[f"1/tau, {side}"] = _apart(done.epochs, log, key)
    cells["threads"] = done.provenance.get("threads", "")
    cells["seconds"] = _seconds(done)
    cells["commit"] = done.provenance.get("commit", "")
    return cells


def _chosen(line: Line) -> Cells:
    """What the best of several arms has that others of them have not."""
    if len(line.row.arms) == 1:
        return {}
    tried, best = [arm.settings for arm in line.row.arms], line.best.arm.settings
    differs = [name for name in best if any(one.get(name) != tried[0].get(name) for one in tried)]
    values = ", ".join(f"{name} {_short(best[name])}" for name in differs)
    missing = len(tried) - len(line.runs)
    return {
        "chosen": f"{values}, best of {len(line.runs)}" + (f", {missing} to come" if missing else "")
    }


def _short(value: Any) -> str:
    return value if isinstance(value, str) else f"{value:g}"


def _seconds(done: Done) -> str:
    return f"{done.results['train_seconds'] + done.results['eval_seconds']:.0f}"


def _beside(name: str, where: str, ours: float, theirs: float) -> Cells:
    return {
        f"{name} {where}": f"{theirs:.4f}",
        f"{name} difference": f"{100 * (ours / theirs - 1):+.1f} %",
    }


def clean(lines: Sequence[Line], published: Published) -> list[Cells]:
    """Metrics on test by the clean protocol beside ours by the paper's."""
    rows = []
    for line in lines:
        cells: Cells = dict(line.row.labels)
        for name, metric in METRICS.items():
            cells[metric] = f"{line.best.test[metric]:.4f}"
            if line.beside is not None:
                cells |= _beside(name, "by paper", line.best.test[metric], line.beside.test[metric])
        cells["epoch"] = line.best.results["best_epoch"]
        cells["epoch by paper"] = "" if line.beside is None else line.beside.results["best_epoch"]
        cells["threads"] = line.best.provenance["threads"]
        cells["seconds"] = _seconds(line.best)
        cells["commit"] = line.best.provenance["commit"]
        rows.append(cells)
    return rows


def settling(lines: Sequence[Line], published: Published) -> list[Cells]:
    """How far inverse temperatures are from the published run's, and from those of another run of ours, as
    far as the shortest run goes."""
    rows = []
    shortest = min(len(line.best.epochs) for line in lines)
    for line in lines:
        cells: Cells = dict(line.row.labels)
        of_another = line.beside is not None and line.beside.arm != line.best.arm
        others = {
            "published": published.log(line.row),
            "the first": line.beside.epochs if of_another else [],
        }
        for where, epochs in others.items():
            for side, key in SIDES.items():
                cells[f"{side}, from {where}"] = _apart(line.best.epochs[:shortest], epochs, key)
        cells["commit"] = line.best.provenance["commit"]
        rows.append(cells)
    return rows


def _apart(ours: Sequence[Cells], theirs: Sequence[Cells], key: str) -> str:
    """Relative difference after epoch 5: of the median epoch and of the worst; where it is large, how often,
    and how far the other run's own epochs are from one another."""
    late = [(one, other) for one, other in zip(ours, theirs, strict=False) if one["epoch"] > 5]
    if len(late) < 2:
        return ""
    differences = [_change(one[key], other[key]) for one, other in late]
    text = f"{100 * median(differences):.1f} %, at most {100 * max(differences):.1f} %"
    beyond = sum(difference > 0.05 for difference in differences)
    if beyond:
        steps = [_change(after[key], before[key]) for (_, before), (_, after) in pairwise(late)]
        text += f", beyond 5 % in {beyond} of {len(differences)} epochs; epoch to epoch {100 * median(steps):.1f} %"
    return text


def _change(value: Any, other: Any) -> float:
    return abs(float(value) / float(other) - 1)


def seconds(lines: Sequence[Line], published: Published) -> list[Cells]:
    """Time of an epoch and of an evaluation beside the published log's, which has two of the latter."""
    rows = []
    for line in lines:
        done, log = line.best, published.log(line.row)
        machine = {key: done.provenance[key] for key in ("level", "threads")}
        cells: Cells = {**line.row.labels, **machine}
        for name, key, count in (("epoch", "train_seconds", 1), ("evaluation", "eval_seconds", 2)):
            taken = sorted(e[key] for e in done.epochs)
            ours = median(taken)
            cells[f"{name}, s"] = f"{ours:.2f}"
            cells[f"{name}, range"] = f"{taken[0]:.2f} to {taken[-1]:.2f}"
            if log:
                theirs = median(float(e[key]) for e in log) / count
                cells[f"{name}, published"] = f"{theirs:.2f}"
                cells[f"{name}, times"] = f"{ours / theirs:.2f}"
        rows.append({**cells, "commit": done.provenance["commit"]})
    return rows


def search(lines: Sequence[Line], published: Published) -> list[Cells]:
    """What hyper-parameters are chosen by, nothing of test; best first, the chosen ones marked."""
    by_recall = sorted(lines, key=_valid_recall, reverse=True)
    rows: list[Cells] = []
    for line in sorted(by_recall, key=lambda line: line.row.labels["backbone"], reverse=True):
        done = line.best
        metrics = {
            f"{m} of validation items": f"{done.results['best'][m]:.4f}" for m in METRICS.values()
        }
        chosen = "" if line is not chosen_of(lines, line) else "x"
        rows.append(
            {
                **line.row.labels,
                **metrics,
                "epoch": done.results["best_epoch"],
                "chosen": chosen,
                "commit": done.provenance["commit"],
            }
        )
    return rows


def chosen_of(lines: Sequence[Line], like: Line) -> Line:
    """The best of a search among those of a backbone with the same kind of temperature."""
    same = [line for line in lines if _kind(line) == _kind(like)]
    return max(same, key=_valid_recall)


def _kind(line: Line) -> tuple[str, bool]:
    return line.row.labels["backbone"], line.row.labels["tau"] == "weight_v0"


def _valid_recall(line: Line) -> float:
    recall: float = line.best.results["best"]["recall@20"]
    return recall


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """A table; columns that are empty everywhere are left out."""
    names = [
        n for n in dict.fromkeys(n for r in rows for n in r) if any(r.get(n, "") != "" for r in rows)
    ]
    lines = ["| " + " | ".join(names) + " |", "| " + " | ".join("---" for _ in names) + " |"]
    lines += ["| " + " | ".join(str(r.get(n, "")) for n in names) + " |" for r in rows]
    return "\n".join(lines) + "\n"


def write_csv(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """The same, with all columns."""
    names = list(dict.fromkeys(n for r in rows for n in r))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)
