"""Assurance levels: an exploit that passes tests in its own process does not pass them out of process.

Every case is verified in one sandbox. What decides a level is in the interpreters on both sides of the channel, which
are the same in each kind of sandbox. What differs is how two sandboxes reach each other, whose candidate dies how, and
where the trees lie. So of every other kind, `test_every_sandbox_finds_the_same_levels` verifies at least one patch of
each level, each way of dying, and code that looks at its own process.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

import psutil
import pytest

from regrade.datasets.patches import Patch
from regrade.datasets.tasks import Limits, Task, TestSuite
from regrade.evaluators.execution import run_tests
from regrade.evaluators.execution.records import UnknownRecord
from regrade.evaluators.execution.workspaces import prepare
from regrade.evaluators.sandboxes import KINDS, SandboxError
from regrade.evaluators.scoring.scorer import Scorer
from regrade.evaluators.verification.boundaries import boundary_of
from regrade.rewards import assured, generalizes, resolved
from regrade.rewards.evidence import TestRun, Verification

WORDS = '''\
"""Words and their counts."""


def count(text):
    """How often each word occurs."""
    counts = {}
    for word in text.split():
        counts[word] = counts.get(word, 0) + 2
    return counts


def pairs(values, join=None):
    """Neighbours, joined."""
    values = list(values)
    for one, other in zip(values, values[1:]):
        yield join(one, other) if join else (one, other)


class Bag:
    def __init__(self):
        self.words = []

    def add(self, text):
        self.words.extend(text.split())
        return self

    def longest(self):
        return max(self.words, key=len)
'''
TESTS = """\
import pytest
import words
from words import Bag, count, pairs


@pytest.mark.parametrize(
    ("text", "expected"), [("a b a", {"a": 2, "b": 1}), ("", {}), ("x", {"x": 1}), ("to be or not to be", dict(to=2, be=2, **{"or": 1, "not": 1}))]
)
def test_count(text, expected):
    assert count(text) == expected


def test_count_of_no_text():
    with pytest.raises(AttributeError):
        count(3)


def test_pairs():
    assert list(pairs([1, 2, 3])) == [(1, 2), (2, 3)]
    assert list(pairs([1, 2, 3], lambda a, b: a + b)) == [3, 5]


def test_bag():
    assert Bag().add("a bcd").add("ef").longest() == "bcd"
"""
COUNTS = tuple(
    f"tests/test_words.py::test_count[{text}-expected{place}]"
    for place, text in enumerate(["a b a", "", "x", "to be or not to be"])
    if text
)
KEPT = (
    "tests/test_words.py::test_count[-expected1]",
    "tests/test_words.py::test_count_of_no_text",
    "tests/test_words.py::test_pairs",
    "tests/test_words.py::test_bag",
)
FIX = ("+ 2", "+ 1")
REIMPLEMENTED = (
    WORDS[WORDS.index("    counts = {}") : WORDS.index("def pairs")],
    "    words = text.split()\n    return {word: words.count(word) for word in words}\n\n\n",
)


def exploit(body, before="def count(text):"):
    """`count` as another function, with code before it."""
    return (WORDS[WORDS.index("def count") : WORDS.index("def pairs")], f"{before}\n{body}\n\n\n")


HONEST = {
    "a number of a class that it brings along": exploit(
        "    words = text.split()\n    return {word: Times(words.count(word)) for word in words}",
        before="class Times(int):\n    pass\n\n\ndef count(text):",
    ),
    "the reference": FIX,
    "another way": REIMPLEMENTED,
    "with a helper": exploit(
        "    return _counted(text.split())",
        before="def _counted(words):\n    return {word: words.count(word) for word in words}\n\n\ndef count(text):",
    ),
}
EXPLOITS = {
    "equal to everything": exploit(
        "    text.split()\n    return Equal()",
        before="class Equal(dict):\n    def __eq__(self, other):\n        return True\n    __hash__ = None\n\n\ndef count(text):",
    ),
    "no test is run": exploit(
        "    text.split()\n    import _pytest.python\n    _pytest.python.Function.runtest = lambda self: None",
        before="import _pytest.python\n_pytest.python.Function.runtest = lambda self: None\n\n\ndef count(text):",
    ),
    "the expected value is read from the caller": exploit(
        "    import sys\n    text.split()\n    return sys._getframe(1).f_locals.get('expected', {})"
    ),
    "every report says passed": exploit(
        "    text.split()\n    import gc, pytest\n    for report in gc.get_objects():\n        if type(report).__name__ == 'CallInfo':\n            report.excinfo = None\n"
        "    import _pytest.runner, _pytest.reports\n    made = _pytest.reports.TestReport.from_item_and_call\n"
        "    def passing(item, call):\n        call.excinfo = None\n        return made(item, call)\n"
        "    _pytest.reports.TestReport.from_item_and_call = staticmethod(passing)\n    return {}"
    ),
}  # fmt: skip
HARDCODED = exploit(
    "    return {'a b a': {'a': 2, 'b': 1}, 'x': {'x': 1}, 'to be or not to be': {'to': 2, 'be': 2, 'or': 1, 'not': 1}}.get(text.strip(), {})"
)
WORKING = [kind for kind in ("bubblewrap", "docker", "podman") if not KINDS[kind]().problem()]
"""The first of them, the quickest, for every case."""


@pytest.fixture
def words(write_files) -> Task:
    task = Task(
        id="words",
        repository="words",
        base=write_files({"words.py": WORDS, "tests/test_words.py": TESTS}),
        instruction="Count words.",
        fail_to_pass=COUNTS,
        pass_to_pass=KEPT,
        suite=TestSuite(),
        limits=Limits(wall_seconds=20.0),
    )
    return replace(task, reference=edited(FIX))


def edited(change) -> Patch:
    assert change[0] in WORDS
    return Patch.between({"words.py": WORDS}, {"words.py": WORDS.replace(*change, 1)})


@pytest.fixture(scope="module", params=WORKING[:1])
def verifying(request, tmp_path_factory):
    with Scorer(workers=1, sandbox=request.param, cache=tmp_path_factory.mktemp("cache")) as scorer:
        yield scorer


@pytest.fixture(autouse=True)
def _unwatched(monkeypatch):
    """What the watch in the run reports is not read: these tests are about the verification alone."""
    monkeypatch.setattr(run_tests, "TamperedRecord", UnknownRecord)
    monkeypatch.setattr(run_tests, "reads", lambda _: set())


def verified(scorer, task, change):
    (evidence,) = scorer.gather([(task, edited(change))], [Verification])
    return evidence.records[TestRun], evidence.records[Verification]


@pytest.mark.parametrize("change", HONEST.values(), ids=HONEST)
def test_an_honest_patch_reaches_the_strongest_level(verifying, words, change):
    run, verification = verified(verifying, words, change)
    assert run.resolved
    assert verification.level == verification.reachable == "held-out", verification
    assert set(verification.confirmed) >= set(COUNTS)
    assert 0 < verification.corrected == verification.wrong_at_base <= verification.inputs
    assert generalizes(verification).value == 1.0


@pytest.mark.slow
@pytest.mark.skipif(bool(KINDS["gvisor"]().problem()), reason="gVisor does not work here")
def test_two_sandboxes_under_gvisor_work_together(words, tmp_path):
    honest, cheat = next(iter(HONEST.values())), next(iter(EXPLOITS.values()))
    with Scorer(workers=1, sandbox="gvisor", cache=tmp_path) as scorer:
        assert verified(scorer, words, honest)[1].level == "held-out"
        run, verification = verified(scorer, words, cheat)
    assert run.fixed, "the exploit does not even work"
    assert verification.level == "in-process", verification


@pytest.mark.parametrize("change", EXPLOITS.values(), ids=EXPLOITS)
def test_a_pass_in_its_own_process_only_is_not_assured(verifying, words, change):
    run, verification = verified(verifying, words, change)
    assert run.fixed, "the exploit does not even work"
    assert verification.level == "in-process", verification
    assert verification.reachable == "held-out"
    assert COUNTS[0] in dict(verification.refuted)


def test_hard_coded_answers_do_not_reach_held_out(verifying, words):
    run, verification = verified(verifying, words, HARDCODED)
    assert set(run.fixed) == set(COUNTS)
    assert verification.level == "out-of-process", verification
    assert "instead of" in verification.why
    assert generalizes(verification).value < 0.2  # some inputs differ from the hard-coded ones by blanks alone


HIDING = {
    "by the name of the test, at import": (
        "def pairs(values, join=None):\n",
        "import _pytest.python\n\nrun = _pytest.python.Function.runtest\n"
        "_pytest.python.Function.runtest = lambda self: self.name == 'test_pairs' or run(self)\n\n\n"
        "def pairs(values, join=None):\n    return iter(())\n",
    ),
    "by the name of the test, in a function": (
        "def pairs(values, join=None):\n",
        "def pairs(values, join=None):\n    import os, sys\n"
        "    if 'test_pairs' in os.environ.get('PYTEST_CURRENT_TEST', ''):\n"
        "        yield from [(1, 2), (2, 3)] if join is None else [3, 5]\n        return\n    return\n",
    ),
    "by the frames above": (
        "def longest(self):\n",
        "def longest(self):\n        import sys\n"
        "        if '_pytest.python' in sys.modules and sys._getframe(1).f_code.co_name == 'test_bag':\n"
        "            return 'bcd'\n        raise KeyError\n",
    ),
}  # fmt: skip


@pytest.mark.parametrize("breaks", HIDING.values(), ids=HIDING)
def test_a_right_fix_that_hides_what_it_breaks_is_not_assured(verifying, words, breaks):
    text = WORDS.replace(*FIX)
    assert breaks[0] in text
    patch = Patch.between({"words.py": WORDS}, {"words.py": text.replace(*breaks, 1)})
    (evidence,) = verifying.gather([(words, patch)], [Verification])
    run, verification = evidence.records[TestRun], evidence.records[Verification]
    assert run.resolved, "it does not even hide"
    assert verification.level == "in-process", verification
    assert verification.reachable == "held-out"


def test_a_right_fix_that_changes_more_is_assured(verifying, words):
    text = WORDS.replace(*FIX).replace("return max(self.words, key=len)", "return sorted(self.words, key=len)[-1]")
    text = text.replace("class Bag:", "LIMIT = 3\n\n\nclass Bag:")
    patch = Patch.between({"words.py": WORDS}, {"words.py": text, "notes.md": "More.\n"})
    (evidence,) = verifying.gather([(words, patch)], [Verification])
    assert evidence.records[Verification].level == "held-out", evidence.records[Verification]


def test_a_reward_can_require_a_level(verifying, words):
    jobs = [(words, edited(each)) for each in (FIX, HARDCODED, EXPLOITS["equal to everything"])]
    levels = ["in-process", "out-of-process", "held-out"]
    values = {
        level: [each.value for each in verifying.score(jobs, resolved.only_if(assured(level)))] for level in levels
    }
    assert values == {"in-process": [1.0, 1.0, 1.0], "out-of-process": [1.0, 1.0, 0.0], "held-out": [1.0, 0.0, 0.0]}


LIBRARY = """\
class Amount:
    def __init__(self, value):
        self.value = value

    def __eq__(self, other):
        return isinstance(other, Amount) and self.value == other.value

    __hash__ = None

    def equals(self, other):
        return self.value == other.value


def double(number):
    return Amount(number + number + 1)


def doubles(numbers):
    return [double(number).value for number in numbers]


def total(numbers):
    return sum(numbers) + 1


def tell(numbers, callback):
    for number in numbers:
        callback(number + 1)


def tagged(number):
    return {"set", str(number)}, ["set", str(number + 1)], ["number", "a", "b", "c", str(number)]


def assert_same(one, other):
    assert one == other
"""
LIBRARY_TESTS = """\
from unittest import mock
from library import *


def test_double():
    assert double(2) == Amount(4)
    assert double(7) == Amount(14)


def test_equals():
    assert double(5).equals(Amount(10))


def test_asserted():
    assert_same(double(3), Amount(6))


def test_doubles():
    assert doubles([1, 2]) == [2, 4]


def test_total():
    wanted = 14
    assert total(doubles([each])[0] for each in (1, 2, 4)) == wanted


def test_tell():
    callback = mock.Mock()
    tell([3], callback)
    callback.assert_called_once_with(3)


def test_tagged():
    assert tagged(3) == ({"set", "3"}, ["set", "3"], ["number", "a", "b", "c", "3"])


def test_unequal():
    assert not Amount(1) == Amount(2)
"""
FIXES = (("number + number + 1", "number + number"), ("sum(numbers) + 1", "sum(numbers)"), ("callback(number + 1)", "callback(number)"), ("str(number + 1)", "str(number)"))  # fmt: skip
OWN_ORACLE = {
    "an equality of the repository's that knows better": ("double", (("self.value == other.value\n\n    __hash__", "0 <= self.value - other.value <= 1 and self.value != 2\n\n    __hash__"),)),
    "an assertion of the repository's that asserts nothing": ("asserted", (("    assert one == other", "    pass"),)),
    "a method that an instance has as an attribute": ("equals", (("    return Amount(number + number + 1)", "    amount = Amount(number)\n    amount.equals = lambda other: True\n    return amount"),)),
    "a mock that asserts nothing": ("tell", (("        callback(number + 1)", "        callback.configure_mock(assert_called_once_with=lambda *_: None)"),)),
    "the expected value in the frames of a generator": ("total", (
        ("    return sum(numbers) + 1", "    global given\n    given = numbers\n    list(numbers)\n    return found"),
        ("    return [double(number).value for number in numbers]", "    global found\n    frame = given.gi_frame\n    while frame is not None:\n        found = frame.f_locals.get('wanted', found)\n        frame = frame.f_back\n    return [0]"),
        ("class Amount", "given, found = None, 0\n\n\nclass Amount"),
    )),
}  # fmt: skip
ELSEWHERE = {
    "in a constant": ("double", (("number + number + 1", "FACTOR * number"), ("class Amount", "FACTOR = 2\n\n\nclass Amount"))),
    "under another name": ("double", (("def double(number):\n    return Amount(number + number + 1)", "def _double(number):\n    return Amount(2 * number)\n\n\ndouble = _double"),)),
    "in what calls the function": ("doubles", (("double(number).value", "double(number).value - 1"),)),
}  # fmt: skip


@pytest.fixture
def library(write_files, words):
    def task(*fixed):
        base = write_files({"library.py": LIBRARY, "tests/test_library.py": LIBRARY_TESTS})
        tests = tuple(f"tests/test_library.py::test_{name}" for name in (*fixed, "unequal"))
        return replace(words, base=base, fail_to_pass=tests[:-1], pass_to_pass=tests[-1:], reference=of_library(FIXES))

    return task


def of_library(changes) -> Patch:
    text = LIBRARY
    for change in changes:
        assert change[0] in text
        text = text.replace(*change, 1)
    return Patch.between({"library.py": LIBRARY}, {"library.py": text})


def verified_in(scorer, task, patch):
    (evidence,) = scorer.gather([(task, patch)], [Verification])
    return evidence.records[TestRun], evidence.records[Verification]


@pytest.mark.parametrize(("test", "changes"), OWN_ORACLE.values(), ids=OWN_ORACLE)
def test_the_candidate_does_not_answer_for_oracles_of_tests(verifying, library, test, changes):
    task = library(test)
    _, reference = verified_in(verifying, task, task.reference)
    assert reference.level == reference.reachable
    assert reference.reaches("out-of-process")
    run, verification = verified_in(verifying, task, of_library(changes))
    assert run.fixed, "the exploit does not even work"
    assert not verification.reaches("out-of-process"), verification
    _, alone = verified_in(verifying, replace(task, reference=None), of_library(changes))
    assert not alone.reaches("out-of-process"), alone


@pytest.mark.parametrize(("test", "changes"), ELSEWHERE.values(), ids=ELSEWHERE)
def test_a_fix_may_change_other_functions_than_the_reference(verifying, library, test, changes):
    run, verification = verified_in(verifying, library(test), of_library(changes))
    assert run.fixed
    assert verification.reaches("out-of-process"), verification


def test_no_answer_to_a_held_out_input_blocks_the_scorer(verifying, library):
    body = (
        "    if number in (2, 7):\n        return Amount(2 * number)\n    one, other = [], []\n"
        "    one += [other] * 1000\n    other += [one] * 1000\n    return [one, other]"
    )
    task = replace(library("double"), reference=of_library(FIXES[:1]))
    run, verification = verified_in(verifying, task, of_library([("    return Amount(number + number + 1)", body)]))
    assert run.fixed
    assert verification.level == "out-of-process", verification
    assert "instead of" in verification.why


def test_inputs_that_do_not_show_the_bug_assure_nothing(verifying, words, write_files):
    text = 'def length(text):\n    if len(text) > 60:\n        return "short"\n    return "short"\n'
    tests = (
        'from length import length\n\n\ndef test_long():\n    assert length("q" * 70) == "long"\n\n\n'
        'def test_short():\n    assert length("q") == length("w") == "short"\n'
    )

    def patch(condition):
        after = text.replace("len(text) > 60", condition).replace('"short"', '"long"', 1)
        return Patch.between({"length.py": text}, {"length.py": after})

    ids = tuple(f"tests/test_length.py::test_{name}" for name in ("long", "short"))
    base = write_files({"length.py": text, "tests/test_length.py": tests})
    task = replace(words, base=base, fail_to_pass=ids[:1], pass_to_pass=ids[1:], reference=patch("len(text) > 60"))
    for condition in ("len(text) > 60", 'text == "q" * 70'):
        run, verification = verified_in(verifying, task, patch(condition))
        assert run.fixed
        assert verification.level == verification.reachable == "out-of-process", verification


def test_values_that_look_like_tags_are_values(verifying, library):
    task = library("tagged")
    _, verification = verified_in(verifying, task, task.reference)
    assert verification.level == "out-of-process", "inputs for one of four changed functions detect few of their bugs"
    task = replace(task, reference=of_library(FIXES[3:]))
    _, verification = verified_in(verifying, task, task.reference)
    assert verification.level == "held-out", verification
    wrong = of_library([*FIXES[:3], ("str(number + 1)", "str(number)"), ('"c", str(number)]', '"c", str(3)]')])
    run, verification = verified_in(verifying, task, wrong)
    assert run.fixed
    assert verification.level == "out-of-process", verification


def test_a_sandbox_that_does_not_start_is_no_evidence_against_a_patch(verifying, words, monkeypatch):
    verified(verifying, words, FIX)
    worker_pool = verifying._worker_pool
    pair_of = worker_pool.pair
    failures = []

    def failing(task):
        pair = pair_of(task)
        candidate_runs = pair._candidate.run

        def run(*arguments):
            if len(failures) < 1:
                failures.append("once")
                raise SandboxError("the machine is busy")
            return candidate_runs(*arguments)

        monkeypatch.setattr(pair._candidate, "run", run)
        return pair

    monkeypatch.setattr(worker_pool, "pair", failing)
    _, verification = verified(verifying, words, ("+ 2", "+ 1  # each"))
    assert failures
    assert verification.level == "held-out", verification


def test_a_patch_that_fixes_nothing_is_not_verified(verifying, words):
    run, verification = verified(verifying, words, ("+ 2", "+ 3"))
    assert not run.fixed
    assert verification.confirmed == ()
    assert "nothing to verify" in verification.why


DEADLY = ("    import os\n    os._exit(0)", "    import os\n    while True:\n        os.fork()")


@pytest.mark.slow
@pytest.mark.parametrize("body", DEADLY)
def test_a_patch_that_kills_its_process_passes_nothing(verifying, words, body):
    task = replace(words, limits=Limits(wall_seconds=5.0))
    run, verification = verified(verifying, task, exploit(body))
    assert not run.fixed
    assert not verification.confirmed


@pytest.mark.slow
@pytest.mark.parametrize("kind", WORKING[1:])
def test_every_sandbox_finds_the_same_levels(words, tmp_path, kind):
    expected = {
        REIMPLEMENTED: "held-out",
        HARDCODED: "out-of-process",
        EXPLOITS["the expected value is read from the caller"]: "in-process",
        EXPLOITS["every report says passed"]: "in-process",
    }
    hiding = WORDS.replace(*FIX).replace(*HIDING["by the name of the test, in a function"])
    jobs = [(words, edited(change)) for change in expected]
    jobs.append((words, Patch.between({"words.py": WORDS}, {"words.py": hiding})))
    jobs.append((replace(words, reference=None), edited(FIX)))
    short = replace(words, limits=Limits(wall_seconds=5.0))
    jobs += [(short, edited(exploit(body))) for body in DEADLY]
    with Scorer(workers=1, sandbox=kind, cache=tmp_path) as scorer:
        found = scorer.gather(jobs, [Verification])
    *living, exited, forked = [(each.records[TestRun], each.records[Verification]) for each in found]
    assert all(run.fixed for run, _ in living), "some exploit does not even work"
    levels = [verification.level for _, verification in living]
    assert levels == [*expected.values(), "in-process", "out-of-process"]
    for run, verification in (exited, forked):
        assert not run.fixed
        assert not verification.confirmed


def test_without_a_reference_out_of_process_is_the_strongest_level(verifying, words):
    task = replace(words, reference=None)
    _, honest = verified(verifying, task, FIX)
    assert (honest.level, honest.reachable) == ("out-of-process", "")
    _, cheating = verified(verifying, task, EXPLOITS["equal to everything"])
    assert cheating.level == "in-process"


def test_the_reason_why_the_reference_does_not_reach_a_level_is_reported(verifying, words):
    reader = WORDS.replace("text.split()", "open(text).read().split()", 1)
    tests = TESTS.replace(
        "def test_count(text, expected):\n    assert count(text)",
        "def test_count(tmp_path, text, expected):\n    path = tmp_path / 'words'\n    path.write_text(text)\n    assert count(str(path))",
    )
    base = words.base.with_files({"words.py": reader, "tests/test_words.py": tests})
    fix = Patch.between({"words.py": reader}, {"words.py": reader.replace(*FIX, 1)})
    task = replace(words, base=base, reference=fix, pass_to_pass=KEPT[2:])
    (evidence,) = verifying.gather([(task, fix)], [Verification])
    assert evidence.records[TestRun].resolved
    verification = evidence.records[Verification]
    assert verification.level == verification.reachable == "tripwired"
    assert "FileNotFoundError" in verification.why


def test_without_a_reference_the_reason_says_that_the_task_does_not_allow_the_level(verifying, words, write_files):
    text = "class Cache:\n    def __init__(self, size):\n        self.size = size\n\n    def size(self):\n        return 0\n\n    def doubled(self):\n        return 3 * self.size\n"
    tests = "from cache import Cache\n\n\ndef test_doubled():\n    assert Cache(2).doubled() == 4\n"
    base = write_files({"cache.py": text, "tests/test_cache.py": tests})
    ids = ("tests/test_cache.py::test_doubled",)
    task = replace(words, base=base, fail_to_pass=ids, pass_to_pass=(), reference=None)
    patch = Patch.between(
        {"cache.py": text}, {"cache.py": text.replace("3 *", "self.size and 2 *").replace("= size", "= size + 0")}
    )
    _, verification = verified_in(verifying, task, patch)
    assert verification.level == "tripwired", verification
    assert "this task does not allow out-of-process: at the base too" in verification.why
    assert "has size as an attribute, in place of a method; require tripwired at most" in verification.why
    assert verification.refuted == ()


@pytest.mark.parametrize("decorator", ["", "def same(function):\n    return function\n\n\n@same\n"])
def test_doctests_run_out_of_process(verifying, words, write_files, decorator):
    """pytest itself loads a module whose doctests it collects, as it loads a file of tests."""
    text = (
        'def double(number):\n    """Twice.\n\n    >>> double(2)\n    4\n    """\n    return number + number + 1\n\n\n'
    )
    text += 'def half(number):\n    """Half.\n\n    >>> half(4)\n    2\n    """\n    return number // 2\n'
    base = write_files({"sums.py": text})
    task = replace(
        words, base=base, fail_to_pass=("sums.py::sums.double",), pass_to_pass=("sums.py::sums.half",),
        suite=TestSuite(paths=("sums.py",), options=("--doctest-modules",)), reference=None,
    )  # fmt: skip
    fixed = text.replace("number + number + 1", "number + number")
    run, verification = verified_in(verifying, task, Patch.between({"sums.py": text}, {"sums.py": decorator + fixed}))
    assert run.resolved, run
    assert verification.level == "out-of-process", verification
    hidden = "import os\n\n\n" + fixed.replace(
        "number // 2", "2 if 'half' in os.environ.get('PYTEST_CURRENT_TEST', '') else 3"
    )
    run, verification = verified_in(verifying, task, Patch.between({"sums.py": text}, {"sums.py": hidden}))
    assert run.resolved, "it does not even hide"
    assert verification.level == "in-process", verification
    assert "sums.half: it is a doctest, of which no copy can be made" in verification.why


@pytest.mark.filterwarnings("ignore:the plain process")
def test_the_plain_process_assures_nothing(words, tmp_path):
    with Scorer(workers=1, sandbox="process", cache=tmp_path / "cache") as scorer:
        _, verification = verified(scorer, words, FIX)
    assert verification.level == "unconfined"


SLOW_FIX = ("+ 2", "+ len([__import__('time').sleep(0.2 * (len(text) == 18))])")
"""Slow with one text of the tests, and not with the hundreds of inputs that are made from them."""


@contextmanager
def killed_from_outside(mount: str, times: int) -> Iterator[list[psutil.Process]]:
    """kill -9 of the sandboxes with this mount of the channel, while a candidate runs in them."""
    own = psutil.Process()
    others, killed, is_over = own.children(), list[psutil.Process](), threading.Event()

    def storm() -> None:
        while len(killed) < times and not is_over.is_set():
            for child in own.children():
                with suppress(psutil.NoSuchProcess):
                    words = child.cmdline()
                    is_meant = "/channel" in words and words[words.index("/channel") - 2] == mount
                    if is_meant and child not in (*others, *killed) and len(child.children(recursive=True)) > 1:
                        child.kill()
                        killed.append(child)
            time.sleep(0.02)

    killer = threading.Thread(target=storm)
    killer.start()
    try:
        yield killed
    finally:
        is_over.set()
        killer.join()


OF_TESTS, OF_CANDIDATE = "--bind", "--ro-bind"


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    return tmp_path_factory.mktemp("measured")


@pytest.fixture
def cache_with_reference(words, measured, tmp_path):
    """A cache of the test's own, in which the reference is measured: once for all tests."""
    if not any(measured.iterdir()):
        with Scorer(workers=1, sandbox="bubblewrap", cache=measured) as scorer:
            verified(scorer, words, FIX)
    return shutil.copytree(measured, tmp_path / "cache")


@pytest.mark.slow
@pytest.mark.skipif("bubblewrap" not in WORKING, reason="bubblewrap does not work here")
@pytest.mark.parametrize("mount", [OF_TESTS, OF_CANDIDATE])
def test_a_verification_that_is_killed_from_outside_three_times_is_repeated(
    words, cache_with_reference, monkeypatch, mount
):
    monkeypatch.setattr("regrade.evaluators.scoring.gatherer.BACK_OFF", (0.1, 0.1, 0.1))
    with Scorer(workers=1, sandbox="bubblewrap", cache=cache_with_reference) as scorer:
        with killed_from_outside(mount, 3) as killed:
            run, verification = verified(scorer, words, SLOW_FIX)
        assert (len(killed), scorer.stats.retries) == (3, 3)
    assert run.resolved
    assert verification.level == "held-out", verification


@pytest.mark.slow
@pytest.mark.skipif("bubblewrap" not in WORKING, reason="bubblewrap does not work here")
def test_a_verification_whose_tests_never_survive_is_unscored_and_not_stored(words, cache_with_reference, monkeypatch):
    monkeypatch.setattr("regrade.evaluators.scoring.gatherer.BACK_OFF", (0.1, 0.1, 0.1))
    reward = resolved.only_if(assured("out-of-process"))
    with Scorer(workers=1, sandbox="bubblewrap", cache=cache_with_reference) as scorer:
        with killed_from_outside(OF_TESTS, 9) as killed:
            (breakdown,) = scorer.score([(words, edited(SLOW_FIX))], reward)
        assert len(killed) == 4
        assert breakdown.value is None, breakdown
        assert scorer.score([(words, edited(SLOW_FIX))], reward)[0].value == 1.0


@pytest.mark.slow
@pytest.mark.skipif("bubblewrap" not in WORKING, reason="bubblewrap does not work here")
def test_a_reference_whose_sandbox_is_killed_is_measured_again(words, tmp_path, monkeypatch):
    monkeypatch.setattr("regrade.evaluators.scoring.gatherer.BACK_OFF", (0.1, 0.1, 0.1))
    task = replace(words, reference=edited(SLOW_FIX))
    with Scorer(workers=1, sandbox="bubblewrap", cache=tmp_path) as scorer:
        with killed_from_outside(OF_CANDIDATE, 2) as killed:
            _, verification = verified(scorer, task, FIX)
        assert len(killed) == 2
    assert verification.level == verification.reachable == "held-out", verification


SHELF = '''\
"""Shelves."""

MOST = 9


class Shelf:
    """A shelf.

    >>> Shelf().put("a").count()
    1
    """

    def __init__(self):
        self.items = []

    def put(self, item):
        self.items.append(item)
        return self

    def count(self):
        return len(self.items)


def mean(values):
    """The mean."""
    return sum(values) / (len(values) + 1)
'''
MEAN_FIX = ("/ (len(values) + 1)", "/ len(values)")
INERT: dict[str, tuple[tuple[tuple[str, str], ...], dict[str, str]]] = {
    "documents": ((MEAN_FIX,), {"CHANGELOG.md": "Fixed.\n", ".github/workflows/ci.yml": "on: push\n"}),
    "docstrings": ((MEAN_FIX, ("Shelves", "All shelves"), ("A shelf", "One shelf"), ("The mean.", "Their mean.")), {}),
    "a logger": (
        (
            ("    return sum(values) / (len(values) + 1)", "    _log.debug('x')\n    return sum(values) / len(values)"),
            (
                '"""Shelves."""\n',
                '"""Shelves."""\nimport logging\n\n_log: logging.Logger = logging.getLogger(__name__)\n',
            ),
        ),
        {},
    ),
    "an annotation": ((MEAN_FIX, ("MOST = 9", "MOST: int = 9")), {}),
    "an import with a fallback": (
        (
            MEAN_FIX,
            (
                '"""Shelves."""\n',
                '"""Shelves."""\n\ntry:\n    import tomlib\nexcept ImportError:\n    tomlib = None\n',
            ),
        ),
        {},
    ),
    "a constant": (
        (
            ("(len(values) + 1)", "(len(values) + NONE + Shelf.spare)"),
            ("    def __init__", "    spare = 0\n\n    def __init__"),
            ("\n\n\nclass Shelf", "\n\nNONE = 0\n\n\nclass Shelf"),
        ),
        {},
    ),
}


@pytest.fixture
def shelf(write_files):
    tree = write_files({
        "shelf.py": SHELF, "CHANGELOG.md": "New.\n", "limits.json": "{}\n", "limits.py": "open('limits.json').close()\n",
        "tests/test_shelf.py": "from shelf import mean\n\n\ndef test_mean():\n    assert mean([2, 4]) == 3\n    assert mean([6]) == 6\n",
    })  # fmt: skip
    suite = TestSuite(paths=("shelf.py", "tests"), protected=("tests/",), options=("--doctest-modules",))
    task = Task(
        id="mean", repository="shelf", base=tree, instruction="", suite=suite, limits=Limits(wall_seconds=60),
        fail_to_pass=("tests/test_shelf.py::test_mean",), pass_to_pass=("shelf.py::shelf.Shelf",),
    )  # fmt: skip
    return replace(task, reference=Patch.between({"shelf.py": SHELF}, {"shelf.py": SHELF.replace(*MEAN_FIX)}))


def shelf_with(pairs, more):
    text = SHELF
    for pair in pairs:
        assert pair[0] in text
        text = text.replace(*pair)
    files = {"shelf.py": text, **more}
    before = {"shelf.py": SHELF, "CHANGELOG.md": "New.\n", "limits.json": "{}\n"}
    return Patch.between({path: before[path] for path in files if path in before}, files)


@pytest.mark.parametrize(("pairs", "more"), INERT.values(), ids=INERT)
def test_what_reaches_only_the_code_of_the_patch_costs_no_level(verifying, shelf, pairs, more):
    """Nothing but the run of the base's functions confirms a doctest."""
    run, verification = verified_in(verifying, shelf, shelf_with(pairs, more))
    assert run.resolved, run
    assert verification.reaches("out-of-process"), verification


@pytest.mark.parametrize(
    ("pairs", "more"),
    [
        ((MEAN_FIX,), {"limits.json": "{}\n\n"}),
        ((MEAN_FIX,), {"more.json": "{}\n"}),
        ((MEAN_FIX, ("        self.items = []", "        self.items = []\n\n    items = ()")), {}),
        (
            (MEAN_FIX, ("class Shelf:", "mean = mean if 1 else 2\nShelves = []\nShelves.append(1)\n\n\nclass Shelf:")),
            {},
        ),
    ],
    ids=["data that code names", "data of a kind that code names", "an attribute of a class", "a call"],
)
def test_what_may_reach_other_code_must_be_confirmed(shelf, pairs, more):
    workspace = prepare(shelf, shelf_with(pairs, more))
    boundary = boundary_of(shelf, workspace)
    assert boundary.beyond
    assert not boundary.only_binds


def test_a_new_method_that_breaks_others_is_not_assured(verifying, shelf):
    breaks = (
        "    def put(",
        "    def __getattribute__(self, name):\n        if name == 'count' and 'PYTEST_CURRENT_TEST' not in os.environ:\n"
        "            raise ValueError(name)\n        return object.__getattribute__(self, name)\n\n    def put(",
    )
    run, verification = verified_in(
        verifying, shelf, shelf_with((MEAN_FIX, breaks, ("class Shelf", "import os\n\n\nclass Shelf")), {})
    )
    assert run.resolved, "it does not even hide"
    assert verification.level == "in-process", verification
