"""Which file a dotted name stands for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath

WHOLE = ""
"""As a name in a file: the module itself."""


@dataclass(frozen=True)
class Modules:
    """The Python modules of a tree. Two are equal if they know the same names."""

    names: frozenset[tuple[str, str]]
    """(dotted name, path)"""
    paths: Mapping[str, str] = field(compare=False)
    """Dotted name -> path."""
    dotted: Mapping[str, str] = field(compare=False)
    """Path -> the name that it is imported by."""

    @classmethod
    def of(cls, files: Iterable[str], python_path: tuple[str, ...]) -> Modules:
        """The modules among the files; `python_path` folders come first, then the root of the tree."""
        paths: dict[str, str] = {}
        dotted: dict[str, str] = {}
        every = sorted(files)
        for root in dict.fromkeys((*python_path, ".")):
            for path in every:
                name = _name(path, root)
                if name:
                    paths.setdefault(name, path)
                    dotted.setdefault(path, name)
        return cls(frozenset(paths.items()), paths, dotted)

    def resolve(self, name: str) -> tuple[str, str] | None:
        """(path, name in that file or WHOLE) of an absolute dotted name; None where it is not of this tree."""
        prefix, rest = name, WHOLE
        while prefix:
            if prefix in self.paths:
                return self.paths[prefix], rest
            prefix, _, rest = prefix.rpartition(".")
        return None

    def absolute(self, name: str, path: str) -> str:
        """The absolute form of a name that the file `path` imports: dots resolved, neighbours of scripts found."""
        relative = name.lstrip(".")
        level = len(name) - len(relative)
        package = self.dotted.get(path, "").split(".")
        if PurePosixPath(path).name != "__init__.py":
            package = package[:-1]
        if level:
            package = package[: len(package) - level + 1]
            return ".".join([*package, *([relative] if relative else [])])
        # The folder of a script or of a test outside a package is itself on sys.path.
        is_packaged = str(PurePosixPath(path).with_name("__init__.py")) in self.dotted
        beside = ".".join([*package, name])
        return beside if not is_packaged and not self.resolve(name) and self.resolve(beside) else name


def _name(path: str, root: str) -> str:
    pure = PurePosixPath(path)
    if root != ".":
        if not pure.is_relative_to(root):
            return ""
        pure = pure.relative_to(root)
    parts = pure.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
