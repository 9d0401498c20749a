"""Which tests a patch is to mend: those that were named, as far as they fail now."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from regrade.datasets.errors import UserError
from regrade.datasets.node_ids import file_of
from regrade.evaluators.task_curation.baseline import Baseline
from regrade.rewards.evidence import TestStatus


def meant_tests(given: Sequence[str], found: Baseline) -> tuple[str, ...]:
    """The ids that are meant by what is given as FAIL_TO_PASS: a class or file stands for its tests that fail now.

    Raises:
        UserError: there is no such test, or it can't be judged by, since it passes already or sometimes.
    """
    known = dict.fromkeys((*found.stable, *found.flaky, *found.failing))
    wanted: dict[str, None] = {}
    for name in given:
        below = [test for test in known if test == name or test.startswith((f"{name}::", f"{name}["))]
        failing = [test for test in below if fails(test, found)]
        flaky = [test for test in below if test in found.flaky]
        if below and not failing:
            if flaky:
                raise UserError(
                    f"the FAIL_TO_PASS test {flaky[0]!r} passes in some runs and fails in others: it can't be judged by"
                )
            raise UserError(
                f"the FAIL_TO_PASS test {name!r} passes already (or is skipped): name a test that fails now"
            )
        if not below and file_of(name) not in found.collection_errors:
            close = [test for test in known if test.endswith(f"::{name}")]
            close = close or difflib.get_close_matches(name, known, n=1, cutoff=0.8)
            advice = f"did you mean {close[0]!r}?" if close else "give its id as pytest prints it"
            raise UserError(
                f"the repository has no test {name!r}: {advice} (Tests that a patch brings along are not taken; add "
                "the test to the repository first.)"
            )
        wanted.update(dict.fromkeys(failing or [name]))
    return tuple(wanted)


def fails(test: str, found: Baseline) -> bool:
    """Does it fail as the repository stands? (One that is skipped does not.)"""
    return test in found.failing and found.outcomes[test].status in (TestStatus.FAILED, TestStatus.ERROR)
