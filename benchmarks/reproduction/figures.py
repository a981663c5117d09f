"""The paper's figures, from the epochs of finished runs. What is drawn is in a CSV file beside."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from .runs import Done
from .tables import write_csv

BESIDE: dict[str, Any] = {"loc": "center left", "bbox_to_anchor": (1, 0.5)}  # a legend, its axes


def series(done: Done, *keys: str) -> np.ndarray:
    """One value, or one row of values, an epoch."""
    values = []
    for epoch in done.epochs:
        value: Any = epoch
        for key in keys:
            value = value[key]
        values.append(value)
    return np.array(values)


def magnitude(done: Done, path: Path) -> None:
    """Mean item norm by popularity group over epochs, and its rank correlation with popularity."""
    norms = series(done, "diagnostics", "item_norm_by_group")
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4))
    correlation = series(done, "diagnostics", "item_norm_popularity")
    for group, colour in enumerate(_colours(norms.shape[1])):
        left.plot(norms[:, group], color=colour, label=str(group + 1))
    left.set(xlabel="epoch", ylabel="mean norm of item embeddings")
    left.legend(title="popularity group\n(10: most popular)", fontsize=7, ncol=2, **BESIDE)
    right.plot(correlation)
    right.set(xlabel="epoch", ylabel="Spearman of norm and popularity", ylim=(-1, 1))
    _write(figure, path)
    epochs = zip(norms.tolist(), correlation.tolist(), strict=True)
    rows = [{"epoch": n, **_by_group(row), "Spearman": rho} for n, (row, rho) in enumerate(epochs)]
    write_csv(rows, path.with_suffix(".csv"))


def groups(runs: Mapping[str, Done], path: Path, k: int = 20) -> None:
    """What each popularity group adds to recall@k, in the chosen epochs."""
    figure, axes = plt.subplots(figsize=(8, 4))
    width = 0.8 / len(runs)
    rows = []
    for n, (name, done) in enumerate(runs.items()):
        best = done.chosen_epoch
        parts = best["diagnostics"][f"recall@{k}_by_group"]
        x = np.arange(1, len(parts) + 1)
        axes.bar(x + (n - (len(runs) - 1) / 2) * width, parts, width, label=name)
        rows.append({"run": name, **_by_group(parts)})
    axes.set(xlabel="popularity group (10: most popular)", ylabel=f"part of recall@{k}", xticks=x)
    axes.legend(fontsize=8)
    _write(figure, path)
    write_csv(rows, path.with_suffix(".csv"))


def trajectories(
    fixed: Mapping[str, Done],
    adaptive: Mapping[str, Done],
    values: Mapping[str, tuple[str, ...]],
    path: Path,
) -> None:
    """Values over epochs, a panel each, a line a run, those of adaptive temperatures black.

    Args:
        values: label -> where it stands in an epoch.
    """
    figure, panels = plt.subplots(1, len(values), figsize=(5 * len(values) + 1, 4), squeeze=False)
    styles: list[dict[str, Any]] = [{"color": colour} for colour in _colours(len(fixed))]
    styles += [{"color": "black", "linestyle": dashes} for dashes in ("--", ":")[: len(adaptive)]]
    runs = {**fixed, **adaptive}
    rows: list[dict[str, Any]] = []
    for (name, done), style in zip(runs.items(), styles, strict=True):
        lines = {label: series(done, *keys) for label, keys in values.items()}
        for axes, line in zip(panels[0], lines.values(), strict=True):
            axes.plot(line, label=name, **style)
        for epoch in range(len(done.epochs)):
            at = {label: line[epoch] for label, line in lines.items()}
            rows.append({"run": name, "epoch": epoch, **at})
    for axes, label in zip(panels[0], values, strict=True):
        axes.set(xlabel="epoch", ylabel=label)
    panels[0, -1].legend(fontsize=8, **BESIDE)
    _write(figure, path)
    write_csv(rows, path.with_suffix(".csv"))


def curve(fixed: Mapping[str, Mapping[float, Done]], adaptive: Mapping[str, Done], path: Path) -> None:
    """Recall over fixed temperatures, a line a kind, beside the adaptive ones; the table has the numbers.

    Args:
        fixed: kind -> temperature -> its run.
    """
    figure, axes = plt.subplots(figsize=(8, 4))
    for name, runs in fixed.items():
        axes.plot(list(runs), [done.test["recall@20"] for done in runs.values()], "o-", label=name)
    for (name, done), style in zip(adaptive.items(), ("--", ":"), strict=False):
        axes.axhline(done.test["recall@20"], color="black", linestyle=style, label=name)
    axes.set(xscale="log", xlabel="tau", ylabel="recall@20")
    taus = sorted({tau for runs in fixed.values() for tau in runs})
    axes.set_xticks(taus, [f"{tau:g}" for tau in taus])
    axes.minorticks_off()
    axes.legend()
    _write(figure, path)


def noise(recall: Mapping[str, Mapping[str, Mapping[float, float]]], path: Path) -> None:
    """Recall over the ratio of noise, a panel for each way of adding it, a line a strategy; the table has
    the numbers.

    Args:
        recall: way -> strategy -> ratio -> recall@20.
    """
    figure, panels = plt.subplots(1, len(recall), figsize=(10, 4), sharey=True, squeeze=False)
    for axes, (way, strategies) in zip(panels[0], recall.items(), strict=True):
        for name, points in strategies.items():
            axes.plot(list(points), list(points.values()), "o-", label=name)
        axes.set(title=f"added by {way}", xlabel="added, share of train", ylabel="recall@20")
    panels[0, -1].legend()
    _write(figure, path)


def _colours(count: int) -> Any:
    return plt.get_cmap("viridis")(np.linspace(0, 0.9, count))


def _by_group(values: list[float]) -> dict[str, float]:
    return {f"group {group}": value for group, value in enumerate(values, start=1)}


def _write(figure: Any, path: Path) -> None:
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)
