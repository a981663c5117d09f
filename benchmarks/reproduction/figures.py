"""The paper's figures, from the epochs of finished runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from .runs import Done


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
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4))
    colours = plt.get_cmap("viridis")(np.linspace(0, 0.9, norms.shape[1]))
    for group, colour in enumerate(colours):
        left.plot(norms[:, group], color=colour, label=str(group + 1))
    left.set(xlabel="epoch", ylabel="mean norm of item embeddings")
    left.legend(title="popularity group", fontsize=7, ncol=2)
    right.plot(series(done, "diagnostics", "item_norm_popularity"))
    right.set(xlabel="epoch", ylabel="Spearman of norm and popularity", ylim=(-1, 1))
    _write(figure, path)


def groups(arms: Mapping[str, Done], path: Path, k: int = 20) -> None:
    """Share of each popularity group in recall@k, of the chosen epochs."""
    figure, axes = plt.subplots(figsize=(8, 4))
    width = 0.8 / len(arms)
    for n, (name, done) in enumerate(arms.items()):
        best = done.epochs[done.results["best_epoch"]]
        shares = best["diagnostics"][f"recall@{k}_by_group"]
        axes.bar(np.arange(1, len(shares) + 1) + n * width, shares, width, label=name)
    axes.set(xlabel="popularity group, the most popular last", ylabel=f"share in recall@{k}")
    axes.legend(fontsize=8)
    _write(figure, path)


def trajectories(arms: Mapping[str, Done], lines: Mapping[str, tuple[str, ...]], path: Path) -> None:
    """Values over epochs, a panel each, a line an arm. lines: label -> where it stands in an epoch."""
    figure, panels = plt.subplots(1, len(lines), figsize=(5 * len(lines), 4), squeeze=False)
    for axes, (label, keys) in zip(panels[0], lines.items(), strict=True):
        for name, done in arms.items():
            axes.plot(series(done, *keys), label=name)
        axes.set(xlabel="epoch", ylabel=label)
        axes.legend(fontsize=8)
    _write(figure, path)


def curve(fixed: Mapping[float, Done], adaptive: Mapping[str, Done], path: Path) -> None:
    """Recall over fixed temperatures, beside the adaptive ones."""
    figure, axes = plt.subplots(figsize=(7, 4))
    axes.plot(list(fixed), [done.test["recall@20"] for done in fixed.values()], "o-", label="fixed")
    for (name, done), style in zip(adaptive.items(), ("--", ":"), strict=False):
        axes.axhline(done.test["recall@20"], color="black", linestyle=style, label=name)
    axes.set(xscale="log", xlabel="tau", ylabel="recall@20")
    axes.legend()
    _write(figure, path)


def _write(figure: Any, path: Path) -> None:
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)
