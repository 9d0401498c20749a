"""The tests that an agent may run, and the observations of their results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

from regrade.datasets.episodes import SeenTests
from regrade.datasets.node_ids import file_of
from regrade.datasets.patches import Patch
from regrade.datasets.plurals import counted, listed
from regrade.datasets.tasks import Task, Tree
from regrade.evaluators.evaluation.rollout_scoring import EvidenceSource
from regrade.evaluators.execution.untestable import as_failure
from regrade.evaluators.static.dependencies.distance import import_distances
from regrade.evaluators.static.dependencies.graph import graph_of
from regrade.policy_training.environments.edited_tree import ToolMistakeError
from regrade.rewards.evidence import End, TestRun, TestStatus

MOST_FAILURES = 5
"""Failures with their messages in one observation."""
LONGEST_MESSAGE = 1500
"""Characters of one failure's message."""


class ShownRun(NamedTuple):
    """A run of shown tests."""

    seen: SeenTests | None
    """What the agent sees of the outcomes; None: the tests could not be run, through no fault of the patch."""
    observation: str
    problem: str = ""
    """Why they could not be run."""


@dataclass(frozen=True)
class ShownTests:
    """The shown tests of one task, as far as they are among those that judge it."""

    task: Task
    ids: tuple[str, ...]

    @classmethod
    def of(cls, task: Task) -> ShownTests:
        """The tests of `task.shown`."""
        if task.shown.tests is None:
            return cls(task, task.tests)
        named = frozenset(task.shown.tests)
        return cls(task, tuple(test for test in task.tests if test in named or file_of(test) in named))

    def hides(self, path: str) -> bool:
        """Is it a file of tests of which none is shown? (Code with tests in it is no such file.)"""
        return path in self._hidden_files

    @cached_property
    def _hidden_files(self) -> frozenset[str]:
        hidden = frozenset(map(file_of, self.task.tests)) - frozenset(map(file_of, self.ids))
        return frozenset(path for path in hidden if self.task.suite.protects(path))

    @cached_property
    def _base(self) -> Tree:
        """The tree in which the shown tests run: without hidden files, which the agent's code could read there, as far
        as no shown test imports them."""
        if not self._hidden_files:
            return self.task.base
        graph = graph_of(Tree(self.task.base.root, known=self.task.base.known), self.task.suite.python_path)
        needed = import_distances(graph, set(map(file_of, self.ids)))
        return self.task.base.without(self._hidden_files - needed.keys())

    def described_task(self) -> Task:
        """The task with what an agent may be told of it, for a description."""
        shown = frozenset(self.ids)
        if not self.task.shown.names_failing_tests:
            return replace(self.task, fail_to_pass=(), failure="")
        failing = tuple(test for test in self.task.fail_to_pass if test in shown)
        return replace(self.task, fail_to_pass=failing, failure=self.task.failure if failing else "")

    def chosen(self, names: Sequence[str]) -> tuple[str, ...]:
        """The ids of the named tests and files; of all if none is named.

        Raises:
            ToolMistakeError: a name fits no shown test.
        """
        if not names:
            return self.ids
        unknown = [name for name in names if not any(_names(name, test) for test in self.ids)]
        if unknown:
            files = sorted(set(map(file_of, self.ids)))
            raise ToolMistakeError(
                f"no test that you may run is called {unknown[0]!r}; their files: {listed(files, 10)}"
            )
        return tuple(test for test in self.ids if any(_names(name, test) for name in names))

    def run(self, tests: Sequence[str], patch: Patch, scorer: EvidenceSource) -> ShownRun:
        """Run some of the shown tests on the patched tree."""
        wanted = frozenset(tests)
        failing = self.task.fail_to_pass + self.task.unnamed  # a run has no outcomes of unnamed tests
        task = replace(
            self.task,
            base=self._base,
            fail_to_pass=tuple(test for test in failing if test in wanted),
            pass_to_pass=tuple(test for test in self.task.pass_to_pass if test in wanted),
            unnamed=(),
        )
        (evidence,) = scorer.gather([(task, patch)], {TestRun})
        run = as_failure(task, evidence).records.get(TestRun)
        if not isinstance(run, TestRun):
            why = evidence.infrastructure.get(TestRun, "unknown reason")
            text = f"The tests could not be run, which is not your fault and costs no test run: {why}"
            return ShownRun(None, text, why)
        return ShownRun(_seen(run), _described(run))


def _names(name: str, test: str) -> bool:
    """Does the name of a test, of a class of tests, of a file or of a folder include the test?"""
    return test == name or test.startswith((f"{name}::", f"{name}[", f"{name.rstrip('/')}/"))


def _seen(run: TestRun) -> SeenTests:
    statuses = [outcome.status for outcome in run.outcomes.values()]
    failed = tuple(_failed(run))
    message = run.outcomes[failed[0]].message if failed else ""
    return SeenTests(statuses.count(TestStatus.PASSED), failed, statuses.count(TestStatus.UNREACHED), message)


def _failed(run: TestRun) -> list[str]:
    good = (TestStatus.PASSED, TestStatus.UNREACHED)
    return [test for test, outcome in run.outcomes.items() if outcome.status not in good]


def _described(run: TestRun) -> str:
    seen = _seen(run)
    head = f"{len(seen.failed)} failed, {seen.passed} passed"
    if seen.not_run:
        head += f", {seen.not_run} not run (your change does not reach them, or others failed first)"
    lines = [f"{head} in {run.seconds:.1f} s"]
    if run.end is not End.COMPLETED:
        lines.append(f"The run ended early ({run.end.value}){f': {run.detail}' if run.detail else ''}")
    for test in seen.failed[:MOST_FAILURES]:
        outcome = run.outcomes[test]
        lines += [f"{outcome.status.value}: {test}", *_indented(outcome.message)]
    if (more := len(seen.failed) - MOST_FAILURES) > 0:
        lines.append(f"and {counted(more, 'more failure')}: {listed(seen.failed[MOST_FAILURES:], 10)}")
    return "\n".join(lines)


def _indented(message: str) -> list[str]:
    text = message.rstrip()
    cut = [f"    [{len(text) - LONGEST_MESSAGE} characters cut]"] if len(text) > LONGEST_MESSAGE else []
    return [f"    {line}" for line in text[:LONGEST_MESSAGE].splitlines()] + cut
