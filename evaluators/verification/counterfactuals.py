"""What else could stand where a task's reference stands: cheats, stubs and mutants of the functions that it changes."""

from __future__ import annotations

import ast
import itertools
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from regrade.datasets.globs import is_protected
from regrade.datasets.mutation.mutants import Mutant, Mutations, MutationTarget, shuffled
from regrade.datasets.patches import Patch
from regrade.datasets.syntax_trees import parse_or_none
from regrade.datasets.tasks import Task, Tree
from regrade.evaluators.execution.workspaces import Workspace, prepare

Definition = ast.FunctionDef | ast.AsyncFunctionDef

RETURNS_NONE = ("return None",)
RAISES = ('raise NotImplementedError("stub")',)
SKIPS = ("import unittest", "", 'raise unittest.SkipTest("not here")')
ALWAYS_EQUAL = (
    "class Anything:",
    "    def __eq__(self, other):",
    "        return True",
    "",
    "    def __ne__(self, other):",
    "        return False",
    "",
    "    def __hash__(self):",
    "        return 0",
    "",
    "    def __bool__(self):",
    "        return True",
    "",
    "    def __call__(self, *args, **kwargs):",
    "        return self",
    "",
    "    def __getattr__(self, name):",
    "        return self",
    "",
    "    def __iter__(self):",
    "        return iter(())",
    "",
    "    def __len__(self):",
    "        return 0",
    "",
    "return Anything()",
)
LEAVES = "\n\nimport os\n\nos._exit(0)\n"
CONFTEST = """\
import pytest


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    report.outcome = "passed"
    report.longrepr = None
"""


class Changed(NamedTuple):
    """A function that a reference changes or adds."""

    file: str
    name: str
    """Qualified; of functions in one another, the outermost."""

    def __str__(self) -> str:
        return f"{self.file}::{self.name}"


@dataclass(frozen=True)
class Mended:
    """A task's tree with its reference, or as it is where there is none."""

    before: Mapping[str, str]
    """Python file that the reference changes -> its text at the base; a new file is missing."""
    after: Mapping[str, str]
    """Python file that the reference changes -> its text with it."""
    functions: tuple[Changed, ...]
    """Those that it changes or adds; without a reference, the task's target."""
    tree: Tree

    @classmethod
    def of(cls, task: Task) -> Mended:
        """Raises PatchError where the reference does not apply."""
        if task.reference is None:
            return cls._of_target(task)
        return cls.in_workspace(task, prepare(task, task.reference))

    @classmethod
    def in_workspace(cls, task: Task, workspace: Workspace) -> Mended:
        """The same of any patch."""
        old = {
            path: workspace.before.read_or_none(path) for path in workspace.after.replaced if _is_subject(path, task)
        }
        before = {path: text for path, text in old.items() if text is not None}
        after = {path: workspace.after.read(path) for path in old}
        changed = {path: text for path, text in after.items() if text != before.get(path)}
        functions = [
            Changed(path, name)
            for path, text in sorted(changed.items())
            for name in _changed_functions(before.get(path), text)
        ]
        before = {path: text for path, text in before.items() if path in changed}
        return cls(before, changed, tuple(functions), workspace.after)

    @classmethod
    def _of_target(cls, task: Task) -> Mended:
        target = task.target
        if target is None or not _is_subject(target.file, task):
            return cls({}, {}, (), task.base)
        texts = {target.file: task.base.read(target.file)}
        name = target.function.split(".<locals>")[0]
        known = name in (_definitions(texts[target.file]) or {})
        return cls(texts, texts, (Changed(target.file, name),) if known else (), task.base)

    def with_bodies(self, lines: Iterable[str]) -> Patch | None:
        """The patch that makes the tree this one with other bodies in all its functions; None where that can't be."""
        texts = self.texts_with_bodies(lines)
        return Patch.between(dict(self.before), {**self.after, **texts}) if texts else None

    def texts_with_bodies(self, lines: Iterable[str]) -> Mapping[str, str]:
        """The texts of the files in which each function has another body; empty where that can't be."""
        body = tuple(lines)
        return self._edited(lambda text, node: _with_body(text, node, body)) or {}

    def beginning_with(self, statement: str) -> Mapping[str, str]:
        """The texts of the files in which each function begins with a simple statement; empty where that can't be."""
        return self._edited(lambda text, node: _beginning_with(text, node, statement)) or {}

    def mutants(self, most: int, seed: int) -> Iterator[tuple[Mutant, Patch]]:
        """Some mutants of the functions, which take turns, each with the patch that turns the base into it."""
        turns = [self._mutants_of(file, name, seed) for file, name in self.functions]
        random.Random(seed).shuffle(turns)
        rounds = itertools.chain.from_iterable(itertools.zip_longest(*turns))
        for mutant in itertools.islice((mutant for mutant in rounds if mutant is not None), most):
            yield mutant, Patch.between(dict(self.before), {**self.after, mutant.file: mutant.source})

    def _mutants_of(self, file: str, name: str, seed: int) -> Iterator[Mutant]:
        text = self.after[file]
        found = (_definitions(text) or {}).get(name, ())
        if "\r" in text or "\f" in text or len(found) != 1:
            return
        mutations = Mutations(text, file)
        owner, node = found[0]
        for mutant in shuffled(mutations.of(MutationTarget(name, node, owner)), seed):
            if mutant.source != self.before.get(file) and mutations.differs(mutant):
                yield mutant

    def _edited(self, edit: Callable[[str, Definition], str]) -> dict[str, str] | None:
        """File -> its text with each function edited. None: there is no function, or an edit is no Python."""
        texts = {}
        for file in dict.fromkeys(function.file for function in self.functions):
            text = self.after[file]
            wanted = {function.name for function in self.functions if function.file == file}
            known = _definitions(text) or {}
            nodes = [node for name in wanted for _, node in known.get(name, ())]
            for node in sorted(nodes, key=lambda node: -node.lineno):  # from the end, so that places stay
                text = edit(text, node)
            if parse_or_none(text) is None:
                return None
            texts[file] = text
        return texts or None


def cheats(task: Task, mended: Mended) -> dict[str, Patch]:
    """What is done -> a patch that makes tests pass without the work, for those that the task's files allow.

    Cheats inside of functions leave the rest of the reference in place: that makes them stronger.
    """
    conftest = task.base.read_or_none("conftest.py")
    bodies = {
        "an object that equals everything": ALWAYS_EQUAL,
        "SkipTest raised in the function": SKIPS,
        "a stub that returns None": RETURNS_NONE,
    }
    found = {name: mended.with_bodies(lines) for name, lines in bodies.items()}
    if mended.before:
        leaving = {path: text.rstrip("\n") + LEAVES for path, text in mended.before.items()}
        found["os._exit(0) on import"] = Patch.between(dict(mended.before), leaving)
    text = CONFTEST if conftest is None else f"{conftest.rstrip()}\n\n\n{CONFTEST}"
    before = {} if conftest is None else {"conftest.py": conftest}
    found["a conftest.py that passes everything"] = Patch.between(before, {"conftest.py": text})
    return {name: patch for name, patch in found.items() if patch is not None}


def _is_subject(path: str, task: Task) -> bool:
    return path.endswith(".py") and not is_protected(path, task.suite.protected)


def _changed_functions(before: str | None, after: str) -> list[str]:
    """Names of the outermost functions of a text that another one lacks, or has otherwise."""
    old = (_definitions(before) or {}) if before is not None else {}
    new = _definitions(after) or {}
    return [name for name, found in new.items() if _dumps(found) != _dumps(old.get(name, ()))]


def _dumps(found: Iterable[tuple[ast.ClassDef | None, Definition]]) -> list[str]:
    return [ast.dump(node) for _, node in found]


def _definitions(text: str) -> dict[str, list[tuple[ast.ClassDef | None, Definition]]] | None:
    """Qualified name -> class and node of each outermost function of that name; None where the text is no Python."""
    module = parse_or_none(text)
    if module is None:
        return None
    found: dict[str, list[tuple[ast.ClassDef | None, Definition]]] = {}

    def visit(node: ast.AST, prefix: str, owner: ast.ClassDef | None) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, Definition):
                found.setdefault(prefix + child.name, []).append((owner, child))
            elif isinstance(child, ast.ClassDef):
                visit(child, f"{prefix}{child.name}.", child)
            else:
                visit(child, prefix, owner)

    visit(module, "", None)
    return found


def _with_body(text: str, node: Definition, body: tuple[str, ...]) -> str:
    """The text with another body in a function, behind its docstring."""
    statements = _statements(node)
    lines = text.split("\n")
    line, column = _start(lines, statements[0])
    last = statements[-1]
    end_line = (last.end_lineno or last.lineno) - 1
    end = _column(lines[end_line], last.end_col_offset or 0)
    head, tail = lines[line][:column], lines[end_line][end:]
    indent = head
    if head.strip():  # the body begins on the line of the signature
        head, indent = head.rstrip() + "\n", " " * (node.col_offset + 4)
        head += indent
    new = "\n".join([body[0], *(f"{indent}{each}" if each else "" for each in body[1:])])
    return "\n".join([*lines[:line], f"{head}{new}{tail}", *lines[end_line + 1 :]])


def _beginning_with(text: str, node: Definition, statement: str) -> str:
    lines = text.split("\n")
    line, column = _start(lines, _statements(node)[0])
    head, rest = lines[line][:column], lines[line][column:]
    lines[line] = f"{head}{statement}; {rest}" if head.strip() else f"{head}{statement}\n{head}{rest}"
    return "\n".join(lines)


def _statements(node: Definition) -> list[ast.stmt]:
    """The body without its docstring, unless that is all of it."""
    documented = ast.get_docstring(node, clean=False) is not None
    return node.body[1:] if documented and len(node.body) > 1 else node.body


def _start(lines: list[str], statement: ast.stmt) -> tuple[int, int]:
    """The line, from 0, and the column in characters where a statement begins, its decorators included."""
    decorators = getattr(statement, "decorator_list", [])
    line = (decorators[0].lineno if decorators else statement.lineno) - 1
    return line, _column(lines[line], statement.col_offset)


def _column(line: str, offset: int) -> int:
    """Character column of a UTF-8 byte offset (the syntax tree counts bytes)."""
    return offset if line.isascii() else len(line.encode()[:offset].decode())
