from __future__ import annotations

from regrade.datasets.plurals import counted, listed, plural


def test_one_is_singular_and_all_else_plural() -> None:
    assert [counted(count, "test") for count in (0, 1, 2)] == ["0 tests", "1 test", "2 tests"]
    assert [plural(count, "is", "are") for count in (0, 1, 2)] == ["are", "is", "are"]


def test_a_list_names_the_first_and_counts_the_others() -> None:
    assert listed(["a", "b"], 2) == "a, b"
    assert listed(["a", "b", "c", "d"], 2) == "a, b and 2 more"
    assert listed([], 2) == ""
