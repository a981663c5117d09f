"""Figures as SVG elements whose text and lines follow the page's theme."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from cycler import cycler
from matplotlib.figure import Figure
from matplotlib.ticker import AutoLocator, MaxNLocator

from adaptau_ext.evaluation.popularity import N_GROUPS
from adaptau_ext.training.finished import FinishedRun

# Told apart on white and on black, by people who do not see all colours too (after Okabe and Ito).
PALETTE = ("#2f7fd1", "#d9822b", "#1f9e77", "#c2568f", "#8a7fd1", "#8f8a2b", "#5aa9c9", "#b5655a")
_INK, _GRID = "#010203", "#040506"  # become the page's own
_STYLE: Any = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.parse_math": False,  # names of runs may have dollars
    "axes.prop_cycle": cycler(color=PALETTE),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _GRID,
    "legend.frameon": False,
    **dict.fromkeys(
        ("text.color", "axes.labelcolor", "xtick.color", "ytick.color", "axes.edgecolor"), _INK
    ),
}


def curves(runs: Sequence[FinishedRun], metric: str) -> str:
    """A metric and the loss over epochs."""
    splits = [run.results["selected_on"] for run in runs]
    same = len(set(splits)) == 1
    with mpl.rc_context(_STYLE):
        figure, (left, right) = _panels(2)
        for n, run in enumerate(runs):
            x = [epoch["epoch"] for epoch in run.epochs]
            label = _label(run) if same else f"{_label(run)}, {splits[n]}"
            left.plot(x, [epoch["metrics"][metric] for epoch in run.epochs], label=label)
            best = run.results["best_epoch"]
            chosen = run.results["best"][metric]
            left.plot([best], [chosen], "o", color=PALETTE[n % len(PALETTE)])
            right.plot(x, [epoch["loss_sum"] for epoch in run.epochs], label=_label(run))
        left.set(xlabel="epoch", ylabel=f"{metric}, {splits[0]} items" if same else metric)
        right.set(xlabel="epoch", ylabel="loss, summed over batches")
        _legend(left, runs)
        return _svg(figure, "curves", f"{metric} and loss over epochs")


def groups(runs: Sequence[FinishedRun], metric: str) -> str:
    """Shares of ten popularity groups in recall on test."""
    with mpl.rc_context(_STYLE):
        figure, (axes,) = _panels(1)
        width = 0.8 / len(runs)
        for n, run in enumerate(runs):
            shares = run.results["groups"][metric]
            x = np.arange(1, len(shares) + 1) + (n - (len(runs) - 1) / 2) * width
            axes.bar(x, shares, width, label=_label(run))
        axes.set(xlabel="popularity group of items, the most popular last", ylabel=f"share in {metric}")
        axes.set_xticks(range(1, N_GROUPS + 1))
        _legend(axes, runs)
        return _svg(figure, "groups", f"{metric} by popularity group")


def temperatures(runs: Sequence[FinishedRun]) -> str:
    """Temperatures of the users at the end, and over epochs."""
    with mpl.rc_context(_STYLE):
        figure, (left, right) = _panels(2)
        for n, run in enumerate(runs):
            quantiles = np.array([e["diagnostics"]["inv_tau_quantiles"] for e in run.epochs])
            tau = 1 / quantiles[:, ::-1]  # ascending
            share = np.linspace(0, 1, tau.shape[1])
            colour = PALETTE[n % len(PALETTE)]
            left.plot(share, tau[run.results["best_epoch"]], label=_label(run))
            right.plot(tau[:, tau.shape[1] // 2], color=colour)
            right.fill_between(range(len(tau)), tau[:, 1], tau[:, -2], color=colour, alpha=0.2)
        left.set(xlabel="share of users", ylabel="tau not above, best epoch")
        left.xaxis.set_major_locator(AutoLocator())
        right.set(xlabel="epoch", ylabel="tau, median and 10 to 90 %")
        _legend(left, runs)
        return _svg(figure, "temperatures", "temperatures of users")


def magnitudes(runs: Sequence[FinishedRun]) -> str:
    """Norms of item embeddings by popularity, and their rank correlation over epochs."""
    with mpl.rc_context(_STYLE):
        figure, (left, right) = _panels(2)
        for run in runs:
            diagnostics = [epoch["diagnostics"] for epoch in run.epochs]
            norms = diagnostics[run.results["best_epoch"]]["item_norm_by_group"]
            left.plot(range(1, len(norms) + 1), norms, "o-", label=_label(run))
            right.plot([d["item_norm_popularity"] for d in diagnostics])
        left.set(xlabel="popularity group of items", ylabel="mean norm of embeddings")
        right.set(xlabel="epoch", ylabel="Spearman with popularity", ylim=(-1.05, 1.05))
        _legend(left, runs)
        return _svg(figure, "magnitudes", "norms of item embeddings by popularity")


def times(runs: Sequence[FinishedRun]) -> str:
    """Seconds of training and of evaluation, an epoch each."""
    with mpl.rc_context(_STYLE):
        figure, (axes,) = _panels(1)
        for n, run in enumerate(runs):
            colour = PALETTE[n % len(PALETTE)]
            axes.plot([e["train_seconds"] for e in run.epochs], color=colour, label=_label(run))
            axes.plot([e["eval_seconds"] for e in run.epochs], ":", color=colour)
        axes.set(xlabel="epoch", ylabel="seconds, evaluation dotted")
        axes.set_ylim(bottom=0)
        _legend(axes, runs)
        return _svg(figure, "times", "seconds an epoch")


def _label(run: FinishedRun) -> str:
    """A name that begins with an underscore would be left out of the legend."""
    return f"\u200b{run.name}" if run.name.startswith("_") else run.name


def _panels(n: int) -> tuple[Figure, Sequence[Any]]:
    figure = Figure(figsize=(9.2, 3.4), layout="constrained")
    panels = figure.subplots(1, n, squeeze=False)[0]
    for axes in panels:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure, panels


def _legend(axes: Any, runs: Sequence[FinishedRun]) -> None:
    if len(runs) > 1:
        axes.legend(fontsize=9)


def _svg(figure: Figure, name: str, label: str) -> str:
    """An element to stand in HTML: no prologue, a label, its own ids, the page's colours."""
    with mpl.rc_context({"svg.hashsalt": name}):  # ids of several figures of one page must differ
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :].replace(_INK, "currentColor").replace(_GRID, "var(--line)")
    text = re.sub(
        r'<svg [^>]*viewBox="([^"]*)"[^>]*>',
        rf'<svg role="img" aria-label="{label}" viewBox="\1">',
        text,
        count=1,
    )
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    return re.sub(r'id="([A-Za-z][\w.]*_\d{1,4})"', rf'id="{name}-\1"', text)  # the others are hashes
