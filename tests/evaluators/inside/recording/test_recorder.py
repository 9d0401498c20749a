"""The message of a failing test is the same in every process: memory addresses are masked."""

from __future__ import annotations

import pytest

from regrade.evaluators.inside.recording.recorder import ADDRESS


def masked(text):
    return ADDRESS.sub("0x...", text)


@pytest.mark.parametrize("text", [
    "<object object at 0x7f12ab340{}>",
    "[<function f at 0x7f12ab34{}>] != [1]",
    "assert [1, 2, [2,...7fd6{}>] == [1, 2]",
    "assert <filter objec...x7f46{}> == [1]",
    "{'max[16 chars]ed': <function DecoratorTestMixin.test_decorat[49 chars]{}>} != {'max[16 chars]ed': Fa",
    "{'max[16 chars]ed': <function test_decorat[12 chars]7f46{}>} != 1",
    "<function f at 0x{}[12 chars]>, 1] != 2",
    "assert [<function f at 0x7f46{}...] == 2",
])  # fmt: skip
def test_addresses_truncated_by_pytest_or_unittest_are_masked(text):
    one, other = (masked(text.replace("{}", address)) for address in ("560", "7a0"))
    assert one == other
    assert "0x..." in one


@pytest.mark.parametrize("text", [
    "assert '<cow of beef>' == 'beef>'",
    "<Cow ...roast beef>",
    "<Cow ..beef>",
    "<Cow [12 chars] beef>",
    "<Cow [12 things]beef>",
    "<Cow ...beef",
    "assert 0xff == 0x7f46",
    "x7f46>",
    "[12 chars]feed me",
])  # fmt: skip
def test_similar_text_is_not_masked(text):
    assert masked(text) == text


def test_numbers_of_six_digits_may_be_addresses():
    assert masked("0x12345 0x123456") == "0x12345 0x..."
