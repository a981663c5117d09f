"""The paper's figures, from the epochs of finished runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from .runs import Done


def _series(done: Done, *keys: str) -> np.ndarray:
    """One value, or one row of values, an epoch."""
    values = []
    for epoch in done.epochs:
        value: Any = epoch
        for key in keys:
            value = value[key]
        values.append(value)
    return np.array(values)


def magnitude(without: Done, path: Path) -> None:
    """Mean item norm by popularity group over epochs, and its rank correlation with popularity."""
    norms = _series(without, "diagnostics", "item_norm_by_group")
    spearman = _series(without, "diagnostics", "item_norm_popularity")
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4))
    colours = plt.get_cmap("viridis")(np.linspace(0, 0.9, norms.shape[1]))
    for group, colour in enumerate(colours):
        left.plot(norms[:, group], color=colour, label=str(group))
    left.set(xlabel="epoch", ylabel="mean norm of item embeddings", title="by popularity group")
    left.legend(title="popularity", fontsize=7, ncol=2)
    right.plot(spearman)
    right.set(xlabel="epoch", ylabel="Spearman", title="norm and popularity", ylim=(-1, 1))
    _write(figure, path)


def groups(arms: Sequence[Done], path: Path, k: int = 20) -> None:
    """Share of each popularity group in recall@k, of the chosen epochs."""
    figure, axes = plt.subplots(figsize=(8, 4))
    width = 0.8 / len(arms)
    for n, done in enumerate(arms):
        best = done.epochs[done.results["best_epoch"]]
        shares = best["diagnostics"][f"recall@{k}_by_group"]
        axes.bar(np.arange(len(shares)) + n * width, shares, width, label=done.arm.name)
    axes.set(xlabel="popularity group", ylabel=f"share in recall@{k}")
    axes.legend(fontsize=7)
    _write(figure, path)


def trajectories(arms: Sequence[Done], keys: tuple[str, ...], label: str, path: Path) -> None:
    """One value over epochs, a line an arm."""
    figure, axes = plt.subplots(figsize=(7, 4))
    for done in arms:
        axes.plot(_series(done, *keys), label=done.arm.name)
    axes.set(xlabel="epoch", ylabel=label)
    axes.legend(fontsize=7)
    _write(figure, path)


def sensitivity(taus: Sequence[Done], adaptive: Done, path: Path) -> None:
    """Recall over fixed temperatures, beside the adaptive one."""
    figure, axes = plt.subplots(figsize=(7, 4))
    x = [float(done.arm.labels["tau"]) for done in taus]
    axes.plot(x, [done.test["recall@20"] for done in taus], "o-", label="fixed")
    axes.axhline(adaptive.test["recall@20"], color="black", linestyle="--", label="Adap-tau")
    axes.set(xscale="log", xlabel="tau", ylabel="recall@20")
    axes.legend()
    _write(figure, path)


def _write(figure: Any, path: Path) -> None:
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)
