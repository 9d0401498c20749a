"""FAIL_TO_PASS tests of a repository: the named tests that fail now."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from regrade.datasets.errors import UserError
from regrade.datasets.node_ids import file_of
from regrade.evaluators.execution.hanging_tests import STOPPED
from regrade.evaluators.task_curation.baseline_results import Baseline
from regrade.rewards.evidence import TestStatus

ALL = "all"
"""As a name: every test that fails in every run."""


def resolve_fail_to_pass(names: Sequence[str], baseline: Baseline) -> tuple[str, ...]:
    """The ids of the named FAIL_TO_PASS tests: a class or file stands for its tests that fail now.

    Raises:
        UserError: there is no such test, or it is unusable because it passes already or sometimes.
    """
    tests = dict.fromkeys((*baseline.stable, *baseline.flaky, *baseline.failing))
    fail_to_pass: dict[str, None] = {}
    for name in names:
        if name == ALL:
            fail_to_pass.update(dict.fromkeys(_all_failing(baseline)))
            continue
        below = [test for test in tests if test == name or test.startswith((f"{name}::", f"{name}["))]
        failing = [test for test in below if fails(test, baseline)]
        flaky = [test for test in below if test in baseline.flaky]
        if below and not failing:
            if flaky:
                raise UserError(
                    f"the FAIL_TO_PASS test {flaky[0]!r} passes in some runs only, or has another id in each run "
                    "(a random value, an address, a date): name a stable one"
                )
            raise UserError(
                f"the FAIL_TO_PASS test {name!r} passes already (or is skipped): name a test that fails now"
            )
        if not below and file_of(name) not in baseline.collection_errors:
            close = [test for test in tests if test.endswith(f"::{name}")]
            close = close or difflib.get_close_matches(name, tests, n=1, cutoff=0.8)
            advice = f"did you mean {close[0]!r}?" if close else "pass its id as pytest prints it"
            raise UserError(
                f"the repository has no test {name!r}: {advice} (Tests that a patch adds are not used; add the "
                "test to the repository first.)"
            )
        fail_to_pass.update(dict.fromkeys(failing or [name]))
    return tuple(fail_to_pass)


def unnamed_failing(fail_to_pass: Sequence[str], baseline: Baseline) -> tuple[str, ...]:
    """The tests that fail in every run and that no FAIL_TO_PASS names; without those that never end."""
    left_out = {*fail_to_pass, *(test for test, seconds in baseline.slow_tests.items() if seconds == STOPPED)}
    return tuple(test for test in baseline.failing if fails(test, baseline) and test not in left_out)


def _all_failing(baseline: Baseline) -> list[str]:
    failing = [test for test in baseline.failing if fails(test, baseline)]
    if not failing:
        raise UserError("`fail_to_pass=all`: no test fails in every run; leave the option out, or name a test")
    return failing


def fails(test: str, baseline: Baseline) -> bool:
    """Does the test fail at the base? (A skipped test does not.)"""
    return test in baseline.failing and baseline.outcomes[test].status in (TestStatus.FAILED, TestStatus.ERROR)
