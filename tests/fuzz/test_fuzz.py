"""A slice of the fuzzing that pytest can afford: what was found interesting before, and some more."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings

from tests.fuzz.target import CORPUS
from tests.fuzz.targets import TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_corpus(name: str) -> None:
    target = TARGETS[name]
    cases = list(target.corpus())
    outcomes = {target.check(case) for case in cases}
    assert len(outcomes) >= min(5, len(cases)) > 0


@pytest.mark.parametrize("name", TARGETS)
def test_new_cases(name: str) -> None:
    target = TARGETS[name]

    @settings(
        max_examples=30,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(target.cases)
    def run(case: object) -> None:
        target.check(case)

    run()


def test_every_corpus_has_a_target() -> None:
    assert {path.stem for path in CORPUS.glob("*.jsonl")} <= set(TARGETS)
