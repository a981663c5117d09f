"""A step in a process of its own: after an illegal access a process can do nothing more on the GPU, and a
kernel that hangs would take the whole run with it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from first_contact.context import Context, load
from first_contact.outcome import FAILED, Outcome

SCRIPT = Path(__file__).parents[1] / "gpu_first_contact.py"
Step = Callable[[Context], Outcome]


def run_here(step: Step, context: Context) -> Outcome:
    try:
        load(context.device)
        return step(context)
    except Exception as problem:
        last = traceback.format_exc().strip().splitlines()[-3:]
        return Outcome.only(
            FAILED, f"{type(problem).__name__}: {problem} ({' / '.join(x.strip() for x in last[:-1])})"
        )


def kill_group(process: subprocess.Popen[bytes]) -> None:
    os.killpg(process.pid, signal.SIGKILL)  # its own session: it and what it started
    process.wait()


def run_isolated(name: str, context: Context, seconds: float) -> Outcome:
    """The step's outcome; FAILED when its process crashed, hung, or left without one."""
    folder = context.folder / "steps"
    folder.mkdir(parents=True, exist_ok=True)
    file = name.replace(" ", "-")
    result, log = folder / f"{file}.json", folder / f"{file}.log"
    result.unlink(missing_ok=True)
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, str(SCRIPT), "--inner", name, context.to_json(), str(result)],
            stdout=out, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            kill_group(process)
            return Outcome.only(FAILED, f"killed after {seconds:.0f} s; {tail(log)}")
        except BaseException:
            kill_group(process)
            raise
    if code != 0 or not result.exists():
        return Outcome.only(FAILED, f"its process ended with {code}; {tail(log)}")
    return Outcome.restored(json.loads(result.read_text()))


def tail(log: Path, lines: int = 3) -> str:
    text = log.read_text(errors="replace").strip().splitlines()[-lines:]
    return f"{log.name}: " + " / ".join(line.strip() for line in text)[-600:]
