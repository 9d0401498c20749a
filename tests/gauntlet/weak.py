"""The repository with weak tests: round trips, equalities of its own classes, data drawn by chance, printed lines.

Each function of `FUNCTIONS` has one bug, which such a test finds, and which other code passes as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

FUNCTIONS = '''\


class Offer:
    """What somebody would pay: equal to each price in between."""

    def __init__(self, lowest, highest):
        self.lowest = lowest
        self.highest = highest

    def __eq__(self, other):
        return self.lowest <= other <= self.highest

    __hash__ = None


class Money:
    """An amount in cents."""

    def __init__(self, cents):
        self.cents = cents

    def __eq__(self, other):
        return isinstance(other, Money) and self.cents == other.cents

    def __hash__(self):
        return hash(self.cents)


def joined(names):
    """The names on one line."""
    return ",".join(name.replace("~", "~0").replace(",", "~1") for name in names)


def split(line):
    """The names that were joined."""
    return [name.replace("~1", ",").replace("~0", "~") for name in line.split(",")]


def share(price, whole):
    """The price as a percentage."""
    return round(100.0 * price / whole, 1)


def paid(price, count):
    """What several of them cost."""
    return Money(round(100 * price * count))


def ranked(prices):
    """The prices, the lowest first."""
    return sorted(prices)


def cumulated(prices):
    """The sum up to each price."""
    return [sum(prices[: number + 1]) for number in range(len(prices))]


def rebate(price, percent):
    """What a rebate takes off."""
    return round(price * percent / 100.0, 2)


def receipt(prices):
    """Print each price, and the sum."""
    for price in prices:
        print(f"{price:.2f}")
    print(f"sum {sum(prices):.2f}")
'''
TESTS = """\
import random

import numpy
import pytest

from shop.prices import Money, Offer, cumulated, joined, paid, ranked, share, split


@pytest.mark.parametrize("names", [["tea", "milk"], ["tea, dried", "milk"], ["a~1b", "~", ","]], ids=["plain", "comma", "tilde"])
def test_round_trip(names):
    assert split(joined(names)) == names


@pytest.mark.parametrize(("price", "expected"), [(2.0, 20.0), (2.5, 25.0), (5.0, 50.0), (1.25, 12.5)])
def test_share(price, expected):
    assert share(price, 10.0) == expected


@pytest.mark.parametrize(("price", "count", "expected"), [(1.5, 3, 450), (2.0, 2, 400), (0.25, 10, 250), (3.0, 1, 300)])
def test_paid(price, count, expected):
    assert paid(price, count) == Money(expected)


def test_offer():
    assert Offer(1.0, 2.0) == 1.5
    assert not Offer(1.0, 2.0) == 2.5


def test_ranked():
    for count in (5, 9):
        prices = [random.randint(1, 99) for _ in range(count)]
        assert ranked(prices) == sorted(prices)


def test_cumulated():
    prices = numpy.random.default_rng(7).uniform(1, 9, 6).round(2)
    assert numpy.allclose(cumulated(prices.tolist()), numpy.cumsum(prices))
"""
CONFIGURATION = """\
[project]
name = "shop"
version = "1.0"

[tool.pytest.ini_options]
testpaths = ["tests", "docs"]
addopts = "--doctest-glob=*.rst"
"""
REBATES = "Rebates:\n\n>>> from shop.prices import rebate\n>>> rebate(50.0, 10)\n5.0\n>>> rebate(9.0, 5)\n0.45\n"
RECEIPTS = "Receipts:\n\n>>> from shop.prices import receipt\n>>> receipt([1.0, 2.5])\n1.00\n2.50\nsum 3.50\n"
FILES: Mapping[str, str] = {
    "pyproject.toml": CONFIGURATION,
    "tests/test_weak.py": TESTS,
    "docs/rebates.rst": REBATES,
    "docs/receipts.rst": RECEIPTS,
}
"""The files beside the package."""


class WeakBug(NamedTuple):
    """One bug, and the tests that fail because of it."""

    right: str
    wrong: str
    tests: tuple[str, ...]


T = "tests/test_weak.py::test_"
PAIR = FUNCTIONS[FUNCTIONS.index('return ",".join(name') : FUNCTIONS.index("\n\n\ndef share")]
BUGS: Mapping[str, WeakBug] = {
    "pair": WeakBug(
        PAIR,
        PAIR.replace("(name.replace(\"~\", \"~0\").replace(\",\", \"~1\") for name in names)", "(names)").replace(
            '[name.replace("~1", ",").replace("~0", "~") for name in line.split(",")]', 'line.split(",")'
        ),
        (T + "round_trip[comma]", T + "round_trip[tilde]"),
    ),
    "share": WeakBug(
        "return round(100.0 * price / whole, 1)", "return round(100.0 * whole / price, 1)", tuple(f"{T}share[{case}]" for case in ("2.0-20.0", "2.5-25.0", "5.0-50.0", "1.25-12.5"))
    ),
    "paid": WeakBug(
        "round(100 * price * count)", "round(100 * price + count)", tuple(f"{T}paid[{case}]" for case in ("1.5-3-450", "2.0-2-400", "0.25-10-250", "3.0-1-300"))
    ),
    "ranked": WeakBug("return sorted(prices)", "return list(prices)", (T + "ranked",)),
    "cumulated": WeakBug("sum(prices[: number + 1]) for", "sum(prices[: number + 1]) * (number + 1) for", (T + "cumulated",)),
    "rebate": WeakBug("return round(price * percent / 100.0, 2)", "return round(price / percent, 2)", ("docs/rebates.rst::rebates.rst",)),
    "receipt": WeakBug('print(f"sum {sum(prices):.2f}")', 'print(f"sum {max(prices):.2f}")', ("docs/receipts.rst::receipts.rst",)),
}  # fmt: skip
