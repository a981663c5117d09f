"""The `adaptau` command."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, NoReturn

import torch
import typer
from pydantic import ValidationError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from adaptau_ext.data import DataError, Interactions, read_lightgcn, synthetic
from adaptau_ext.recipes import RECIPES
from adaptau_ext.training import EpochResult, TrainConfig, Trainer
from adaptau_ext.training.run import Run

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Adaptive-temperature soft-max for recommendation.",
)
console = Console()
SHOWN = ("recall", "ndcg", "precision")  # the others are in metrics.jsonl


@app.callback()
def _root() -> None:
    """Keeps `train` a subcommand while it is the only one."""


def fail(message: str) -> NoReturn:
    """One line on stderr, exit code 2."""
    Console(stderr=True).print(f"[bold red]error:[/] {message}", highlight=False, soft_wrap=True)
    raise typer.Exit(2)


def _keys() -> str:
    lines = []
    for name, field in TrainConfig.model_fields.items():
        default = "" if field.default is None else f" [dim]({field.default})[/]"
        lines.append(f"[bold]{name}[/]  {field.description}{default}")
    lines.append(f"[bold]recipe[/]  published hyper-parameters: {', '.join(RECIPES)}")
    return "\n\n".join(lines)


def parse_config(settings: list[str]) -> TrainConfig:
    """`key=value` words -> configuration; a recipe first, then what overrides it."""
    values: dict[str, Any] = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals or not key:
            fail(f"expected key=value, got {setting!r}; `adaptau train --help` lists the keys")
        if key in values:
            fail(f"{key} is given twice; keep one")
        values[key] = value.split(",") if key == "ks" else value
    recipe = values.pop("recipe", None)
    if recipe is not None:
        if recipe not in RECIPES:
            fail(f"recipe must be one of {', '.join(RECIPES)}, got {recipe!r}")
        values = {**RECIPES[recipe], **values}
    unknown = [key for key in values if key not in TrainConfig.model_fields]
    if unknown:
        fail(f"unknown key {unknown[0]!r}; the keys are {', '.join(TrainConfig.model_fields)}, recipe")
    try:
        return TrainConfig.model_validate(values)
    except ValidationError as problem:
        first = problem.errors()[0]
        if not first["loc"]:  # of several keys together
            fail(first["msg"].removeprefix("Value error, "))
        key = str(first["loc"][0])
        expected = "; ".join(e["msg"] for e in problem.errors() if e["loc"][0] == key)
        fail(f"{key}: {expected}, got {values[key]!r}")


def load_data(config: TrainConfig) -> Interactions:
    """The data that `config.data` names."""
    if config.data == "synthetic":
        return synthetic(config.seed)
    return read_lightgcn(config.data, cold_users=config.cold_users, duplicates=config.duplicates)


def _results_table(results: dict[str, Any], ks: tuple[int, ...]) -> Table:
    """Test metrics of the best epoch."""
    table = Table()
    for column in ("k", *SHOWN):
        table.add_column(column, justify="right")
    for k in ks:
        values = (results["test"][f"{name}@{k}"] for name in SHOWN)
        table.add_row(str(k), *(f"{v:.4f}" for v in values))
    return table


@app.command(
    epilog="[bold]Keys[/] (defaults in brackets)\n\n" + _keys() + "\n\n"
    "[bold]Examples[/]\n\n"
    "adaptau train\n\n"
    "adaptau train data=path/to/gowalla recipe=gowalla-mf\n\n"
    "adaptau train data=path/to/gowalla tau=0.1 lr=1e-3 epochs=30\n\n"
    "adaptau train data=path/to/yelp2018 recipe=yelp2018-lightgcn output=runs/yelp"
    " [dim](again: goes on where it stopped)[/]"
)
def train(
    settings: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Settings, see below.")
    ] = None,
) -> None:
    """Train a model and evaluate it after every epoch.

    Without arguments: the built-in data set, which is made up from a seed (Zipf popularity, planted
    tastes) and ends within two minutes.
    """
    config = parse_config(settings or [])
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    folder = config.output or (
        Path("runs") / f"{datetime.now():%Y-%m-%d_%H-%M-%S}-{Path(config.data).name}-{config.model}"
    )
    try:
        data = load_data(config)
        run = Run(Trainer(config, data), folder)
    except (DataError, ValueError) as problem:
        fail(str(problem))
    trainer = run.trainer
    made_up = " (made up: Zipf popularity, planted tastes)" if config.data == "synthetic" else ""
    console.print(f"{data.describe()}{made_up}", highlight=False)
    if config.protocol == "paper":
        console.print(
            "[bold yellow]protocol=paper:[/] the epoch is chosen on the test items; what comes out is "
            "higher than users would see. protocol=clean chooses on validation items.",
            highlight=False,
        )

    progress = Progress(
        TextColumn("epoch {task.fields[epoch]}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("loss {task.fields[loss]}"),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    with progress:
        bar = progress.add_task("train", total=trainer.n_batches, epoch=0, loss="")
        for step, event in enumerate(run.events()):
            if not isinstance(event, EpochResult):
                loss = f"{event:.4f}" if step % 16 == 0 else progress.tasks[0].fields["loss"]
                progress.update(bar, advance=1, loss=loss, epoch=len(trainer.results))
                continue
            k = config.ks[len(config.ks) // 2]
            shown = "  ".join(f"{name}@{k} {event.metrics[f'{name}@{k}']:.4f}" for name in SHOWN)
            progress.console.print(
                f"epoch {event.epoch:3d}  loss {event.loss_sum / trainer.n_batches:.4f}  {shown}  "
                f"1/tau {event.inv_tau_min:.2f}..{event.inv_tau_max:.2f}  "
                f"{event.train_seconds:.1f} + {event.eval_seconds:.1f} s",
                highlight=False,
            )
            progress.reset(bar, epoch=event.epoch + 1, loss="")
    results = run.results
    assert results is not None
    console.print(
        f"Full ranking of the test items by epoch {results['best_epoch']}, the best "
        f"{results['selected_by']} on {results['selected_on']}; training items masked",
        highlight=False,
    )
    console.print(_results_table(results, config.ks))
    console.print(
        f"config.json, metrics.jsonl, results.json and model.pt are in {folder}/", highlight=False
    )


def main() -> None:
    """Entry point of the console script."""
    app(prog_name="adaptau")


if __name__ == "__main__":
    main()
