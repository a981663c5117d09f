"""The commands together."""

from __future__ import annotations

import io
import sys

import typer

from adaptau_ext.cli import bench, doctor, evaluate, export, fetch, recommend, report, train

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Adaptive-temperature soft-max for recommendation: train, evaluate, recommend.",
    epilog="[bold]From a file to recommendations[/]\n\n"
    "adaptau train data=ratings.csv output=runs/mine\n\n"
    "adaptau recommend runs/mine --output recommendations.csv\n\n"
    "adaptau report runs/mine",
)
for module in (train, evaluate, recommend, export, report, bench, doctor, fetch):
    module.add(app)


def main() -> None:
    """Entry point of the console script."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # ids may be of any script, the locale of another
        sys.stdout.reconfigure(errors="backslashreplace")
    app(prog_name="adaptau")
