"""What all commands share: where they print, and how they end."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from types import ModuleType
from typing import Any, NoReturn, TypeVar

import typer
from rich.console import Console

from adaptau_ext.errors import InputError

console = Console()
Command = TypeVar("Command", bound=Callable[..., Any])


def fail(message: str) -> NoReturn:
    """One line on stderr, exit code 2."""
    line = " ".join(message.split())
    Console(stderr=True).print("[bold red]error:[/]", end=" ")
    Console(stderr=True).print(line, markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(2)


def explained(command: Command) -> Command:
    """Errors that the user can mend become one line; others keep their traceback."""

    @functools.wraps(command)
    def run(*arguments: Any, **options: Any) -> Any:
        try:
            return command(*arguments, **options)
        except InputError as problem:
            fail(str(problem))
        except OSError as problem:
            where = f"{problem.filename}: " if problem.filename else ""
            fail(f"{where}{problem.strerror or problem}")

    return run  # type: ignore[return-value]


def needed(module: str, extra: str) -> ModuleType:
    """A module of an optional dependency."""
    try:
        return importlib.import_module(module)
    except ImportError:
        fail(f"this needs {module.partition('.')[0]}: pip install 'adaptau_ext[{extra}]'")
