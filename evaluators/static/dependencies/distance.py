"""How far files are from one another through imports."""

from __future__ import annotations

from collections.abc import Iterable

from regrade.datasets.node_ids import file_of
from regrade.datasets.tasks import Task
from regrade.evaluators.static.dependencies.graph import Graph, graph_of


def imported_from(graph: Graph, starts: Iterable[str]) -> dict[str, int]:
    """Source file -> the fewest imports that lead to it from one of `starts`, which are at 0 themselves; nearest first.

    A file that imports a module also runs the packages that hold it; those are at the module's own distance.
    """
    hops = {path: 0 for path in sorted(starts) if path in graph.texts}
    waiting = list(hops)
    for path in waiting:  # grows while it is read
        for target in sorted(graph.links(path).imports):
            if target in graph.texts and target not in hops:
                hops[target] = hops[path] + 1
                waiting.append(target)
    return hops


def seen_by_failing_tests(task: Task) -> dict[str, int]:
    """Source file -> imports between it and the nearest file of a FAIL_TO_PASS test; what none of them imports is left
    out."""
    graph = graph_of(task.base, task.suite.python_path)
    return imported_from(graph, {file_of(test) for test in task.fail_to_pass})
