"""The device's operators against the CPU's, on the same inputs: two implementations that share no kernel."""

from __future__ import annotations

import torch
from torch import Tensor

from first_contact.calls import MEDIUM, TINY, Call, detached, every_call
from first_contact.context import Context
from first_contact.outcome import Outcome, attempt
from first_contact.stability import virtual_findings

# Of an output's norm. Far above what either side's budget allows (tests/budget.py has those): this step
# looks for what is wrong, not for what is imprecise.
ALLOWED = {"float32": 1e-4, "float16": 4e-3, "bfloat16": 2e-2}
# Ids and ranks change places with others of the same score but for rounding: of 20,000 items, 1 % of
# the ranks have one within 1e-7 of theirs.
ALLOWED_INTEGERS = 0.05


def compare(call: Call, twins: dict[str, Call]) -> str:
    found = detached(call.run())
    expected = detached(twins[call.name].run())
    assert len(found) == len(expected), f"{len(found)} outputs, expected {len(expected)}"
    allowed = ALLOWED[call.name.rpartition(", ")[2]]
    worst = 0.0
    for position, (x, y) in enumerate(zip(found, expected, strict=True)):
        x = x.cpu()
        assert x.shape == y.shape, f"output {position} is {tuple(x.shape)}, expected {tuple(y.shape)}"
        assert x.dtype == y.dtype, f"output {position} is {x.dtype}, expected {y.dtype}"
        worst = max(worst, difference(x, y, position, allowed))
    return f"{worst:.1e} of the norm"


def difference(x: Tensor, y: Tensor, position: int, allowed: float) -> float:
    if not x.is_floating_point():
        off = float((x != y).double().mean())
        assert off <= ALLOWED_INTEGERS, f"output {position}: {off:.1%} of the integers differ"
        return 0.0
    x, y = x.double(), y.double()
    assert bool(x.isfinite().all()), f"output {position} is not finite"
    off = float((x - y).norm() / y.norm().clamp_min(1e-300))
    assert off <= allowed, (
        f"output {position} is off by {off:.1e} of its norm, allowed is {allowed:.0e}"
    )
    return off


def agreement(context: Context) -> Outcome:
    size = MEDIUM if context.hardware else TINY
    twins = {twin.name: twin for twin in every_call(torch.device("cpu"), size)}
    calls = every_call(torch.device(context.device), size)
    checks = [attempt(call.name, lambda: compare(call, twins)) for call in calls]
    return Outcome(checks + virtual_findings(context))
