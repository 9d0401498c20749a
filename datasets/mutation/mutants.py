"""Bugs by mutation of the syntax tree: each mutant replaces a piece of one line, or of a few."""

from __future__ import annotations

import ast
import dis
import hashlib
import random
import textwrap
import warnings
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import astuple, dataclass, field, replace
from functools import cached_property
from types import CodeType

from regrade.datasets.mutation.operators import OPERATORS, Edit, Operator, Surroundings
from regrade.datasets.mutation.statement_operators import SEVERAL, STATEMENT_OPERATORS, combined
from regrade.datasets.syntax_trees import parse_tree

MOST_LINES = 24
"""Limit on the lines of a function to mutate, without docstring and blank lines."""
MOST_CHARACTERS = 900
"""Limit on the characters in these lines: the function must fit in one short prompt."""
ALL_OPERATORS = {**OPERATORS, **STATEMENT_OPERATORS}
_OUTPUT = frozenset(
    {"print", "warn", "warning", "debug", "info", "error", "exception", "critical", "log", "deprecated"}
)
"""Functions that only write a message, if the call is a statement by itself."""
_SKIPPED = (ast.JoinedStr, ast.Raise, ast.Import, ast.ImportFrom, ast.Global, ast.Nonlocal)
"""Messages and imports. (The columns inside f-strings differ between Python versions, too.)"""


@dataclass(frozen=True)
class FunctionSize:
    """The largest function to mutate, without docstring and blank lines."""

    lines: int
    characters: int


SHORT = FunctionSize(MOST_LINES, MOST_CHARACTERS)
LONG = FunctionSize(160, 8000)
"""For agents, which read files instead of one prompt."""


@dataclass(frozen=True)
class MutationTarget:
    """A function that is short enough to mutate. Nested functions belong to the outermost short function."""

    name: str
    """Python's qualified name: `Cache.get`, `outer.<locals>.inner`."""
    node: ast.FunctionDef | ast.AsyncFunctionDef = field(repr=False)
    owner: ast.ClassDef | None = field(repr=False)

    @property
    def first_line(self) -> int:
        """The `def` line (decorators left out), 1-based."""
        return self.node.lineno

    @property
    def last_line(self) -> int:
        return self.node.end_lineno or self.node.lineno


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """A file with one bug planted."""

    kind: str
    """A key of `ALL_OPERATORS`, or `SEVERAL`."""
    file: str
    function: str
    place: str
    """Start of the edit, and its number among the edits of its kind there: `line:column:ordinal`, stable for a file."""
    edit: Edit = field(repr=False)
    pristine: str = field(repr=False)
    """The file's text before the mutation."""
    first_line: int = 0
    """Of the function, 1-based (decorators left out)."""
    last_line: int = 0

    @property
    def line(self) -> int:
        return self.edit.line

    @cached_property
    def original_lines(self) -> tuple[str, ...]:
        return tuple(self.pristine.split("\n")[self.edit.line - 1 : self.edit.line - 1 + self.edit.lines])

    @property
    def original_line(self) -> str:
        """The original of what the edit changes; lines are joined."""
        return "\n".join(self.original_lines)

    @property
    def mutated_line(self) -> str:
        return self.original_lines[0][: self.edit.start] + self.edit.text + self.original_lines[-1][self.edit.end :]

    @property
    def is_one_line(self) -> bool:
        """Does it replace one line by one line?"""
        return self.edit.lines == 1 and "\n" not in self.edit.text

    @property
    def last_mutated_line(self) -> int:
        """Last line of the function in the file with the bug."""
        return self.last_line + self.mutated_line.count("\n") + 1 - self.edit.lines

    @property
    def source(self) -> str:
        """The file's text with the bug."""
        lines = self.pristine.split("\n")
        lines[self.edit.line - 1 : self.edit.line - 1 + self.edit.lines] = [self.mutated_line]
        return "\n".join(lines)

    @property
    def digest(self) -> str:
        """First 16 hexadecimal digits of the SHA-256 of `source`."""
        return hashlib.sha256(self.source.encode("utf-8", "surrogateescape")).hexdigest()[:16]


class Mutations:
    """The functions of one file and all their mutants; the file is parsed once.

    Raises:
        SyntaxError: the file is not Python of the current version.
    """

    def __init__(
        self, source: str, file: str, size: FunctionSize = SHORT, operators: Mapping[str, Operator] | None = None
    ) -> None:
        """
        Args:
            operators: kind -> operator, and no others. Default: all, of which those of a line alone make mutants unless
                kinds are given.
        """
        self.source = source
        self.file = file
        self._operators = ALL_OPERATORS if operators is None else operators
        self._usual = OPERATORS if operators is None else operators
        self._lines = tuple(source.split("\n"))
        tree = parse_tree(source)
        self.functions = tuple(_functions(tree, self._lines, size)) if "\r" not in source and "\f" not in source else ()

    def of(self, function: MutationTarget, kinds: Collection[str] | None = None) -> list[Mutant]:
        """All mutants of a function, in a fixed order. Some may be equivalent to the original: see `differs`.

        Args:
            kinds: of the operators. Default: those of a line.
        """
        kinds = self._usual if kinds is None else kinds
        mutants: list[Mutant] = []
        ordinals: Counter[tuple[str, int, int]] = Counter()
        for edit in sorted(set(self._edits(function, kinds)), key=astuple):
            start = (edit.kind, edit.line, edit.start)
            place = f"{edit.line}:{edit.start}:{ordinals[start]}"
            ordinals[start] += 1
            mutant = Mutant(
                kind=edit.kind,
                file=self.file,
                function=function.name,
                place=place,
                edit=edit,
                pristine=self.source,
                first_line=function.first_line,
                last_line=function.last_line,
            )
            mutants.append(mutant)
        return mutants

    def find(self, function: str, kind: str, place: str) -> Mutant | None:
        """The mutant of a recipe, or None."""
        start = place.split(":")[0]
        line = int(start) if start.isdecimal() and kind in (*self._operators, SEVERAL) else 0
        for candidate in self.functions:
            if candidate.name == function and candidate.first_line <= line <= candidate.last_line:
                for mutant in self.of(candidate, [kind]):
                    if mutant.place == place:
                        return mutant
        return None

    def differs(self, mutant: Mutant) -> bool:
        """Does the mutant parse, and differ from its original in syntax tree *and* compiled code?"""
        texts = (self.source, mutant.source)
        ends = (mutant.last_line, mutant.last_mutated_line)
        # The function alone compiles much faster than the file; with `nonlocal` it does not compile alone.
        blocks = tuple(
            textwrap.dedent("\n".join(text.split("\n")[mutant.first_line - 1 : end]))
            for text, end in zip(texts, ends, strict=True)
        )
        for original, mutated in (blocks, texts):
            try:
                (tree, code), (other_tree, other_code) = _tree_and_code(original), _tree_and_code(mutated)
            except (SyntaxError, ValueError):
                continue
            return tree != other_tree and code != other_code
        return False

    def _edits(self, function: MutationTarget, kinds: Collection[str]) -> Iterator[Edit]:
        nodes = list(_nodes(function.node))
        around = Surroundings(self._lines, nodes, function.owner)
        for node in nodes:
            for kind in kinds:
                if kind != SEVERAL:
                    for edit in self._operators[kind](node, around):
                        if edit.lines > 1 or self._lines[edit.line - 1][edit.start : edit.end] != edit.text:
                            yield replace(edit, kind=kind)
        if SEVERAL in kinds:
            single = sorted(set(self._edits(function, self._usual)), key=astuple)
            yield from (replace(edit, kind=SEVERAL) for edit in combined(single, self._lines))


def mutants(source: str, file: str, seed: int) -> Iterator[Mutant]:
    """The mutants of a file that differ from it, function by function.

    Within a function the kinds alternate, in an order that depends on the seed, so that the first few are diverse.

    Raises:
        SyntaxError: the file is not Python of the current version.
    """
    mutations = Mutations(source, file)
    for function in mutations.functions:
        yield from (mutant for mutant in shuffled(mutations.of(function), seed) if mutations.differs(mutant))


def shuffled(mutants: list[Mutant], seed: int) -> list[Mutant]:
    """The mutants of one function with alternating kinds, in an order that depends on the seed."""
    if not mutants:
        return []
    generator = random.Random(f"{seed}/{mutants[0].file}/{mutants[0].function}")
    by_kind: dict[str, list[Mutant]] = defaultdict(list)
    for mutant in mutants:
        by_kind[mutant.kind].append(mutant)
    ranked = []
    for kind in sorted(by_kind):
        generator.shuffle(by_kind[kind])
        ranked += [(turn, generator.random(), mutant) for turn, mutant in enumerate(by_kind[kind])]
    return [mutant for _, _, mutant in sorted(ranked, key=lambda entry: entry[:2])]


def _functions(tree: ast.Module, lines: tuple[str, ...], size: FunctionSize) -> Iterator[MutationTarget]:
    def visit(node: ast.AST, prefix: str, owner: ast.ClassDef | None) -> Iterator[MutationTarget]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                function = MutationTarget(prefix + child.name, child, owner)
                if _is_short(child, lines, size):
                    if not _is_overload(child):
                        yield function
                else:
                    yield from visit(child, f"{function.name}.<locals>.", owner)
            elif isinstance(child, ast.ClassDef):
                yield from visit(child, f"{prefix}{child.name}.", child)
            else:
                yield from visit(child, prefix, owner)

    yield from visit(tree, "", None)


def _is_short(node: ast.FunctionDef | ast.AsyncFunctionDef, lines: tuple[str, ...], size: FunctionSize) -> bool:
    docstring = _docstring(node)
    hidden = range(docstring.lineno, (docstring.end_lineno or docstring.lineno) + 1) if docstring else range(0)
    shown = [
        lines[number - 1][node.col_offset :]
        for number in range(node.lineno, (node.end_lineno or node.lineno) + 1)
        if number not in hidden and lines[number - 1].strip()
    ]
    return len(shown) <= size.lines and sum(len(line) + 1 for line in shown) <= size.characters


def _docstring(node: ast.AST) -> ast.stmt | None:
    body = getattr(node, "body", None)
    if not isinstance(body, list) or not body or not isinstance(body[0], ast.Expr):
        return None
    value = body[0].value
    return body[0] if isinstance(value, ast.Constant) and isinstance(value.value, str) else None


def _is_overload(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    names = {part.attr if isinstance(part, ast.Attribute) else getattr(part, "id", "") for part in node.decorator_list}
    return "overload" in names


def _nodes(function: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a function that affect its behaviour: no docstring, annotation, decorator or message."""
    if isinstance(function, _SKIPPED) or _is_output(function):
        return
    yield function
    docstring = _docstring(function) if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef) else None
    for name, value in ast.iter_fields(function):
        if name in ("annotation", "returns", "decorator_list", "type_params", "msg"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and child is not docstring:
                yield from _nodes(child)


def _is_output(node: ast.AST) -> bool:
    if not isinstance(node, ast.Expr) or not isinstance(node.value, ast.Call):
        return False
    function = node.value.func
    return (function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")) in _OUTPUT


def _tree_and_code(source: str) -> tuple[str, object]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)  # a mutant may compare a literal with `is`
        tree = parse_tree(source)
        return ast.dump(tree), _instructions(compile(tree, "mutant", "exec", dont_inherit=True, optimize=0))


def _instructions(code: CodeType) -> object:
    """The parts of a code object that affect its behaviour: no lines, columns, or constants of dead code."""
    body = []
    for instruction in dis.get_instructions(code):
        value = instruction.argval
        shown = _instructions(value) if isinstance(value, CodeType) else (type(value), repr(value))
        body.append((instruction.opname, shown))
    signature = (code.co_varnames, code.co_argcount, code.co_kwonlyargcount, code.co_posonlyargcount)
    return body, signature, code.co_freevars, code.co_cellvars, code.co_flags, code.co_exceptiontable
