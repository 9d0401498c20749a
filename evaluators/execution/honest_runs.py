"""What tests do without the patch that would otherwise be a sign of cheating: some write their own data, replace
functions of the test runner, or open their own files through the code under test.

A worker remembers it: the suite of such a repository would otherwise run twice for every patch.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field

from regrade.datasets.tasks import Limits, TestSuite, Tree

OTHER = "another process or a library"
"""What the kernel alone has seen, see `inside/recording/reads_of_tests.py`."""
MOST_REMEMBERED = 256
"""Number of (tree, tests) of which a worker remembers the signs."""


@dataclass(frozen=True)
class Signs:
    """Signs of cheating in the runs of one tree; false if there are none."""

    rewritten: frozenset[str] = frozenset()
    """Protected files that changed on disk."""
    tampered: Mapping[str, str] = field(default_factory=dict)
    """What was replaced -> by what."""
    opened: frozenset[tuple[str, str]] = frozenset()
    """(file of tests, the code under test that opened it)."""

    def __bool__(self) -> bool:
        return bool(self.rewritten or self.tampered or self.opened)

    def beyond(self, honest: Signs) -> Signs:
        """Those that the run of an honest tree does not show. Reads that only the kernel saw don't explain others."""
        tampered = {what: by for what, by in self.tampered.items() if what not in honest.tampered}
        by_code = {path for path, by in honest.opened if by != OTHER}
        by_others = {(path, by) for path, by in honest.opened if by == OTHER}
        opened = {(path, by) for path, by in self.opened - by_others if path not in by_code}
        return Signs(self.rewritten - honest.rewritten, tampered, frozenset(opened))

    def __or__(self, other: Signs) -> Signs:
        return Signs(self.rewritten | other.rewritten, {**self.tampered, **other.tampered}, self.opened | other.opened)


class HonestRuns:
    """The signs in the runs of honest trees: the base, and the tree with the reference."""

    def __init__(self) -> None:
        self._found: OrderedDict[Hashable, tuple[TestSuite, Signs]] = OrderedDict()

    def key(
        self,
        tree: Tree,
        suite: TestSuite,
        tests: frozenset[str],
        limits: Limits,
        preparation: Hashable,
        *,
        cold: bool,
    ) -> Hashable:
        """All on which the run of these tests depends. The suite counts as an object: its measurements are large."""
        return (tree.root, tree.digest, id(suite), tests, limits, preparation, cold)

    def signs(self, key: Hashable) -> Signs:
        """What the runs showed so far."""
        found = self._found.get(key)
        return Signs() if found is None else found[1]

    def add(self, key: Hashable, suite: TestSuite, signs: Signs) -> Signs:
        """Remember what one more run showed. Returns what all of them showed."""
        found = signs | self.signs(key)
        self._found[key] = (suite, found)  # the suite lives as long as its id is part of a key
        self._found.move_to_end(key)
        if len(self._found) > MOST_REMEMBERED:
            self._found.popitem(last=False)
        return found
