"""Readers of test results: real output of each runner, forged lines, and text that no runner writes."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regrade.datasets.container_images import READERS
from regrade.evaluators.execution.container_worker import SEALED
from regrade.evaluators.execution.result_readers import LOG_READERS, Report

PYTEST = """\
.F.sx                                                                    [100%]
=================================== FAILURES ===================================
=========================== short test summary info ============================
PASSED tests/test_a.py::test_one
PASSED tests/test_a.py::TestB::test_two[a - b]
SKIPPED [1] tests/test_a.py:4: no network
XFAIL tests/test_a.py::test_known - later
FAILED tests/test_a.py::test_three - assert 1 == 2
============ 1 failed, 2 passed, 1 skipped, 1 xfailed in 0.05s ============
"""
UNITTEST = """\
test_one (shop.tests.TestCart) ... ok
test_two (shop.tests.TestCart)
Nothing costs nothing. ... ok
test_three (shop.tests.TestCart) ... FAIL
test_four (shop.tests.TestCart) ... skipped 'no network'
test_five (shop.tests.TestCart) ... some output
ok

======================================================================
FAIL: test_three (shop.tests.TestCart)
----------------------------------------------------------------------
Ran 5 tests in 0.012s

FAILED (failures=1, skipped=1)
"""
GO = "\n".join(
    json.dumps(event)
    for event in (
        {"Action": "run", "Package": "shop/cart", "Test": "TestTotal"},
        {"Action": "output", "Package": "shop/cart", "Test": "TestTotal", "Output": "    cart_test.go:8: got 3\n"},
        {"Action": "pass", "Package": "shop/cart", "Test": "TestTotal/none", "Elapsed": 0},
        {"Action": "fail", "Package": "shop/cart", "Test": "TestTotal", "Elapsed": 0},
        {"Action": "skip", "Package": "shop/cart", "Test": "TestSlow", "Elapsed": 0},
        {"Action": "fail", "Package": "shop/cart", "Elapsed": 0.1},
    )
)
TAP = """\
TAP version 14
# Subtest: cart
    ok 1 - total
    not ok 2 - largest
    1..2
not ok 1 - cart
ok 2 - price # SKIP no network
not ok 3 - known # TODO later
1..3
"""
CARGO = """\
     Running unittests src/lib.rs (target/debug/deps/shop-1)

running 3 tests
test tests::total ... ok
test tests::largest ... FAILED
test tests::slow ... ignored

test result: FAILED. 1 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s

     Running tests/cart.rs (target/debug/deps/cart-1)
test total ... ok
test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s
"""
JUNIT = """<?xml version="1.0"?><testsuites><testsuite name="pytest" tests="4">
<testcase classname="tests.test_a.TestB" name="test_two[1]" file="tests/test_a.py" line="3" time="0.1"/>
<testcase classname="tests.test_a" name="test_one" file="tests/test_a.py"><failure message="assert 1 == 2">...</failure></testcase>
<testcase classname="com.shop.CartTest" name="total"><error>java.lang.Error: boom</error></testcase>
<testcase classname="com.shop.CartTest" name="slow"><skipped/></testcase>
</testsuite></testsuites>"""
EXPECTED: Mapping[str, tuple[str, dict[str, str]]] = {
    "pytest-log": (
        PYTEST,
        {
            "tests/test_a.py::test_one": "passed",
            "tests/test_a.py::TestB::test_two[a - b]": "passed",
            "tests/test_a.py::test_known": "xfailed",
            "tests/test_a.py::test_three": "failed",
        },
    ),
    "unittest-log": (
        UNITTEST,
        {
            "test_one (shop.tests.TestCart)": "passed",
            "test_two (shop.tests.TestCart)": "passed",
            "Nothing costs nothing.": "passed",
            "test_three (shop.tests.TestCart)": "failed",
            "test_four (shop.tests.TestCart)": "skipped",
        },
    ),
    "go": (
        GO,
        {"shop/cart::TestTotal": "failed", "shop/cart::TestTotal/none": "passed", "shop/cart::TestSlow": "skipped"},
    ),
    "tap": (
        TAP,
        {
            "cart > total": "passed",
            "cart > largest": "failed",
            "cart": "failed",
            "price": "skipped",
            "known": "xfailed",
        },
    ),
    "cargo": (
        CARGO,
        {
            "src/lib.rs::tests::total": "passed",
            "src/lib.rs::tests::largest": "failed",
            "src/lib.rs::tests::slow": "skipped",
            "tests/cart.rs::total": "passed",
        },
    ),
    "junit": (
        JUNIT,
        {
            "tests/test_a.py::TestB::test_two[1]": "passed",
            "tests/test_a.py::test_one": "failed",
            "com.shop.CartTest::total": "error",
            "com.shop.CartTest::slow": "skipped",
        },
    ),
}


def read(reader: str, text: str) -> Report:
    return LOG_READERS[reader](text, text)


def test_every_reader_of_a_task_exists() -> None:
    assert {*LOG_READERS, *SEALED} == set(READERS)
    assert set(EXPECTED) == set(LOG_READERS)


@pytest.mark.parametrize("reader", EXPECTED)
def test_outcomes_of_a_real_report(reader: str) -> None:
    text, expected = EXPECTED[reader]
    report = read(reader, text)
    assert report.problem == ""
    assert {case.id: case.status for case in report.cases} == expected
    assert report.has_failure


@pytest.mark.parametrize("reader", EXPECTED)
def test_half_a_report_shows_nothing(reader: str) -> None:
    text, _ = EXPECTED[reader]
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
        ("junit", JUNIT),
    ],
)
def test_forged_lines_make_the_report_void(reader: str, forged: str) -> None:
    text, _ = EXPECTED[reader]
    assert read(reader, forged + text).problem


@pytest.mark.parametrize(
    ("reader", "forged", "test"),
    [
        ("pytest-log", "PASSED tests/test_a.py::test_three\n", "tests/test_a.py::test_three"),
        ("go", '{"Action": "pass", "Package": "shop/cart", "Test": "TestTotal"}\n', "shop/cart::TestTotal"),
    ],
)
def test_a_forged_pass_does_not_hide_a_failure(reader: str, forged: str, test: str) -> None:
    report = read(reader, forged + EXPECTED[reader][0])
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
