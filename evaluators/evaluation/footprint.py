"""Where a patch changes lines, beside where its task's reference does, and how far from there it broke tests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import lru_cache
from itertools import accumulate

from tree_sitter import QueryCursor

from regrade.datasets.node_ids import file_of
from regrade.datasets.patches import Patch, PatchError
from regrade.datasets.tasks import Task
from regrade.evaluators.execution.workspaces import prepare
from regrade.evaluators.static.dependencies.facts import MODULE, SymbolMap, spans, syntax_tree
from regrade.evaluators.static.dependencies.graph import Graph, Symbol, graph_of
from regrade.evaluators.static.files import LARGEST, ChangedFile, changed_files, patched_text, read, unprotected_files
from regrade.evaluators.static.languages import Language, language_of

LONGEST = 20_000
"""Lines of a changed stretch in which those that stay are still looked for: it takes their square in time."""


@dataclass(frozen=True)
class Footprint:
    """The changed lines of a patch by where they stand; files that the run takes from the pristine tree left out."""

    lines: Mapping[Symbol, int]
    """(path, innermost function, class or assignment) -> lines added and removed there."""
    old_paths: frozenset[str]
    """The changed files, by their paths before the patch."""

    @property
    def files(self) -> frozenset[str]:
        return frozenset(path for path, _ in self.lines)

    def share_outside(self, places: Collection[Symbol]) -> float | None:
        """Share of the changed lines that lie in none of the places; None where no line is changed."""
        total = sum(self.lines.values())
        return sum(count for place, count in self.lines.items() if place not in places) / total if total else None


@dataclass(frozen=True)
class Relevance:
    """A patch beside the reference of its task."""

    touches_file: bool
    touches_function: bool
    """The innermost function, class or assignment around a changed line; module level counts as one."""
    off_file: float | None
    off_function: float | None
    """Share of the changed lines outside the files, and the functions, that the reference touches; None without any."""


def footprint(task: Task, patch: Patch) -> Footprint | None:
    """Where the patch changes lines; None where it is no patch, or does not apply."""
    try:
        files = _as_written(task, patch)
        if files is None:
            workspace = prepare(task, patch)
            files = changed_files(workspace.before, workspace.after, patch, task)
    except (PatchError, OSError):
        return None
    counts: Counter[Symbol] = Counter()
    for file in files:
        counts.update(_places(file))
    return Footprint(counts, frozenset(file.old_path for file in files if file.before is not None))


def _as_written(task: Task, patch: Patch) -> list[ChangedFile] | None:
    """The changed files by the line numbers of the hunks, without `git apply`, which takes ten times as long.

    None where the numbers may be off, or a file comes, goes or moves: each hunk must remove lines that are there.
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
    """Does the patch change what the reference changes, and how much else?"""
    in_files = {place for place in own.lines if place[0] in reference.files}
    return Relevance(
        bool(own.files & reference.files),
        bool(own.lines.keys() & reference.lines.keys()),
        own.share_outside(in_files),
        own.share_outside(reference.lines.keys()),
    )


def hops_of(task: Task, patched: Iterable[str], tests: Iterable[str]) -> list[int | None]:
    """Distance of each test's file from the nearest patched module, by the import graph of the base.

    0: the test lies in a patched file; 1: its file imports a patched module; 2: it imports a module that imports one;
    and so on. None: no chain of imports leads there (a dynamic import, a file that is read, the order of tests).

    Args:
        patched: paths of the changed files before the patch.
        tests: ids of tests.
    """
    files = [file_of(test) for test in tests]
    if not files:
        return []
    hops = _distances(graph_of(task.base, task.suite.python_path), frozenset(patched), frozenset(files))
    return [hops.get(file) for file in files]


def _distances(graph: Graph, start: frozenset[str], wanted: frozenset[str]) -> dict[str, int]:
    hops = dict.fromkeys(start, 0)
    near, far = sorted(start & graph.texts.keys()), 0
    while near and not wanted <= hops.keys():
        far += 1
        near = sorted({importer for path in near for importer in graph.importers(path)} - hops.keys())
        hops.update(dict.fromkeys(near, far))
    return hops


def _places(file: ChangedFile) -> Iterator[Symbol]:
    """(path, symbol) of each line that is removed or added."""
    before, after = (text.split("\n") if text is not None else [] for text in (file.before, file.after))
    removed, added = _differing(before, after)
    for numbers, text, path in ((removed, file.before, file.old_path), (added, file.after, file.path)):
        yield from ((path, name) for name in _owners(text or "", path, numbers))


def _differing(before: list[str], after: list[str]) -> tuple[list[int], list[int]]:
    """Numbers, from 0 on, of the lines that go and of those that come."""
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
    """The innermost symbol around each of the lines; that of the module where the language is not read."""
    language = language_of(path)
    if language is None or not lines or len(text) > LARGEST:
        return [MODULE] * len(lines)
    owners, each = _symbols(text, language), text.split("\n")
    begins = [0, *accumulate(len(line.encode("utf-8", "surrogateescape")) + 1 for line in each)]
    return [owners.of(begins[n] + len(each[n]) - len(each[n].lstrip())) for n in lines]


@lru_cache(maxsize=64)
def _symbols(text: str, language: Language) -> SymbolMap:
    root = syntax_tree(text, language).root_node
    return SymbolMap(root, spans(QueryCursor(language.symbols_query).captures(root), language))
