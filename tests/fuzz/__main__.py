"""python -m tests.fuzz --minutes 60 [--target NAME ...] [--write]

Looks for inputs that a target does not survive, each target in a process of its own: a crash, a hang of
more than a minute, or too much memory is a finding like any other. Cases with new outcomes join
tests/fuzz/corpus; findings go to build/fuzz. With --write, what was counted goes to
benchmarks/results/fuzzing.json, and the table from there to docs/robustness.md. Exits with 1 if anything
was found.
"""

from __future__ import annotations

import argparse
import faulthandler
import importlib
import json
import os
import resource
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[2] / "build" / "fuzz"
LOST = 60  # seconds after which a case hangs
LONGEST = 20_000  # characters of a case that is kept: a checkpoint of a tiny model, as text
MEMORY = 12 << 30  # address space of a process without sanitizers


def explore(name: str, seconds: float, seed: int) -> None:
    """One target, in this process: writes {name}.json, and {name}.case before each case."""
    import coverage

    for module in ("torch", "hypothesis", "pyarrow.parquet", "pydantic", "scipy.sparse", "typer"):
        importlib.import_module(module)  # being measured, imports take twice as long
    measured = coverage.Coverage(branch=True, source_pkgs=["adaptau_ext"], data_file=None)
    measured.start()
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis import seed as seeded

    from tests.fuzz.target import CORPUS, refused
    from tests.fuzz.targets import TARGETS

    target = TARGETS[name]
    if "asan" not in os.environ.get("LD_PRELOAD", ""):
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    outcomes: dict[str, int] = {}
    findings: dict[str, str] = {}  # of each kind the smallest case
    done: set[str] = set()  # kinds that need not be made smaller any more
    old = {json.dumps(case) for case in target.corpus()}
    end = time.monotonic() + seconds

    def one(case: Any) -> None:
        if time.monotonic() > end:
            return
        text = json.dumps(case)
        (FOLDER / f"{name}.case").write_text(text)
        faulthandler.dump_traceback_later(LOST, exit=True)
        try:
            outcome = target.check(case)
        except Exception as problem:
            outcome = f"finding: {refused(problem)}"
            if len(text) <= len(findings.get(outcome, text)):
                findings[outcome] = text
            if outcome not in done:
                raise
        finally:
            faulthandler.cancel_dump_traceback_later()
        if (
            outcome not in outcomes
            and outcome not in findings
            and text not in old
            and len(text) < LONGEST
        ):
            with (CORPUS / f"{name}.jsonl").open("a") as kept:
                kept.write(text + "\n")
        outcomes[outcome] = outcomes.get(outcome, 0) + 1

    CORPUS.mkdir(exist_ok=True)
    for case in target.corpus():
        with suppress(Exception):  # it is among the findings
            one(case)
    for turn in range(10**9):
        if time.monotonic() > end:
            break
        test = seeded(seed + turn)(
            settings(
                max_examples=400,
                deadline=None,
                database=None,
                phases=[Phase.generate, Phase.shrink],
                suppress_health_check=list(HealthCheck),
            )(given(target.cases)(one))
        )
        with suppress(Exception):
            test()
        done |= set(findings)
    measured.stop()
    reached = {}
    for file in target.reaches:
        if file.endswith(".py"):
            analysis = measured._analyze(file).numbers
            reached[file] = [analysis.n_executed + analysis.n_executed_branches,
                             analysis.n_statements + analysis.n_branches]  # fmt: skip
    written = {
        "inputs": sum(outcomes.values()),
        "outcomes": len(outcomes),
        "refused": sum(n for what, n in outcomes.items() if "Error: " in what),
        "reached": reached,
        "findings": findings,
    }
    (FOLDER / f"{name}.json").write_text(json.dumps(written))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--minutes", type=float, default=1, help="in all, shared by the targets")
    parser.add_argument("--target", action="append", help="only these")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--write", metavar="NAME", help="of this part of the table: plain, sanitized")
    parser.add_argument("--explore", help=argparse.SUPPRESS)
    given = parser.parse_args()
    FOLDER.mkdir(parents=True, exist_ok=True)
    if given.explore:
        explore(given.explore, given.minutes * 60, given.seed)
        return 0
    from tests.fuzz import table
    from tests.fuzz.targets import TARGETS

    names = given.target or list(TARGETS)
    results, started = {}, time.monotonic()
    for place, name in enumerate(names):
        left = given.minutes - (time.monotonic() - started) / 60
        minutes = max(left / (len(names) - place), 0.01)
        (FOLDER / f"{name}.json").unlink(missing_ok=True)
        words = ["--explore", name, "--minutes", str(minutes), "--seed", str(given.seed)]
        # threads that wait should not keep others from working
        environment = {**os.environ, "OMP_WAIT_POLICY": "passive"}
        done = subprocess.run(
            [sys.executable, "-m", "tests.fuzz", *words], env=environment, check=False
        )
        path = FOLDER / f"{name}.json"
        if path.exists():
            results[name] = json.loads(path.read_text())
        else:
            died = f"the process ended with {done.returncode}"
            results[name] = {"inputs": 1, "outcomes": 1, "refused": 0, "reached": {},
                             "findings": {died: (FOLDER / f"{name}.case").read_text()}}  # fmt: skip
        results[name]["seconds"] = round(minutes * 60)
        print(
            f"{name}: {results[name]['inputs']} inputs, {len(results[name]['findings'])} findings",
            flush=True,
        )
        for what, case in results[name]["findings"].items():
            print(f"  {what}\n  {case}", flush=True)
    if given.write:
        table.keep(given.write, results, given.seed)
    return 1 if any(result["findings"] for result in results.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
