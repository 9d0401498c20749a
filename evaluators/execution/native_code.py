"""Does a tree change files that are compiled into an extension which the pristine tree contains?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from regrade.datasets.tasks import Tree

EXTENSIONS = (".so", ".pyd")
DECLARATIONS = ("setup.py",)
"""Files beyond the sources that decide what is compiled, and that a patch may change."""
NATIVE = (
    *(".c", ".cc", ".cpp", ".cxx", ".h", ".hh", ".hpp", ".hxx", ".inc", ".m", ".s", ".S", ".cu"),
    *(".pyx", ".pxd", ".pxi", ".f", ".f90", ".rs", ".zig", ".go"),
)
"""Text that compilers read. It decides only if the build itself can't be asked, since it fails."""
CYTHON_INCLUDES = (".pxd", ".pxi")


class StaleExtensionError(RuntimeError):
    """The tree's extension is older than its sources, and can't be built again: its tests would prove nothing."""


@dataclass(frozen=True)
class NativeBuild:
    """The build of a pristine tree's extensions."""

    error: str
    """Why it fails; empty: it works."""
    sources: frozenset[str]
    """Files of the tree that it compiles."""
    seconds: float


class NativeCode:
    """The extensions of pristine trees, each built at most once, and only if a changed file may be part of one."""

    def __init__(self, build: Callable[[Tree], NativeBuild]) -> None:
        self._build = build
        self._extensions: dict[Path, list[str]] = {}
        self._builds: dict[Path, NativeBuild] = {}

    def rebuild_seconds(self, tree: Tree) -> float | None:
        """Seconds to build the extensions of the pristine tree, if those of this tree must be built; None: they need
        not.

        Raises:
            StaleExtensionError: they must be built, and not even the pristine ones can be.
        """
        changed = {path for path in tree.replaced if not path.endswith(".py") or path in DECLARATIONS}
        changed |= {path for path in tree.removed if path.endswith(NATIVE)}
        compiled = self._compiled_modules(tree)
        changed |= compiled
        if not changed or not self._extensions_of(tree.root):
            return None
        build = self._build_of(tree)
        sources = {path for path in changed if path.endswith(NATIVE) and (tree.root / path).is_file()} | compiled
        stale = sources if build.error else compiled - build.sources
        if stale:
            extension = _nearest(min(stale), self._extensions_of(tree.root))
            raise StaleExtensionError(
                f"{min(stale)} is compiled into {extension}, which could not be built again: "
                f"{build.error or 'the build of the project does not make it'}; "
                "install what its build needs in the environment of the tests"
            )
        if build.error:
            return None
        is_compiled = not changed.isdisjoint({*build.sources, *DECLARATIONS}) or (
            any(path.endswith(".pyx") for path in build.sources)
            and any(path.endswith(CYTHON_INCLUDES) for path in changed)
        )
        return build.seconds if is_compiled else None

    def _compiled_modules(self, tree: Tree) -> set[str]:
        """The changed Python files that no import reaches: an extension of the same name beside them comes first."""
        extensions = map(PurePosixPath, self._extensions_of(tree.root))
        names = {path.with_name(path.name.partition(".")[0]).as_posix() for path in extensions}
        return {path for path in tree.replaced if path.endswith(".py") and path.removesuffix(".py") in names}

    def _extensions_of(self, root: Path) -> list[str]:
        if root not in self._extensions:
            self._extensions[root] = [path for path in Tree(root).paths() if path.endswith(EXTENSIONS)]
        return self._extensions[root]

    def _build_of(self, tree: Tree) -> NativeBuild:
        if tree.root not in self._builds:
            removed = frozenset(path for path in tree.removed if not path.endswith(NATIVE))
            self._builds[tree.root] = self._build(Tree(tree.root, removed=removed))
        return self._builds[tree.root]


def _nearest(source: str, extensions: list[str]) -> str:
    """The extension in the closest folder."""
    above = set(PurePosixPath(source).parents)
    return max(extensions, key=lambda path: len(above.intersection(PurePosixPath(path).parents)))
