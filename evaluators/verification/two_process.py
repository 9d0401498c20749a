"""Runs the tests in one sandbox and the candidate's code in another, so that the candidate can't reach the tests."""

from __future__ import annotations

import ast
import contextlib
import secrets
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regrade.datasets.node_ids import file_of
from regrade.datasets.syntax_trees import parse_or_none
from regrade.datasets.tasks import Task, Tree
from regrade.evaluators.execution.function_bodies import documented
from regrade.evaluators.execution.records import (
    AnswerRecord,
    CalledRecord,
    CrossedRecord,
    LikenessRecord,
    UnrecordedRecord,
)
from regrade.evaluators.execution.run_tests import collection_errors, ending, statuses, test_files, wall_seconds
from regrade.evaluators.execution.selection import with_companions
from regrade.evaluators.execution.worker import (
    UNPREPARED,
    Preparation,
    Reply,
    Request,
    Worker,
    WorkerDiedError,
    without_candidate,
)
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
from regrade.rewards.evidence import End, TestStatus

if TYPE_CHECKING:
    from regrade.evaluators.verification.held_out_inputs import Call

ORACLE_METHODS = frozenset(
    f"__{name}__" for name in ("eq", "ne", "lt", "le", "gt", "ge", "contains", "bool", "hash", "instancecheck")
)
"""Methods that receive the expected value of a test and decide whether it is met: the test's oracles."""
INPUT_SECONDS = 2.0
MOST_FILES = 300
"""Python files of a base whose functions all cross: more would take longer to parse than the tests take."""
NO_CALL = "it calls none of the functions that the patch changes"
"""Reason why a failure of a test there is no evidence."""
SHUTDOWN_SECONDS = 2.0
"""Time for the candidate's process to exit after the tests."""


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


@dataclass(frozen=True, kw_only=True)
class TwoProcessRun:
    """The outcomes of the tests, from a process without the candidate's code."""

    passed: frozenset[str]
    called: frozenset[str]
    """Tests that called a function of the candidate."""
    failed: Mapping[str, str]
    """Test -> its message, if every remote call worked."""
    inconclusive: Mapping[str, str]
    """Test -> reason why its outcome is no evidence."""
    answered: tuple[tuple[Call, Any], ...]
    """Remote calls in order, each once, with their answers."""
    unrecorded: frozenset[str]
    """Keys of functions with further calls."""
    cpu_seconds: float
    seconds: float

    def without(self, keys: frozenset[str]) -> TwoProcessRun:
        """Without the calls of these functions."""
        return replace(self, answered=tuple(each for each in self.answered if each[0][0][1] not in keys))


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


def _parsed(tree: Tree, path: str) -> ast.Module | None:
    text = tree.read_or_none(path)
    return None if text is None else parse_or_none(text)


class WorkerPair:
    """Two warm workers that share a folder for sockets. Not for use by several threads at once."""

    def __init__(self, tests: Worker, candidate: Worker, channel: Path) -> None:
        """`channel`: the folder for sockets, mounted in both sandboxes and writable by every user."""
        self._tests = tests
        self._candidate = candidate
        self._channel = channel
        self._is_over = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="regrade-candidate")

    def close(self) -> None:
        self._tests.close()
        self._candidate.close()
        self._thread.shutdown()

    def kill(self) -> None:
        """From another thread: kill both, so that a run in progress raises WorkerDiedError."""
        self._tests.kill()
        self._candidate.kill()

    def run(
        self,
        task: Task,
        workspace: Workspace,
        boundary: Boundary,
        test_ids: frozenset[str],
        preparation: Preparation = UNPREPARED,
    ) -> TwoProcessRun:
        """Run some of the task's tests on the base tree, where calls of the boundary's functions are remote calls.

        Raises:
            SandboxError, OSError, WorkerDiedError: see `Worker.run`.
        """
        select = with_companions(task, test_ids)
        paths = task.suite.paths if select is None else test_files((*task.fail_to_pass, *task.pass_to_pass), test_ids)
        limits = replace(task.limits, wall_seconds=wall_seconds(task, test_ids))
        crossing = _remote_calls(task, boundary.files)
        request = Request(suite=task.suite, limits=limits, paths=paths, select=select, crossing=crossing)
        reply, cpu_seconds = self._run_both(workspace, request, preparation)
        return _two_process_run(reply, test_ids, limits.wall_seconds, cpu_seconds)

    def answers(
        self,
        task: Task,
        workspace: Workspace,
        boundary: Boundary,
        inputs: Sequence[Call],
        preparation: Preparation = UNPREPARED,
        input_seconds: float = INPUT_SECONDS,
    ) -> list[Any]:
        """The raw answers of the workspace's functions to inputs; fewer than inputs if the process stopped.

        Args:
            input_seconds: time limit of one input.

        Raises:
            SandboxError, OSError, WorkerDiedError: see `Worker.run`.
        """
        crossing = _remote_calls(task, boundary.files) | {"inputs": list(inputs), "input_seconds": input_seconds}
        request = Request(suite=task.suite, limits=task.limits, kind="inputs", crossing=crossing)
        reply, _ = self._run_both(workspace, request, preparation)
        return [record.answer for record in reply.of(AnswerRecord)]

    def likeness(
        self, task: Task, tree: Tree, crossing: Mapping[str, Any], preparation: Preparation = UNPREPARED
    ) -> list[str]:
        """The problem of each answer of a candidate; fewer than answers if the run stopped.

        Args:
            tree: whose classes the instances have; no candidate's.
            crossing: see `regrade.evaluators.inside.remote_calls.likeness`.

        Raises:
            SandboxError, OSError, WorkerDiedError: see `Worker.run`.
        """
        request = Request(suite=task.suite, limits=task.limits, kind="likeness", crossing={**crossing, "socket": ""})
        with without_candidate():
            reply = self._tests.run(tree, request, preparation)
        return [record.problem for record in reply.of(LikenessRecord)]

    def _run_both(self, workspace: Workspace, request: Request, preparation: Preparation) -> tuple[Reply, float]:
        """The reply of the tests' worker, and the CPU seconds of both workers."""
        socket = secrets.token_hex(8)
        assert request.crossing is not None
        crossing = {**request.crossing, "socket": socket, "computed": _computed_attributes(workspace)}
        request = replace(request, crossing=crossing)
        for_candidate = replace(request, kind="candidate", paths=(), select=None, crossing={**crossing, "inputs": []})
        tree = workspace.after.without(crossing["hidden"])
        self._is_over = False
        future = self._thread.submit(self._serve, tree, for_candidate, preparation)
        future.add_done_callback(self._kill_tests_if_failed)
        try:
            with without_candidate():  # whose code is in the other sandbox
                reply = self._tests.run(workspace.before, request, preparation)
        except BaseException:
            self._is_over = True
            self._candidate.kill()
            raise
        finally:
            try:
                candidate = future.result(SHUTDOWN_SECONDS)
            except TimeoutError:
                self._is_over = True
                self._candidate.kill()
                candidate = future.result()
            finally:
                if self._is_over:
                    self._candidate.close()  # otherwise the next run would start with a dead sandbox
                with contextlib.suppress(OSError):
                    (self._channel / socket).unlink()
        return reply, reply.cpu_seconds + (candidate.cpu_seconds if candidate else 0.0)

    def _kill_tests_if_failed(self, served: Future[Reply | None]) -> None:
        """Kill the tests, which would wait for a failed candidate."""
        if served.exception() is not None:
            self._tests.kill()

    def _serve(self, tree: Tree, request: Request, preparation: Preparation) -> Reply | None:
        """The candidate's reply; None: its sandbox was killed since the tests are over.

        Raises:
            SandboxError, OSError, WorkerDiedError: see `Worker.run`. A dead sandbox is no answer to the tests: who
                killed it, only retries can show.
        """
        try:
            return self._candidate.run(tree, request, preparation)
        except WorkerDiedError:
            if self._is_over:
                return None
            raise


def _remote_calls(task: Task, files: Mapping[str, FileBoundary]) -> dict[str, Any]:
    return {
        "files": {
            path: {"cut": _plain_forms(file.changed), "added": _plain_forms(file.added)} for path, file in files.items()
        },
        "hidden": [path for path in task.base.paths() if task.suite.protects(path)],
    }


def _computed_attributes(workspace: Workspace) -> dict[str, dict[str, list[str]]]:
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


def _plain_forms(forms: Mapping[str, FunctionForm]) -> dict[str, dict[str, Any]]:
    return {key: form.plain() for key, form in forms.items()}


def _two_process_run(reply: Reply, tests: frozenset[str], limit: float, cpu_seconds: float) -> TwoProcessRun:
    end, detail = ending(reply, limit)
    outcomes = statuses(reply)
    remote_calls = {record.test: (record.calls, record.problem) for record in reply.of(CrossedRecord)}
    uncollected = collection_errors(reply)
    passed: set[str] = set()
    failed: dict[str, str] = {}
    inconclusive: dict[str, str] = {}
    for test in tests:
        missing = uncollected.get(file_of(test)) or ("it was not run" if end is End.COMPLETED else detail)
        n_calls, problem = remote_calls.get(test, (0, missing))
        outcome = outcomes.get(test)
        if problem:
            inconclusive[test] = problem
        elif outcome is not None and outcome.status is TestStatus.PASSED:
            passed.add(test)
        elif n_calls:
            failed[test] = "" if outcome is None else outcome.message
        else:
            inconclusive[test] = NO_CALL
    answered = tuple(((record.arguments, record.nodes), record.answer) for record in reply.of(CalledRecord))
    return TwoProcessRun(
        passed=frozenset(passed),
        called=frozenset(test for test, (n_calls, _) in remote_calls.items() if n_calls),
        failed=failed,
        inconclusive=inconclusive,
        answered=answered,
        unrecorded=frozenset(record.key for record in reply.of(UnrecordedRecord)),
        cpu_seconds=cpu_seconds,
        seconds=reply.seconds,
    )
