"""Footprint of a patch: its changed lines by symbol, their overlap with the reference, and hops to broken tests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import lru_cache
from itertools import accumulate

from regrade.datasets.node_ids import file_of
from regrade.datasets.patches import Patch, PatchError
from regrade.datasets.tasks import Task
from regrade.evaluators.execution.workspaces import prepare
from regrade.evaluators.static.dependencies.facts import MODULE, SymbolMap, captured, spans, syntax_tree
from regrade.evaluators.static.dependencies.graph import Graph, Symbol, graph_of
from regrade.evaluators.static.files import LARGEST, ChangedFile, changed_files, patched_text, read, unprotected_files
from regrade.evaluators.static.languages import Language, language_of

LONGEST = 20_000
"""Lines of the longest changed range that is compared line by line, in quadratic time."""


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
        files = _from_hunks(task, patch)
        if files is None:
            workspace = prepare(task, patch)
            files = changed_files(workspace.before, workspace.after, patch, task)
    except (PatchError, OSError):
        return None
    counts: Counter[Symbol] = Counter()
    for file in files:
        counts.update(_changed_symbols(file))
    return Footprint(counts, frozenset(file.old_path for file in files if file.before is not None))


def _from_hunks(task: Task, patch: Patch) -> list[ChangedFile] | None:
    """The changed files by the line numbers of the hunks, without `git apply`, which takes ten times as long.

    None if a number may be wrong (a removed line differs from the base), or a file is added, deleted or renamed.
    """
    files = []
    for file in unprotected_files(patch, task):
        before = read(task.base, file.path)
        if before is None or file.is_deleted or file.old_path != file.path or not file.removed:
            return None
        lines = before.split("\n")
        if any(number > len(lines) or lines[number - 1] != text for number, text in file.removed):
            return None
        files.append(ChangedFile(file.path, file.path, before, patched_text(before, file)))
    return files


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
    before, after = (text.split("\n") if text is not None else [] for text in (file.before, file.after))
    removed, added = _differing(before, after)
    for numbers, text, path in ((removed, file.before, file.old_path), (added, file.after, file.path)):
        yield from ((path, name) for name in _owners(text or "", path, numbers))


def _differing(before: list[str], after: list[str]) -> tuple[list[int], list[int]]:
    """Numbers, from 0, of the removed lines and of the added lines."""
    shorter = min(len(before), len(after))
    head = next((n for n in range(shorter) if before[n] != after[n]), shorter)
    tail = next((n for n in range(shorter - head) if before[-1 - n] != after[-1 - n]), shorter - head)
    middle = before[head : len(before) - tail], after[head : len(after) - tail]
    if max(map(len, middle)) > LONGEST:
        return list(range(head, len(before) - tail)), list(range(head, len(after) - tail))
    removed: list[int] = []
    added: list[int] = []
    for kind, first, last, other_first, other_last in SequenceMatcher(None, *middle, autojunk=False).get_opcodes():
        if kind != "equal":
            removed.extend(range(head + first, head + last))
            added.extend(range(head + other_first, head + other_last))
    return removed, added


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
