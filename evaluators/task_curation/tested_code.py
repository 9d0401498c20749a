"""Do the tests of a repository test its code at all? A run of them that touches none of it judges no patch."""

from __future__ import annotations

from dataclasses import asdict, replace

from regrade.datasets.globs import matches
from regrade.datasets.tasks import TestSuite, Tree
from regrade.evaluators.execution.records import TestSources
from regrade.evaluators.execution.replies import collection_errors
from regrade.evaluators.execution.worker import Reply
from regrade.evaluators.task_curation.classified_files import classify_files


def untested_code(tree: Tree, suite: TestSuite, sources: TestSources, reply: Reply) -> str:
    """A module of the tree, if the tests ran none of its code; empty: they did, or may have.

    They may have if they started a process, or if a file of tests could not be collected: it may lack the code that a
    patch adds. They need not if the tree has no Python code beyond its tests, or if they read its data.
    """
    if sources.has_processes or collection_errors(reply):
        return ""
    paths = set(tree.paths())
    touched = paths.intersection((*sources.loaded, *sources.executed))
    touched |= {path for path, *_ in sources.opened if path in paths or (tree.root / path).is_dir()}
    touched -= set(sources.collected)
    if any(not matches(path, suite.protected) for path in touched):
        return ""  # as in almost every run: without reading the tree
    suite = replace(suite, **asdict(classify_files(tree, suite, sources)))
    if any(not suite.protects(path) for path in touched):
        return ""
    return next((path for path in sorted(paths) if path.endswith(".py") and not suite.protects(path)), "")
