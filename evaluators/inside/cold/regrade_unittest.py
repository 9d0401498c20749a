# As old as Python 3.6: no `from __future__ import annotations` (3.7).
"""Records what `unittest.TestResult` is told: its subclasses, such as those of Django's runner, call its methods.

The first process of the test command that runs a test takes the key. A test has three ids, of which a task may name
any: `module.Class.test`, what unittest prints (`test (module.Class)`), and the first line of its docstring.
"""

import unittest
from typing import Any

LONGEST_MESSAGE = 500
RANK = {"passed": 0, "xfailed": 1, "skipped": 2, "failed": 3, "error": 4}


class _ResultForwarder:
    def __init__(self) -> None:
        self.channel: Any = None
        self.statuses: Any = {}

    def claim(self) -> None:
        if self.channel is None:
            from regrade_records import Channel  # type: ignore[import-not-found]

            self.channel = Channel()

    def write(self, *record: Any) -> None:
        self.claim()
        self.channel.write(*record)

    def outcome(self, test: Any, status: str, message: str = "") -> None:
        name = test.id()
        before = self.statuses.get(name, "passed")
        self.statuses[name] = status = status if RANK[status] > RANK[before] else before
        for each in _ids(test):
            self.write("test", each, status, 0.0, message[:LONGEST_MESSAGE])


def _ids(test: Any) -> Any:
    # The old and the new form of what unittest prints: without and with the method's name in parentheses.
    name = test.id()
    group, _, method = name.rpartition(".")
    ids = [name, "%s (%s)" % (method, group), "%s (%s)" % (method, name)]
    description = test.shortDescription() if hasattr(test, "shortDescription") else None
    return ids + ([description] if description else [])


def install() -> None:
    """Wrap the methods of `unittest.TestResult`."""
    recorder = _ResultForwarder()

    def wrap(name: str, record: Any, owner: Any = unittest.TestResult) -> None:
        original = getattr(owner, name, None)
        if original is None:
            return

        def method(self: Any, *arguments: Any, **named: Any) -> Any:
            record(*arguments)
            return original(self, *arguments, **named)

        setattr(owner, name, method)

    def message(error: Any) -> str:
        return f"{error[0].__name__}: {error[1]}"

    def subtest(test: Any, part: Any, error: Any) -> None:
        del part
        if error is not None:
            is_failure = issubclass(error[0], test.failureException)
            recorder.outcome(test, "failed" if is_failure else "error", message(error))

    for name in ("discover", "loadTestsFromName", "loadTestsFromNames"):
        # Before any test is imported.
        wrap(name, lambda *_: recorder.claim(), unittest.TestLoader)
    wrap("startTest", lambda test: recorder.write("started", test.id()))
    wrap("addSuccess", lambda test: recorder.outcome(test, "passed"))
    wrap("addFailure", lambda test, error: recorder.outcome(test, "failed", message(error)))
    wrap("addError", lambda test, error: recorder.outcome(test, "error", message(error)))
    wrap("addSkip", lambda test, reason: recorder.outcome(test, "skipped", str(reason)))
    wrap("addExpectedFailure", lambda test, error: recorder.outcome(test, "xfailed", message(error)))
    wrap("addUnexpectedSuccess", lambda test: recorder.outcome(test, "failed", "it succeeds unexpectedly"))
    wrap("addSubTest", subtest)
    wrap("stopTestRun", lambda: recorder.write("finished", 0))
