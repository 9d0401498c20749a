"""What the tests of a tree reach for: the network, the history of the repository, files outside of it, a function.

They run once with a plugin in the tree (`inside/recording/access_watch.py`) that fails each test which reaches for
something. Whether the plugin is at work is known by a test that is added beside them, and that must fail.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from regrade.datasets.node_ids import file_of
from regrade.datasets.tasks import Task, Tree
from regrade.evaluators.inside.recording import access_watch
from regrade.evaluators.inside.recording.access_watch import HISTORY, NETWORK, OUTSIDE, TARGET
from regrade.rewards.evidence import TestRun

PLUGIN = "regrade_attempts"
EXECUTES = f'__import__("{PLUGIN}").ATTEMPTS.target()'
"""The statement that a function begins with to tell that it is executed."""
NOWHERE = "regrade.invalid"
CANARY = f'''\
import contextlib
import socket


def test_reaches_for_the_network():
    with contextlib.suppress(OSError):
        socket.getaddrinfo("{NOWHERE}", 80)
'''
LOAD = f'''

_plugins = globals().get("pytest_plugins", [])
pytest_plugins = [*([_plugins] if isinstance(_plugins, str) else _plugins), "{PLUGIN}"]
'''


@dataclass(frozen=True)
class Reaching:
    """What each test was seen to reach for; a test that is missing reached for nothing."""

    network: Mapping[str, str]
    """Test -> host or program."""
    history: Mapping[str, str]
    """Test -> what of `.git` it opens, or how it calls git."""
    outside: Mapping[str, str]
    """Test -> a file that lies outside the tree and is none of the system's, the interpreter's or a temporary one."""
    target: frozenset[str]
    """The tests that execute a function which begins with EXECUTES."""


def watched(task: Task, tree: Tree) -> Task:
    """A task whose tests, run on the tree, tell what they reach for: see `reaching`."""
    conftest = tree.read("conftest.py") if "conftest.py" in tree.paths() else ""
    plugin = Path(access_watch.__file__)
    canary = _canary(task)
    files = {
        "conftest.py": conftest + LOAD,
        posixpath.normpath(posixpath.join(task.suite.python_path[0], f"{PLUGIN}.py")): plugin.read_text("utf-8"),
        file_of(canary): CANARY,
    }
    return replace(
        task,
        base=tree.with_files(files),
        pass_to_pass=(*task.pass_to_pass, canary),
        suite=replace(task.suite, reach=None),
        reference=None,
    )


def reaching(task: Task, run: TestRun) -> Reaching | None:
    """What was seen in the run of a `watched` task; None where nothing watched. `task`: the original."""
    if NOWHERE not in run.outcomes[_canary(task)].message:
        return None
    seen: dict[str, dict[str, str]] = {kind: {} for kind in (NETWORK, HISTORY, OUTSIDE, TARGET)}
    for test in task.fail_to_pass + task.pass_to_pass:
        for kind, what in _told(run.outcomes[test].message):
            seen[kind].setdefault(test, what)
    return Reaching(seen[NETWORK], seen[HISTORY], seen[OUTSIDE], frozenset(seen[TARGET]))


def _canary(task: Task) -> str:
    """Id of the test that must fail, beside the first one of the task."""
    folder = posixpath.dirname(file_of((*task.fail_to_pass, *task.pass_to_pass)[0]))
    return posixpath.join(folder, f"test_{PLUGIN}.py::test_reaches_for_the_network")


def _told(message: str) -> Iterator[tuple[str, str]]:
    found = re.search(r"Reached: (.*)", message)
    for each in found[1].split("; ") if found else ():
        kind, _, what = each.partition(" ")
        if kind in (NETWORK, HISTORY, OUTSIDE, TARGET):
            yield kind, what
