"""Cross-module dependency impact: the modules that depend on changed symbols, with the path of each dependency.

The impact I(m) of a module m outside the patched files is the maximum, over all paths from a changed symbol to m, of

    weight of the change x confidence of the path x 0.5 ^ (module boundaries - 1), with at most three boundaries.

Paths run in the union of the graphs before and after the patch. This probe does not know the outcomes of tests: the
reward `impact` combines them with I(m).
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
from regrade.evaluators.static.files import LARGEST, ChangedFile, changed_files, is_unprotected
from regrade.evaluators.static.languages import is_test, language_of
from regrade.rewards.evidence import Impact, ImpactedModule


def probe(before: Tree, after: Tree, patch: Patch, task: Task) -> Impact:  # noqa: ARG001 (every probe has this signature)
    """The modules that depend on the symbols that the patch changes.

    Tests and their helpers (protected files) verify modules and do not count as modules. A file that parses before the
    patch but not after it is `unparsable`, and its changes are not followed.
    """
    files = [file for file in changed_files(before, after, task) if file.language is not None]
    unparsable = tuple(file.path for file in files if file.becomes_unsound(_is_sound))
    sound = [file for file in files if file.path not in unparsable and _is_readable(file)]
    if not sound:
        return Impact(changed_symbols=(), modules=(), unparsable=unparsable)
    graph = graph_of(before, task.suite.python_path)
    union = graph.patched(_texts(sound), task.suite.python_path)
    edited = {path for file in sound for path in (file.path, file.old_path)}
    dangling = _dangling(union, _removed(sound, union), edited)
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
        if symbol[0] not in edited and is_unprotected(symbol[0], task):
            by_file.setdefault(symbol[0], []).append(step)
    for path, steps in sorted(by_file.items()):
        best = max(steps, key=lambda step: step.score)
        near = explorer.within({step.symbol for step in steps if step.symbol[1] != MODULE})
        tests = {file for file in near if _is_test(file, task)}
        if not tests:  # no test reaches a user of the change: a test can only show that the module still imports
            tests = _nearest_importing(union, path, task)
        names = tuple(f"{file}::{name}" for file, name in dangling.get(path, ()))
        yield ImpactedModule(
            module=path,
            hops=best.hops,
            weight=best.score,
            path=best.trace(),
            tests=_nearest_first(tests, direct),
            dangling=names,
        )


def _nearest_first(tests: set[str], hops: Mapping[str, int]) -> tuple[str, ...]:
    """The tests by distance from the change, so that reasons name the nearest one."""
    return tuple(sorted(tests, key=lambda test: (hops.get(test, HOPS + 1), test)))


def _changes(file: ChangedFile) -> dict[str, float]:
    # After a rename, the symbols at the old path are missing for their importers.
    is_at_old_path = file.path == file.old_path
    language = language_of(file.old_path)
    return (
        changed_symbols(file.before, file.after if is_at_old_path else None, language) if language is not None else {}
    )


def _facts(text: str, path: str) -> Facts | None:
    language = language_of(path)
    return facts(text, language) if language is not None else None


def _removed(files: list[ChangedFile], union: Graph) -> set[Symbol]:
    """The importable names that the patch removes from its modules."""
    removed: set[Symbol] = set()
    for file in files:
        is_renamed = file.path != file.old_path
        new = _facts(file.after, file.path) if file.after is not None and not is_renamed else None
        if new is not None and ("__getattr__" in new.importable or any(item.alias == "*" for item in new.imports)):
            continue  # any name may be importable from it
        old = _facts(file.before, file.old_path) if file.before is not None else None
        if old is not None:
            remaining = {*(new.importable if new is not None else ()), *_shared(union, file.old_path)}
            removed.update((file.old_path, name) for name in old.importable - {MODULE} - remaining)
    return removed


def _shared(union: Graph, path: str) -> Iterator[str]:
    """Names that other files of the same package define."""
    package = union.modules.packages.get(path)
    for other, key in union.modules.packages.items() if package is not None else ():
        if key == package and other != path and other in union.texts:
            yield from union.facts(other).texts


def _dangling(graph: Graph, removed: set[Symbol], edited: set[str]) -> dict[str, list[Symbol]]:
    """File outside the patch -> removed symbols that it uses, except those that it imports inside `try`."""
    dangling: dict[str, list[Symbol]] = {}
    for target in sorted(removed):
        for path in sorted({path for path, _ in graph.users(target)} - edited):
            guarded = {item.dotted.rpartition(".")[2] for item in graph.facts(path).imports if item.is_guarded}
            if target[1] not in guarded:
                dangling.setdefault(path, []).append(target)
    return dangling


def _new_cycles(before: Graph, union: Graph, edited: set[str]) -> Iterator[tuple[str, ...]]:
    """Import cycles through an import that the patch adds; imports inside functions form none."""
    seen: set[frozenset[str]] = set()
    for path in sorted(edited & union.texts.keys()):
        old = _eager(before, path) if path in before.texts else set()
        for target in sorted(_eager(union, path) - old):
            chain = _import_chain(union, target, path)
            if chain and frozenset(chain) not in seen:
                seen.add(frozenset(chain))
                yield (path, *chain)


def _nearest_importing(graph: Graph, path: str, task: Task) -> set[str]:
    """The tests with the fewest imports between them and a module, or any file of a package."""
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


def _import_chain(graph: Graph, start: str, goal: str) -> tuple[str, ...]:
    """The shortest chain of imports from one file to another, both included; empty without one."""
    chains: dict[str, tuple[str, ...]] = {start: (start,)}
    queue = [start]
    for path in queue:  # the loop appends to it
        if path == goal:
            return chains[path]
        for target in sorted(_eager(graph, path)):
            if target not in chains:
                chains[target] = (*chains[path], target)
                queue.append(target)
    return ()


def _texts(files: list[ChangedFile]) -> dict[str, str | None]:
    texts: dict[str, str | None] = {file.old_path: None for file in files}
    texts.update({file.path: file.after for file in files})
    return texts


def _is_test(path: str, task: Task) -> bool:
    return path in task.suite.test_files or (is_test(path) and task.suite.protects(path))


def _is_readable(file: ChangedFile) -> bool:
    return all(text is None or len(text) <= LARGEST for text in (file.before, file.after))


def _is_sound(text: str, path: str) -> bool:
    file_facts = _facts(text, path) if len(text) <= LARGEST else None
    return file_facts is not None and file_facts.is_sound
