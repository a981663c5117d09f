"""What is fuzzed: a strategy of cases and the check that each of them must pass."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis.strategies import SearchStrategy

CORPUS = Path(__file__).parent / "corpus"


@dataclass(frozen=True)
class Target:
    """Attributes:
    cases: of plain data, so that a case can be kept and read.
    check: raises for a finding; otherwise returns what came of the case.
    reaches: files of the package that the cases are after.
    """

    name: str
    cases: SearchStrategy[Any]
    check: Callable[[Any], str]
    reaches: tuple[str, ...]

    def corpus(self) -> Iterator[Any]:
        """Cases that were kept."""
        path = CORPUS / f"{self.name}.jsonl"
        if path.is_file():
            yield from map(json.loads, path.read_text().splitlines())


def refused(problem: BaseException) -> str:
    """An error as an outcome: its message without what differs from case to case."""
    text = re.sub(r"/\S*/(?=\w)", "", str(problem))  # folders
    text = re.sub(r"\b(a|train|test|valid)(\.\w+)+", "file", text)
    text = re.sub(r"'[^']*'|\"[^\"]*\"|b'.*", "'…'", text.partition("\n")[0])
    text = re.sub(r"[^\x20-\x7e…]+", "?", text)
    text = re.sub(r"[-+]?\b(nan|inf|\d[\d.,e+-]*)\b", "#", text)
    return f"{type(problem).__name__}: {text[:100]}"
