"""The page's content: tables from runs' files, figures, one template."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path
from statistics import median
from typing import Any

import jinja2

import adaptau_ext
from adaptau_ext import durable
from adaptau_ext.errors import ConfigError
from adaptau_ext.evaluation import METRICS, compare
from adaptau_ext.report import figures
from adaptau_ext.training import TrainConfig
from adaptau_ext.training.finished import FinishedRun

_P_SHOWN = 1e-4  # smaller p values are said to be smaller


def write_report(runs: Sequence[FinishedRun], path: Path) -> None:
    """Writes the page; the first run is what the others are compared with.

    Raises:
        ConfigError: if the runs have no cut-off in common.
    """
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    template = environment.from_string((files(__package__) / "template.html").read_text("utf-8"))
    metric = _metric(runs)
    k = int(metric.partition("@")[2])
    page = template.render(
        title=", ".join(run.name for run in runs),
        version=adaptau_ext.__version__,
        colours=figures.PALETTE,
        runs=[_summary(run, metric) for run in runs],
        accuracy=_accuracy(runs),
        comparisons=[_comparison(runs[0], other) for other in runs[1:]],
        beyond=_beyond(runs, k),
        times=[_times(run) for run in runs],
        settings=_settings(runs),
        figures={
            "curves": figures.curves(runs, metric),
            "groups": figures.groups(runs, f"recall@{k}"),
            "temperatures": _drawn(figures.temperatures, runs, "inv_tau_quantiles"),
            "magnitudes": _drawn(figures.magnitudes, runs, "item_norm_by_group"),
            "times": figures.times(runs),
        },
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    durable.write_text(path, page)


def _drawn(
    figure: Callable[[Sequence[FinishedRun]], str], runs: Sequence[FinishedRun], key: str
) -> str | None:
    """Of the runs that have such a diagnostic: those with tables split over processes have none."""
    having = [run for run in runs if all(key in epoch["diagnostics"] for epoch in run.epochs)]
    return figure(having) if having else None


def _metric(runs: Sequence[FinishedRun]) -> str:
    """What the first run's epoch was chosen by if all have it, otherwise recall at a cut-off of all."""
    common = set.intersection(*(set(run.results["test"]) for run in runs))
    if runs[0].config.best_metric in common:
        return runs[0].config.best_metric
    ks = [k for k in runs[0].config.ks if f"recall@{k}" in common]
    if not ks:
        cuts = ", ".join(f"{run.name} has ks={','.join(map(str, run.config.ks))}" for run in runs)
        raise ConfigError(f"the runs have no cut-off in common: {cuts}; compare others")
    return f"recall@{ks[len(ks) // 2]}"


def _summary(run: FinishedRun, metric: str) -> dict[str, Any]:
    results = run.results
    k = metric.partition("@")[2]
    return {
        "name": run.name,
        "data": results["data"],
        "on_test": results["selected_on"] == "test",
        "chosen": f"epoch {results['best_epoch']} of {len(run.epochs)}, the best "
        f"{results['selected_by']} on {results['selected_on']} items",
        "figures": [
            (f"{name}@{k}", f"{results['test'][f'{name}@{k}']:.4f}")
            for name in ("recall", "ndcg", "hit")
        ],
    }


def _accuracy(runs: Sequence[FinishedRun]) -> list[list[str]]:
    lines = [["run", "k", *METRICS]]
    for run in runs:
        for k in run.config.ks:
            values = (run.results["test"][f"{name}@{k}"] for name in METRICS)
            lines.append([run.name, str(k), *(f"{value:.4f}" for value in values)])
    return lines


def _comparison(first: FinishedRun, second: FinishedRun) -> dict[str, Any]:
    """Paired tests of two runs on the same test users, or why there are none."""
    names = {"first": first.name, "second": second.name}
    on_test = [run.name for run in (first, second) if run.results["selected_on"] == "test"]
    if len(on_test) == 1:
        names["caution"] = on_test[0]
    try:
        tests = compare(first.users(), second.users())
    except ValueError as problem:
        return {**names, "why_not": str(problem)}
    lines = [["metric", first.name, second.name, "difference", "paired t, p", "Wilcoxon, p"]]
    for test in tests:
        change = 100 * (test.second / test.first - 1) if test.first else float("nan")
        p_values = (_p(test.t_p), _p(test.wilcoxon_p))
        means = (f"{test.first:.4f}", f"{test.second:.4f}", f"{change:+.1f} %")
        lines.append([test.metric, *means, *p_values])
    return {**names, "lines": lines}


def _p(value: float) -> str:
    return f"< {_P_SHOWN:g}" if value < _P_SHOWN else f"{value:.2g}"


def _beyond(runs: Sequence[FinishedRun], k: int) -> list[list[str]]:
    names = [name for name in runs[0].results["beyond"] if name.endswith(f"@{k}")]
    lines = [["run", *names]]
    for run in runs:
        lines.append([run.name, *(f"{run.results['beyond'].get(n, float('nan')):.4g}" for n in names)])
    return lines


def _times(run: FinishedRun) -> list[str]:
    train, evaluate = ([e[f"{what}_seconds"] for e in run.epochs] for what in ("train", "eval"))
    return [
        run.name,
        str(len(run.epochs)),
        f"{median(train):.2f}",
        f"{median(evaluate):.2f}",
        f"{sum(train) + sum(evaluate):.0f}",
    ]


def _settings(runs: Sequence[FinishedRun]) -> list[dict[str, Any]]:
    """Every setting that is not the default in all runs, and whether runs differ in it."""
    dumped = [run.config.model_dump(mode="json") for run in runs]
    lines = []
    for name, default in TrainConfig().model_dump(mode="json").items():
        values = [one[name] for one in dumped]
        if name != "output" and any(value != default for value in values):
            differ = any(value != values[0] for value in values)
            lines.append({"name": name, "values": [str(v) for v in values], "differ": differ})
    return lines
