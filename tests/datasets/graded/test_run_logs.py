"""Logs of test runs: outcomes by the form of each line, and logs that hold none."""

from __future__ import annotations

from pathlib import Path

import pytest

from regrade.datasets.graded.documents import documents
from regrade.datasets.graded.records import Findings, GradedResult
from regrade.datasets.graded.run_logs import outcome_of, results, same_form, statuses

HEADER = """\
[django__django__3.0] [django__django-1] Task Metadata:
\t- Instance ID: django__django-1
\t- Testbed: django__django__3.0
\t- Evaluation Model: some/model
"""
APPLIED = ">>>>> Applied Patch (pred_try)\n>>>>> Applied Patch (pred)\n>>>>> Applied Patch (test)\n"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("PASSED a.py::test_one", {"a.py::test_one": "PASSED"}),
        ("\x1b[31mFAILED\x1b[0m a.py::\x1b[1mtest_one[x, y]\x1b[0m - assert 0", {"a.py::test_one[x,": "FAILED"}),
        ("XFAIL a.py::test_one", {"a.py::test_one": "XFAIL"}),
        ("SKIPPED [1] a.py:3: no network", {"[1]": "SKIPPED"}),
        ("a.py::test_one PASSED [ 50%]", {"a.py::test_one": "PASSED"}),
        ("test_one (app.tests.Case) ... ok", {"test_one (app.tests.Case)": "PASSED"}),
        ("A docstring as a name. ... FAIL", {"A docstring as a name.": "FAILED"}),
        ("test_one (app.tests.Case) ... skipped 'no database'", {"test_one (app.tests.Case)": "SKIPPED"}),
        ("test_one (app.tests.Case) ... noise\nmore noise\nok", {"test_one (app.tests.Case)": "PASSED"}),
        (
            "test_one (app.tests.Case) ... Testing against Django installed in 'x'\nnone (0 silenced).\nok",
            {"test_one (app.tests.Case)": "PASSED"},
        ),
        (
            "test_add ok\ntest_sub F\ntest_mul E [FAIL]",
            {"test_add": "PASSED", "test_sub": "FAILED", "test_mul": "ERROR"},
        ),
        ("____ sympy/core/tests/test_power.py:test_pow ____", {"sympy/core/tests/test_power.py:test_pow": "FAILED"}),
        ("collected 3 items\nimport os ... done", {}),
    ],
)
def test_a_line_gives_the_outcome_of_a_test(line: str, expected: dict[str, str]) -> None:
    text = line.replace("\x1b[31m", "").replace("\x1b[0m", "").replace("\x1b[1m", "")
    assert statuses(text) == expected
    end = "+ : '>>>>> End Test Output'"
    assert outcome_of(f"noise\n+ : '>>>>> Start Test Output'\n{line}\n{end}\nPASSED after::the_end") == expected


def test_ids_differ_in_the_paths_of_a_machine_alone() -> None:
    assert same_form("t.py::test_a[/tmp/x/certificate.pem]") == same_form("t.py::test_a[/home/me/certificate.pem]")
    assert same_form("t.py::test_a[/x/a.pem]") != same_form("t.py::test_a[/x/b.pem]")
    assert same_form("t.py::test_a[MouseButton.LEFT]") == "t.py::test_a[1]"


def one(tmp_path: Path, text: str) -> tuple[GradedResult, Findings]:
    path, findings = tmp_path / "logs" / "django__django-1.model.eval.log", Findings()
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(text.encode() + b"\xff\0")
    (document,) = documents(path, findings)
    found = results(document, findings)
    assert found is not None
    return next(found), findings


def test_a_whole_log_has_its_outcomes_after_the_last_application_of_the_patch(tmp_path: Path) -> None:
    run = "PASSED a.py::test_one\nFAILED a.py::test_two - x\n>>>>> Some Tests Failed\n"
    result, findings = one(tmp_path, HEADER + "PASSED a.py::before\n" + APPLIED + run)
    assert (result.instance, result.model, result.applied, result.why) == ("django__django-1", "some/model", True, "")
    assert result.statuses == {"a.py::test_one": "PASSED", "a.py::test_two": "FAILED"}
    assert findings.lines() == []


@pytest.mark.parametrize(
    ("text", "applied", "why"),
    [
        (">>>>> Patch Apply Failed; (pred_try)\n", False, "the patch did not apply"),
        ("", None, "the log does not say that the patch applied"),
        (
            APPLIED + ">>>>> Patch Apply Failed; (test)\n",
            True,
            "the tests of the instance did not apply over the patch",
        ),
        (APPLIED + "PASSED a\n>>>>> Tests Timed Out after 900 seconds\n", True, "its tests timed out"),
        (APPLIED + ">>>>> Tests Errored\n", True, "its tests did not run"),
        (APPLIED + "PASSED a.py::test_one\nPASS", True, "the log has no end"),
    ],
)
def test_a_log_without_an_outcome_says_why(tmp_path: Path, text: str, applied: bool | None, why: str) -> None:
    result, findings = one(tmp_path, HEADER + text)
    assert (result.statuses, result.applied, result.why) == (None, applied, why)
    assert [line.partition(":")[0] for line in findings.lines()] == ["logs without an end"] * why.endswith("no end")
