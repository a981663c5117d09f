"""Settings from a file and from words."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import yaml

from adaptau_ext.errors import ConfigError, reading
from adaptau_ext.recipes import RECIPES
from adaptau_ext.training import TrainConfig

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

LISTS = ("ks",)
_OPTIONAL = {"recipe"} | {name for name, f in TrainConfig.model_fields.items() if f.default is None}
_MAX_BYTES = 1 << 20


class _Plain(yaml.SafeLoader):
    """YAML without aliases, by which some lines can stand for any amount of memory, or a key twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names: set[str] = set()
        for name in (key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if name in names:
                raise ConfigError(f"{name[:80]} is given twice; keep one")
            names.add(name)
        return super().construct_mapping(node, deep)

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            why = "aliases, like *name, are not read in settings; write the value there"
            raise yaml.composer.ComposerError(None, None, why, mark)
        return super().compose_node(parent, index)


def read_settings(words: list[str]) -> dict[str, Any]:
    """`file.yaml`, then `key=value` words that override what is in it; none brings a default back.

    Raises:
        ConfigError: for a word that is neither, a key given twice, a file that cannot be read.
    """
    values: dict[str, Any] = {}
    given: set[str] = set()
    for place, word in enumerate(words):
        key, equals, value = word.partition("=")
        if not equals and Path(word).suffix in (".yaml", ".yml", ".toml"):
            if place > 0:
                raise ConfigError(f"{word}: a configuration file comes first, before key=value words")
            values.update(_read_file(Path(word)))
            continue
        if not equals or not key:
            raise ConfigError(
                f"expected key=value, got {word!r}; `adaptau train --help` lists the keys"
            )
        if key in given:
            raise ConfigError(f"{key} is given twice; keep one")
        given.add(key)
        if value == "none" and key in _OPTIONAL:  # back to the default
            values.pop(key, None)
        else:
            values[key] = value
    return {key: _listed(value) if key in LISTS else value for key, value in values.items()}


def _listed(value: Any) -> Any:
    """10,20,50 as a list, and one number, too."""
    if isinstance(value, str):
        return value.split(",")
    return [value] if type(value) is int else value


def _read_file(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ConfigError(f"{path}: no such file")
    if path.stat().st_size > _MAX_BYTES:
        raise ConfigError(f"{path}: larger than {_MAX_BYTES:,} bytes; settings are some lines")
    with reading(f"{path}: not readable", "settings are `key: value` lines", ConfigError):
        text = path.read_text(encoding="utf-8")
        values = tomllib.loads(text) if path.suffix == ".toml" else yaml.load(text, _Plain)
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected `key: value` lines, got a {type(values).__name__}")
    # YAML reads 1e-3 as a string, and so are numbers on the command line
    return {str(key): value for key, value in values.items()}


def effective(config: TrainConfig) -> str:
    """All settings as YAML, to be kept and given again."""
    text: str = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
    return text


def keys() -> str:
    """Every key, its meaning and default."""
    lines = []
    for name, field in TrainConfig.model_fields.items():
        default = "" if field.default is None else f" [dim]({field.default})[/]"
        lines.append(f"[bold]{name}[/]  {field.description}{default}")
    lines.append(
        "[bold]recipe[/]  hyper-parameters, with protocol=paper, which chooses the epoch on test (add "
        f"protocol=clean for your own data): {', '.join(RECIPES)}"
    )
    return "\n\n".join(lines)
