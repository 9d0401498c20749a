"""The repository with tests in unusual places: no name shows that these files decide the tests, a run of the base does.

Each function of `FUNCTIONS` has one bug, which the tests of one place find.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

FUNCTIONS = '''\


def net(price, rate):
    """The price without tax."""
    return round(price / (1.0 + rate), 2)


def gross(price, rate):
    """The price with tax."""
    return round(price * (1.0 + rate), 2)


def cheapest(prices):
    """The lowest price, 0 without any."""
    return min(prices, default=0.0)


def dearest(prices):
    """The highest price, 0 without any."""
    return max(prices, default=0.0)


def spread(prices):
    """The highest price less the lowest."""
    return max(prices) - min(prices)


def slip(prices):
    """The prices on one line."""
    return " + ".join(f"{price:.2f}" for price in prices)


def change(paid, price):
    """What comes back.

    >>> change(10.0, 7.5)
    2.5
    >>> change(7.5, 7.5)
    0.0
    """
    return paid - price


def slug(name):
    """A name for use in an address."""
    return name.strip().lower().replace(" ", "-")


def bullet(name, price):
    """A line of the price list."""
    return f"- {name}: {price:.2f} EUR"


def code(name):
    """The first letters of each word."""
    return "".join(word[0] for word in name.upper().split())


def newest(versions):
    """The versions of the price list, the newest first."""
    return sorted(versions, key=lambda text: [int(part) for part in text.split(".")], reverse=True)
'''
CONFIGURATION = """\
[project]
name = "shop"
version = "1.0"

[tool.pytest.ini_options]
python_files = "test_*.py tests.py check_*.py *_tests.py *_spec.py t/*.py"
addopts = "--doctest-modules --doctest-glob=*.rst"
"""
NET = """\
import json
from pathlib import Path

from shop.prices import code, net


def test_net():
    assert net(119.0, 0.19) == 100.0
    assert net(21.4, 0.07) == 20.0


def test_codes():
    for name, expected in json.loads(Path(__file__).with_name("expected.json").read_text()):
        assert code(name) == expected
"""
GROSS = """\
import json
from pathlib import Path

from packaging.version import Version

from shop.prices import gross, newest, slug

CASES = Path(__file__).parents[1] / "cases"


def test_gross():
    assert gross(100.0, 0.19) == 119.0
    assert gross(20.0, 0.07) == 21.4


def test_slugs():
    for name, expected in json.loads((CASES / "slugs.json").read_text()):
        assert slug(name) == expected


def test_newest():
    versions = ["1.9", "1.10", "1.2"]
    assert newest(versions) == sorted(versions, key=Version, reverse=True)
"""
CHEAPEST = "from shop.prices import cheapest\n\n\ndef test_cheapest():\n    assert cheapest([3.0, 2.0, 4.0]) == 2.0\n"
DEAREST = """\
from pathlib import Path

from shop.prices import bullet, dearest


def test_dearest():
    assert dearest([3.0, 4.0, 2.0]) == 4.0


def test_price_list():
    expected = Path(__file__).with_name("golden").joinpath("prices.md").read_text().splitlines()
    assert [bullet("tea", 2.5), bullet("milk", 1.25)] == expected
"""
SPREAD = "from shop.prices import spread\n\n\ndef test_spread():\n    assert spread([3.0, 4.5, 2.0]) == 2.5\n"
SLIP = "The prices on one line:\n\n>>> from shop.prices import slip\n>>> slip([1.0, 2.5])\n'1.00 + 2.50'\n"
SLUGS = '[["Green Tea", "green-tea"], [" Milk", "milk"]]\n'
CODES = '[["green tea", "GT"], ["milk", "M"]]\n'
GOLDEN = "- tea: 2.50 EUR\n- milk: 1.25 EUR\n"
FILES: Mapping[str, str] = {
    "pyproject.toml": CONFIGURATION,
    "shop/tests.py": NET,
    "shop/expected.json": CODES,
    "checks/check_prices.py": GROSS,
    "cases/slugs.json": SLUGS,
    "shop/cheap_tests.py": CHEAPEST,
    "spec/dear_spec.py": DEAREST,
    "spec/golden/prices.md": GOLDEN,
    "t/spread.py": SPREAD,
    "docs/slips.rst": SLIP,
    "shop/fast.c": "/* Nothing here is built. */\n",
    "shop/fast.so": "It stands for an extension whose build the environment lacks.\n",
}
"""The files beside the package."""


class UnusualBug(NamedTuple):
    """One bug, and the tests that fail because of it."""

    right: str
    wrong: str
    tests: tuple[str, ...]


BUGS: Mapping[str, UnusualBug] = {
    "net": UnusualBug("price / (1.0 + rate)", "price * (1.0 + rate) / 2", ("shop/tests.py::test_net",)),
    "gross": UnusualBug(
        "round(price * (1.0 + rate), 2)", "round(price * (1.0 - rate), 2)", ("checks/check_prices.py::test_gross",)
    ),
    "cheapest": UnusualBug("min(prices, default=0.0)", "sorted(prices)[1]", ("shop/cheap_tests.py::test_cheapest",)),
    "dearest": UnusualBug("max(prices, default=0.0)", "sorted(prices)[1]", ("spec/dear_spec.py::test_dearest",)),
    "spread": UnusualBug("max(prices) - min(prices)", "max(prices) + min(prices)", ("t/spread.py::test_spread",)),
    "slip": UnusualBug('" + ".join', '" - ".join', ("docs/slips.rst::slips.rst",)),
    "change": UnusualBug("return paid - price", "return price - paid", ("shop/prices.py::shop.prices.change",)),
    "slug": UnusualBug(
        'name.strip().lower().replace(" ", "-")',
        'name.lower().replace(" ", "_")',
        ("checks/check_prices.py::test_slugs",),
    ),
    "bullet": UnusualBug(
        'f"- {name}: {price:.2f} EUR"', 'f"- {name} {price:.2f} EUR"', ("spec/dear_spec.py::test_price_list",)
    ),
    "code": UnusualBug('"".join(word[0]', '".".join(word[0]', ("shop/tests.py::test_codes",)),
    "newest": UnusualBug('[int(part) for part in text.split(".")]', "text", ("checks/check_prices.py::test_newest",)),
}
