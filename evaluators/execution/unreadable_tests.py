"""Which tests pass only because the code under test reads their source, which contains the expected values?

That code opened a file of tests is no proof: a traceback, a log with the stack, or a library that looks for its caller
opens the files of all frames. So the tests run once more on files of tests that do the same, and that nobody can read:
a test that then fails depended on the read.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Collection

from regrade.datasets.node_ids import file_of
from regrade.datasets.tasks import Task, Tree
from regrade.evaluators.execution.records import ReadRecord, TestRecord
from regrade.evaluators.execution.worker import Reply

UNREWRITTEN = "--assert=plain"
"""pytest can't rewrite the assertions of an unreadable file: where it can, it should not either."""
RunOnTree = Callable[[Tree, tuple[str, ...]], Reply]
"""Run the same tests on a tree, with further options of pytest."""


def watched_files(task: Task, tests: Collection[str]) -> tuple[str, ...]:
    """The Python files that contain these tests, and the code that tests of the task use."""
    suite = task.suite
    if suite.runner != "pytest" or suite.image is not None:
        return ()
    files = {*map(file_of, tests), *suite.test_files} - {*suite.doctest_files, *suite.product_files}
    return tuple(sorted(path for path in files if path.endswith(".py")))


def reads(reply: Reply) -> set[tuple[str, str]]:
    """(file of tests, the code under test that opened it); without files that tests open themselves, in which they may
    look for something."""
    records = reply.of(ReadRecord)
    own = {record.path for record in records if not record.by}
    return {(record.path, record.by) for record in records if record.path not in own}


def unreadable(text: str) -> str:
    """A module that does what the module with this text does."""
    packed = zlib.compress(text.encode("utf-8", "surrogateescape")).hex()
    return f"exec(compile(__import__('zlib').decompress(bytes.fromhex('{packed}')), __file__, 'exec', 0, True))\n"


def dependent_tests(
    run: RunOnTree, tree: Tree, paths: Collection[str], passed: Collection[str], honest: Tree, task: Task
) -> tuple[str, ...]:
    """The tests that pass only if the files can be read: twice, so that a flaky one does not count.

    Args:
        passed: the tests that passed on the tree.
        honest: the tree with the reference, or the base if there is none.
    """
    texts = {path: unreadable(text) for path in paths if (text := tree.read_or_none(path)) is not None}
    found = frozenset(passed)
    if texts and found:
        found &= _passed(run(tree, (UNREWRITTEN,)))
    for _ in range(2):
        if texts and found:
            found -= _passed(run(tree.with_files(texts), ()))
    if not (texts and found):
        return ()
    # Tests that fail because their file is unreadable, whatever the code under test is. Without a reference, nothing
    # passes the FAIL_TO_PASS tests but the patch.
    able = _passed(run(honest.with_files(texts), ()))
    return tuple(sorted(found & able.union(task.fail_to_pass if task.reference is None else ())))


def _passed(reply: Reply) -> frozenset[str]:
    passed = {record.id for record in reply.of(TestRecord) if record.status == "passed"}
    return frozenset(passed.difference(record.id for record in reply.of(TestRecord) if record.status != "passed"))
