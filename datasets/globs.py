"""The protected files of a tree, which a candidate cannot change: measured ones, and globs for all others."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache


@dataclass(frozen=True)
class ProtectedFiles:
    """The files that a candidate cannot change."""

    patterns: tuple[str, ...] = ()
    """Globs: they decide about every path that no run has classified, such as that of a new file."""
    measured: frozenset[str] = frozenset()
    """Paths known to be protected."""
    exempt: frozenset[str] = frozenset()
    """Paths known not to be, although a glob matches."""

    def contains(self, path: str) -> bool:
        """Is the file at the root-relative path protected?"""
        return path in self.measured or (path not in self.exempt and matches(path, self.patterns))


NONE_PROTECTED = ProtectedFiles()


def matches(path: str, patterns: Iterable[str]) -> bool:
    """Does one of the globs match the root-relative path? `**/` matches any number of folders, including none."""
    return _compiled(tuple(patterns)).fullmatch(path) is not None


def regex_of(patterns: Iterable[str]) -> str:
    """A regular expression that matches the whole of each path that one of the globs matches."""
    return _compiled(tuple(patterns)).pattern


@lru_cache(maxsize=256)
def _compiled(patterns: tuple[str, ...]) -> re.Pattern[str]:
    wildcards = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    alternatives = []
    for pattern in patterns:
        tokens = re.split(r"(\*\*/|\*\*|\*|\?)", pattern)
        alternatives.append("".join(wildcards.get(token, re.escape(token)) for token in tokens))
    return re.compile("|".join(alternatives) or r"(?!)")
