"""Problems of invalid tasks."""

from __future__ import annotations

from dataclasses import replace

import pytest

from regrade.evaluators.task_curation.validation import validate


def test_a_task_holds_with_its_reference_and_without_one(scorer, task, fix):
    assert [found.problems for found in validate([task, replace(task, reference=fix)], scorer)] == [(), ()]


@pytest.mark.parametrize("reference", [True, False])
def test_tests_that_are_not_there_are_named(scorer, task, fix, reference):
    nowhere = replace(
        task,
        fail_to_pass=(*task.fail_to_pass, "tests/test_calculator.py::test_nothing_of_the_kind"),
        reference=fix if reference else None,
    )
    (found,) = validate([nowhere], scorer)
    assert "there are no such tests: tests/test_calculator.py::test_nothing_of_the_kind" in found.problems
    assert not found.holds


def test_what_passes_already_and_what_the_reference_leaves_failing(scorer, task, edit):
    useless = edit("count = 0", "count = 0 + 0")
    passing = replace(
        task, fail_to_pass=(*task.fail_to_pass, task.pass_to_pass[0]), pass_to_pass=task.pass_to_pass[1:],
        reference=useless,
    )  # fmt: skip
    (found,) = validate([passing], scorer)
    assert [problem.partition(":")[0] for problem in found.problems] == [
        "FAIL_TO_PASS tests pass at the base", "FAIL_TO_PASS tests do not pass with the reference",
    ]  # fmt: skip
