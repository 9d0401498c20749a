"""Tests inside a Rust file are restored from the pristine file after any patch."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from regrade.evaluators.execution.inline_tests import test_items, with_pristine_tests

CODE = "pub fn add(a: i32, b: i32) -> i32 {\n    a + b\n}\n"
TESTS = "#[cfg(test)]\nmod tests {\n    #[test]\n    fn adds() {\n        assert_eq!(super::add(1, 2), 3);\n    }\n}\n"
HELPER = "#[allow(dead_code)]\n#[cfg( test )]\nfn helper() -> i32 { 3 }\n"


def test_items_are_found_with_their_attributes() -> None:
    assert test_items(CODE + TESTS + HELPER) == [TESTS.rstrip("\n"), HELPER.rstrip("\n")]
    assert test_items("#[cfg(not(test))]\nfn f() {}\n#[derive(Debug)]\nstruct S;\n" + CODE) == []


def test_a_change_of_the_code_alone_is_preserved() -> None:
    changed = CODE.replace("a + b", "b + a") + TESTS
    assert with_pristine_tests(CODE + TESTS, changed) == changed


def test_edited_added_and_deleted_tests_are_undone() -> None:
    code = CODE.replace("a + b", "a - b")
    for tests in (TESTS.replace("3", "-1"), "", TESTS + HELPER, TESTS.replace("mod tests", "mod others")):
        restored = with_pristine_tests(CODE + TESTS, code + tests)
        assert test_items(restored) == test_items(CODE + TESTS)
        assert "a - b" in restored
        assert restored.count("cfg(test)") == 1
    assert test_items(with_pristine_tests(None, CODE + TESTS)) == []


@given(st.text(max_size=200))
def test_any_text_has_an_outcome(text: str) -> None:
    assert test_items(with_pristine_tests(CODE + TESTS, text + "\n")) in (test_items(CODE + TESTS), test_items(text))
