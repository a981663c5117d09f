"""results.json and results.md: written before the first step and after every one, so that whatever
ends the run, each step that did not run is a row that says so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from throughput_report import markdown_table

from first_contact.outcome import NOT_RUN, PASSED, Check, Outcome, is_bad


class Record:
    """`about` is for readers; `key` is what results must have in common to be one run's."""

    def __init__(self, folder: Path, about: dict[str, Any], key: dict[str, str], names: list[str]):
        self.folder, self.about, self.key = folder, about, key
        self.seconds: dict[str, float] = {}
        self.outcomes = {name: Outcome([Check("step", NOT_RUN)]) for name in names}

    def resume(self) -> list[str]:
        """Takes over the steps that passed before; ValueError if they are not of the same thing."""
        path = self.folder / "results.json"
        if not path.exists():
            return []
        saved = json.loads(path.read_text())
        for name, value in self.key.items():
            if saved["key"].get(name) != value:
                raise ValueError(
                    f"{path} is of another {name} ({saved['key'].get(name)}, now {value}); "
                    "run without --resume, or with another --output"
                )
        taken = []
        for name, step in saved["steps"].items():
            if name in self.outcomes and not is_bad(step["status"]):
                self.outcomes[name] = Outcome.restored(step)
                self.seconds[name] = step["seconds"]
                taken.append(name)
        return taken

    def store(self, name: str, outcome: Outcome, seconds: float) -> None:
        self.outcomes[name], self.seconds[name] = outcome, seconds
        self.write()

    def write(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        steps = {
            name: {**outcome.saved(), "seconds": round(self.seconds.get(name, 0.0), 1)}
            for name, outcome in self.outcomes.items()
        }
        saved = {"about": self.about, "key": self.key, "passed": self.passed, "steps": steps}
        partial = self.folder / "results.json.part"
        partial.write_text(json.dumps(saved, indent=1) + "\n")
        partial.replace(self.folder / "results.json")  # never half a file
        (self.folder / "results.md").write_text(self.markdown())

    @property
    def passed(self) -> bool:
        return bool(self.outcomes) and not any(is_bad(o.status) for o in self.outcomes.values())

    def summary_cells(self) -> list[list[str]]:
        cells = [["step", "status", "seconds", "what"]]
        for name, outcome in self.outcomes.items():
            seconds = f"{self.seconds[name]:.0f}" if name in self.seconds else ""
            cells.append([name, outcome.status, seconds, outcome.summary])
        return cells

    def markdown(self) -> str:
        text = [f"# First contact: {self.about['title']}\n\n"]
        text += [f"* {name}: {value}\n" for name, value in self.about.items() if name != "title"]
        text += ["\n", markdown_table(self.summary_cells())]
        for name, outcome in self.outcomes.items():
            listed = [c for c in outcome.checks if c.status != PASSED and c.name != "step"]
            if not listed and not outcome.tables:
                continue
            text.append(f"\n## {name}\n\n")
            text += [f"* {c.status}: {c.name}{': ' + c.note if c.note else ''}\n" for c in listed]
            for table in outcome.tables:
                text += [f"\n{table.title}\n\n", markdown_table(table.cells)]
        return "".join(text)
