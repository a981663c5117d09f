"""What a step of the first contact returns, and when it counts as passed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

PASSED = "passed"
FAILED = "FAILED"
MISSING = "missing"  # could not be done here: a tool, a package, memory or time is lacking
LEFT_OUT = "left out"  # by --without, on purpose
NOT_RUN = "not run"
ELSEWHERE = "not on "  # + device: only hardware has it; dry runs only
GOOD = (PASSED, LEFT_OUT)


def is_bad(status: str) -> bool:
    return status not in GOOD and not status.startswith(ELSEWHERE)


@dataclass
class Check:
    name: str
    status: str
    note: str = ""


@dataclass
class Table:
    title: str
    cells: list[list[str]]  # header first


@dataclass
class Outcome:
    checks: list[Check] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    data: dict[str, Any] = field(default_factory=dict)
    note: str = ""  # says more than how many checks passed, where they did

    @property
    def status(self) -> str:
        """The worst of the checks. Without any, or with none that passed, nothing was shown."""
        found = [check.status for check in self.checks]
        for bad in (FAILED, NOT_RUN, MISSING):
            if bad in found:
                return bad
        if PASSED in found:
            return PASSED
        return found[0] if found else FAILED

    @property
    def summary(self) -> str:
        """One line: how many passed, and the first that did not."""
        if not self.checks:
            return "nothing was checked"
        if self.note and self.status == PASSED:
            return self.note
        counts = {s: [c.status for c in self.checks].count(s) for s in (PASSED, FAILED, MISSING)}
        others = len(self.checks) - sum(counts.values())
        parts = [f"{n} {status}" for status, n in counts.items() if n]
        parts += [f"{others} left out or only on hardware"] if others else []
        worst = next((c for c in self.checks if c.status == self.status and is_bad(c.status)), None)
        if worst is not None:
            parts.append(f"{worst.name}: {worst.note}" if worst.note else worst.name)
        elif len(self.checks) == 1 and self.checks[0].note:
            parts = [self.checks[0].note]
        return "; ".join(parts)

    def saved(self) -> dict[str, Any]:
        return {"status": self.status, "summary": self.summary, **asdict(self)}

    @classmethod
    def restored(cls, saved: dict[str, Any]) -> Outcome:
        return cls(
            [Check(**check) for check in saved["checks"]],
            [Table(**table) for table in saved["tables"]],
            saved["data"],
            saved["note"],
        )

    @classmethod
    def only(cls, status: str, note: str) -> Outcome:
        return cls([Check("step", status, note)])


def check(name: str, good: bool, note: str = "") -> Check:
    return Check(name, PASSED if good else FAILED, note)


def attempt(name: str, function: Callable[[], str]) -> Check:
    """Passes with the note that the function returns; any exception fails it."""
    try:
        return Check(name, PASSED, function())
    except Exception as problem:
        return Check(name, FAILED, f"{type(problem).__name__}: {problem}"[:500])
