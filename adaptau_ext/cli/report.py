"""adaptau report"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from adaptau_ext.cli.console import explained, fail, needed, say
from adaptau_ext.training.finished import FinishedRun


def add(app: typer.Typer) -> None:
    """The command."""
    app.command(
        epilog="[bold]Examples[/]\n\n"
        "adaptau report runs/mine\n\n"
        "adaptau report runs/fixed runs/adaptive --output comparison.html"
    )(report)


@explained
def report(
    runs: Annotated[
        list[Path], typer.Argument(help="Folders of finished runs; the first is the baseline.")
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Default: report.html in the first run's folder."),
    ] = None,
) -> None:
    """Make one HTML page of one or several runs, that needs no network.

    Curves over epochs, recall by popularity of items, temperatures, magnitudes, times; of several runs
    also whether their differences are chance.
    """
    needed("matplotlib", "report")
    from adaptau_ext.report import write_report

    found = [FinishedRun.read(folder) for folder in runs]
    names = [run.name for run in found]
    if len(set(names)) < len(names):
        fail("runs must have different names, got " + ", ".join(names))
    path = output or runs[0] / "report.html"
    write_report(found, path)
    say(f"written to {path}")
