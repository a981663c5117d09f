"""Writes docs/commands.md from what the commands say of themselves.

python docs/site/commands.py
"""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from rich.text import Text

from adaptau_ext.cli import app
from adaptau_ext.recipes import RECIPES
from adaptau_ext.training import TrainConfig

PAGE = Path(__file__).parents[1] / "commands.md"
COMMANDS = {
    info.name or info.callback.__name__: info for info in app.registered_commands if info.callback
}
HEAD = """# Command line

Written by `python docs/site/commands.py` from `adaptau --help` and `adaptau COMMAND --help`.

A command ends with exit code 0 if it did what was asked, with 2 if something has to be mended first,
which it says in one line, with 141 if the reader of its output left, and `adaptau train` with 130 if it
was interrupted, 143 if by SIGTERM; epochs that were done are kept ([robustness](robustness.md)).

"""
# The first key of each group of settings, and what the group is about.
GROUPS = {
    "data": "Data",
    "protocol": "Protocol",
    "model": "Model",
    "loss": "Loss and temperature",
    "batch_size": "Training",
    "select_by": "Evaluation",
    "seed": "Run",
}


def page() -> str:
    """The whole page."""
    parts = [HEAD, "| command | what it does |\n| --- | --- |\n"]
    parts += [f"| [{name}](#adaptau-{name}) | {summary(info)} |\n" for name, info in COMMANDS.items()]
    parts += ["".join(command(name, info)) for name, info in COMMANDS.items()]
    return "".join(parts)


def summary(info: Any) -> str:
    """The first line of a command's help."""
    return inspect.getdoc(info.callback).partition("\n")[0]


def command(name: str, info: Any) -> Iterator[str]:
    """A section: what it does, arguments, options, examples."""
    yield f"\n## adaptau {name}\n\n{inspect.getdoc(info.callback)}\n"
    rows = [row for parameter in parameters(info.callback) for row in parameter]
    if rows:
        yield "\n| argument | default | meaning |\n| --- | --- | --- |\n"
        yield from rows
    if name == "train":
        yield from settings()
    examples = Text.from_markup(info.epilog).plain.partition("Example")[2].splitlines()
    lines = [re.sub(r" \((.+)\)$", r"  # \1", line) for line in examples if line.startswith("adaptau ")]
    yield "\n```sh\n" + "\n".join(lines) + "\n```\n"


def parameters(callback: Any) -> Iterator[list[str]]:
    """A row of the table for each argument and option."""
    hints = typing.get_type_hints(callback, include_extras=True)
    for name, parameter in inspect.signature(callback).parameters.items():
        info = hints[name].__metadata__[0]
        if isinstance(info, typer.models.ArgumentInfo):
            word, required = info.metavar or name.upper(), parameter.default is inspect.Parameter.empty
            default = "required" if required else ""
        else:
            declared = [d for d in (info.default, *(info.param_decls or ())) if isinstance(d, str)]
            word = declared[0] if declared else f"--{name.replace('_', '-')}"
            default = "" if parameter.default in (None, False) else f"`{parameter.default}`"
        yield [f"| `{cell(word)}` | {default} | {cell(info.help)} |\n"]


def settings() -> Iterator[str]:
    """Tables of the keys of a training run."""
    yield """
### Settings

They may come from a file, see [recipes](recipes.md#settings-in-a-file). In Python `TrainConfig` has the
same keys, and `AdapTau` those that say what is fitted. `adaptau train KEY=VALUE ... --show-config`
prints all of them as they would be used.
"""
    properties = TrainConfig.model_json_schema()["properties"]
    for key, field in TrainConfig.model_fields.items():
        if key in GROUPS:
            yield f"\n#### {GROUPS[key]}\n\n| key | default | values | meaning |\n"
            yield "| --- | --- | --- | --- |\n"
        default = "" if field.default is None else f"`{word(field.default)}`"
        yield f"| `{key}` | {default} | {values(properties[key])} | {cell(field.description)} |\n"
    ours = [f"`{name}`" for name in RECIPES if name.startswith("ml-1m")]
    published = [f"`{name}`" for name in RECIPES if not name.startswith("ml-1m")]
    yield "\n`recipe` sets the hyper-parameters of a published run, which other keys override: "
    yield ", ".join(published) + "; and, found on validation items because nothing is published, "
    yield (
        ", ".join(ours) + ". They have `protocol=paper`, which chooses the epoch on test, as published "
    )
    yield "numbers were: add `protocol=clean` for your own data.\n"


def values(schema: dict[str, Any]) -> str:
    """What a key may be."""
    kinds = schema.get("anyOf", [schema])
    return " or ".join(text for kind in kinds if (text := value(kind)))


def value(kind: dict[str, Any]) -> str:
    """One of the kinds of value."""
    if "enum" in kind:
        return ", ".join(f"`{name}`" for name in kind["enum"])
    if "pattern" in kind:
        return "`cpu`, `cuda`, `cuda:0` ..."
    if kind.get("format") == "path":
        return "a folder"
    if kind["type"] == "array":
        return "integers >= 1 with commas between"
    name = {"integer": "integer", "number": "number", "boolean": "`true`, `false`", "string": "text"}
    bounds = {"exclusiveMinimum": ">", "minimum": ">=", "exclusiveMaximum": "<", "maximum": "<="}
    told = {bound: kind[bound] for bound in bounds if kind.get(bound, 2**32) < 2**32}
    limits = [f"{bounds[bound]} {limit:g}" for bound, limit in told.items()]
    return " ".join([name.get(kind["type"], ""), ", ".join(limits)]).strip()


def word(default: Any) -> str:
    """A default as it is written on the command line."""
    return ",".join(map(str, default)) if isinstance(default, tuple) else str(default)


def cell(text: str) -> str:
    """Text that may stand in a table."""
    return re.sub(r"\s+", " ", text).replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
