"""adaptau evaluate"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.table import Table

from adaptau_ext.cli.console import console, explained, say
from adaptau_ext.cli.tables import check_name, write_table
from adaptau_ext.cli.train import load_data
from adaptau_ext.evaluation import (
    METRICS,
    beyond_accuracy,
    evaluate_users,
    group_recall,
    popularity_groups,
)
from adaptau_ext.training.finished import FinishedRun


def add(app: typer.Typer) -> None:
    """The command."""
    app.command(
        epilog="[bold]Examples[/]\n\n"
        "adaptau evaluate runs/mine\n\n"
        "adaptau evaluate runs/mine -k 5 -k 100 --output metrics.csv"
    )(evaluate)


@explained
def evaluate(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    k: Annotated[list[int] | None, typer.Option("-k", min=1, help="Cut-off, repeatable.")] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Also write every user's metrics, .csv or .parquet."),
    ] = None,
) -> None:
    """Rank all items for all users with test items again, at any cut-off.

    Reads the data from where the run did. Prints accuracy, what popular items have of it, and how
    various the recommendations are.
    """
    if output is not None:
        check_name(output)
    found = FinishedRun.read(run)
    ks = tuple(k) if k else found.config.ks
    data, model = load_data(found.config), found.model()
    found.check_data(data)
    evaluation = evaluate_users(
        model.user_embeddings,
        model.item_embeddings,
        data.test,
        exclude=model.seen,
        ks=ks,
        normalize=model.normalize,
    )
    means = evaluation.means()
    accuracy = Table("k", *METRICS, title=f"{len(evaluation.users):,} users with test items")
    for cut in ks:
        accuracy.add_row(str(cut), *(f"{means[f'{name}@{cut}']:.4f}" for name in METRICS))
    console.print(accuracy)
    if found.results["selected_on"] == "test":
        console.print(
            "[bold yellow]protocol=paper:[/] the epoch was chosen on these items, users see less.",
            highlight=False,
        )

    popularity = np.bincount(model.seen.indices, minlength=data.n_items)
    various = [beyond_accuracy(evaluation, popularity, cut) for cut in ks]
    names = [name.partition("@")[0] for name in various[0]]
    beyond = Table("k", *names, title="beyond accuracy")
    for cut, values in zip(ks, various, strict=True):
        beyond.add_row(str(cut), *(f"{value:.4g}" for value in values.values()))
    console.print(beyond)

    shares = group_recall(evaluation, popularity_groups(popularity), ks[0])
    groups = Table("popularity group", f"share in recall@{ks[0]}", title="popular and rare items")
    for group, share in enumerate(shares, start=1):
        groups.add_row(str(group), f"{share:.4f}")
    console.print(groups)
    if output is not None:
        columns = {"user": model.user_ids.take(evaluation.users), **evaluation.values}
        write_table(columns, output)
        say(f"written to {output}")
