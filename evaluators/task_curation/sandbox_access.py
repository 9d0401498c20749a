"""Records what tests access: the network, the git history, files outside of the repository, a function.

The tests run once with a plugin in the tree (`inside/recording/access_watch.py`) that fails each test with such an
access. An added test, which must fail, shows that the plugin is active.
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
REPORT_EXECUTION = f'__import__("{PLUGIN}").ATTEMPTS.target()'
"""First statement of a function whose execution is recorded."""
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
class Accesses:
    """The recorded accesses of each test; a missing test accessed nothing."""

    network: Mapping[str, str]
    """Test -> host or program."""
    history: Mapping[str, str]
    """Test -> the path in `.git` that it opens, or its call of git."""
    outside: Mapping[str, str]
    """Test -> a file outside of the tree, the system, the interpreter and temporary folders."""
    target: frozenset[str]
    """The tests that execute a function that begins with REPORT_EXECUTION."""


def observed_task(task: Task, tree: Tree) -> Task:
    """The task with the plugin in its tree: see `accesses_of`."""
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


def accesses_of(task: Task, run: TestRun) -> Accesses | None:
    """The accesses in the run of an `observed_task`; None if the plugin was inactive. `task`: the original."""
    if NOWHERE not in run.outcomes[_canary(task)].message:
        return None
    accesses: dict[str, dict[str, str]] = {kind: {} for kind in (NETWORK, HISTORY, OUTSIDE, TARGET)}
    for test in task.fail_to_pass + task.pass_to_pass:
        for kind, what in _parsed(run.outcomes[test].message):
            accesses[kind].setdefault(test, what)
    return Accesses(accesses[NETWORK], accesses[HISTORY], accesses[OUTSIDE], frozenset(accesses[TARGET]))


def _canary(task: Task) -> str:
    """Id of the test that must fail, in the folder of the task's first test."""
    folder = posixpath.dirname(file_of((*task.fail_to_pass, *task.pass_to_pass)[0]))
    return posixpath.join(folder, f"test_{PLUGIN}.py::test_reaches_for_the_network")


def _parsed(message: str) -> Iterator[tuple[str, str]]:
    match = re.search(r"Reached: (.*)", message)
    for access in match[1].split("; ") if match else ():
        kind, _, what = access.partition(" ")
        if kind in (NETWORK, HISTORY, OUTSIDE, TARGET):
            yield kind, what
