"""The languages that the dependency graph reads: one row each."""

from __future__ import annotations

from pathlib import PurePosixPath

from regrade.evaluators.static.languages.go import GO
from regrade.evaluators.static.languages.go import MANIFEST as GO_MANIFEST
from regrade.evaluators.static.languages.java import JAVA
from regrade.evaluators.static.languages.javascript import JAVASCRIPT, TSX, TYPESCRIPT
from regrade.evaluators.static.languages.language import Import, Language, Sources
from regrade.evaluators.static.languages.python import PYTHON
from regrade.evaluators.static.languages.rust import MANIFEST as RUST_MANIFEST
from regrade.evaluators.static.languages.rust import RUST

LANGUAGES = (PYTHON, JAVASCRIPT, TYPESCRIPT, TSX, GO, RUST, JAVA)
MANIFESTS = frozenset({GO_MANIFEST, RUST_MANIFEST})
"""Names of the files that name packages."""
_BY_SUFFIX = {suffix: language for language in LANGUAGES for suffix in language.suffixes}

__all__ = ["LANGUAGES", "MANIFESTS", "Import", "Language", "Sources", "is_test", "language_of"]


def language_of(path: str) -> Language | None:
    """The language of a file, by its suffix; None for languages that the graph does not read."""
    return _BY_SUFFIX.get(PurePosixPath(path).suffix)


def is_test(path: str) -> bool:
    """Does the name or the folder of the file follow its language's convention for tests?"""
    language = language_of(path)
    if language is None:
        return False
    pure = PurePosixPath(path)
    return pure.parent.name in language.test_folders or language.test_pattern.fullmatch(pure.name) is not None
