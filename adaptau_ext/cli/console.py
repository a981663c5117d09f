"""What all commands share: where they print, and how they end."""

from __future__ import annotations

import functools
import importlib
import os
import re
import signal
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any, NoReturn, TypeVar

import torch
import typer
from rich.console import Console

from adaptau_ext.errors import InputError


class _Output(Console):
    """Of whatever reads it for as long as it likes: `adaptau recommend ... | head`."""

    def on_broken_pipe(self) -> NoReturn:
        """Ends as SIGPIPE would have ended it; the buffer is not written once more at the end."""
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(128 + signal.SIGPIPE)


console = _Output()
Command = TypeVar("Command", bound=Callable[..., Any])


def say(text: str) -> None:
    """One line as it is: ids and paths may look like markup."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


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
        except UnicodeEncodeError as problem:  # a word that the locale did not let Python decode
            text = ascii(problem.object)[:80]
            fail(f"{text} is no UTF-8 text; set a locale of UTF-8, like LC_ALL=C.UTF-8")
        except OSError as problem:
            fail(reason(problem))
        except (MemoryError, RuntimeError) as problem:
            if not out_of_memory(problem):
                raise
            fail(f"{reason(problem)}: take less at a time, or a machine with more")

    return run  # type: ignore[return-value]


def reason(problem: Exception) -> str:
    """What the system or PyTorch says, in one line."""
    if isinstance(problem, OSError):
        where = f"{problem.filename}: " if problem.filename else ""
        return f"{where}{problem.strerror or problem}"
    if out_of_memory(problem):
        size = re.search(r"[\d.]+ (bytes|[KMGT]i?B)", str(problem))
        return f"not enough memory for {size[0]} more" if size else "not enough memory"
    return str(problem)


def out_of_memory(problem: Exception) -> bool:
    """Whether an error is one of NumPy, Arrow or PyTorch that says so."""
    kinds = (MemoryError, torch.OutOfMemoryError)
    return isinstance(problem, kinds) or "allocate memory" in str(problem)


def needed(module: str, extra: str) -> ModuleType:
    """A module of an optional dependency."""
    try:
        return importlib.import_module(module)
    except ImportError:
        fail(f"this needs {module.partition('.')[0]}: pip install 'adaptau_ext[{extra}]'")
