"""Footprint of a patch: its changed lines by symbol, their overlap with the reference, and hops to broken tests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate

from regrade.datasets.node_ids import file_of
from regrade.datasets.patches import Patch, PatchError
from regrade.datasets.tasks import Task
from regrade.evaluators.execution.workspaces import prepare
from regrade.evaluators.static.dependencies.facts import MODULE, SymbolMap, captured, spans, syntax_tree
from regrade.evaluators.static.dependencies.graph import Graph, Symbol, graph_of
from regrade.evaluators.static.files import LARGEST, ChangedFile, changed_files
from regrade.evaluators.static.languages import Language, language_of


@dataclass(frozen=True)
class Footprint:
    """Changed lines of a patch by symbol, without the files that a run takes from the pristine tree."""

    lines: Mapping[Symbol, int]
    """(path, innermost function, class or assignment) -> lines added and removed in it."""
    old_paths: frozenset[str]
    """Paths of the changed files before the patch."""

    @property
    def files(self) -> frozenset[str]:
        return frozenset(path for path, _ in self.lines)

    def share_outside(self, symbols: Collection[Symbol]) -> float | None:
        """Share of the changed lines outside these symbols; None if no line is changed."""
        total = sum(self.lines.values())
        return sum(count for symbol, count in self.lines.items() if symbol not in symbols) / total if total else None


@dataclass(frozen=True)
class Relevance:
    """Overlap of a patch with the reference of its task."""

    touches_file: bool
    touches_function: bool
    """Innermost function, class or assignment around a changed line; module level counts as one symbol."""
    off_file: float | None
    off_function: float | None
    """Share of the changed lines outside the files, and functions, that the reference changes; None without lines."""


def footprint(task: Task, patch: Patch) -> Footprint | None:
    """The footprint of a patch; None if it is malformed or does not apply."""
    try:
        workspace = prepare(task, patch)
    except (PatchError, OSError):
        return None
    files = changed_files(workspace.before, workspace.after, task)
    counts: Counter[Symbol] = Counter()
    for file in files:
        counts.update(_changed_symbols(file))
    return Footprint(counts, frozenset(file.old_path for file in files if file.before is not None))


def relevance(own: Footprint, reference: Footprint) -> Relevance:
    """Compare the footprint of a patch with that of the reference."""
    in_files = {symbol for symbol in own.lines if symbol[0] in reference.files}
    return Relevance(
        bool(own.files & reference.files),
        bool(own.lines.keys() & reference.lines.keys()),
        own.share_outside(in_files),
        own.share_outside(reference.lines.keys()),
    )


def hops_of(task: Task, patched: Iterable[str], tests: Iterable[str]) -> list[int | None]:
    """Distance of each test's file from the nearest patched module, in the import graph of the base.

    0: the test lies in a patched file; 1: its file imports a patched module; 2: it imports a module that imports one;
    and so on. None: no chain of imports (instead a dynamic import, a file that the code reads, the order of tests).

    Args:
        patched: paths of the changed files before the patch.
        tests: ids of tests.
    """
    files = [file_of(test) for test in tests]
    if not files:
        return []
    hops = _distances(graph_of(task.base, task.suite.python_path), frozenset(patched), frozenset(files))
    return [hops.get(file) for file in files]


def _distances(graph: Graph, start: frozenset[str], targets: frozenset[str]) -> dict[str, int]:
    hops = dict.fromkeys(start, 0)
    frontier, distance = sorted(start & graph.texts.keys()), 0
    while frontier and not targets <= hops.keys():
        distance += 1
        frontier = sorted({importer for path in frontier for importer in graph.importers(path)} - hops.keys())
        hops.update(dict.fromkeys(frontier, distance))
    return hops


def _changed_symbols(file: ChangedFile) -> Iterator[Symbol]:
    """(path, symbol) of each removed or added line."""
    for lines, text, path in ((file.removed, file.before, file.old_path), (file.added, file.after, file.path)):
        yield from ((path, name) for name in _owners(text or "", path, [number - 1 for number, _ in lines]))


def _owners(text: str, path: str, lines: list[int]) -> list[str]:
    """The innermost symbol around each of the lines; MODULE if the language is not supported or the file too large."""
    language = language_of(path)
    if language is None or not lines or len(text) > LARGEST:
        return [MODULE] * len(lines)
    owners, rows = _symbols(text, language), text.split("\n")
    starts = [0, *accumulate(len(row.encode("utf-8", "surrogateescape")) + 1 for row in rows)]
    return [owners.of(starts[n] + len(rows[n]) - len(rows[n].lstrip())) for n in lines]


@lru_cache(maxsize=64)
def _symbols(text: str, language: Language) -> SymbolMap:
    root = syntax_tree(text, language).root_node
    return SymbolMap(root, spans(captured(language.symbols_query, root), language))
