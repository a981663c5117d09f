"""One command for the first GPU that the kernels meet.

    python benchmarks/gpu_first_contact.py                       everything, about two hours
    python benchmarks/gpu_first_contact.py --resume              what did not pass before
    python benchmarks/gpu_first_contact.py --only tests memcheck some steps; the others count as not run
    python benchmarks/gpu_first_contact.py --without quack cuVS  peers that need not be there
    python benchmarks/gpu_first_contact.py --device virtual      dry run on the virtual GPU
    python benchmarks/gpu_first_contact.py --device cpu          dry run of the script itself

Every step is a row of results.md in the output folder: passed, FAILED, missing (a tool, a package, memory or
time was lacking) or not run. Exits with 0 only if all steps passed; a step that checked nothing has failed.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path

from first_contact import context as contexts
from first_contact import environment, operator_tests, sanitizer, stability
from first_contact.agreement import agreement
from first_contact.context import Context
from first_contact.isolate import Step, run_here, run_isolated
from first_contact.large import large_tables
from first_contact.models import models
from first_contact.outcome import Outcome
from first_contact.record import Record
from first_contact.timings import timings, worker

MINUTE = 60.0


def steps() -> dict[str, tuple[Step, float]]:
    """In order, each with the seconds after which it counts as hung, beyond what --minutes allows."""

    def sanitize(tool: str) -> Step:
        return lambda context: sanitizer.sanitize(context, tool)

    return {
        "environment": (environment.environment, 5 * MINUTE),
        "registration": (environment.registration, 5 * MINUTE),
        "peers": (environment.peers, 10 * MINUTE),
        "agreement": (agreement, 10 * MINUTE),
        "tests": (operator_tests.operator_tests, 60 * MINUTE),
        **{tool: (sanitize(tool), 65 * MINUTE) for tool in sanitizer.TOOLS},
        "determinism": (stability.determinism, 30 * MINUTE),
        "graph capture": (stability.graph_capture, 10 * MINUTE),
        "no waiting": (stability.no_waiting, 10 * MINUTE),
        "large tables": (large_tables, 20 * MINUTE),
        "timings": (timings, 30 * MINUTE),
        "models": (models, 5 * MINUTE),
    }


def inner(name: str, context: Context, argument: str) -> None:
    """A step, or the timings' worker, in a process of its own."""
    if name == "timings-worker":
        contexts.load(context.device)
        worker(context, json.loads(argument))
        return
    outcome = run_here(steps()[name][0], context)
    Path(argument).write_text(json.dumps(outcome.saved()))


def run_steps(
    record: Record,
    chosen: dict[str, tuple[Step, float]],
    run: Callable[[str, Step, float], Outcome],
    kept: list[str],
) -> int:
    record.write()
    for name, (step, seconds) in chosen.items():
        if name in kept:
            print(f"{name:14s} passed before", flush=True)
            continue
        start = time.monotonic()
        outcome = run(name, step, seconds)
        record.store(name, outcome, time.monotonic() - start)
        print(f"{name:14s} {outcome.status:10s} {outcome.summary}", flush=True)
    bad = sum(1 for line in record.summary_cells()[1:] if line[1] in ("FAILED", "missing", "not run"))
    print(
        f"{record.folder / 'results.md'}: {'all steps passed' if record.passed else f'{bad} steps did not pass'}"
    )
    return 0 if record.passed else 1


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1, virtual or cpu")
    parser.add_argument(
        "--output", type=Path, default=Path("first-contact"), help="folder for the results"
    )
    parser.add_argument("--resume", action="store_true", help="keep the steps that passed")
    parser.add_argument(
        "--without", nargs="+", default=[], metavar="NAME",
        choices=[*environment.PEERS, sanitizer.NAME],
        help=f"accept that these are lacking: {', '.join([*environment.PEERS, sanitizer.NAME])}",
    )  # fmt: skip
    parser.add_argument("--only", nargs="+", default=[], metavar="STEP", choices=list(steps()))
    parser.add_argument("--minutes", type=float, default=90.0, help="for the timings")
    parser.add_argument("--tests", nargs="+", default=[], help="other tests than the operators'")
    parser.add_argument("--inner", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.inner:
        name, context, argument = given.inner
        inner(name, Context.from_json(context), argument)
        return 0
    try:
        contexts.load(given.device)
    except RuntimeError as problem:
        print(problem, file=sys.stderr)
        return 2
    context = Context(
        given.device,
        str(given.output.resolve()),
        tuple(given.without),
        given.minutes,
        tuple(given.tests),
    )
    title = (
        given.device
        if context.hardware
        else f"{given.device}: a DRY RUN, which proves nothing of a GPU"
    )
    about = {
        "title": title,
        "command": " ".join(["python", "benchmarks/gpu_first_contact.py", *sys.argv[1:]]),
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
        **environment.key(given.device),
    }
    every = steps()
    chosen = {name: step for name, step in every.items() if not given.only or name in given.only}
    record = Record(given.output, about, environment.key(given.device), list(every))
    try:
        kept = record.resume() if given.resume else []
    except ValueError as problem:
        print(problem, file=sys.stderr)
        return 2
    if not given.resume:
        for name in ("timings.jsonl", "timings-blamed.json"):
            (given.output / name).unlink(missing_ok=True)

    def run(name: str, step: Step, seconds: float) -> Outcome:
        if given.device == "cpu":  # nothing here that a process of its own would protect from
            return run_here(step, context)
        extra = given.minutes * MINUTE if name == "timings" else 0.0
        return run_isolated(name, context, seconds + extra)

    return run_steps(record, chosen, run, kept)


if __name__ == "__main__":
    sys.exit(main())
