"""compute-sanitizer's four tools over every operator, each first shown a bug that it must report: a tool
that is not attached to the process would find nothing either."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from first_contact.context import Context
from first_contact.outcome import ELSEWHERE, LEFT_OUT, MISSING, Check, Outcome, check
from first_contact.tools import find_tool

TOOLS = ("memcheck", "racecheck", "initcheck", "synccheck")
TARGET = Path(__file__).with_name("sanitizer_target.py")
NAME = "compute-sanitizer"
FOUND_ERRORS = 86
NO_ERRORS = re.compile(
    r"ERROR SUMMARY: 0 errors|RACECHECK SUMMARY: 0 hazards displayed \(0 errors, 0 warnings\)"
)
SECONDS = 1800


def run_tool(program: str, tool: str, context: Context, inject: bool) -> tuple[int, str]:
    """Exit status and output. Without the caching allocator, every tensor has bounds of its own."""
    command = [
        program,
        "--tool",
        tool,
        "--error-exitcode",
        str(FOUND_ERRORS),
        "--target-processes",
        "all",
    ]
    command += [sys.executable, str(TARGET), context.device, *(["--inject", tool] if inject else [])]
    answer = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=SECONDS,
        env=os.environ | {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"},
    )  # fmt: skip
    text = answer.stdout + answer.stderr
    name = f"{tool}{'-injected' if inject else ''}.txt"
    (context.folder / "steps" / name).write_text(text)
    return answer.returncode, text


def judge_injected(code: int, text: str) -> Check:
    reported = code == FOUND_ERRORS
    last = " ".join(text.strip().splitlines()[-1:])
    return check(
        "a bug on purpose is reported", reported, "" if reported else f"status {code}: {last}"[:300]
    )


def judge(code: int, text: str) -> Check:
    """Good only if all calls were made, the tool summed up no errors, and the status agrees."""
    calls = re.search(r"^calls made: (\d+)$", text, re.MULTILINE)
    if calls is None or int(calls[1]) == 0:
        last = " ".join(text.strip().splitlines()[-1:])
        return check("every operator", False, f"the calls were not all made: {last}"[:300])
    clean = NO_ERRORS.search(text) is not None
    if code == 0 and clean:
        return check("every operator", True, f"{calls[1]} calls, no errors")
    kernels = sorted(set(re.findall(r"^=+ +(?:at|in) ([\w:<>~]+)", text, re.MULTILINE)))
    where = f"; in {', '.join(kernels)[:200]}" if kernels else ""
    summary = " ".join(re.findall(r"^=+ (.*SUMMARY.*)$", text, re.MULTILINE)) or "no summary"
    return check("every operator", False, f"status {code}, {summary}{where}")


def sanitize(context: Context, tool: str) -> Outcome:
    if NAME in context.without:
        return Outcome.only(LEFT_OUT, "--without")
    if not context.hardware:
        return Outcome.only(ELSEWHERE + context.place, "")
    program = find_tool(NAME)
    if program is None:
        return Outcome.only(
            MISSING, f"{NAME} is not installed; it comes with the CUDA toolkit, or --without {NAME}"
        )
    (context.folder / "steps").mkdir(parents=True, exist_ok=True)
    return Outcome(
        [
            judge_injected(*run_tool(program, tool, context, inject=True)),
            judge(*run_tool(program, tool, context, inject=False)),
        ]
    )
