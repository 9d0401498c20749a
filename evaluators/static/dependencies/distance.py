"""Distances between files along imports."""

from __future__ import annotations

from collections.abc import Iterable

from regrade.datasets.node_ids import file_of
from regrade.datasets.tasks import Task
from regrade.evaluators.static.dependencies.graph import Graph, graph_of
from regrade.evaluators.static.languages import is_test


def import_distances(graph: Graph, starts: Iterable[str]) -> dict[str, int]:
    """Source file -> fewest imports on a path from one of `starts` to it, nearest first; `starts` are at distance 0.

    An import of a module also runs the packages that contain it: they are at the module's distance. In languages whose
    packages share names between files (Go, Java), all files of a package but its tests are at one distance.
    """
    members: dict[str, list[str]] = {}
    for path, package in sorted(graph.modules.packages.items()):
        if not is_test(path):
            members.setdefault(package, []).append(path)
    distances: dict[str, int] = {}
    queue: list[str] = []

    def reach(target: str, distance: int) -> None:
        """A file with those of its package, or a package: together, so that the queue stays in order of distance."""
        package = graph.modules.packages.get(target, target)
        for path in (target, *members.get(package, ())):
            if path in graph.texts and path not in distances:
                distances[path] = distance
                queue.append(path)

    for start in sorted(starts):
        reach(start, 0)
    for path in queue:  # `reach` appends to it
        for target in sorted(graph.links(path).imports):
            reach(target, distances[path] + 1)
    return distances


def seen_by_failing_tests(task: Task) -> dict[str, int]:
    """Source file -> its import distance from the nearest file of a FAIL_TO_PASS test; without unreachable files."""
    graph = graph_of(task.base, task.suite.python_path)
    return import_distances(graph, {file_of(test) for test in task.fail_to_pass})
