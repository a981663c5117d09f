"""Every target by name."""

from __future__ import annotations

from tests.fuzz import adam, graphs, logs, retrieval, runs, sampled, settings, softmax

TARGETS = {
    target.name: target
    for subject in (softmax, sampled, retrieval, graphs, adam, logs, runs, settings)
    for target in subject.TARGETS
}
