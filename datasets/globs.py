"""Globs over root-relative paths: the protected files of a tree, which a candidate cannot change."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache


def is_protected(path: str, patterns: Iterable[str]) -> bool:
    """Does one of the globs match the root-relative path? `**/` matches any number of folders, including none."""
    return _compiled(tuple(patterns)).fullmatch(path) is not None


@lru_cache(maxsize=256)
def _compiled(patterns: tuple[str, ...]) -> re.Pattern[str]:
    wildcards = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    alternatives = []
    for pattern in patterns:
        tokens = re.split(r"(\*\*/|\*\*|\*|\?)", pattern)
        alternatives.append("".join(wildcards.get(token, re.escape(token)) for token in tokens))
    return re.compile("|".join(alternatives) or r"(?!)")
