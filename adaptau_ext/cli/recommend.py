"""adaptau recommend"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.progress import track
from rich.table import Table
from rich.text import Text

from adaptau_ext.cli.console import console, explained, fail, say
from adaptau_ext.cli.tables import write_batches
from adaptau_ext.errors import DataError, reading
from adaptau_ext.fitted import RECOMMENDATIONS, FittedModel
from adaptau_ext.training.finished import fitted_model


def add(app: typer.Typer) -> None:
    """The command."""
    app.command(
        epilog="[bold]Examples[/]\n\n"
        "adaptau recommend runs/mine --output recommendations.csv [dim](all users)[/]\n\n"
        "adaptau recommend runs/mine --user alice --user bob -k 5\n\n"
        "adaptau recommend runs/mine --users ids.txt --output recommendations.parquet"
    )(recommend)


@explained
def recommend(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run, or of a saved model.")],
    k: Annotated[int, typer.Option("-k", min=1, help="Items a user.")] = 10,
    user: Annotated[list[str] | None, typer.Option(help="A user's id, repeatable.")] = None,
    users: Annotated[Path | None, typer.Option(help="File of users' ids, one a line.")] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="File to write, .csv, .tsv or .parquet; default: print."),
    ] = None,
    include_seen: Annotated[
        bool, typer.Option("--include-seen", help="Also items that the user has already.")
    ] = False,
) -> None:
    """Recommend items to some or all users, under the ids that they have in the data.

    Files are written in a stream: millions of users need no more memory than some thousands.
    """
    model = fitted_model(run)
    wanted = _wanted(user, users)
    if output is None and wanted is None:
        fail("give --output FILE for all users, or --user ID to print some")
    batches = model.recommend_batches(wanted, k, exclude_seen=not include_seen)
    if output is None:
        _print(model, wanted or [], k, include_seen)
        return
    shown = track(
        batches, "recommending", console=console, transient=True, disable=not console.is_terminal
    )
    rows = write_batches(shown, model.schema, output)
    say(f"{rows:,} recommendations in {output}")


def _wanted(user: list[str] | None, users: Path | None) -> list[str] | None:
    if user and users:
        fail("give --user or --users, not both")
    if users is None:
        return user or None
    if not users.is_file():
        fail(f"{users}: no such file")
    with reading(f"{users}: not readable", "it should be UTF-8 text", DataError):
        lines = users.read_text(encoding="utf-8-sig").splitlines()
    ids = [line.strip() for line in lines if line.strip()]
    return ids or fail(f"{users}: no id in it; it should hold one a line")


def _print(model: FittedModel, wanted: list[str], k: int, include_seen: bool) -> None:
    table = Table(*RECOMMENDATIONS)
    for row in model.recommend(wanted, k, exclude_seen=not include_seen).to_pylist():
        cells = (f"{v:.4f}" if isinstance(v, float) else str(v) for v in row.values())
        table.add_row(*map(Text, cells))  # an id may look like markup
    console.print(table)
