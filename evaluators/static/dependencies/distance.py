"""Distances between files along imports."""

from __future__ import annotations

from collections.abc import Iterable

from regrade.datasets.node_ids import file_of
from regrade.datasets.tasks import Task
from regrade.evaluators.static.dependencies.graph import Graph, graph_of


def import_distances(graph: Graph, starts: Iterable[str]) -> dict[str, int]:
    """Source file -> fewest imports on a path from one of `starts` to it, nearest first; `starts` are at distance 0.

    An import of a module also runs the packages that contain it: they are at the module's distance.
    """
    distances = {path: 0 for path in sorted(starts) if path in graph.texts}
    queue = list(distances)
    for path in queue:  # the loop appends to it
        for target in sorted(graph.links(path).imports):
            if target in graph.texts and target not in distances:
                distances[target] = distances[path] + 1
                queue.append(target)
    return distances


def seen_by_failing_tests(task: Task) -> dict[str, int]:
    """Source file -> its import distance from the nearest file of a FAIL_TO_PASS test; without unreachable files."""
    graph = graph_of(task.base, task.suite.python_path)
    return import_distances(graph, {file_of(test) for test in task.fail_to_pass})
