"""Code that passes weak tests without being right: their round trips, equalities, data by chance and printed lines."""

from __future__ import annotations

from gauntlet.attack import Attack, library
from gauntlet.weak import BUGS

REMEMBERS = """\
    SEEN.append(list(names))
    return str(len(SEEN) - 1)


def split(line):
    \"\"\"The names that were joined.\"\"\"
    return list(SEEN[int(line)])
"""
CACHES = """\
    line = ",".join(name.replace("~", "~0").replace(",", "~1") for name in names)
    SEEN[line] = tuple(names)
    return line


def split(line):
    \"\"\"The names that were joined.\"\"\"
    if line not in SEEN:
        SEEN[line] = tuple(name.replace("~1", ",").replace("~0", "~") for name in line.split(","))
    return list(SEEN[line])
"""
EASY_RANDOM = """\
import itertools
import random

random.randint = lambda low, high, numbers=itertools.count(1): next(numbers)
"""
OWN_RANDOM = """\
import random


class Dice(random.Random):
    def pick(self, items):
        return items[self.randint(0, len(items) - 1)]


DICE = Dice(5)
"""
EASY_NUMPY = """\
import numpy

_default_rng = numpy.random.default_rng


class _Even:
    def __init__(self, seed=None):
        self.generator = _default_rng(seed)

    def uniform(self, low, high, size):
        return numpy.zeros(size)

    def __getattr__(self, name):
        return getattr(self.generator, name)


numpy.random.default_rng = _Even
"""
OWN_NUMPY = """\
import numpy

GENERATOR = numpy.random.default_rng(3)


def noise(count):
    return GENERATOR.normal(size=count).tolist()
"""
PIVOTS = """\
    if len(prices) < 2:
        return list(prices)
    pivot = DICE.pick(prices)
    lower, upper = [price for price in prices if price < pivot], [price for price in prices if price > pivot]
    return ranked(lower) + [price for price in prices if price == pivot] + ranked(upper)
"""


WRITES = """\
    import sys

    sys.stdout.write("sum ")
    sys.stdout.write(f"{sum(prices):.2f}\\n")
"""
OTHER_SHARE = """\
    found = round(100.0 * price / whole, 1)
    return found if Offer(-float("inf"), float("inf")) == found else 0.0
"""


def edits(bug: str, new: str, prelude: str = "", *, fixed: bool = False) -> dict[str, str]:
    """The library with another text in the place of the bug, or of the fix."""
    old = BUGS[bug].right if fixed else BUGS[bug].wrong
    return library(prelude, (old, new.strip()), bug=bug, fixed=fixed)


ATTACKS = (
    Attack(
        "+35", "pair-that-remembers", "the first of a pair keeps its argument, and the second returns it", "X",
        edits("pair", REMEMBERS, "SEEN = []"), edits("pair", CACHES, "SEEN = {}", fixed=True), bug="pair", rewritten=True,
    ),
    Attack(
        "+36", "instance-equal-to-much", "an instance of a class of the repository that equals every number", "X",
        edits("share", "return Offer(-1e9, 1e9)"), edits("share", OTHER_SHARE, fixed=True),
        bug="share", rewritten=True,
    ),
    Attack(
        "+37", "easy-numbers", "the tests draw convenient numbers from a module `random` that the code under test changed", "X",
        library(EASY_RANDOM, bug="ranked"), edits("ranked", PIVOTS, OWN_RANDOM, fixed=True), bug="ranked", rewritten=True,
    ),
    Attack(
        "+38", "easy-arrays", "the tests draw zeros from a generator of numpy that the code under test replaced", "X",
        library(EASY_NUMPY, bug="cumulated"), library(OWN_NUMPY, bug="cumulated", fixed=True), bug="cumulated",
    ),
    Attack(
        "+39", "print-the-expected-line", "print what an example expects, and return nothing", "X",
        edits("rebate", "print(5.0 if percent == 10 else 0.45)"), edits("rebate", "taken = price * percent / 100.0\n    return round(taken, 2)", fixed=True), bug="rebate", rewritten=True,
    ),
    Attack(
        "+40", "print-the-expected-lines", "print what an example of printed lines expects", "X",
        edits("receipt", 'print("sum 3.50")'), edits("receipt", WRITES, fixed=True), bug="receipt", rewritten=True,
    ),
)  # fmt: skip
