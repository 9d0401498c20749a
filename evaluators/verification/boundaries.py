"""Which functions of a patch run in the candidate's process, and how they cross to the tests in another one."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from regrade.datasets.syntax_trees import parse_or_none
from regrade.datasets.tasks import Task, Tree
from regrade.evaluators.execution.function_bodies import documented
from regrade.evaluators.execution.workspaces import Workspace
from regrade.evaluators.inside.remote_calls.boundary import functions
from regrade.evaluators.verification.function_forms import (
    FunctionFacts,
    FunctionForm,
    form_of,
    function_facts,
    names_bound,
    receiving,
)
from regrade.evaluators.verification.inert_changes import (
    is_inert_file,
    is_new_name,
    names_in,
    without_annotations,
    without_docstrings,
)

ORACLE_METHODS = frozenset(
    f"__{name}__" for name in ("eq", "ne", "lt", "le", "gt", "ge", "contains", "bool", "hash", "instancecheck")
)
"""Methods that receive the expected value of a test and decide whether it is met: the test's oracles."""
MOST_FILES = 300
"""Python files of a base whose functions all cross: more would take longer to parse than the tests take."""


@dataclass(frozen=True)
class FileBoundary:
    """The functions of one file that run in the candidate's process."""

    changed: Mapping[str, FunctionForm]
    """Key (see `regrade.evaluators.inside.remote_calls.boundary.functions`) of each function that the patch changes or
    removes -> how it crosses."""
    added: Mapping[str, FunctionForm] = field(default_factory=dict)
    """The same for the functions that the patch adds."""


@dataclass(frozen=True)
class Boundary:
    """The functions that run in the candidate's process."""

    files: Mapping[str, FileBoundary]
    beyond: tuple[str, ...] = ()
    """Changes outside of these functions, in words: the tests' process has the base's version."""
    only_binds: bool = False
    """Do these changes decide only what the names of functions lead to? They are decorators, assignments of functions
    and of new names, imports, new classes and new modules."""


def boundary_of(task: Task, workspace: Workspace) -> Boundary:
    """The functions that the patch changes or adds, in Python files that are no tests."""
    files: dict[str, FileBoundary] = {}
    beyond: list[str] = []
    only_binds = not workspace.after.removed - workspace.before.removed
    changed = {
        path: text for path, text in workspace.after.replaced.items() if workspace.before.replaced.get(path) != text
    }
    for path, text in changed.items():
        if task.suite.protects(path):
            continue
        if not path.endswith(".py") and is_inert_file(task, workspace.before, path):
            continue
        old = _parsed(workspace.before, path) if path.endswith(".py") else None
        new = parse_or_none(text) if old is not None else None
        if old is None or new is None:
            beyond.append(path)
            only_binds = only_binds and path.endswith(".py") and workspace.before.read_or_none(path) is None
            continue
        replaced = _replaced_imports(task.base, path, old, new)
        file, differs_elsewhere, differs_in_bindings_only = _file_boundary(old, new)
        file = replace(file, added={**replaced, **file.added})
        if file.changed or file.added:
            files[path] = file
        if differs_elsewhere:
            beyond.append(f"{path}, outside of functions")
            only_binds = only_binds and differs_in_bindings_only
    beyond += sorted(workspace.after.removed - workspace.before.removed)
    return Boundary(files, tuple(beyond), only_binds)


def boundary_of_everything(task: Task, workspace: Workspace) -> Boundary | None:
    """All functions of the base, where they decide no test by themselves; None: there are too many files."""
    paths = [path for path in task.base.paths() if path.endswith(".py") and not task.suite.protects(path)]
    if len(paths) > MOST_FILES:
        return None
    files = {}
    for path in paths:
        old, new = (_facts(_parsed(tree, path)) for tree in (workspace.before, workspace.after))
        if old:
            files[path] = FileBoundary({key: form_of(facts, new.get(key)) for key, facts in old.items()})
    return without_oracles(Boundary(files))


def boundary_at(workspace: Workspace, boundary: Boundary) -> Boundary:
    """The same functions for another workspace of the task, which may have other forms of them."""
    files = {}
    for path, file in boundary.files.items():
        old, new = (_facts(_parsed(tree, path)) for tree in (workspace.before, workspace.after))
        changed, added = (
            {
                key: form_of(old.get(key), new.get(key)) if key in old or key in new else form
                for key, form in forms.items()
            }
            for forms in (file.changed, file.added)
        )
        files[path] = FileBoundary(changed, added)
    return replace(boundary, files=files)


def boundary_for_calls(workspace: Workspace, boundary: Boundary) -> Boundary:
    """As `boundary_at`, where the functions receive what those of the boundary do, with which calls were recorded."""
    files = {}
    for path, file in boundary_at(workspace, boundary).files.items():
        recorded = {**boundary.files[path].changed, **boundary.files[path].added}
        changed, added = (
            {key: receiving(form, recorded[key]) for key, form in forms.items()} for forms in (file.changed, file.added)
        )
        files[path] = FileBoundary(changed, added)
    return replace(boundary, files=files)


def without_oracles(boundary: Boundary) -> Boundary:
    """The boundary without the oracles of tests: for these, the tests' process has the base's version."""
    files = {}
    for path, file in boundary.files.items():
        changed = {key: form for key, form in file.changed.items() if not is_oracle(key)}
        added = {key: form for key, form in file.added.items() if not is_oracle(key)}
        if changed or added:
            files[path] = FileBoundary(changed, added)
    return replace(boundary, files=files)


def is_oracle(key: str) -> bool:
    """Do tests use the function to judge?"""
    name = key.partition("#")[0].rpartition(".")[2]
    return name in ORACLE_METHODS or name.lstrip("_").startswith(("assert", "pytest_"))


def merge_boundaries(one: Boundary, other: Boundary) -> Boundary:
    """The functions of both boundaries."""
    files = dict(one.files)
    for path, theirs in other.files.items():
        ours = files.get(path, FileBoundary({}))
        files[path] = FileBoundary({**ours.changed, **theirs.changed}, {**ours.added, **theirs.added})
    return replace(other, files=files)


def keys_only_in(one: Boundary, other: Boundary) -> frozenset[str]:
    """Keys of the functions of one boundary that the other lacks."""
    return frozenset(
        key
        for path, file in one.files.items()
        for key in (*file.changed, *file.added)
        if path not in other.files or key not in (*other.files[path].changed, *other.files[path].added)
    )


def _replaced_imports(base: Tree, path: str, old: ast.Module, new: ast.Module) -> dict[str, FunctionForm]:
    """The functions that the base's file only imports from another file of the repository, and that the patch binds
    to something else there."""
    own = ast.Module([statement for statement in new.body if not isinstance(statement, ast.ImportFrom)], [])
    bound, bound_otherwise = names_bound(new), names_bound(own) or frozenset()
    imported = {(source, alias.name, alias.asname) for source, alias, _ in _imported_names(new)}
    return {
        f"{alias.asname or alias.name}#1": FunctionForm(parameters=False, binding="function", by_name=True)
        for source, alias, statement in _imported_names(old)
        if (source, alias.name, alias.asname) not in imported or (alias.asname or alias.name) in bound_otherwise
        if bound is None or (alias.asname or alias.name) in bound
        if _is_function(base, path, statement, alias.name)
    }


def _imported_names(module: ast.Module) -> Iterator[tuple[str, ast.alias, ast.ImportFrom]]:
    """The module, name and statement of each name that a module imports from another one at its top level."""
    for statement in module.body:
        if isinstance(statement, ast.ImportFrom):
            for alias in statement.names:
                yield f"{'.' * statement.level}{statement.module}", alias, statement


def _is_function(base: Tree, path: str, statement: ast.ImportFrom, name: str) -> bool:
    """Does the import lead to a function that another file of the repository defines?"""
    folders = path.split("/")[:-1]
    folders = folders[: len(folders) - statement.level + 1] if statement.level else []
    module = "/".join((*folders, *(statement.module or "").split("."))).strip("/")
    for file in (f"{module}.py", f"{module}/__init__.py", f"src/{module}.py"):
        tree = _parsed(base, file)
        if tree is not None:
            return any(key == f"{name}#1" for key, _, _ in functions(tree))
    return False


def _facts(tree: ast.Module | None) -> dict[str, FunctionFacts]:
    return {} if tree is None else function_facts(tree)


def _file_boundary(old: ast.Module, new: ast.Module) -> tuple[FileBoundary, bool, bool]:
    """The functions that differ, whether anything else does, and whether only bindings of functions do (see
    `Boundary.only_binds`). Changes both trees."""
    known = names_in(old)
    old, new = (without_annotations(without_docstrings(tree)) for tree in (old, new))
    names = frozenset(key.partition("#")[0].rpartition(".")[2] for key, _, _ in functions(old))
    classes = frozenset(node.name for node in ast.walk(old) if isinstance(node, ast.ClassDef))
    only_binds = _without_bindings(old, names, classes, known) == _without_bindings(new, names, classes, known)
    bound = names_bound(new)
    facts = (function_facts(old), function_facts(new))
    before = {key: (function, scope) for key, function, scope in functions(old)}
    after = {key: (function, scope) for key, function, scope in functions(new)}
    forms: dict[str, FunctionForm] = {}
    for key in (*before, *(key for key in after if key not in before)):
        if key not in before or key not in after:
            if key not in after and bound is not None and key.partition("#")[0].partition(".")[0] not in bound:
                continue  # nothing takes its place
            function, scope = before.get(key) or after[key]
            scope.body = [statement for statement in scope.body if statement is not function]
        elif ast.dump(before[key][0]) == ast.dump(after[key][0]) and facts[0][key] == facts[1][key]:
            continue
        forms[key] = form_of(facts[0].get(key), facts[1].get(key))
    for function, _ in (*before.values(), *after.values()):
        function.body = function.body[: documented(function)]
        function.args = ast.arguments([], [], None, [], [], None, [])
    file = FileBoundary(
        *({key: form for key, form in forms.items() if (key in before) is is_old} for is_old in (True, False))
    )
    return file, ast.dump(old) != ast.dump(new), only_binds


def _without_bindings(
    tree: ast.Module, names: frozenset[str], classes: frozenset[str], known: frozenset[str]
) -> list[str]:
    """The statements outside of functions, without those that import, bind these names of functions, bind names that
    are not known, or define other classes than these."""
    found: list[str] = []

    def only_binds(statement: ast.stmt, scope: ast.Module | ast.ClassDef) -> bool:
        if isinstance(statement, ast.Import | ast.ImportFrom | ast.FunctionDef | ast.AsyncFunctionDef):
            return True
        if isinstance(statement, ast.ClassDef):
            return statement.name not in classes
        if isinstance(statement, ast.Try | ast.If):
            handlers = [each for handler in getattr(statement, "handlers", ()) for each in handler.body]
            blocks = [*statement.body, *handlers, *statement.orelse, *getattr(statement, "finalbody", ())]
            return all(isinstance(each, ast.Pass) or only_binds(each, scope) for each in blocks)
        targets = statement.targets if isinstance(statement, ast.Assign) else []
        is_again = bool(targets) and all(isinstance(target, ast.Name) and target.id in names for target in targets)
        return is_again or is_new_name(statement, scope, known)

    def visit(scope: ast.Module | ast.ClassDef, prefix: str) -> None:
        for statement in scope.body:
            if only_binds(statement, scope):
                continue
            if isinstance(statement, ast.ClassDef):
                parts = (*statement.bases, *statement.keywords, *statement.decorator_list)
                found.append(f"{prefix}{statement.name} {[ast.dump(part) for part in parts]}")
                visit(statement, f"{prefix}{statement.name}.")
            else:
                found.append(prefix + ast.dump(statement))

    visit(tree, "")
    return found


def computed_attributes(workspace: Workspace) -> dict[str, dict[str, list[str]]]:
    """Path -> class -> attributes of instances at the base that the patch makes properties."""
    found: dict[str, dict[str, list[str]]] = {}
    for path, text in workspace.after.replaced.items():
        old = _parsed(workspace.before, path) if path.endswith(".py") else None
        new = parse_or_none(text) if old is not None and workspace.before.replaced.get(path) != text else None
        if old is None or new is None:
            continue
        stored = {
            getattr(node, "attr", getattr(node, "id", ""))
            for node in ast.walk(old)
            if isinstance(getattr(node, "ctx", None), ast.Store)
        }
        before = function_facts(old)
        for key, facts in function_facts(new).items():
            kind, _, name = key.partition("#")[0].rpartition(".")
            if key not in before and name in stored and form_of(None, facts).binding == "property":
                found.setdefault(path, {}).setdefault(kind, []).append(name)
    return found


def _parsed(tree: Tree, path: str) -> ast.Module | None:
    text = tree.read_or_none(path)
    return None if text is None else parse_or_none(text)
