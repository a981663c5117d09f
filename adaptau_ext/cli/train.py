"""adaptau train"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import torch
import torch.distributed as dist
import typer
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from adaptau_ext.cli.console import console, explained, fail, needed, out_of_memory, reason, say
from adaptau_ext.cli.processes import lost_process, processes
from adaptau_ext.cli.settings import effective, keys, read_settings
from adaptau_ext.cli.signals import exit_code, interruptible, uninterrupted
from adaptau_ext.data import Interactions, load, synthetic
from adaptau_ext.distributed import World
from adaptau_ext.errors import DataError, TrainingError
from adaptau_ext.training import EpochResult, TrainConfig, Trainer, make_config
from adaptau_ext.training.run import Run

SHOWN = ("recall", "ndcg", "precision")  # the others are in metrics.jsonl


def add(app: typer.Typer) -> None:
    """The command."""
    app.command(
        epilog="[bold]Keys[/] (defaults in brackets)\n\n" + keys() + "\n\n"
        "[bold]Examples[/]\n\n"
        "adaptau train\n\n"
        "adaptau train data=ratings.csv min_rating=4 k_core=5 output=runs/mine\n\n"
        "adaptau train data=path/to/gowalla recipe=gowalla-mf\n\n"
        "adaptau train settings.yaml lr=1e-3 [dim](words override the file)[/]\n\n"
        "adaptau train data=ratings.csv output=runs/mine [dim](again: goes on where it stopped)[/]\n\n"
        "torchrun --nproc-per-node 4 -m adaptau_ext train data=ratings.csv output=runs/mine"
    )(train)


@explained
def train(
    settings: Annotated[
        list[str] | None,
        typer.Argument(metavar="[FILE.yaml|FILE.toml] [KEY=VALUE]...", help="Settings, see below."),
    ] = None,
    show_config: Annotated[
        bool, typer.Option("--show-config", help="Print all settings as YAML, train nothing.")
    ] = False,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Also log to OUTPUT/tensorboard.")
    ] = False,
) -> None:
    """Train a model and evaluate it after every epoch.

    Without arguments: the built-in data set, which is made up from a seed (Zipf popularity, planted
    tastes) and ends within two minutes. Under torchrun the processes share every batch.
    """
    config = make_config(read_settings(settings or []))
    if show_config:
        print(effective(config), end="")
        return
    try:
        with interruptible(), processes():
            _train(config, tensorboard)
    except KeyboardInterrupt as end:
        console.print("[bold yellow]interrupted[/], no epoch is lost")
        raise typer.Exit(exit_code(end)) from None


def _train(config: TrainConfig, tensorboard: bool) -> None:
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    folder = config.output or (
        Path("runs") / f"{datetime.now():%Y-%m-%d_%H-%M-%S}-{Path(config.data).stem}-{config.model}"
    )
    folder = World.current().collected(folder)[0]  # clocks differ
    data = load_data(config)
    try:
        run = Run(_trainer(config, data), folder)
    except ValueError as problem:
        fail(str(problem))
    _introduce(config, data)
    tensorboard = tensorboard and run.trainer.world.is_first
    with _told(run), interruptible(), _board(folder, tensorboard, run.trainer.n_batches) as log:
        _follow(run, log)
    if not run.trainer.world.is_first:
        return
    results = run.results
    assert results is not None
    say(
        f"Full ranking of the test items by epoch {results['best_epoch']}, the best "
        f"{results['selected_by']} on {results['selected_on']}; training items masked"
    )
    console.print(_results_table(results, config.ks))
    say(f"The run is in {folder}/: adaptau recommend {folder}, adaptau report {folder}")


@contextmanager
def _told(run: Run) -> Iterator[None]:
    """Of an early end: why, what is kept, and how to go on."""
    try:
        yield
    except (KeyboardInterrupt, MemoryError, OSError, RuntimeError, TrainingError) as problem:
        with uninterrupted():
            _tell(run, problem)
        raise


def _tell(run: Run, problem: Exception | KeyboardInterrupt) -> None:
    """Ends the command, unless the user can do nothing about it."""
    kept = f"{run.kept} epochs are kept"
    goes_on = f"the same command with output={run.folder} goes on from there"
    if isinstance(problem, KeyboardInterrupt):
        console.print("[bold yellow]interrupted[/]", end=", ")
        say(f"{kept}; {goes_on}")
        raise typer.Exit(exit_code(problem)) from None
    if isinstance(problem, TrainingError):
        fail(f"{problem}; {kept} in {run.folder}")
    if isinstance(problem, OSError) or out_of_memory(problem):
        fail(f"{reason(problem)}; {kept}; with room for more, {goes_on}")
    if isinstance(problem, RuntimeError) and lost_process(problem):
        fail(f"another process of this run has stopped, {kept}; {goes_on}")


def _trainer(config: TrainConfig, data: Interactions) -> Trainer:
    if not config.shard:
        return Trainer(config, data)
    if not dist.is_initialized():
        fail("shard=true needs processes: torchrun --nproc-per-node N -m adaptau_ext train ...")
    needed("safetensors", "distributed")
    from adaptau_ext.distributed.trainer import ShardedTrainer

    return ShardedTrainer(config, data)


def load_data(config: TrainConfig) -> Interactions:
    """The data that `config.data` names."""
    if config.data == "synthetic":
        config.preparation.refuse_split("the built-in data set")
        return synthetic(config.split_seed)
    data = load(
        config.data,
        config.preparation,
        cold_users=config.cold_users,
        duplicates=config.duplicates,
    )
    if data.test.nnz == 0:
        raise DataError(f"{config.data}: there is no test item; AdapTau in Python trains without any")
    return data


def _introduce(config: TrainConfig, data: Interactions) -> None:
    defaults = TrainConfig().model_dump(mode="json")
    settings = config.model_dump(mode="json").items()
    changed = {name: value for name, value in settings if value != defaults[name] and name != "data"}
    made_up = " (made up: Zipf popularity, planted tastes)" if config.data == "synthetic" else ""
    say(f"{data.describe()}{made_up}")
    for note in data.notes:
        say(f"  {note}")
    say("settings: " + " ".join(f"{name}={value}" for name, value in changed.items()))
    if config.idle:
        say(f"  without effect beside the others: {', '.join(config.idle)}")
    if config.protocol == "paper":
        console.print(
            "[bold yellow]protocol=paper:[/] the epoch is chosen on the test items; what comes out is "
            "higher than users would see. protocol=clean chooses on validation items.",
            highlight=False,
        )


class _Speed(ProgressColumn):
    """Steps a second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:.3g} steps/s")


def _follow(run: Run, log: Callable[[EpochResult], None]) -> None:
    """A bar within the epoch, a line for each; without a terminal the lines alone."""
    trainer, config = run.trainer, run.trainer.config
    k = config.ks[len(config.ks) // 2]
    progress = Progress(
        TextColumn("epoch {task.fields[epoch]}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Speed(),
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
            log(event)
            shown = "  ".join(f"{name}@{k} {event.metrics[f'{name}@{k}']:.4f}" for name in SHOWN)
            progress.console.print(
                f"epoch {event.epoch:3d}  loss {event.loss_sum / trainer.n_batches:.4f}  {shown}  "
                f"1/tau {event.inv_tau_min:.2f}..{event.inv_tau_max:.2f}  "
                f"{event.train_seconds:.1f} + {event.eval_seconds:.1f} s",
                highlight=False,
                soft_wrap=True,
            )
            progress.reset(bar, epoch=event.epoch + 1, loss="")


@contextmanager
def _board(folder: Path, wanted: bool, n_batches: int) -> Iterator[Callable[[EpochResult], None]]:
    """Logs epochs to TensorBoard, if that is wanted."""
    if not wanted:
        yield lambda _: None
        return
    needed("tensorboard", "tensorboard")
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(folder / "tensorboard") as writer:

        def log(result: EpochResult) -> None:
            values = {"loss": result.loss_sum / n_batches, "inv_tau/min": result.inv_tau_min}
            values |= {"inv_tau/max": result.inv_tau_max, "seconds/train": result.train_seconds}
            values |= {f"metrics/{name}": value for name, value in result.metrics.items()}
            for name, value in values.items():
                writer.add_scalar(name, value, result.epoch)

        yield log


def _results_table(results: dict[str, Any], ks: tuple[int, ...]) -> Table:
    """Test metrics of the best epoch."""
    table = Table()
    for column in ("k", *SHOWN):
        table.add_column(column, justify="right")
    for k in ks:
        values = (results["test"][f"{name}@{k}"] for name in SHOWN)
        table.add_row(str(k), *(f"{v:.4f}" for v in values))
    return table
