"""adaptau export"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from adaptau_ext.cli.console import explained, fail, needed, say
from adaptau_ext.export import FORMATS
from adaptau_ext.training.finished import fitted_model


def add(app: typer.Typer) -> None:
    """The command."""
    app.command(
        epilog="[bold]Examples[/]\n\n"
        "adaptau export runs/mine parquet\n\n"
        "adaptau export runs/mine faiss onnx --output served/"
    )(export)


@explained
def export(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run, or of a saved model.")],
    formats: Annotated[list[str], typer.Argument(help=f"Some of {', '.join(FORMATS)}.")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Default: RUN/export.")] = None,
) -> None:
    """Write embeddings, an index or a model that other software reads.

    What comes out scores by inner product: cosine models as unit vectors.
    """
    for name in formats:
        if name not in FORMATS:
            fail(f"formats are {', '.join(FORMATS)}, got {name!r}")
        for module in FORMATS[name][1]:
            needed(module, "export")
    model = fitted_model(run)
    folder = output or run / "export"
    folder.mkdir(parents=True, exist_ok=True)
    for name in formats:
        for path in FORMATS[name][0](model, folder):
            say(f"{name}: {path}")
