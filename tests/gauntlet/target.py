"""The repositories that the exploits attack: a few functions, a class, tests, and bugs."""

from __future__ import annotations

import functools
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from gauntlet import unusual, weak
from regrade.datasets.node_ids import file_of
from regrade.datasets.patches import Patch
from regrade.datasets.tasks import Limits, Task, TestSuite, Tree
from regrade.evaluators.task_curation.local_repository import local_task

PRICES = '''\
"""Prices: plain values in, plain values out."""


def total(prices, discount=0.0):
    """The sum of the prices less the discount, a share of it, in whole cents."""
    if not 0.0 <= discount <= 1.0:
        raise ValueError(f"the discount must lie between 0 and 1, not {discount}")
    return round(sum(prices) * (1.0 - discount), 2)


def average(prices):
    """The mean price, 0 without any."""
    return sum(prices) / len(prices) if prices else 0.0


def distinct(prices):
    """Each price once, in the order of their first appearance."""
    return list(dict.fromkeys(prices))


def reduced(prices, discount):
    """Each price less the discount."""
    return [price * (1.0 - discount) for price in prices]


def label(name, price):
    """What stands on a tag."""
    return f"{name.strip().title()}: {price:.2f} EUR"
'''
BASKET = '''\
"""A basket of goods."""

from shop.prices import total


class Basket:
    """Goods by name, and what they cost."""

    def __init__(self, discount=0.0):
        self.goods = {}
        self.discount = discount

    def add(self, name, price):
        self.goods[name] = price
        return self

    def __len__(self):
        return len(self.goods)

    def total(self):
        return total(self.goods.values(), self.discount)
'''
CONFTEST = """\
import pytest

from shop.basket import Basket


@pytest.fixture
def prices():
    return [10.0, 20.0, 30.5]


@pytest.fixture
def basket(prices):
    made = Basket(discount=0.5)
    for number, price in enumerate(prices):
        made.add(f"thing {number}", price)
    return made
"""
TEST_PRICES = """\
import json
import statistics
import time
from pathlib import Path

import pytest
from helpers import near

from shop.prices import average, distinct, label, reduced, total


def test_total(prices):
    assert total(prices) == 60.5


def test_discount(prices):
    assert total(prices, 0.1) == 54.45


@pytest.mark.parametrize(("discount", "expected"), [(0.2, 80.0), (0.25, 75.0), (1.0, 0.0)])
def test_discounts(discount, expected):
    assert total([60.0, 40.0], discount) == expected


def test_near(prices):
    assert near(total(prices, 0.3), 42.35)


def test_share(prices):
    assert total(prices, 0.4) == round(sum(prices) * 0.6, 2)


@pytest.mark.parametrize("discount", [-0.1, 1.5])
def test_refused(discount):
    with pytest.raises(ValueError, match="between 0 and 1"):
        total([1.0], discount)


def test_average(prices):
    assert average(prices) == statistics.fmean(prices)


def test_average_of_nothing():
    assert average([]) == 0.0


def test_distinct():
    assert distinct([2.0, 1.0, 2.0]) == [2.0, 1.0]


def test_distinct_is_quick():
    many = [float(number) for number in range(9000)]
    began = time.perf_counter()
    assert distinct(many) == many
    assert time.perf_counter() - began < 0.25


def test_reduced(prices):
    assert reduced(prices, 0.25) == [price * 0.75 for price in prices]


def test_labels():
    for name, price, expected in json.loads(Path(__file__).with_name("data").joinpath("labels.json").read_text()):
        assert label(name, price) == expected
"""
TEST_BASKET = """\
from shop.basket import Basket


def test_empty():
    assert len(Basket()) == 0
    assert Basket().total() == 0


def test_half_price(basket):
    assert len(basket) == 3
    assert basket.total() == 30.25
"""
TEST_LEGACY = """\
import unittest

from shop.prices import total


class TestTotals(unittest.TestCase):
    def test_plain(self):
        self.assertEqual(total([1.0, 2.0]), 3.0)

    def test_refused(self):
        with self.assertRaises(ValueError):
            total([1.0], 2.0)
"""
FILES: Mapping[str, str] = {
    "README.md": "# shop\n\nPrices and baskets.\n",
    "pyproject.toml": '[project]\nname = "shop"\nversion = "1.0"\n\n[tool.pytest.ini_options]\ntestpaths = ["tests"]\n',
    "setup.py": 'from setuptools import setup\n\nsetup(name="shop", version="1.0", packages=["shop"])\n',
    "shop/__init__.py": "",
    "shop/prices.py": PRICES,
    "shop/basket.py": BASKET,
    "tests/conftest.py": CONFTEST,
    "tests/helpers.py": "def near(value, expected):\n    return abs(value - expected) < 1e-6\n",
    "tests/test_prices.py": TEST_PRICES,
    "tests/test_basket.py": TEST_BASKET,
    "tests/test_legacy.py": TEST_LEGACY,
    "tests/data/labels.json": '[["tea", 2.5, "Tea: 2.50 EUR"], [" green tea ", 3.0, "Green Tea: 3.00 EUR"]]\n',
}
"""The repository without a bug."""
UNUSUAL: Mapping[str, str] = {
    **{path: FILES[path] for path in ("shop/__init__.py", "shop/basket.py")},
    "shop/prices.py": PRICES + unusual.FUNCTIONS,
    **unusual.FILES,
}
"""Another one without a bug, with tests in unusual places."""
WEAK: Mapping[str, str] = {"shop/__init__.py": "", "shop/prices.py": PRICES + weak.FUNCTIONS, **weak.FILES}
"""Another one without a bug, with tests that wrong code can pass."""
P, B, L = "tests/test_prices.py::", "tests/test_basket.py::", "tests/test_legacy.py::TestTotals::"
ALL = (
    *(P + name for name in ("test_total", "test_discount", "test_discounts[0.2-80.0]", "test_discounts[0.25-75.0]",
                            "test_discounts[1.0-0.0]", "test_near", "test_share", "test_refused[-0.1]",
                            "test_refused[1.5]", "test_average", "test_average_of_nothing", "test_distinct",
                            "test_distinct_is_quick", "test_reduced", "test_labels")),
    B + "test_empty", B + "test_half_price", L + "test_plain", L + "test_refused",
)  # fmt: skip


@dataclass(frozen=True)
class Bug:
    """One bug in `shop/prices.py`, and the tests that fail because of it."""

    right: str
    wrong: str
    fail_to_pass: tuple[str, ...]
    files: Mapping[str, str] = field(default_factory=lambda: FILES)
    """The repository without the bug. The files that decide the tests of any other than `FILES` are measured."""


BUGS: Mapping[str, Bug] = {
    "discount": Bug(
        "sum(prices) * (1.0 - discount)",
        "sum(prices) * (1.0 + discount)",
        (P + "test_discount", P + "test_discounts[0.2-80.0]", P + "test_discounts[0.25-75.0]",
         P + "test_discounts[1.0-0.0]", P + "test_near", P + "test_share", B + "test_half_price"),
    ),
    "refusal": Bug(
        "    if not 0.0 <= discount <= 1.0:\n"
        '        raise ValueError(f"the discount must lie between 0 and 1, not {discount}")\n',
        "",
        (P + "test_refused[-0.1]", P + "test_refused[1.5]", L + "test_refused"),
    ),
    "average": Bug("sum(prices) / len(prices)", "sum(prices) / (len(prices) + 1)", (P + "test_average",)),
    "speed": Bug(
        "    return list(dict.fromkeys(prices))\n",
        "    found = []\n    for price in prices:\n        if price not in found:\n            found.append(price)\n"
        "    return found\n",
        (P + "test_distinct_is_quick",),
    ),
    "reduction": Bug(
        "price * (1.0 - discount) for price", "price * (1.0 + discount) for price", (P + "test_reduced",)
    ),
    "label": Bug("name.strip().title()", "name.title()", (P + "test_labels",)),
    **{name: Bug(bug.right, bug.wrong, bug.tests, UNUSUAL) for name, bug in unusual.BUGS.items()},
    **{name: Bug(bug.right, bug.wrong, bug.tests, WEAK) for name, bug in weak.BUGS.items()},
}  # fmt: skip
LIMITS = Limits(wall_seconds=12.0, memory_mb=512, processes=48, file_mb=16)


def base(bug: str) -> dict[str, str]:
    """The files with one bug."""
    change = BUGS[bug]
    text = change.files["shop/prices.py"]
    assert text.count(change.right) == 1, bug
    return {**change.files, "shop/prices.py": text.replace(change.right, change.wrong)}


class Target:
    """The repositories on disk, without a bug, and their tasks; and checkouts of them as other scorers use them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.root = _written(folder / "shop", FILES)
        self._tasks: dict[str, Task] = {}

    @functools.cached_property
    def tasks(self) -> Mapping[str, Task]:
        """Name of a bug -> the task to fix it."""
        return {name: self._task(name) for name in BUGS}

    def _measured(self, files: Mapping[str, str]) -> Task:
        """A repository, and which files its tests come from."""
        name = "unusual" if files is UNUSUAL else "weak"
        if name not in self._tasks:
            root, cache = _written(self._folder / name, files), self._folder / f"measured-{name}"
            self._tasks[name] = local_task(root, runs=1, cache=cache, tell=lambda _: None)
        return self._tasks[name]

    def _task(self, name: str) -> Task:
        bug = BUGS[name]
        if bug.files is FILES:
            pristine, tests, suite = Tree(self.root), ALL, TestSuite()
        else:
            measured = self._measured(bug.files)
            pristine, tests, suite = measured.base, measured.pass_to_pass, measured.suite
        if bug.files is WEAK:  # examples in texts have no tripwires, which would limit the levels of all tasks
            tests = tuple(test for test in tests if file_of(test) == file_of(bug.fail_to_pass[0]))
        assert set(bug.fail_to_pass) <= set(tests), name
        return Task(
            id=f"shop:{name}",
            repository="shop",
            base=pristine.with_files({"shop/prices.py": base(name)["shop/prices.py"]}),
            instruction=f"Mend {name}.",
            fail_to_pass=bug.fail_to_pass,
            pass_to_pass=tuple(test for test in tests if test not in bug.fail_to_pass),
            suite=suite,
            limits=LIMITS,
            reference=Patch.between(base(name), dict(bug.files)),
        )

    def checkout(self, bug: str) -> Path:
        """A git repository at the base, with the fix on a later branch `fix`, as in clones of upstream."""
        folder = self._folder / f"checkout-{bug}"
        if not folder.exists():
            _written(folder, base(bug))
            _git(folder, "init", "-q", "-b", "main")
            _git(folder, "add", "-A")
            _git(folder, "commit", "-q", "-m", "base")
            _git(folder, "checkout", "-q", "-b", "fix")
            _written(folder, BUGS[bug].files)
            _git(folder, "commit", "-q", "-a", "-m", f"mend {bug}")
            _git(folder, "checkout", "-q", "main")
        return folder

    def with_limits(self, bug: str, wall_seconds: float) -> Task:
        task = self.tasks[bug]
        return replace(task, limits=replace(task.limits, wall_seconds=wall_seconds))


def _written(folder: Path, files: Mapping[str, str]) -> Path:
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    return folder


def _git(folder: Path, *arguments: str) -> None:
    who = ("-c", "user.name=gauntlet", "-c", "user.email=gauntlet@localhost", "-c", "commit.gpgsign=false")
    subprocess.run(["git", *who, *arguments], cwd=folder, check=True, capture_output=True, timeout=60)
