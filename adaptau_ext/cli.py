"""The `adaptau` command."""

from __future__ import annotations

import json
from dataclasses import asdict
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
from adaptau_ext.training import EpochResult, MFTrainer, TrainConfig

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Adaptive-temperature soft-max for recommendation.",
)
console = Console()


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
        key = str(first["loc"][0])
        expected = "; ".join(e["msg"] for e in problem.errors() if e["loc"][0] == key)
        fail(f"{key}: {expected}, got {values[key]!r}")


def load_data(config: TrainConfig) -> Interactions:
    """The data that `config.data` names."""
    if config.data == "synthetic":
        return synthetic(config.seed)
    return read_lightgcn(config.data, cold_users=config.cold_users, duplicates=config.duplicates)


def _results_table(results: list[EpochResult], ks: tuple[int, ...]) -> Table:
    """The last epoch, and the best one by NDCG at the largest cut-off."""
    best = max(results, key=lambda result: result.metrics[f"ndcg@{max(ks)}"])
    table = Table(title="Full ranking of the test items, training items masked")
    for column in ("epoch", "k", "recall", "ndcg", "precision"):
        table.add_column(column, justify="right")
    for label, result in (("last", results[-1]), ("best on test", best)):
        for k in ks:
            values = (result.metrics[f"{name}@{k}"] for name in ("recall", "ndcg", "precision"))
            table.add_row(f"{result.epoch} ({label})", str(k), *(f"{v:.4f}" for v in values))
        table.add_section()
    return table


@app.command(
    epilog="[bold]Keys[/] (defaults in brackets)\n\n" + _keys() + "\n\n"
    "[bold]Examples[/]\n\n"
    "adaptau train\n\n"
    "adaptau train data=path/to/gowalla recipe=gowalla-mf\n\n"
    "adaptau train data=path/to/gowalla tau=0.1 lr=1e-3 epochs=30"
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
    try:
        data = load_data(config)
        trainer = MFTrainer(config, data)
    except (DataError, ValueError) as problem:
        fail(str(problem))
    made_up = " (made up: Zipf popularity, planted tastes)" if config.data == "synthetic" else ""
    console.print(f"{data.describe()}{made_up}", highlight=False)

    folder = config.output or Path("runs") / f"{datetime.now():%Y-%m-%d_%H-%M-%S}-{data.name}-mf"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(config.model_dump_json(indent=2) + "\n")

    results: list[EpochResult] = []
    progress = Progress(
        TextColumn("epoch {task.fields[epoch]}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("loss {task.fields[loss]:.4f}"),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    with (folder / "metrics.jsonl").open("w") as metrics_file, progress:
        bar = progress.add_task("train", total=trainer.n_batches, epoch=0, loss=float("nan"))
        for event in trainer.run():
            if isinstance(event, float):
                progress.update(bar, advance=1, loss=event)
                continue
            results.append(event)
            metrics_file.write(json.dumps(asdict(event)) + "\n")
            metrics_file.flush()
            shown = "  ".join(
                f"{name} {value:.4f}"
                for name, value in event.metrics.items()
                if name.endswith(f"@{config.ks[len(config.ks) // 2]}")
            )
            progress.console.print(
                f"epoch {event.epoch:3d}  loss {event.loss_sum / trainer.n_batches:.4f}  {shown}  "
                f"1/tau {event.inv_tau_min:.2f}..{event.inv_tau_max:.2f}  "
                f"{event.train_seconds:.1f} + {event.eval_seconds:.1f} s",
                highlight=False,
            )
            progress.reset(bar, epoch=event.epoch + 1, loss=float("nan"))
    torch.save(trainer.model.state_dict(), folder / "model.pt")
    console.print(_results_table(results, config.ks))
    console.print(f"config.json, metrics.jsonl and model.pt are in {folder}/", highlight=False)


def main() -> None:
    """Entry point of the console script."""
    app(prog_name="adaptau")


if __name__ == "__main__":
    main()
