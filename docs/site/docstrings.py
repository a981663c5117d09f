"""Docstrings as the Python API page shows them: `::` before an example is not Markdown."""

from __future__ import annotations

import re
from typing import Any

import griffe


class Examples(griffe.Extension):
    """`text::` and an indented block after it become text and a block of code."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Called for every module, class, function and attribute."""
        if obj.docstring is not None:
            obj.docstring.value = re.sub(r"(?m)^( *)(.*?)::$", _opened, obj.docstring.value)


def _opened(found: re.Match[str]) -> str:
    return found[1] + (found[2] + ":" if found[2] else "")
