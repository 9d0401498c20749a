"""Evidence to reward: built by hand, since rewards are pure functions of it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, settings

from regrade.rewards import TestOutcome, TestRun, TestStatus

# Loaded machines must not fail a test, and a failure must come back on the next run.
settings.register_profile("steady", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("steady")


@pytest.fixture
def run() -> Callable[..., TestRun]:
    """A TestRun from `{test id: status}` for FAIL_TO_PASS and PASS_TO_PASS; failures carry a message."""

    def make(
        wanted: dict[str, TestStatus] | None = None, kept: dict[str, TestStatus] | None = None, **also: object
    ) -> TestRun:
        statuses = {**(wanted or {}), **(kept or {})}
        outcomes = {
            test: TestOutcome(status, "" if status is TestStatus.PASSED else f"assert 1 == 2  # in {test}")
            for test, status in statuses.items()
        }
        return TestRun(outcomes=outcomes, fail_to_pass=tuple(wanted or {}), pass_to_pass=tuple(kept or {}), **also)  # type: ignore[arg-type]

    return make
