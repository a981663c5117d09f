"""Times beside every peer. A worker process measures case after case; when it crashes or hangs, the
contender it was at is put down for that and left out, and another worker goes on from there."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from gpu_info import ClockLog
from throughput_case import OURS, is_ours
from throughput_gpu import GpuMachine
from throughput_measure import CpuMachine, Machine, measure
from throughput_report import Row, first_line, one_line, table

from first_contact.context import Context
from first_contact.isolate import SCRIPT, tail
from first_contact.outcome import FAILED, MISSING, PASSED, Check, Outcome, Table
from first_contact.timing_plan import Planned, dry_plan, full_plan

PREPARING = "the case itself"
STALLED_AFTER = 600.0  # seconds at one contender; torch.compile and autotuners take minutes
# What our results may be off by: gross errors only, the tests hold the budgets. Of the gradients' norm;
# for top-k the share of wrong ids.
ALLOWED = {"float32": 1e-4, "our tf32": 4e-3, "float16": 4e-3, "our bfloat16": 2e-2, "bfloat16": 2e-2}


class Journal:
    """timings.jsonl: a line for each case that is done. Also which contender is at work, and which were
    put down for ending a worker."""

    def __init__(self, folder: Path):
        self.lines, self.progress = folder / "timings.jsonl", folder / "steps" / "timings-progress"
        self.blamed_file = folder / "timings-blamed.json"
        self.progress.parent.mkdir(parents=True, exist_ok=True)

    def rows(self) -> dict[str, list[Row]]:
        if not self.lines.exists():
            return {}
        done = {}
        for line in self.lines.read_text().splitlines():
            saved = json.loads(line)  # one a case
            done[saved["case"]] = [Row.restored(row) for row in saved["rows"]]
        return done

    def add(self, name: str, rows: list[Row]) -> None:
        with self.lines.open("a") as file:
            file.write(json.dumps({"case": name, "rows": [row.saved() for row in rows]}) + "\n")

    def blamed(self) -> dict[str, dict[str, str]]:
        return json.loads(self.blamed_file.read_text()) if self.blamed_file.exists() else {}

    def blame(self, case: str, contender: str, why: str) -> None:
        known = self.blamed()
        known.setdefault(case, {})[contender] = why
        self.blamed_file.write_text(json.dumps(known, indent=1))

    def forget_failures(self) -> None:
        """Before a run: what failed of ours gets another chance; what peers did to a worker is known."""
        done = {case: rows for case, rows in self.rows().items() if not ours_failed(rows)}
        self.lines.write_text("")
        for case, rows in done.items():
            self.add(case, rows)
        known = self.blamed()
        for case, contenders in known.items():
            known[case] = {c: why for c, why in contenders.items() if not is_ours(c) and c != PREPARING}
        self.blamed_file.write_text(json.dumps(known, indent=1))


def ours_failed(rows: list[Row]) -> bool:
    return any(is_ours(row.contender) and row.failure for row in rows)


def worker(context: Context, given: dict[str, Any]) -> None:
    """In its own process: measures the cases it is given until they, or its time, are used up."""
    device = torch.device(context.device)
    machine: Machine = GpuMachine(device) if context.hardware else CpuMachine(1)
    journal = Journal(context.folder)
    for saved in given["cases"]:
        planned = Planned(**saved)
        if time.time() > given["until"]:
            return
        blamed = given["blamed"].get(planned.name, {})

        def progress(contender: str, planned: Planned = planned) -> None:
            journal.progress.write_text(f"{planned.name}\n{contender}")

        progress(PREPARING)
        with ClockLog(device) as log:
            try:
                case = planned.make(device)
                rows = measure(case, machine, given["seconds"], blamed, progress)
            except Exception as problem:
                rows = [failed_row(planned, OURS, first_line(problem))]
                traceback.print_exc()
            machine.recover()
        rows += [failed_row(planned, name, why) for name, why in blamed.items()]
        for row in rows:
            row.clocks = log.summary if context.hardware else ""
            print(one_line(row), flush=True)
        journal.add(planned.name, rows)


def failed_row(planned: Planned, contender: str, why: str) -> Row:
    return Row(planned.operation, planned.name, "", 0, contender, planned.dtype, failure=why)


def watch(process: subprocess.Popen[bytes], progress: Path) -> str | None:
    """None when the worker ended well, otherwise how it ended."""
    last, since = "", time.monotonic()
    while True:
        try:
            code = process.wait(1.0)
            return None if code == 0 else f"its process ended with {code}"
        except subprocess.TimeoutExpired:
            now = progress.read_text() if progress.exists() else ""
            if now != last:
                last, since = now, time.monotonic()
            if time.monotonic() - since > STALLED_AFTER:
                process.kill()
                process.wait()
                return f"killed after {STALLED_AFTER:.0f} s without a sign of life"


def drive(context: Context, plan: list[Planned], journal: Journal, until: float) -> None:
    seconds = 2.0 if context.hardware else 0.02
    log = context.folder / "steps" / "timings-worker.log"
    while True:
        done = journal.rows()
        pending = [p for p in plan if p.name not in done]
        if not pending or time.time() > until:
            return
        given = {
            "cases": [asdict(p) for p in pending],
            "blamed": journal.blamed(),
            "until": until,
            "seconds": seconds,
        }
        journal.progress.write_text("")
        with log.open("ab") as out:
            process = subprocess.Popen(
                [sys.executable, str(SCRIPT), "--inner", "timings-worker", context.to_json(), json.dumps(given)],
                stdout=out, stderr=subprocess.STDOUT,
            )  # fmt: skip
            ended = watch(process, journal.progress)
        if ended is None:
            return
        case, _, contender = journal.progress.read_text().partition("\n")
        if not case:
            raise RuntimeError(f"the worker did not start: {ended}; {tail(log)}")
        why = f"{ended}; {tail(log, 1)}"
        journal.blame(case, contender or PREPARING, why)
        if contender in ("", PREPARING):  # nothing is left of the case without it
            planned = next(p for p in plan if p.name == case)
            journal.add(case, [failed_row(planned, OURS, why)])


def judge(planned: Planned, rows: list[Row] | None) -> Check:
    if rows is None:
        return Check(planned.name, MISSING, "out of time; go on with --resume")
    ours = [row for row in rows if is_ours(row.contender)]
    for row in ours:
        if row.failure:
            return Check(planned.name, FAILED, f"{row.contender}: {row.failure}")
        allowed = ALLOWED.get(row.contender, ALLOWED[planned.dtype])
        if planned.operation == "top-k":
            allowed = 0.0
        if not math.isnan(row.error) and row.error > allowed:
            note = f"{row.contender} is off by {row.error:.1e}, allowed is {allowed:.0e}"
            return Check(planned.name, FAILED, note)
        if math.isnan(row.milliseconds):
            return Check(planned.name, FAILED, f"{row.contender} has no time")
    if not ours:
        return Check(planned.name, FAILED, "we are not among the contenders")
    best = max((r.over_best_peer for r in ours if not math.isnan(r.over_best_peer)), default=math.nan)
    return Check(planned.name, PASSED, f"{best:.2f} x best peer")


def timings(context: Context) -> Outcome:
    plan = list(full_plan() if context.hardware else dry_plan())
    too_large: list[Planned] = []
    if context.hardware:
        memory = torch.cuda.mem_get_info(torch.device(context.device))[1]
        too_large = [p for p in plan if p.bytes > 0.95 * memory]
        plan = [p for p in plan if p not in too_large]
    journal = Journal(context.folder)
    journal.forget_failures()
    drive(context, plan, journal, time.time() + 60 * context.minutes)
    done = journal.rows()
    checks = [judge(p, done.get(p.name)) for p in plan]
    rows = [row for p in plan for row in done.get(p.name, [])]
    rows += [failed_row(p, OURS, f"skipped: needs {p.bytes / 2**30:.0f} GiB") for p in too_large]
    shown = [Table("Times", table(rows))] if rows else []
    clocks = {f"{r.operation}, {r.shape}, {r.dtype}": r.clocks for r in rows if r.clocks}
    if clocks:
        shown.append(Table("Clocks", [["case", "clocks"], *[[k, v] for k, v in clocks.items()]]))
    return Outcome(checks, shown, {"rows": [row.saved() for row in rows]})
