"""The mutants of a file in another language than Python, by its tree-sitter syntax tree."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import astuple, dataclass, field, replace
from functools import cached_property

from tree_sitter import Node

from regrade.datasets.mutation.grammars import Grammar, grammar_of
from regrade.datasets.mutation.mutants import SHORT, FunctionSize, Mutant, Mutations
from regrade.datasets.mutation.operators import Edit
from regrade.datasets.mutation.statement_operators import REMOVED_BODY, SEVERAL, combined
from regrade.datasets.mutation.syntax_operators import SYNTAX_OPERATORS, Around, Rewriting, is_output, text_of


@dataclass(frozen=True)
class SyntaxTarget:
    """A function that is short enough to mutate. Functions inside it belong to it."""

    name: str
    """`first`, `Cart.add`; of a function that is a value, the name of its variable."""
    node: Node = field(repr=False)

    @property
    def first_line(self) -> int:
        """1-based."""
        return self.node.start_point.row + 1

    @property
    def last_line(self) -> int:
        return self.node.end_point.row + 1


class SyntaxMutations:
    """The functions of one file and their mutants, in the form of `Mutations`; the file is parsed once.

    Raises:
        SyntaxError: the file does not parse, or no grammar is known for its suffix.
    """

    def __init__(self, source: str, file: str, size: FunctionSize = SHORT) -> None:
        grammar = grammar_of(file)
        if grammar is None:
            raise SyntaxError(f"no grammar for {file}")
        self.source, self.file, self._grammar = source, file, grammar
        self._bytes = source.encode("utf-8", "surrogateescape")
        self._starts = [0, *(number + 1 for number, byte in enumerate(self._bytes) if byte == 10)]
        self._root = grammar.parse(source).root_node
        if self._root.has_error:
            raise SyntaxError(f"{file} does not parse")
        self.functions = tuple(_functions(self._root, grammar, size)) if "\r" not in source else ()

    def of(self, function: SyntaxTarget, kinds: Collection[str] | None = None) -> list[Mutant]:
        """All mutants of a function, in a fixed order; kinds without a meaning in the language have none."""
        chosen = SYNTAX_OPERATORS if kinds is None else kinds
        edits = set(self._edits(function, [kind for kind in chosen if kind in SYNTAX_OPERATORS]))
        if SEVERAL in chosen:
            usual = [kind for kind in SYNTAX_OPERATORS if kind != REMOVED_BODY]
            single = sorted(set(self._edits(function, usual)), key=astuple)
            edits |= {replace(edit, kind=SEVERAL) for edit in combined(single, self.source.split("\n"))}
        ordinals: Counter[tuple[str, int, int]] = Counter()
        mutants = []
        for edit in sorted(edits, key=astuple):
            start = (edit.kind, edit.line, edit.start)
            mutants.append(
                Mutant(
                    kind=edit.kind,
                    file=self.file,
                    function=function.name,
                    place=f"{edit.line}:{edit.start}:{ordinals[start]}",
                    edit=edit,
                    pristine=self.source,
                    first_line=function.first_line,
                    last_line=function.last_line,
                )
            )
            ordinals[start] += 1
        return mutants

    def find(self, function: str, kind: str, place: str) -> Mutant | None:
        """The mutant of a recipe, or None."""
        candidates = [target for target in self.functions if target.name == function]
        mutants = (mutant for target in candidates for mutant in self.of(target, [kind]))
        return next((mutant for mutant in mutants if mutant.place == place), None)

    def differs(self, mutant: Mutant) -> bool:
        """Does the mutant parse, and differ from its original in more than layout and comments?"""
        root = self._grammar.parse(mutant.source).root_node
        return not root.has_error and tuple(_tokens(root)) != self._pristine_tokens

    @cached_property
    def _pristine_tokens(self) -> tuple[str, ...]:
        return tuple(_tokens(self._root))

    def _edits(self, function: SyntaxTarget, kinds: Collection[str]) -> Iterator[Edit]:
        nodes = list(_nodes(function.node, self._grammar))
        around = Around(self._grammar, function.node, _names(nodes))
        for node in nodes:
            for kind in kinds:
                for replacement in SYNTAX_OPERATORS[kind](node, around):
                    if self._bytes[replacement[0] : replacement[1]] != replacement[2].encode(
                        "utf-8", "surrogateescape"
                    ):
                        yield self._edit(kind, replacement)

    def _edit(self, kind: str, replacement: Rewriting) -> Edit:
        """The edit in lines and characters; tree-sitter counts bytes."""
        first, end, text = replacement
        line, start = self._place(first)
        last, behind = self._place(end)
        return Edit(kind, line, start, behind, text, last - line + 1)

    def _place(self, offset: int) -> tuple[int, int]:
        """(1-based line, 0-based column in characters) of a byte."""
        line = bisect_right(self._starts, offset)
        return line, len(self._bytes[self._starts[line - 1] : offset].decode("utf-8", "surrogateescape"))


AnyMutations = Mutations | SyntaxMutations


def mutations_of(source: str, file: str, size: FunctionSize = SHORT) -> AnyMutations:
    """The mutations of a file, by the syntax tree of its language.

    Raises:
        SyntaxError: the file does not parse, or its language has no mutations.
    """
    return Mutations(source, file, size) if file.endswith(".py") else SyntaxMutations(source, file, size)


def parses(source: str, file: str) -> bool:
    """Can the functions of the file be mutated?"""
    try:
        mutations_of(source, file)
    except (SyntaxError, ValueError):
        return False
    return True


def _functions(root: Node, grammar: Grammar, size: FunctionSize) -> Iterator[SyntaxTarget]:
    waiting = [(root, "")]
    while waiting:
        node, prefix = waiting.pop()
        for child in reversed(node.named_children):
            owner = (
                child.child_by_field_name(grammar.owners.get(child.type, "")) if child.type in grammar.owners else None
            )
            inner = f"{prefix}{_type_name(owner)}." if owner is not None else prefix
            name = _name(child, grammar)
            if name and child.child_by_field_name("body") is not None:
                if _is_short(child, size):
                    yield SyntaxTarget(f"{inner}{name}", child)
            else:
                waiting.append((child, inner))


def _name(node: Node, grammar: Grammar) -> str:
    """The name of a function; empty: it is none, or has none."""
    if node.type in grammar.functions:
        return text_of(node.child_by_field_name("name"))
    parent = node.parent
    if node.type in grammar.assigned_functions and parent is not None and parent.type == "variable_declarator":
        return text_of(parent.child_by_field_name("name"))
    return ""


def _type_name(owner: Node) -> str:
    """`Cart` of a class's name, and of a receiver such as `(c *Cart[T])`."""
    waiting = [owner]
    while waiting:
        node = waiting.pop()
        if node.type in ("type_identifier", "identifier") and (node == owner or node.type == "type_identifier"):
            return text_of(node)
        waiting.extend(reversed(node.named_children))
    return text_of(owner)


def _is_short(node: Node, size: FunctionSize) -> bool:
    lines = [line.strip() for line in text_of(node).split("\n") if line.strip()]
    return len(lines) <= size.lines and sum(len(line) + 1 for line in lines) <= size.characters


def _nodes(function: Node, grammar: Grammar) -> Iterator[Node]:
    """The nodes of a function that affect its behaviour, in order."""
    waiting = [function]
    while waiting:
        node = waiting.pop()
        if node.type not in grammar.skipped and node.type != "comment" and not is_output(node):
            yield node
            waiting.extend(reversed(node.named_children))


def _names(nodes: Collection[Node]) -> tuple[str, ...]:
    """Sorted names that the function binds: parameters and variables."""
    found = {text_of(node) for node in nodes if node.type == "identifier" and _is_bound(node)}
    return tuple(sorted(found - {"_"}))


def _is_bound(node: Node) -> bool:
    parent = node.parent
    if parent is None:
        return False
    if parent.type in ("parameter_declaration", "required_parameter", "formal_parameters"):
        return True
    if parent.type == "variable_declarator":
        return node == parent.child_by_field_name("name")
    inner, outer = (parent, parent.parent) if parent.type == "expression_list" else (node, parent)
    is_declaration = outer is not None and outer.type in ("short_var_declaration", "range_clause", "for_in_statement")
    return is_declaration and outer is not None and inner == outer.child_by_field_name("left")


def _tokens(root: Node) -> Iterator[str]:
    waiting = [root]
    while waiting:
        node = waiting.pop()
        if node.type == "comment":
            continue
        if node.child_count == 0:
            yield text_of(node)
        else:
            waiting.extend(reversed(node.children))
