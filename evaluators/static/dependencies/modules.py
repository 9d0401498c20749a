"""Resolution of dotted names to files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from regrade.evaluators.static.languages import LANGUAGES, Sources, language_of

WHOLE = ""
"""The name, within a file, of the module itself."""


@dataclass(frozen=True)
class Modules:
    """The modules of a tree. Two are equal if their names and members are."""

    names: frozenset[tuple[str, str]]
    """(dotted name, path)"""
    members: frozenset[tuple[str, str]]
    """(path, key of its package), in the languages whose packages share names between files"""
    paths: Mapping[str, str] = field(compare=False)
    """Dotted name -> path of the file, or key of the package (which ends with a slash)."""
    dotted: Mapping[str, str] = field(compare=False)
    """Path -> its dotted name."""
    packages: Mapping[str, str] = field(compare=False)
    """Path -> key of its package."""

    @classmethod
    def of(cls, texts: Mapping[str, str], manifests: Mapping[str, str], python_path: tuple[str, ...]) -> Modules:
        """The modules among the files (path -> text) of all languages."""
        paths: dict[str, str] = {}
        dotted: dict[str, str] = {}
        packages: dict[str, str] = {}
        for language in LANGUAGES:
            own = {path: text for path, text in texts.items() if path.endswith(language.suffixes)}
            sources = Sources(own, manifests, python_path)
            for name, path in language.names(sources) if own else ():
                paths.setdefault(name, path)
                dotted.setdefault(path, name)
            packages.update(language.packages(sources))
        return cls(frozenset(paths.items()), frozenset(packages.items()), paths, dotted, packages)

    def resolve(self, name: str) -> tuple[str, str] | None:
        """(path, name in it or WHOLE) of an absolute dotted name; None if the name is not in this tree."""
        prefix, rest = name, WHOLE
        while prefix:
            if prefix in self.paths:
                return self.paths[prefix], rest
            prefix, _, rest = prefix.rpartition(".")
        return None

    def absolute(self, name: str, path: str) -> str:
        """The absolute form of a name that the file `path` imports: relative or neighbouring names resolved."""
        language = language_of(path)
        if language is None:
            return name
        own = self.dotted.get(path, "")
        absolute = language.absolute(name, path, own)
        if language.beside is not None and not self.resolve(absolute):
            has_package_file = str(PurePosixPath(path).with_name("__init__.py")) in self.dotted
            beside = language.beside(name, own)
            if not has_package_file and self.resolve(beside):
                return beside
        return absolute
