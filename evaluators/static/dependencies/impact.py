"""Cross-module dependency impact: who depends on what a patch changed, and through what.

I(m) of a module m outside the patched files is the largest, over all ways from a changed symbol to it, of

    weight of the change x confidence of the way x 0.5 ^ (borders between modules - 1), at most three borders.

Ways run over the union of the graphs before and after the patch. What became of the tests that reach a module is not
known here; the reward `impact` joins the two.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from regrade.datasets.patches import Patch
from regrade.datasets.tasks import Task, Tree
from regrade.evaluators.static.dependencies.changes import REMOVED, changed_symbols
from regrade.evaluators.static.dependencies.facts import MODULE, Facts, facts
from regrade.evaluators.static.dependencies.graph import Graph, Symbol, graph_of
from regrade.evaluators.static.dependencies.nearest_symbol import nearest_symbols
from regrade.evaluators.static.dependencies.reach import HOPS, Explorer, ReachedSymbol
from regrade.evaluators.static.files import LARGEST, ChangedFile, changed_files, counts
from regrade.evaluators.static.languages import is_test, language_of
from regrade.rewards.evidence import Impact, ImpactedModule


def probe(before: Tree, after: Tree, patch: Patch, task: Task) -> Impact:
    """The modules that depend on what the patch changed.

    Tests and their helpers (protected files) verify modules and are none themselves. A file that parsed before the
    patch and does not after it is `unparsable`, and its changes are not followed.

    Raises:
        PatchError: the text is no patch.
    """
    files = [file for file in changed_files(before, after, patch, task) if file.language is not None]
    unparsable = tuple(file.path for file in files if _breaks(file))
    sound = [file for file in files if file.path not in unparsable and _is_readable(file)]
    if not sound:
        return Impact(changed_symbols=(), modules=(), unparsable=unparsable)
    graph = graph_of(before, task.suite.python_path)
    union = graph.patched(_texts(sound), task.suite.python_path)
    edited = {path for file in sound for path in (file.path, file.old_path)}
    dangling = _dangling(union, _gone(sound, union), edited)
    changed = {(file.old_path, name): weight for file in sound for name, weight in _changes(file).items()}
    changed.update({symbol: REMOVED for symbols in dangling.values() for symbol in symbols})
    explorer = Explorer(union)
    return Impact(
        changed_symbols=tuple(f"{path}::{name}" for path, name in sorted(changed)),
        modules=tuple(_modules(union, explorer, changed, dangling, edited, task)),
        new_cycles=tuple(_new_cycles(graph, union, edited)),
        unparsable=unparsable,
        dangling_tests=tuple(
            (path, "::".join(symbols[0])) for path, symbols in sorted(dangling.items()) if _is_test(path, task)
        ),
        nearest=nearest_symbols(explorer, changed, task.suite.reach, lambda path: _is_test(path, task)),
    )


def _modules(
    union: Graph,
    explorer: Explorer,
    changed: Mapping[Symbol, float],
    dangling: Mapping[str, list[Symbol]],
    edited: set[str],
    task: Task,
) -> Iterator[ImpactedModule]:
    reached = explorer.reach(changed)
    direct = explorer.within(set(changed))
    by_file: dict[str, list[ReachedSymbol]] = {}
    for symbol, step in reached.items():
        if symbol[0] not in edited and counts(symbol[0], task):
            by_file.setdefault(symbol[0], []).append(step)
    for path, steps in sorted(by_file.items()):
        best = max(steps, key=lambda step: step.score)
        near = explorer.within({step.symbol for step in steps if step.symbol[1] != MODULE})
        tests = {file for file in near if _is_test(file, task)}
        if not tests:  # no test reaches what uses the change: whether the module still imports is all that can be seen
            tests = _nearest_importing(union, path, task)
        names = tuple(f"{file}::{name}" for file, name in dangling.get(path, ()))
        yield ImpactedModule(
            module=path,
            hops=best.hops,
            weight=best.score,
            path=best.way(),
            tests=_nearest_first(tests, direct),
            dangling=names,
        )


def _nearest_first(tests: set[str], hops: Mapping[str, int]) -> tuple[str, ...]:
    """Those that reach the change itself before others, so that the first is the one to name."""
    return tuple(sorted(tests, key=lambda test: (hops.get(test, HOPS + 1), test)))


def _changes(file: ChangedFile) -> dict[str, float]:
    # What was at the old path is gone for those who import it from there.
    is_there = file.path == file.old_path
    language = language_of(file.old_path)
    return changed_symbols(file.before, file.after if is_there else None, language) if language is not None else {}


def _facts(text: str, path: str) -> Facts | None:
    language = language_of(path)
    return facts(text, language) if language is not None else None


def _gone(files: list[ChangedFile], union: Graph) -> set[Symbol]:
    """Names that the patched modules offered and offer no longer."""
    gone: set[Symbol] = set()
    for file in files:
        moved = file.after is None or file.path != file.old_path
        now = _facts(file.after, file.path) if file.after is not None and not moved else None
        if now is not None and ("__getattr__" in now.bound or any(each.alias == "*" for each in now.imports)):
            continue  # it may offer any name
        was = _facts(file.before, file.old_path) if file.before is not None else None
        if was is not None:
            still = {*(now.bound if now is not None else ()), *_shared(union, file.old_path)}
            gone.update((file.old_path, name) for name in was.bound - {MODULE} - still)
    return gone


def _shared(union: Graph, path: str) -> Iterator[str]:
    """Names that other files of the same package define."""
    package = union.modules.packages.get(path)
    for other, key in union.modules.packages.items() if package is not None else ():
        if key == package and other != path and other in union.texts:
            yield from union.facts(other).texts


def _dangling(graph: Graph, gone: set[Symbol], edited: set[str]) -> dict[str, list[Symbol]]:
    """File outside the patch -> what it uses that is gone, less what it imports under `try`, ready for that."""
    found: dict[str, list[Symbol]] = {}
    for target in sorted(gone):
        for path in sorted({path for path, _ in graph.users(target)} - edited):
            guarded = {each.dotted.rpartition(".")[2] for each in graph.facts(path).imports if each.is_guarded}
            if target[1] not in guarded:
                found.setdefault(path, []).append(target)
    return found


def _new_cycles(before: Graph, union: Graph, edited: set[str]) -> Iterator[tuple[str, ...]]:
    """Import cycles through an import that the patch adds; imports inside functions make none."""
    seen: set[frozenset[str]] = set()
    for path in sorted(edited & union.texts.keys()):
        old = _eager(before, path) if path in before.texts else set()
        for target in sorted(_eager(union, path) - old):
            way = _way(union, target, path)
            if way and frozenset(way) not in seen:
                seen.add(frozenset(way))
                yield (path, *way)


def _nearest_importing(graph: Graph, path: str, task: Task) -> set[str]:
    """The tests that import a module, or anything inside it where it is a package, at the fewest removes."""
    package = path.removesuffix("__init__.py")
    near = {file for file in graph.texts if file.startswith(package)} if package != path else {path}
    seen = set(near)
    while near:
        tests = {file for file in near if _is_test(file, task)}
        if tests:
            return tests
        near = {importer for file in near for importer in graph.importers(file)} - seen
        seen |= near
    return set()


def _eager(graph: Graph, path: str) -> set[str]:
    return {target for target, is_lazy in graph.links(path).imports.items() if not is_lazy and target in graph.texts}


def _way(graph: Graph, start: str, goal: str) -> tuple[str, ...]:
    """The shortest chain of imports from one file to another, both included; empty where there is none."""
    ways: dict[str, tuple[str, ...]] = {start: (start,)}
    waiting = [start]
    for path in waiting:  # grows while it is read
        if path == goal:
            return ways[path]
        for target in sorted(_eager(graph, path)):
            if target not in ways:
                ways[target] = (*ways[path], target)
                waiting.append(target)
    return ()


def _texts(files: list[ChangedFile]) -> dict[str, str | None]:
    texts: dict[str, str | None] = {file.old_path: None for file in files}
    texts.update({file.path: file.after for file in files})
    return texts


def _is_test(path: str, task: Task) -> bool:
    return is_test(path) and not counts(path, task)


def _is_readable(file: ChangedFile) -> bool:
    return all(text is None or len(text) <= LARGEST for text in (file.before, file.after))


def _breaks(file: ChangedFile) -> bool:
    was_sound = file.before is None or _is_sound(file.before, file.old_path)
    return file.after is not None and was_sound and not _is_sound(file.after, file.path)


def _is_sound(text: str, path: str) -> bool:
    found = _facts(text, path) if len(text) <= LARGEST else None
    return found is not None and found.is_sound
