"""The operators' tests, run by pytest on the device; its JUnit file is what counts, not its word."""

from __future__ import annotations

import json
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from first_contact.context import ROOT, Context
from first_contact.outcome import Check, Outcome, Table, check

TESTS = (
    "tests/test_fused_softmax.py", "tests/test_sampled_softmax.py", "tests/test_sampled_scores.py",
    "tests/test_retrieval.py", "tests/test_graph.py", "tests/test_precision.py", "tests/test_autograd.py",
)  # fmt: skip
RUNNER = Path(__file__).with_name("pytest_with_proof.py")
# Tests name their device in brackets; -k looks at that.
CHOICE = {"cuda": "cuda", "virtual": "virtual", "cpu": "not virtual and not cuda"}


@dataclass
class Counts:
    passed: int = 0
    failed: int = 0
    skipped: int = 0


def read_junit(path: Path, device: str) -> tuple[dict[str, Counts], Counter[str], list[Check]]:
    """Counts by file, reasons of those skipped, and what did not pass. A test that was skipped for want
    of the device failed."""
    counts: dict[str, Counts] = {}
    reasons: Counter[str] = Counter()
    bad = []
    for case in ElementTree.parse(path).iter("testcase"):
        file = case.get("classname", "").replace("tests.", "", 1)
        count = counts.setdefault(file, Counts())
        name = f"{file}::{case.get('name')}"
        problem = next((p for p in (case.find("failure"), case.find("error")) if p is not None), None)
        skip = case.find("skipped")
        if problem is not None:
            count.failed += 1
            bad.append(check(name, False, (problem.get("message") or "")[:300]))
        elif skip is None:
            count.passed += 1
        else:
            count.skipped += 1
            reasons[(skip.get("message") or "no reason")[:100]] += 1
            if device in (skip.get("message") or ""):
                bad.append(check(name, False, f"skipped on its own device: {skip.get('message')}"))
    return counts, reasons, bad


def operator_tests(context: Context) -> Outcome:
    folder = context.folder.resolve() / "steps"
    folder.mkdir(parents=True, exist_ok=True)
    junit, called = folder / "tests.xml", folder / "tests-calls.json"
    for path in (junit, called):
        path.unlink(missing_ok=True)
    kind = context.device.partition(":")[0]
    command = [
        sys.executable, str(RUNNER), str(called), *(context.tests or TESTS), "-k", CHOICE[kind], "-q",
        "--no-cov", "-p", "no:cacheprovider", f"--junitxml={junit}",
    ]  # fmt: skip
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    (folder / "tests.txt").write_text(answer.stdout + answer.stderr)
    if not junit.exists():
        last = (answer.stdout + answer.stderr).strip().splitlines()[-1:]
        return Outcome([check("pytest", False, f"ended with {answer.returncode}: {' '.join(last)}")])
    counts, reasons, bad = read_junit(junit, kind)
    n_passed = sum(count.passed for count in counts.values())
    calls = json.loads(called.read_text()) if called.exists() else {}
    on_device = calls.get(kind, 0)
    checks = [
        check("pytest", answer.returncode == 0, f"{n_passed} passed, exit status {answer.returncode}"),
        check("tests passed", n_passed > 0, f"{n_passed}, at least one is needed"),
        check(f"operators called on {kind}", on_device > 0, f"calls by device: {calls}"),
        *bad,
    ]
    cells = [["file", "passed", "failed", "skipped"]]
    cells += [[f, str(c.passed), str(c.failed), str(c.skipped)] for f, c in sorted(counts.items())]
    tables = [Table(f"Tests on {context.device}", cells)]
    if reasons:
        shown = [[reason, str(n)] for reason, n in reasons.most_common()]
        tables.append(Table("Skipped", [["why", "tests"], *shown]))
    note = f"{n_passed} tests passed, {reasons.total()} skipped, {on_device} calls of operators"
    return Outcome(checks, tables, note=note)
