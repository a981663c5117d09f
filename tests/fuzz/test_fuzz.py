"""A slice of the fuzzing that pytest can afford: what was found interesting before, and some more."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings

from tests.fuzz.target import CORPUS
from tests.fuzz.targets import TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_corpus(name: str) -> None:
    target = TARGETS[name]
    outcomes = {target.check(case) for case in target.corpus()}
    assert len(outcomes) >= 5


@pytest.mark.parametrize("name", TARGETS)
def test_new_cases(name: str) -> None:
    target = TARGETS[name]

    @settings(
        max_examples=20,
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
