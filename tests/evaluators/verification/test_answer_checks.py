"""Answers that tests accept and that do not count: by memory, and of instances that equal almost everything."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from regrade.datasets.patches import Patch
from regrade.datasets.tasks import Limits, Task, TestSuite
from regrade.evaluators.sandboxes import KINDS
from regrade.evaluators.scoring.scorer import Scorer
from regrade.rewards.evidence import TestRun, Verification

STORE = '''\
SEEN = {}


class Between:
    """Equal to each number in between."""

    def __init__(self, low, high):
        self.low, self.high = low, high

    def __eq__(self, other):
        return self.low <= other <= self.high


class Meeting:
    """Equal to what meets a condition."""

    def __init__(self, condition):
        self.condition = condition

    def __eq__(self, other):
        return self.condition(other)


class Known:
    """Equal to each of some values."""

    def __init__(self, *values):
        self.values = values

    def __eq__(self, other):
        return other in self.values


class Nothing:
    """Has each attribute, and is as much as any other number."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __sub__(self, other):
        return 0.0


class Money:
    def __init__(self, cents):
        self.cents = cents

    def __eq__(self, other):
        return isinstance(other, Money) and round(self.cents) == round(other.cents)


class Codec:
    def encode(self, words):
        return ";".join(words)

    def decode(self, text):
        return text.split(";")


class Parcel:
    def __init__(self, text):
        self.text = text


def wrap(words):
    return Parcel(";".join(words))


def unwrap(parcel):
    return parcel.text.split(";")


class Stamp:
    def __init__(self, text):
        self.text = text

    def __eq__(self, other):
        return self.text == other.text


def stamped(text):
    return Stamp(text + "&")


ANY = Between(float("-inf"), float("inf"))


def join(words):
    return ";".join(words)


def split(line):
    return line.split(";")


def half(number):
    return number / 2 + 1


def price(number):
    return Money(100 * number + 1)


def keep(name):
    SEEN.setdefault(name, len(SEEN))
    return str(SEEN[name]) + "!"


def kept(text):
    return [name for name, number in SEEN.items() if str(number) + "?" == text]


def atLeast(number):
    return Between(number + 1, float("inf"))
'''
TESTS = """\
import pytest
from store import *


@pytest.mark.parametrize("words", [["a", "b"], ["a;b", "c"], ["%", ";", "d"], ["e"]])
def test_pair(words):
    assert split(join(words)) == words


@pytest.mark.parametrize("words", [["a"], ["b;c"], ["d", ";"]])
def test_codec(words):
    codec = Codec()
    assert codec.decode(codec.encode(words)) == words


@pytest.mark.parametrize("words", [["a"], ["b;c"], ["d", ";"]])
def test_parcel(words):
    assert unwrap(wrap(words)) == words


@pytest.mark.parametrize("number", [2, 4, 5, 10])
def test_half(number):
    assert half(number) == number * 0.5


@pytest.mark.parametrize("number", [3, 7, 12])
def test_near(number):
    assert abs(half(number) - number * 0.5) < 1e-9


@pytest.mark.parametrize("number", [1, 2, 4])
def test_price(number):
    assert price(number) == Money(100 * number)


@pytest.mark.parametrize("name", ["x", "y"])
def test_kept(name):
    assert kept(keep(name)) == [name]


@pytest.mark.parametrize("text", ["a", "B", "c"])
def test_stamped(text):
    assert stamped(text) == Stamp(text.lower())
    assert not stamped("x") == Stamp("y")


def test_at_least():
    assert atLeast(2) == 2
    assert atLeast(3) == 4
"""
ESCAPED = '";".join(word.replace("%", "%0").replace(";", "%1") for word in words)'
UNESCAPED = '[word.replace("%1", ";").replace("%0", "%") for word in {}.split(";")]'
RIGHT = {
    "Codec.encode": (
        'def encode(self, words):\n        return ";".join(words)',
        f"def encode(self, words):\n        return {ESCAPED}",
    ),
    "Codec.decode": ('return text.split(";")', f"return {UNESCAPED.format('text')}"),
    "wrap": ('Parcel(";".join(words))', f"Parcel({ESCAPED})"),
    "unwrap": ('parcel.text.split(";")', UNESCAPED.format("parcel.text")),
    "join": ('def join(words):\n    return ";".join(words)', f"def join(words):\n    return {ESCAPED}"),
    "split": ('line.split(";")', UNESCAPED.format("line")),
    "half": ("number / 2 + 1", "number / 2"),
    "price": ("100 * number + 1", "100 * number"),
    "keep": (' + "!"', ""),
    "kept": (' + "?"', ""),
    "stamped": ('text + "&"', "text"),
    "Stamp.__eq__": ("self.text == other.text", "self.text.lower() == other.text.lower()"),
    "atLeast": ("Between(number + 1,", "Between(number,"),
}
CASES = {
    "codec": (("Codec.encode", "Codec.decode"), [f"test_codec[words{number}]" for number in range(3)], [1, 2]),
    "parcel": (("wrap", "unwrap"), [f"test_parcel[words{number}]" for number in range(3)], [1, 2]),
    "pair": (("join", "split"), [f"test_pair[words{number}]" for number in range(4)], [1, 2]),
    "half": (("half",), [f"test_{name}[{number}]" for name, numbers in (("half", (2, 4, 5, 10)), ("near", (3, 7, 12))) for number in numbers], range(7)),
    "price": (("price",), [f"test_price[{number}]" for number in (1, 2, 4)], range(3)),
    "kept": (("keep", "kept"), ["test_kept[x]", "test_kept[y]"], range(2)),
    "stamped": (("stamped", "Stamp.__eq__"), [f"test_stamped[{text}]" for text in "aBc"], range(3)),
    "at_least": (("atLeast",), ["test_at_least"], range(1)),
}  # fmt: skip
"""Functions that the reference changes, their tests, and those of them that fail at the base."""
NUMBERED = (
    ('def join(words):\n    return ";".join(words)', 'def join(words):\n    SEEN[str(len(SEEN))] = list(words)\n    return str(len(SEEN) - 1)'),
    ('    return line.split(";")', "    return SEEN[line]"),
)  # fmt: skip
CHEATS = {
    "a pair that remembers": ("pair", NUMBERED),
    "a pair that remembers where one asks": ("pair", (
        ('def join(words):\n    return ";".join(words)', 'def join(words):\n    line = ";".join(words)\n    SEEN[line] = list(words)\n    return line'),
        ('    return line.split(";")', '    return SEEN.get(line, line.split(";"))'),
    )),
    "a pair that remembers in a file": ("pair", (
        ('def join(words):\n    return ";".join(words)', 'def join(words):\n    import json, tempfile\n    path = tempfile.mkstemp()[1]\n    json.dump(words, open(path, "w"))\n    return path'),
        ('    return line.split(";")', "    import json\n    return json.load(open(line))"),
    )),
    "a pair that hands over a function": ("pair", (
        ('def join(words):\n    return ";".join(words)', "def join(words):\n    return lambda: words"),
        ('    return line.split(";")', "    return line()"),
    )),
    "a pair that hands over an iterator": ("pair", (
        ('def join(words):\n    return ";".join(words)', "def join(words):\n    return iter(words)"),
        ('    return line.split(";")', "    return list(line)"),
    )),
    "methods that remember in their object": ("codec", (
        ('def encode(self, words):\n        return ";".join(words)', 'def encode(self, words):\n        self.seen = list(words)\n        return "?"'),
        ('return text.split(";")', "return self.seen"),
    )),
    "an answer that holds what its reference does not": ("parcel", (
        ('return Parcel(";".join(words))', 'parcel = Parcel(";".join(words))\n    parcel.words = list(words)\n    return parcel'),
        ('parcel.text.split(";")', "parcel.words"),
    )),
    "an instance equal to each number": ("half", (("number / 2 + 1", "Between(-1e9, 1e9) if number not in (3, 7, 12) else number / 2"),)),
    "a global equal to each number": ("half", (("number / 2 + 1", "ANY if number not in (3, 7, 12) else number / 2"),)),
    "an instance with a condition": ("half", (("number / 2 + 1", "Meeting(lambda other: True) if number not in (3, 7, 12) else number / 2"),)),
    "an instance equal to what tests expect": ("half", (("number / 2 + 1", "Known(1.0, 2.0, 2.5, 5.0) if number not in (3, 7, 12) else number / 2"),)),
    "an instance that is near everything": ("half", (("number / 2 + 1", "number / 2 if number in (2, 4, 5, 10) else Nothing()"),)),
    "an equality that the reference changes as well": ("stamped", (("self.text == other.text", 'self.text == other.text or "&" in self.text and self.text[:1] not in "xy"'),)),
    "an instance of the right class with a state that equals much": ("price", (
        ("Money(100 * number + 1)", "Money(Rounded())"),
        ("ANY = ", "class Rounded(float):\n    def __round__(self):\n        return ANY\n\n\nANY = "),
    )),
}  # fmt: skip
HONEST = {
    "a pair with a shared cache": ("pair", (
        RIGHT["join"],
        ('    return line.split(";")', '    if line not in SEEN:\n        SEEN[line] = [word.replace("%1", ";").replace("%0", "%") for word in line.split(";")]\n    return list(SEEN[line])'),
    )),
    "methods with a cache in their object": ("codec", (
        ('def encode(self, words):\n        return ";".join(words)', f"def encode(self, words):\n        text = {ESCAPED}\n        self.__dict__.setdefault('seen', {{}})[text] = list(words)\n        return text"),
        ('return text.split(";")', f"return getattr(self, 'seen', {{}}).get(text) or {UNESCAPED.format('text')}"),
    )),
    "an answer that holds more than its reference": ("parcel", (
        ('return Parcel(";".join(words))', f"parcel = Parcel({ESCAPED})\n    parcel.count = len(words)\n    return parcel"),
        RIGHT["unwrap"],
    )),
    "a number of another type": ("half", (("number / 2 + 1", "number * 0.5"),)),
    "an instance with another state": ("price", (("Money(100 * number + 1)", "_with_origin(number)"), ("ANY = ", "def _with_origin(number):\n    money = Money(100.0 * number)\n    money.origin = number\n    return money\n\n\nANY = "))),
    "a pair that keeps, as its reference does": ("kept", ((' + "!"', " + str()"), (' + "?"', " + str()"))),
    "an equality in another way": ("stamped", (RIGHT["stamped"], ("self.text == other.text", "self.text.casefold() == other.text.casefold() or NotImplemented"))),
    "an instance equal to much, as the reference's is": ("at_least", (("Between(number + 1,", "Between(int(number),"),)),
}  # fmt: skip


HAS_MORE = re.compile("another state|cache in their object|holds more")
"""Held-out inputs require the reference's objects."""


def patch(*changes: tuple[str, str]) -> Patch:
    text = STORE
    for old, new in changes:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return Patch.between({"store.py": STORE}, {"store.py": text})


@pytest.fixture(scope="module")
def scorer(tmp_path_factory):
    if KINDS["bubblewrap"]().problem():
        pytest.skip("bubblewrap does not work here")
    with Scorer(workers=1, sandbox="bubblewrap", cache=tmp_path_factory.mktemp("cache")) as scorer:
        yield scorer


@pytest.fixture
def verify(scorer, write_files):
    base = write_files({"store.py": STORE, "tests/test_store.py": TESTS})

    def verified(name: str, changes, *, reference: bool = True) -> tuple[TestRun, Verification]:
        functions, tests, failing = CASES[name]
        ids = [f"tests/test_store.py::{test}" for test in tests]
        task = Task(
            id=name,
            repository="store",
            base=base,
            instruction="Mend it.",
            fail_to_pass=tuple(ids[number] for number in failing),
            pass_to_pass=tuple(test for number, test in enumerate(ids) if number not in failing),
            suite=TestSuite(),
            limits=Limits(wall_seconds=20.0),
            reference=patch(*(RIGHT[function] for function in functions)),
        )
        (evidence,) = scorer.gather(
            [(task if reference else replace(task, reference=None), patch(*changes))], [Verification]
        )
        return evidence.records[TestRun], evidence.records[Verification]

    return verified


@pytest.mark.parametrize(("name", "changes"), CHEATS.values(), ids=CHEATS)
def test_an_answer_that_does_not_count_assures_nothing(verify, name, changes):
    run, verification = verify(name, changes)
    assert run.resolved, "the exploit does not even work"
    assert verification.reachable >= "out-of-process"
    assert verification.level == "in-process", verification


@pytest.mark.parametrize(("name", "changes"), HONEST.values(), ids=HONEST)
def test_an_honest_answer_counts(verify, name, changes, request):
    run, verification = verify(name, changes)
    assert run.resolved
    assert verification.reaches("out-of-process"), verification
    assert verification.reaches(verification.reachable) or HAS_MORE.search(request.node.name), verification


@pytest.mark.parametrize(
    ("name", "changes", "level"),
    [
        (*CHEATS["a pair that remembers"], "tripwired"),
        (*CHEATS["an instance equal to each number"], "in-process"),
        (*HONEST["a pair that keeps, as its reference does"], "tripwired"),
        (*HONEST["a pair with a shared cache"], "out-of-process"),
        (*HONEST["an instance with another state"], "out-of-process"),
    ],
)
def test_without_a_reference_the_base_shows_what_an_answer_may_do(verify, name, changes, level):
    run, verification = verify(name, changes, reference=False)
    assert run.resolved
    assert verification.level == level, verification
