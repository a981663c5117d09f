"""adaptau fetch"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from adaptau_ext.cli.console import explained, needed, say
from adaptau_ext.data.fetch import SOURCE, fetch


def add(app: typer.Typer) -> None:
    """The command."""
    app.command(
        name="fetch",
        epilog="[bold]Example[/]\n\n"
        "adaptau fetch gowalla && adaptau train data=data/gowalla recipe=gowalla-mf",
    )(fetch_command)


@explained
def fetch_command(
    name: Annotated[str, typer.Argument(help="yelp2018 or gowalla.")],
    to: Annotated[Path, typer.Option(help="Folder that becomes the data set's parent.")] = Path("data"),
    source: Annotated[
        str, typer.Option(help="Address of a file, with {name} and {file} in it.")
    ] = SOURCE,
) -> None:
    """Download a data set of the paper and check its SHA-256."""
    needed("pooch", "fetch")
    folder = fetch(name, to, source=source)
    say(f"{folder} is complete: adaptau train data={folder}")
