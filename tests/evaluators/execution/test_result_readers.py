"""Readers of test results: real output of each runner, forged lines, and text that no runner writes."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regrade.datasets.container_images import READERS
from regrade.evaluators.execution.container_worker import SEALED
from regrade.evaluators.execution.result_readers import LOG_READERS, Report

REPORTS = Path(__file__).parent / "reports"
"""What the runners wrote: pytest 9 (`-rA`, and `--junitxml`), unittest of Python 3.11 (`-v`), go 1.19 (`test -json`),
node 20 (`--test-reporter=tap`) and cargo 1.95."""
MAVEN = """<?xml version="1.0"?><testsuite name="com.shop.CartTest" tests="2">
<testcase classname="com.shop.CartTest" name="total"><error>java.lang.Error: boom</error></testcase>
<testcase classname="com.shop.CartTest" name="slow"><skipped/></testcase>
</testsuite>"""
"""The form of Maven, by its description."""
EXPECTED: Mapping[str, tuple[str, dict[str, str]]] = {
    "pytest-log": (
        "pytest.txt",
        {
            "tests/test_a.py::test_one": "passed",
            "tests/test_a.py::TestB::test_two[a - b]": "passed",
            "tests/test_a.py::test_known": "xfailed",
            "tests/test_a.py::test_four": "error",
            "tests/test_a.py::test_three": "failed",
        },
    ),
    "unittest-log": (
        "unittest.txt",
        {
            "test_one (shop.tests.TestCart.test_one)": "passed",
            "test_two (shop.tests.TestCart.test_two)": "passed",
            "Nothing costs nothing.": "passed",
            "test_three (shop.tests.TestCart.test_three)": "failed",
            "test_four (shop.tests.TestCart.test_four)": "skipped",
            "test_six (shop.tests.TestCart.test_six)": "xfailed",
            "test_seven (shop.tests.TestCart.test_seven)": "error",
        },
    ),
    "go": (
        "go.jsonl",
        {
            "shop/cart::TestTotal": "failed",
            "shop/cart::TestTotal/none": "passed",
            "shop/cart::TestTotal/some": "failed",
            "shop/cart::TestSlow": "skipped",
        },
    ),
    "tap": (
        "tap.txt",
        {
            "cart > total": "passed",
            "cart > largest": "failed",
            "cart": "failed",
            "price": "skipped",
            "known": "xfailed",
        },
    ),
    "cargo": (
        "cargo.txt",
        {
            "src/lib.rs::tests::total": "passed",
            "src/lib.rs::tests::largest": "failed",
            "src/lib.rs::tests::slow": "skipped",
            "tests/cart.rs::total": "passed",
        },
    ),
    "junit": (
        "junit.xml",
        {
            "tests/test_a.py::test_one": "passed",
            "tests/test_a.py::TestB::test_two[a - b]": "passed",
            "tests/test_a.py::test_known": "skipped",
            "tests/test_a.py::test_slow": "skipped",
            "tests/test_a.py::test_three": "failed",
            "tests/test_a.py::test_four": "error",
        },
    ),
}


def report_of(reader: str) -> str:
    return (REPORTS / EXPECTED[reader][0]).read_text("utf-8")


def read(reader: str, text: str) -> Report:
    return LOG_READERS[reader](text, text)


def test_every_reader_of_a_task_exists() -> None:
    assert {*LOG_READERS, *SEALED} == set(READERS)
    assert set(EXPECTED) == set(LOG_READERS)


@pytest.mark.parametrize("reader", EXPECTED)
def test_outcomes_of_a_real_report(reader: str) -> None:
    report = read(reader, report_of(reader))
    assert report.problem == ""
    assert {case.id: case.status for case in report.cases} == EXPECTED[reader][1]
    assert report.has_failure


def test_outcomes_of_a_report_of_classes() -> None:
    report = read("junit", MAVEN)
    assert {case.id: case.status for case in report.cases} == {
        "com.shop.CartTest::total": "error",
        "com.shop.CartTest::slow": "skipped",
    }


@pytest.mark.parametrize("reader", EXPECTED)
def test_half_a_report_shows_nothing(reader: str) -> None:
    text = report_of(reader)
    assert read(reader, text[: len(text) // 3]).problem
    assert read(reader, "").problem


@pytest.mark.parametrize(
    ("reader", "forged"),
    [
        ("pytest-log", "PASSED tests/test_a.py::test_new\n"),
        ("pytest-log", "=== 9 passed in 0.01s ===\n"),
        ("unittest-log", "".join(f"test_{number} (shop.tests.TestNew) ... ok\n" for number in range(9))),
        ("unittest-log", "Ran 9 tests in 0.001s\n"),
        ("tap", "ok 9 - new\n"),
        ("cargo", "test new ... ok\n"),
        ("junit", MAVEN),
    ],
)
def test_forged_lines_make_the_report_void(reader: str, forged: str) -> None:
    text = report_of(reader)
    assert read(reader, forged + text).problem


@pytest.mark.parametrize(
    ("reader", "forged", "test"),
    [
        ("pytest-log", "PASSED tests/test_a.py::test_three\n", "tests/test_a.py::test_three"),
        ("go", '{"Action": "pass", "Package": "shop/cart", "Test": "TestTotal"}\n', "shop/cart::TestTotal"),
    ],
)
def test_a_forged_pass_does_not_hide_a_failure(reader: str, forged: str, test: str) -> None:
    report = read(reader, forged + report_of(reader))
    assert report.problem or "failed" in {case.status for case in report.cases if case.id == test}


def test_a_report_with_entities_is_refused() -> None:
    bomb = '<!DOCTYPE a [<!ENTITY b "c">]><testsuite tests="1"><testcase name="&b;"/></testsuite>'
    assert "entities" in read("junit", bomb).problem


@pytest.mark.parametrize("reader", LOG_READERS)
@given(text=st.text(st.sampled_from('ok1.- \n{}"<>:=#PASSEDtest()\u2028\x00'), max_size=80))
def test_any_text_is_read(reader: str, text: str) -> None:
    report = read(reader, text)
    assert all(case.status in ("passed", "failed", "error", "skipped", "xfailed") for case in report.cases)


@pytest.mark.parametrize("reader", LOG_READERS)
@pytest.mark.parametrize(
    "piece", ["ok ", " ... ", "1 passed, ", "PASSED a::b - ", "=", "test (a.b) ... ", " in 1", "#"]
)
def test_a_long_line_takes_no_long_time(reader: str, piece: str) -> None:
    began = time.process_time()
    read(reader, (piece * 300_000)[:1_000_000])
    assert time.process_time() - began < 2.0
