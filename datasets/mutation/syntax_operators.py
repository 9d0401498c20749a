"""Mutation operators on tree-sitter nodes, for every language with a row in `grammars.py`.

The kinds have the names that they have for Python. As there, an operator only proposes edits: a run of the tests shows
whether an edit is a bug, and those that do not compile are dropped there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from tree_sitter import Node

from regrade.datasets.mutation.grammars import Grammar
from regrade.datasets.mutation.statement_operators import REMOVED_BODY

Rewriting = tuple[int, int, str]
"""(first byte, byte behind the last, new text)"""
LARGEST = 10_000
"""Integers that are replaced by a neighbour; larger ones are often masks or limits that no test reaches."""
_OUTPUT = frozenset({"console", "log", "fmt.Print", "fmt.Printf", "fmt.Println"})
# fmt: off
_COMPARISONS = {
    "==": ("!=",), "!=": ("==",), "===": ("!==",), "!==": ("===",), "<": (">",), ">": ("<",), "<=": (">=",),
    ">=": ("<=",),
}
_BOUNDARIES = {"<": ("<=",), "<=": ("<",), ">": (">=",), ">=": (">",)}
_LOGICAL = {"&&": ("||",), "||": ("&&",), "??": ("||",)}
_ARITHMETIC = {
    "+": ("-", "*"), "-": ("+",), "*": ("+", "/"), "/": ("*",), "%": ("*",), "**": ("*",), "&": ("|",), "|": ("&",),
    "<<": (">>",), ">>": ("<<",), "&^": ("&",),
}
# fmt: on
_ASSIGNING = {f"{old}=": tuple(f"{new}=" for new in others) for old, others in _ARITHMETIC.items()}
_TEXTS = frozenset({"string", "template_string", "interpreted_string_literal", "raw_string_literal"})


@dataclass(frozen=True)
class Around:
    """The function that a node belongs to."""

    grammar: Grammar
    function: Node
    names: tuple[str, ...]
    """Sorted parameters and local variables."""


def text_of(node: Node | None) -> str:
    return (node.text or b"").decode("utf-8", "surrogateescape") if node is not None else ""


SyntaxOperator = Callable[[Node, Around], Iterator[Rewriting]]


def _whole(node: Node, text: str) -> Rewriting:
    return node.start_byte, node.end_byte, text


def _exchange(left: Node, right: Node) -> Iterator[Rewriting]:
    one, other = text_of(left), text_of(right)
    whole = text_of(left.parent).encode("utf-8", "surrogateescape")
    start = left.parent.start_byte if left.parent is not None else 0
    between = whole[left.end_byte - start : right.start_byte - start].decode("utf-8", "surrogateescape")
    if one != other and left.end_byte <= right.start_byte:
        yield left.start_byte, right.end_byte, other + between + one


def _token(table: Mapping[str, Sequence[str]], *, may_be_text: bool = True) -> SyntaxOperator:
    """Replaces the operator between two operands."""

    def operator(node: Node, around: Around) -> Iterator[Rewriting]:
        del around
        token = node.child_by_field_name("operator") or _between(node)
        left, right = node.child_by_field_name("left"), node.child_by_field_name("right")
        if token is None or left is None or right is None or token.type not in table:
            return
        if may_be_text or not ({left.type, right.type} & _TEXTS):
            for new in table[token.type]:
                yield _whole(token, new)

    return operator


def _between(node: Node) -> Node | None:
    """The token between the operands, where a grammar gives it no field."""
    left = node.child_by_field_name("left")
    return left.next_sibling if left is not None else None


def _augmented(node: Node, around: Around) -> Iterator[Rewriting]:
    del around
    token = node.child_by_field_name("operator") or _between(node)
    if token is not None and node.child_by_field_name("right") is not None and token.type in _ASSIGNING:
        yield _whole(token, "=")


def _negated(node: Node, around: Around) -> Iterator[Rewriting]:
    """The condition of an `if` or a loop, unless it is a comparison or negation, which other operators change."""
    if not node.type.startswith(("if_", "while_")):
        return
    condition = node.child_by_field_name("condition")
    if condition is not None and condition.type == "parenthesized_expression":
        condition = condition.named_children[0] if condition.named_children else None
    if condition is not None and condition.type not in ("binary_expression", "unary_expression"):
        yield _whole(condition, f"!{text_of(condition)}")
    del around


def _removed_negation(node: Node, around: Around) -> Iterator[Rewriting]:
    if node.type == "unary_expression" and text_of(node.child_by_field_name("operator")) in ("!", "-"):
        operand = node.child_by_field_name("operand") or node.child_by_field_name("argument")
        if operand is not None:
            yield _whole(node, text_of(operand))
    del around


def _constant(node: Node, around: Around) -> Iterator[Rewriting]:
    text = text_of(node)
    if node.type in around.grammar.integers and text.isdecimal() and int(text) < LARGEST:
        value = int(text)
        for other in {0: (1,), 1: (0, 2), 2: (1, 3)}.get(value, (value + 1, value - 1)):
            yield _whole(node, str(other))
    elif node.type in ("true", "false"):
        yield _whole(node, "false" if node.type == "true" else "true")


def _off_by_one(node: Node, around: Around) -> Iterator[Rewriting]:
    """`n + 1` -> `n`, `len(x)` -> `len(x) - 1`, `x.length` -> `x.length - 1`"""
    if node.type == "binary_expression":
        left, right = node.child_by_field_name("left"), node.child_by_field_name("right")
        token = node.child_by_field_name("operator")
        if left is not None and text_of(right) == "1" and text_of(token) in ("+", "-"):
            yield _whole(node, text_of(left))
    elif node.type == "call_expression" and text_of(node.child_by_field_name("function")) == "len":
        yield _whole(node, f"{text_of(node)} - 1")
    elif node.type == "member_expression" and text_of(node.child_by_field_name("property")) == "length":
        parent = node.parent
        if parent is None or parent.type not in ("assignment_expression", "call_expression", "member_expression"):
            yield _whole(node, f"{text_of(node)} - 1")
    del around


def _index(node: Node, around: Around) -> Iterator[Rewriting]:
    if node.type in ("index_expression", "subscript_expression"):
        index = node.child_by_field_name("index")
        for other in {"0": ("1",), "1": ("0",), "2": ("1",)}.get(text_of(index), ()):
            if index is not None:
                yield _whole(index, other)
    del around


def _loop_control(node: Node, around: Around) -> Iterator[Rewriting]:
    del around
    words = {"break_statement": ("break", "continue"), "continue_statement": ("continue", "break")}
    if node.type in words and not node.named_children:
        old, new = words[node.type]
        yield node.start_byte, node.start_byte + len(old), new


def _swapped_arguments(node: Node, around: Around) -> Iterator[Rewriting]:
    if node.type in around.grammar.arguments:
        for left, right in pairwise(_plain(node)):
            yield from _exchange(left, right)


def _missing_argument(node: Node, around: Around) -> Iterator[Rewriting]:
    arguments = _plain(node) if node.type in around.grammar.arguments and not around.grammar.is_typed else []
    if len(arguments) > 1:
        yield arguments[-2].end_byte, arguments[-1].end_byte, ""


def _plain(node: Node) -> list[Node]:
    """Arguments, without comments; none if some are spread."""
    children = [child for child in node.named_children if child.type != "comment"]
    return [] if any("spread" in child.type or "variadic" in child.type for child in children) else children


def _swapped_operands(node: Node, around: Around) -> Iterator[Rewriting]:
    del around
    left, right = node.child_by_field_name("left"), node.child_by_field_name("right")
    is_ordered = node.type == "binary_expression" and text_of(node.child_by_field_name("operator")) in ("-", "/", "%")
    if is_ordered and left is not None and right is not None:
        yield from _exchange(left, right)


def _exchanged_branches(node: Node, around: Around) -> Iterator[Rewriting]:
    del around
    if node.type == "ternary_expression":
        first, second = node.child_by_field_name("consequence"), node.child_by_field_name("alternative")
        if first is not None and second is not None:
            yield from _exchange(first, second)


def _wrong_variable(node: Node, around: Around) -> Iterator[Rewriting]:
    """In a value, never where a name is bound or a member is chosen."""
    parent = node.parent
    is_value = node.type == "identifier" and parent is not None and parent.type not in _BINDING
    name = text_of(node)
    if is_value and name in around.names and not _is_target(node):
        at = around.names.index(name)
        for other in [*around.names[at + 1 :], *around.names[:at]][:2]:
            yield _whole(node, other)


_BINDING = frozenset(
    {
        *("formal_parameters", "parameter_declaration", "required_parameter", "optional_parameter", "arrow_function"),
        *("function_declaration", "variadic_parameter_declaration", "labeled_statement", "keyed_element", "pair"),
    }
)


def _is_target(node: Node) -> bool:
    """Is it assigned or declared?"""
    inner, outer = node, node.parent
    if outer is not None and outer.type == "expression_list":
        inner, outer = outer, outer.parent
    if outer is None:
        return False
    return inner in (outer.child_by_field_name("left"), outer.child_by_field_name("name"))


def _dropped_statement(node: Node, around: Around) -> Iterator[Rewriting]:
    """A call as a statement, or an assignment to a part of an object; a plain name might be undefined afterwards."""
    if node.parent is None or node.parent.type not in (around.grammar.lists or around.grammar.blocks):
        return
    inner = node.named_children[0] if node.type == "expression_statement" and node.named_children else node
    left = inner.child_by_field_name("left")
    left = left.named_children[0] if left is not None and left.type == "expression_list" else left
    is_part = left is not None and ("." in text_of(left) or "[" in text_of(left)) and "assignment" in inner.type
    if is_part or inner.type in ("call_expression", "await_expression"):
        yield _whole(node, "")


def _removed_guard(node: Node, around: Around) -> Iterator[Rewriting]:
    """An `if` that only leaves."""
    if node.type != "if_statement" or node.child_by_field_name("alternative") is not None or _is_else_if(node):
        return
    body = _statements(node.child_by_field_name("consequence"), around.grammar)
    if len(body) == 1 and body[0].type in around.grammar.leaving:
        yield _whole(node, "")


def _is_else_if(node: Node) -> bool:
    parent = node.parent
    return parent is not None and (parent.type == "else_clause" or node == parent.child_by_field_name("alternative"))


def _removed_branch(node: Node, around: Around) -> Iterator[Rewriting]:
    """The statements of an `else`."""
    alternative = node.child_by_field_name("alternative") if node.type == "if_statement" else None
    if alternative is not None and alternative.type == "else_clause":
        alternative = alternative.named_children[0] if alternative.named_children else None
    if alternative is not None and _statements(alternative, around.grammar):
        yield _whole(alternative, "{}")


def _removed_body(node: Node, around: Around) -> Iterator[Rewriting]:
    """All statements of the outermost function, if they take several lines."""
    body = node.child_by_field_name("body") if node == around.function else None
    statements = _statements(body, around.grammar)
    if statements and statements[-1].end_point.row - statements[0].start_point.row >= 2:
        yield statements[0].start_byte, statements[-1].end_byte, around.grammar.missing_body


def _statements(block: Node | None, grammar: Grammar) -> list[Node]:
    """The statements between the braces; the one statement, where a language allows that."""
    if block is None:
        return []
    if block.type not in grammar.blocks:
        return [block]
    inner = [child for child in block.named_children if child.type != "comment"]
    if len(inner) == 1 and inner[0].type in grammar.lists:
        inner = [child for child in inner[0].named_children if child.type != "comment"]
    return inner


def is_output(node: Node) -> bool:
    """Is it a statement that only writes a message?"""
    inner = node.named_children[0] if node.type == "expression_statement" and node.named_children else node
    called = text_of(inner.child_by_field_name("function")) if inner.type == "call_expression" else ""
    return called in _OUTPUT or called.partition(".")[0] in _OUTPUT


SYNTAX_OPERATORS: Mapping[str, SyntaxOperator] = {
    "arithmetic-operator": _token({**_ARITHMETIC, **_ASSIGNING}, may_be_text=False),
    "assignment-operator": _augmented,
    "boundary": _token(_BOUNDARIES),
    "comparison-operator": _token(_COMPARISONS),
    "conditional-expression": _exchanged_branches,
    "constant": _constant,
    "dropped-statement": _dropped_statement,
    "index": _index,
    "logical-operator": _token(_LOGICAL),
    "loop-control": _loop_control,
    "missing-argument": _missing_argument,
    "negated-condition": _negated,
    "off-by-one": _off_by_one,
    "removed-branch": _removed_branch,
    "removed-guard": _removed_guard,
    "removed-negation": _removed_negation,
    "swapped-arguments": _swapped_arguments,
    "swapped-operands": _swapped_operands,
    "wrong-variable": _wrong_variable,
    REMOVED_BODY: _removed_body,
}
"""Kind -> operator: those of the kinds of Python that have a meaning in these languages."""
