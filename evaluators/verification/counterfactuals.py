"""Replacements of a task's reference patch: exploits, stubs and mutants of the functions that it changes."""

from __future__ import annotations

import ast
import itertools
import random
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from regrade.datasets.mutation.cheats import passing_conftest
from regrade.datasets.mutation.mutants import Mutant, Mutations, MutationTarget, shuffled
from regrade.datasets.node_ids import file_of, function_of
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
EXITS_ON_IMPORT = "\n\nimport os\n\nos._exit(0)\n"


class ChangedFunction(NamedTuple):
    """A function that a patch changes or adds."""

    file: str
    name: str
    """Qualified; of nested functions, the outermost."""

    def __str__(self) -> str:
        return f"{self.file}::{self.name}"


@dataclass(frozen=True)
class PatchedTree:
    """A task's tree with a patch, such as its reference; without one, the base with the task's target."""

    before: Mapping[str, str]
    """Python file that the patch changes -> its text at the base; a new file is missing."""
    after: Mapping[str, str]
    """Python file that the patch changes -> its text with the patch."""
    functions: tuple[ChangedFunction, ...]
    """The functions that the patch changes or adds; without a patch, the task's target."""
    tree: Tree

    @classmethod
    def of(cls, task: Task) -> PatchedTree:
        """The task's tree with its reference. Raises PatchError: the reference does not apply."""
        if task.reference is None:
            return cls._of_target(task)
        return cls.in_workspace(task, prepare(task, task.reference))

    @classmethod
    def in_workspace(cls, task: Task, workspace: Workspace) -> PatchedTree:
        """The tree of a workspace, with any patch."""
        old = {
            path: workspace.before.read_or_none(path) for path in workspace.after.replaced if _is_subject(path, task)
        }
        before = {path: text for path, text in old.items() if text is not None}
        after = {path: workspace.after.read(path) for path in old}
        changed = {path: text for path, text in after.items() if text != before.get(path)}
        functions = [
            ChangedFunction(path, name)
            for path, text in sorted(changed.items())
            for name in _changed_functions(before.get(path), text)
        ]
        before = {path: text for path, text in before.items() if path in changed}
        return cls(before, changed, tuple(functions), workspace.after)

    @classmethod
    def _of_target(cls, task: Task) -> PatchedTree:
        target = task.target
        if target is None or not _is_subject(target.file, task):
            return cls({}, {}, (), task.base)
        texts = {target.file: task.base.read(target.file)}
        name = target.function.split(".<locals>")[0]
        is_defined = name in (_definitions(texts[target.file]) or {})
        return cls(texts, texts, (ChangedFunction(target.file, name),) if is_defined else (), task.base)

    def with_bodies(self, lines: Iterable[str]) -> Patch | None:
        """The patch from the base to this tree with other function bodies; None: no function or no valid edit."""
        texts = self.texts_with_bodies(lines)
        return Patch.between(dict(self.before), {**self.after, **texts}) if texts else None

    def texts_with_bodies(self, lines: Iterable[str]) -> Mapping[str, str]:
        """The texts of the files with other function bodies; empty: there is no function or no valid edit."""
        body = tuple(lines)
        return self._edited(lambda text, node: _with_body(text, node, body)) or {}

    def beginning_with(self, statement: str) -> Mapping[str, str]:
        """The texts with a simple statement at each function's start; empty: there is no function or no valid edit."""
        return self._edited(lambda text, node: _beginning_with(text, node, statement)) or {}

    def mutants(self, most: int, seed: int, kinds: Collection[str] | None = None) -> Iterator[tuple[Mutant, Patch]]:
        """Mutants of the functions, one function after the other in rounds, each with the patch from the base to it.

        Args:
            kinds: of the operators. Default: those of a line.
        """
        by_function = [self._mutants_of(file, name, seed, kinds) for file, name in self.functions]
        random.Random(seed).shuffle(by_function)
        rounds = itertools.chain.from_iterable(itertools.zip_longest(*by_function))
        for mutant in itertools.islice((mutant for mutant in rounds if mutant is not None), most):
            yield mutant, Patch.between(dict(self.before), {**self.after, mutant.file: mutant.source})

    def _mutants_of(self, file: str, name: str, seed: int, kinds: Collection[str] | None) -> Iterator[Mutant]:
        text = self.after[file]
        definitions = (_definitions(text) or {}).get(name, ())
        if "\r" in text or "\f" in text or len(definitions) != 1:
            return
        mutations = Mutations(text, file)
        owner, node = definitions[0]
        for mutant in shuffled(mutations.of(MutationTarget(name, node, owner), kinds), seed):
            if mutant.source != self.before.get(file) and mutations.differs(mutant):
                yield mutant

    def _edited(self, edit: Callable[[str, Definition], str]) -> dict[str, str] | None:
        """File -> its text with each function edited. None: there is no function, or an edited text does not parse."""
        texts = {}
        for file in dict.fromkeys(function.file for function in self.functions):
            text = self.after[file]
            names = {function.name for function in self.functions if function.file == file}
            definitions = _definitions(text) or {}
            nodes = [node for name in names for _, node in definitions.get(name, ())]
            for node in sorted(nodes, key=lambda node: -node.lineno):  # from the end, so that offsets stay valid
                text = edit(text, node)
            if parse_or_none(text) is None:
                return None
            texts[file] = text
        return texts or None


def exploits(task: Task, reference: PatchedTree) -> dict[str, Patch]:
    """Name -> a patch that tries to pass the tests without a fix, for each exploit that the task's files allow.

    Exploits inside of functions keep the rest of the reference, which makes them stronger.
    """
    bodies = {
        "an object that equals everything": ALWAYS_EQUAL,
        "SkipTest raised in the function": SKIPS,
        "a stub that returns None": RETURNS_NONE,
    }
    patches = {name: reference.with_bodies(lines) for name, lines in bodies.items()}
    if reference.before:
        exiting = {path: text.rstrip("\n") + EXITS_ON_IMPORT for path, text in reference.before.items()}
        patches["os._exit(0) on import"] = Patch.between(dict(reference.before), exiting)
    patches["a conftest.py that passes everything"] = passing_conftest(task.base)
    patches["FAIL_TO_PASS tests that check nothing"] = _with_empty_tests(task)
    return {name: patch for name, patch in patches.items() if patch is not None}


def _with_empty_tests(task: Task) -> Patch | None:
    """A patch of the FAIL_TO_PASS tests' own files: test functions return at once, examples print nothing."""
    before, after = {}, {}
    for file in {file_of(test): None for test in task.fail_to_pass}:
        text = task.base.read_or_none(file)
        if text is None:
            continue
        names = [function_of(test).partition("::")[2].replace("::", ".") for test in task.fail_to_pass]
        definitions = (_definitions(text) or {}) if file.endswith(".py") else {}
        nodes = [node for name in names for _, node in definitions.get(name, ())]
        edited = text
        for node in sorted({id(node): node for node in nodes}.values(), key=lambda node: -node.lineno):
            edited = _with_body(edited, node, RETURNS_NONE)
        before[file], after[file] = text, edited if nodes else _with_empty_examples(text)
    return Patch.between(before, after) if before != after else None


def _with_empty_examples(text: str) -> str:
    """The text with examples of doctest that compute nothing and expect nothing."""
    lines, is_example = [], False
    for line in text.split("\n"):
        if line.lstrip().startswith(">>>"):
            lines.append(f"{line.partition('>>>')[0]}>>> None")
            is_example = True
        elif not line.strip() or '"""' in line:
            lines.append(line)
            is_example = False
        elif not is_example:
            lines.append(line)
    return "\n".join(lines)


def _is_subject(path: str, task: Task) -> bool:
    return path.endswith(".py") and not task.suite.protects(path)


def _changed_functions(before: str | None, after: str) -> list[str]:
    """Names of the outermost functions that differ between two texts, or that only the second has."""
    old = (_definitions(before) or {}) if before is not None else {}
    new = _definitions(after) or {}
    return [name for name, nodes in new.items() if _dumps(nodes) != _dumps(old.get(name, ()))]


def _dumps(definitions: Iterable[tuple[ast.ClassDef | None, Definition]]) -> list[str]:
    return [ast.dump(node) for _, node in definitions]


def _definitions(text: str) -> dict[str, list[tuple[ast.ClassDef | None, Definition]]] | None:
    """Qualified name -> class and node of each outermost function of that name; None: the text does not parse."""
    module = parse_or_none(text)
    if module is None:
        return None
    definitions: dict[str, list[tuple[ast.ClassDef | None, Definition]]] = {}

    def visit(node: ast.AST, prefix: str, owner: ast.ClassDef | None) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, Definition):
                definitions.setdefault(prefix + child.name, []).append((owner, child))
            elif isinstance(child, ast.ClassDef):
                visit(child, f"{prefix}{child.name}.", child)
            else:
                visit(child, prefix, owner)

    visit(module, "", None)
    return definitions


def _with_body(text: str, node: Definition, body: tuple[str, ...]) -> str:
    """The text with another body in a function, after its docstring."""
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
    new = "\n".join([body[0], *(f"{indent}{line}" if line else "" for line in body[1:])])
    return "\n".join([*lines[:line], f"{head}{new}{tail}", *lines[end_line + 1 :]])


def _beginning_with(text: str, node: Definition, statement: str) -> str:
    lines = text.split("\n")
    line, column = _start(lines, _statements(node)[0])
    head, rest = lines[line][:column], lines[line][column:]
    lines[line] = f"{head}{statement}; {rest}" if head.strip() else f"{head}{statement}\n{head}{rest}"
    return "\n".join(lines)


def _statements(node: Definition) -> list[ast.stmt]:
    """The body without its docstring, unless it has nothing else."""
    has_docstring = ast.get_docstring(node, clean=False) is not None
    return node.body[1:] if has_docstring and len(node.body) > 1 else node.body


def _start(lines: list[str], statement: ast.stmt) -> tuple[int, int]:
    """Line, from 0, and column in characters of a statement's start, decorators included."""
    decorators = getattr(statement, "decorator_list", [])
    line = (decorators[0].lineno if decorators else statement.lineno) - 1
    return line, _column(lines[line], statement.col_offset)


def _column(line: str, offset: int) -> int:
    """Character column of a UTF-8 byte offset (the syntax tree counts bytes)."""
    return offset if line.isascii() else len(line.encode()[:offset].decode())
