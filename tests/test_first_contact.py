"""The script for the first GPU cannot pass in silence: what fails, is missing or did not run is a row, and the
exit code says so."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gpu_first_contact as script
import pytest
import torch
from first_contact import environment, large, operator_tests, sanitizer, timings
from first_contact.calls import TINY, Call, every_call, same_bits
from first_contact.context import Context
from first_contact.isolate import run_here, run_isolated
from first_contact.outcome import (
    ELSEWHERE,
    FAILED,
    LEFT_OUT,
    MISSING,
    NOT_RUN,
    PASSED,
    Check,
    Outcome,
    attempt,
)
from first_contact.record import Record
from first_contact.stability import repeat
from first_contact.timing_plan import Planned, dry_plan, full_plan
from throughput_case import OURS
from throughput_report import Row

import adaptau_ext as ax

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"

Run = Callable[[Context], Outcome]


def run_all(folder: Path, steps: dict[str, Run], resume: bool = False) -> tuple[int, dict[str, Any]]:
    """The exit code and results.json of these steps."""
    context = Context("cpu", str(folder))
    record = Record(folder, {"title": "test"}, {"commit": "1"}, list(steps))
    kept = record.resume() if resume else []
    chosen = {name: (step, 10.0) for name, step in steps.items()}
    code = script.run_steps(record, chosen, lambda name, step, seconds: run_here(step, context), kept)
    return code, json.loads((folder / "results.json").read_text())


def good(context: Context) -> Outcome:
    return Outcome([Check("one", PASSED)])


def raising(context: Context) -> Outcome:
    raise ValueError("no such luck")


@pytest.mark.parametrize(
    ("outcome", "status", "code"),
    [
        (Outcome([Check("a", PASSED), Check("b", PASSED)]), PASSED, 0),
        (Outcome([]), FAILED, 1),
        (Outcome([Check("a", PASSED), Check("b", FAILED, "why")]), FAILED, 1),
        (Outcome([Check("a", PASSED), Check("b", MISSING)]), MISSING, 1),
        (Outcome([Check("a", MISSING), Check("b", FAILED)]), FAILED, 1),
        (Outcome([Check("a", PASSED), Check("b", NOT_RUN)]), NOT_RUN, 1),
        (Outcome([Check("a", PASSED), Check("b", LEFT_OUT)]), PASSED, 0),
        (Outcome([Check("a", LEFT_OUT)]), LEFT_OUT, 0),
        (Outcome([Check("a", ELSEWHERE + "a CPU")]), ELSEWHERE + "a CPU", 0),
    ],
)
def test_status_and_exit_code(outcome: Outcome, status: str, code: int, tmp_path: Path) -> None:
    found, results = run_all(tmp_path, {"first": good, "second": lambda context: outcome})
    assert found == code
    assert results["steps"]["second"]["status"] == status
    assert results["passed"] is (code == 0)
    assert f"| second | {status} |" in (tmp_path / "results.md").read_text()


def test_a_raising_step_is_a_row_and_the_rest_runs(tmp_path: Path) -> None:
    code, results = run_all(tmp_path, {"bad": raising, "after": good})
    assert code == 1
    assert results["steps"]["bad"]["status"] == FAILED
    assert "ValueError: no such luck" in results["steps"]["bad"]["summary"]
    assert results["steps"]["after"]["status"] == PASSED


def test_results_exist_before_and_during_the_run(tmp_path: Path) -> None:
    def interrupted(context: Context) -> Outcome:
        saved = json.loads((tmp_path / "results.json").read_text())
        assert saved["steps"]["first"]["status"] == PASSED
        assert saved["steps"]["last"]["status"] == NOT_RUN
        assert saved["passed"] is False
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_all(tmp_path, {"first": good, "ending": interrupted, "last": good})
    assert "| last | not run |" in (tmp_path / "results.md").read_text()


def test_resume_repeats_only_what_did_not_pass(tmp_path: Path) -> None:
    calls = []

    def counted(context: Context) -> Outcome:
        calls.append(1)
        return good(context)

    assert run_all(tmp_path, {"first": counted, "second": raising})[0] == 1
    code, results = run_all(tmp_path, {"first": counted, "second": good}, resume=True)
    assert code == 0 and len(calls) == 1
    assert results["steps"]["second"]["status"] == PASSED


def test_resume_refuses_results_of_another_commit(tmp_path: Path) -> None:
    run_all(tmp_path, {"first": good})
    record = Record(tmp_path, {"title": "test"}, {"commit": "2"}, ["first"])
    with pytest.raises(ValueError, match=r"another commit \(1, now 2\); run without --resume"):
        record.resume()


def test_a_crash_and_a_hang_fail_their_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / "step.py"
    monkeypatch.setattr("first_contact.isolate.SCRIPT", fake)
    context = Context("cuda", str(tmp_path))
    fake.write_text(
        "import os, signal; print('on the way', flush=True); os.kill(os.getpid(), signal.SIGSEGV)"
    )
    crashed = run_isolated("no waiting", context, 10.0)
    assert crashed.status == FAILED
    assert "ended with -11" in crashed.summary and "on the way" in crashed.summary
    fake.write_text("import time; time.sleep(60)")
    start = time.monotonic()
    assert "killed after" in run_isolated("no waiting", context, 0.5).summary
    assert time.monotonic() - start < 10
    fake.write_text("")  # ends well, but leaves nothing
    assert run_isolated("no waiting", context, 10.0).status == FAILED


def junit(path: Path, body: str) -> Path:
    path.write_text(f'<testsuites><testsuite name="pytest">{body}</testsuite></testsuites>')
    return path


def test_junit_counts(tmp_path: Path) -> None:
    name = 'classname="tests.test_x" name='
    body = (
        f'<testcase {name}"good"/><testcase {name}"bad"><failure message="1 is not 2"/></testcase>'
        f'<testcase {name}"broken"><error message="no fixture"/></testcase>'
        f'<testcase {name}"data"><skipped message="data set not there"/></testcase>'
        f'<testcase {name}"gpu"><skipped message="cuda is not available"/></testcase>'
    )
    counts, reasons, bad = operator_tests.read_junit(junit(tmp_path / "x.xml", body), "cuda")
    found = counts["test_x"]
    assert (found.passed, found.failed, found.skipped) == (1, 2, 2)
    assert [check.note for check in bad] == [
        "1 is not 2", "no fixture", "skipped on its own device: cuda is not available"
    ]  # fmt: skip
    assert all(check.status == FAILED for check in bad)
    assert reasons == {"data set not there": 1, "cuda is not available": 1}


def test_missing_peers_are_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere = {name: (package, "no_such_module") for name, (package, _) in environment.PEERS.items()}
    monkeypatch.setattr(environment, "PEERS", nowhere)
    outcome = environment.peers(Context("cuda", str(tmp_path), without=("quack",)))
    status = {check.name: check.status for check in outcome.checks}
    assert status.pop("quack") == LEFT_OUT
    assert status and set(status.values()) == {MISSING}
    assert outcome.status == MISSING
    assert "pip install cut-cross-entropy, or --without CCE" in outcome.checks[1].note


def test_a_missing_sanitizer_is_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sanitizer, "find_tool", lambda name: None)
    outcome = sanitizer.sanitize(Context("cuda", str(tmp_path)), "memcheck")
    assert outcome.status == MISSING and "compute-sanitizer is not installed" in outcome.summary
    left_out = Context("cuda", str(tmp_path), without=("compute-sanitizer",))
    assert sanitizer.sanitize(left_out, "memcheck").status == LEFT_OUT


@pytest.mark.parametrize(
    ("code", "text", "status"),
    [
        (0, "calls made: 30\n========= ERROR SUMMARY: 0 errors", PASSED),
        (
            0,
            "calls made: 30\n========= RACECHECK SUMMARY: 0 hazards displayed (0 errors, 0 warnings)",
            PASSED,
        ),
        (0, "calls made: 30", FAILED),  # the tool said nothing: it was not there
        (0, "========= ERROR SUMMARY: 0 errors", FAILED),  # the calls were not made
        (0, "calls made: 0\n========= ERROR SUMMARY: 0 errors", FAILED),
        (86, "calls made: 30\n========= ERROR SUMMARY: 2 errors", FAILED),
        (1, "calls made: 30\n========= ERROR SUMMARY: 0 errors", FAILED),
        (
            0,
            "calls made: 30\n========= RACECHECK SUMMARY: 1 hazard displayed (0 errors, 1 warning)",
            FAILED,
        ),
    ],
)
def test_what_a_sanitizer_says(code: int, text: str, status: str) -> None:
    assert sanitizer.judge(code, text).status == status


def test_an_injected_bug_must_be_reported() -> None:
    assert sanitizer.judge_injected(86, "").status == PASSED
    assert sanitizer.judge_injected(0, "========= ERROR SUMMARY: 0 errors").status == FAILED


def test_determinism_sees_one_changed_bit() -> None:
    x = torch.ones(3)
    results = iter([[x], [x], [torch.tensor([1.0, 1.0, 1.0 + 2**-23])]])
    call = Call("flaky", [], lambda: next(results))
    outcome = attempt(call.name, lambda: repeat(call, 3, Context("cpu", ""), None))
    assert outcome.status == FAILED and "run 2 differs from run 0" in outcome.note
    assert same_bits([torch.tensor(torch.nan)], [torch.tensor(torch.nan)])
    assert not same_bits([torch.tensor(0.0)], [torch.tensor(-0.0)])


def test_every_call_runs() -> None:
    calls = list(every_call(torch.device("cpu"), TINY))
    assert len(calls) == 33
    for call in calls:
        assert all(x.isfinite().all() for x in call.run() if x.is_floating_point()), call.name


# A worker that ends, or hangs, at whatever contender it is told to, unless that was put down before.
FAKE_WORKER = """
import json, sys, time
from pathlib import Path
given, folder = json.loads(sys.argv[4]), Path(json.loads(sys.argv[3])["output"])
for case in given["cases"]:
    name = f"loss 8 x 8, d {{case['d']}}, bfloat16"
    blamed = given["blamed"].get(name, {{}})
    rows = []
    for contender in ("adaptau_ext", "peer"):
        (folder / "steps" / "timings-progress").write_text(name + "\\n" + contender)
        if contender not in blamed and [case["d"], contender] in {crashes!r}:
            sys.exit(3)
        if contender not in blamed and [case["d"], contender] in {hangs!r}:
            time.sleep(60)
        rows.append(dict(operation="loss", shape=name, data="", threads=0, contender=contender,
                         milliseconds=len(given["cases"]), failure=blamed.get(contender, ""), spread=None))
    with (folder / "timings.jsonl").open("a") as file:
        file.write(json.dumps(dict(case=name, rows=rows)) + "\\n")
"""


def fake_timings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, crashes: list[Any], hangs: list[Any]
) -> Outcome:
    script_path = tmp_path / "worker.py"
    script_path.write_text(FAKE_WORKER.format(benchmarks=str(BENCHMARKS), crashes=crashes, hangs=hangs))
    monkeypatch.setattr(timings, "SCRIPT", script_path)
    monkeypatch.setattr(timings, "STALLED_AFTER", 1.5)
    monkeypatch.setattr(timings, "dry_plan", lambda: (Planned("loss", 8, 8, d) for d in (16, 32)))
    return timings.timings(Context("cpu", str(tmp_path)))


def test_a_peer_that_ends_the_worker_is_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = fake_timings(tmp_path, monkeypatch, crashes=[[16, "peer"]], hangs=[])
    assert outcome.status == PASSED
    failures = {
        (r["shape"], r["contender"]): r["failure"] for r in outcome.data["rows"] if r["failure"]
    }
    assert list(failures) == [("loss 8 x 8, d 16, bfloat16", "peer")]
    assert "its process ended with 3" in next(iter(failures.values()))


def test_our_own_hang_fails_the_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = fake_timings(tmp_path, monkeypatch, crashes=[], hangs=[[32, "adaptau_ext"]])
    assert outcome.status == FAILED
    assert "d 32, bfloat16: adaptau_ext: killed after 2 s" in outcome.summary
    # resuming, with the fault mended, repeats that case alone
    outcome = fake_timings(tmp_path, monkeypatch, crashes=[], hangs=[])
    assert outcome.status == PASSED
    assert [r["milliseconds"] for r in outcome.data["rows"]] == [2, 2, 1, 1]


def test_large_tables_know_right_from_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"B": 8, "D": 16, "BORDER": 3000, "M": 4000}.items():
        monkeypatch.setattr(large, name, value)
    u, i = (torch.randn(n, 16, generator=torch.Generator().manual_seed(n)) for n in (8, 4000))
    u, i = u.bfloat16(), i.bfloat16()
    assert "loss off by" in large.loss(u, i) and "loss off by" in large.sampled(u, i)
    planted = large.plant(u, i)
    assert "scores off by" in large.topk(u, i, planted)
    assert large.ranks(u, i, planted) == ""
    with pytest.raises(AssertionError, match="best of user 0"):
        large.topk(u, i, planted.flip(0))
    with pytest.raises(AssertionError, match="ranks of the best"):
        large.ranks(u, i, planted.flip(0))
    wrong = ax.fused_adaptive_softmax
    monkeypatch.setattr(ax, "fused_adaptive_softmax", lambda *a, **k: 1.01 * wrong(*a, **k))
    with pytest.raises(AssertionError, match="exactly"):
        large.loss(u, i)


def row(contender: str = OURS, **values: Any) -> Row:
    return Row("loss", "", "", 0, contender, "bfloat16", **{"milliseconds": 1.0, **values})


@pytest.mark.parametrize(
    ("rows", "status"),
    [
        ([row(), row("torch eager", failure="out of memory")], PASSED),
        ([row(error=1e-3)], PASSED),
        ([row(error=0.1)], FAILED),
        ([row(failure="illegal access")], FAILED),
        ([row(milliseconds=float("nan"))], FAILED),
        ([row("torch eager")], FAILED),
        ([], FAILED),
        (None, MISSING),
    ],
)
def test_verdict_on_a_timed_case(rows: list[Row] | None, status: str) -> None:
    assert timings.judge(Planned("loss", 8, 8, 16), rows).status == status


def test_plan_covers_what_it_should() -> None:
    plan = list(full_plan())
    assert len({p.name for p in plan}) == len(plan)
    losses = [p for p in plan if p.operation == "loss"]
    assert {p.dtype for p in losses} == {"float32", "bfloat16", "float16"}
    assert {p.n_users for p in losses} == {2048, 4096, 8192, 16384}
    assert {p.n_items for p in losses} == {10_240, 102_400, 1_024_000, 10_240_000}
    assert {p.d for p in losses} == {32, 64, 128, 256}
    assert {p.operation for p in plan} == {p.operation for p in dry_plan()}


def test_without_a_gpu_it_says_so() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    answer = subprocess.run(
        [sys.executable, str(BENCHMARKS / "gpu_first_contact.py")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 2
    assert answer.stderr.startswith("--device cuda: PyTorch")


def test_dry_run(tmp_path: Path) -> None:
    """The command itself, with a test that passes and one that fails."""
    tests = tmp_path / "test_mine.py"
    tests.write_text(
        "import adaptau_ext, torch\n"
        "def test_good(): adaptau_ext.topk(torch.eye(3), torch.eye(3), 1)\n"
        "def test_bad(): assert 1 == 2\n"
    )
    answer = subprocess.run(
        [
            sys.executable, str(BENCHMARKS / "gpu_first_contact.py"), "--device", "cpu", "--output",
            str(tmp_path / "out"), "--tests", str(tests), "--only", "environment", "registration", "tests",
        ],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert answer.returncode == 1, answer.stderr
    steps = json.loads((tmp_path / "out" / "results.json").read_text())["steps"]
    status = {name: step["status"] for name, step in steps.items()}
    assert status["environment"] == status["registration"] == PASSED
    assert status["determinism"] == NOT_RUN
    assert status["tests"] == FAILED
    checks = {check["name"]: check["status"] for check in steps["tests"]["checks"]}
    assert checks.pop("tests passed") == checks.pop("operators called on cpu") == PASSED
    assert len(checks) == 2 and set(checks.values()) == {FAILED}
