"""Places of broken tests beside a change: shown to the agent, tests of the changed code, or of other modules."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from regrade.datasets.node_ids import file_of
from regrade.datasets.tasks import Task
from regrade.evaluators.analysis.side_metrics import PLACES, SHOWN
from regrade.evaluators.static.dependencies.graph import Symbol, graph_of
from regrade.evaluators.static.dependencies.reach import Explorer


def places_of(task: Task, changed: Collection[Symbol], tests: Sequence[str]) -> list[str]:
    """The name in `PLACES` of each test.

    Unlike the chain of imports (`footprint.hops_of`), the chain of uses sees through a package that exports again what
    its modules define: there, all tests import the package alone.

    Args:
        changed: symbols of the base that the patch changes.
        tests: ids of tests.
    """
    if not tests:
        return []
    shown = frozenset(task.shown.tests or ())
    boundaries = Explorer(graph_of(task.base, task.suite.python_path)).within(set(changed))
    return [SHOWN if shown & {test, file_of(test)} else _place(boundaries.get(file_of(test))) for test in tests]


def _place(boundaries: int | None) -> str:
    """The name for a number of boundaries between modules; a test in the changed file itself crosses none."""
    hidden = [name for name in PLACES if name != SHOWN]
    return hidden[-1] if boundaries is None else hidden[min(max(boundaries, 1), len(hidden)) - 1]
