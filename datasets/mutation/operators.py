"""The mutation operators: for a node of a syntax tree, the single-line edits of each kind of bug.

An operator is a function from a node and its surroundings to edits, named in `OPERATORS`. It only proposes edits; a run
of the tests shows whether an edit is a bug that a test detects.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise


@dataclass(frozen=True)
class Edit:
    """A piece of one line, or of several, and its replacement."""

    kind: str
    line: int
    """1-based."""
    start: int
    """0-based column of the first replaced character."""
    end: int
    """Column behind the last replaced character, in the last of the lines."""
    text: str
    lines: int = 1
    """Number of lines that it replaces, in whole or in part."""


class Surroundings:
    """The context of a node, for operators."""

    def __init__(self, lines: tuple[str, ...], nodes: Sequence[ast.AST], owner: ast.ClassDef | None) -> None:
        """`lines` of the file, `nodes` of the function, and its class if it is a method."""
        self.lines = lines
        self._nodes = nodes
        self._owner = owner

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Sorted parameters and local variables of the function, without `self` and `cls`."""
        names = {node.arg for node in self._nodes if isinstance(node, ast.arg)}
        names |= {node.id for node in self._nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
        return tuple(sorted(names - {"self", "cls"}))

    @property
    def attributes(self) -> tuple[str, ...]:
        """Sorted names of the data attributes of `self` that the class uses."""
        return self._members[0]

    @property
    def methods(self) -> tuple[str, ...]:
        """Sorted names of the methods of `self` that the class calls."""
        return self._members[1]

    @cached_property
    def _members(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        nodes = list(ast.walk(self._owner)) if self._owner else []
        called = {id(node.func) for node in nodes if isinstance(node, ast.Call)}
        data: set[str] = set()
        methods: set[str] = set()
        for node in nodes:
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self":
                (methods if id(node) in called else data).add(node.attr)
        return tuple(sorted(data - methods)), tuple(sorted(methods))

    @cached_property
    def behaviour(self) -> frozenset[int]:
        """`id` of each node that affects behaviour."""
        return frozenset(map(id, self._nodes))

    def is_outermost(self, node: ast.AST) -> bool:
        """Is it the function itself?"""
        return bool(self._nodes) and node is self._nodes[0]

    def column(self, line: int, offset: int) -> int:
        """Character column of a UTF-8 byte offset (syntax trees count bytes)."""
        text = self.lines[line - 1]
        return offset if text.isascii() else len(text.encode()[:offset].decode())

    def span(self, node: ast.expr) -> tuple[int, int, int] | None:
        """(line, start, end) of a node in characters; None if it covers several lines."""
        if node.end_lineno != node.lineno or node.end_col_offset is None:
            return None
        return node.lineno, self.column(node.lineno, node.col_offset), self.column(node.lineno, node.end_col_offset)

    def text(self, node: ast.expr) -> str | None:
        """The node's source; None if it covers several lines."""
        span = self.span(node)
        return None if span is None else self.lines[span[0] - 1][span[1] : span[2]]

    def replace(self, node: ast.expr, text: str | None) -> Iterator[Edit]:
        """The edit that replaces a node with `text`, if the node lies on one line and there is a text."""
        span = self.span(node)
        if span is not None and text is not None:
            yield Edit("", *span, text)

    def token(self, left: ast.expr, right: ast.expr, old: str, new: str) -> Iterator[Edit]:
        """The edit of the operator between two operands, if the end of one and the start of the other share a line."""
        if left.end_lineno != right.lineno or left.end_col_offset is None:
            return
        start = self.column(right.lineno, left.end_col_offset)
        gap = self.lines[right.lineno - 1][start : self.column(right.lineno, right.col_offset)]
        pattern = rf"\b{old}\b".replace(" ", r"\s+") if old[0].isalpha() else re.escape(old)
        matches = list(re.finditer(pattern, gap))
        if len(matches) == 1:
            yield Edit("", right.lineno, start + matches[0].start(), start + matches[0].end(), new)


Operator = Callable[[ast.AST, Surroundings], Iterator[Edit]]

# fmt: off
_COMPARISONS: Mapping[type[ast.cmpop], tuple[str, str]] = {
    ast.Eq: ("==", "!="), ast.NotEq: ("!=", "=="), ast.Lt: ("<", ">"), ast.Gt: (">", "<"), ast.LtE: ("<=", ">="),
    ast.GtE: (">=", "<="), ast.In: ("in", "not in"), ast.NotIn: ("not in", "in"), ast.Is: ("is", "is not"),
    ast.IsNot: ("is not", "is"),
}
_BOUNDARIES: Mapping[type[ast.cmpop], tuple[str, str]] = {
    ast.Lt: ("<", "<="), ast.LtE: ("<=", "<"), ast.Gt: (">", ">="), ast.GtE: (">=", ">"),
}
_IDENTITIES: Mapping[type[ast.cmpop], tuple[str, str]] = {ast.Is: ("is", "=="), ast.Eq: ("==", "is")}
_ARITHMETIC: Mapping[type[ast.operator], tuple[str, tuple[str, ...]]] = {
    ast.Add: ("+", ("-", "*")), ast.Sub: ("-", ("+",)), ast.Mult: ("*", ("+", "//")), ast.Div: ("/", ("*", "//")),
    ast.FloorDiv: ("//", ("/", "%")), ast.Mod: ("%", ("//",)), ast.Pow: ("**", ("*",)), ast.BitAnd: ("&", ("|",)),
    ast.BitOr: ("|", ("&",)), ast.LShift: ("<<", (">>",)), ast.RShift: (">>", ("<<",)),
}
_RELATED_CALLS: Mapping[str, tuple[str, ...]] = {
    "min": ("max",), "max": ("min",), "any": ("all",), "all": ("any",), "floor": ("ceil",), "ceil": ("floor",),
    "list": ("set",), "tuple": ("list",), "sorted": ("list",), "int": ("round",), "str": ("repr",), "repr": ("str",),
    "takewhile": ("dropwhile",), "dropwhile": ("takewhile",), "next": ("list",), "sum": ("max",), "filter": ("map",),
    "ifilter": ("map",), "filterfalse": ("filter",),
}
_RELATED_METHODS: Mapping[str, tuple[str, ...]] = {
    "append": ("extend",), "extend": ("append",), "appendleft": ("append",), "startswith": ("endswith",),
    "endswith": ("startswith",), "lower": ("upper",), "upper": ("lower",), "keys": ("values",), "values": ("keys",),
    "items": ("keys",), "strip": ("lstrip",), "lstrip": ("rstrip",), "rstrip": ("lstrip",), "find": ("rfind",),
    "rfind": ("find",), "index": ("count",), "add": ("discard",), "discard": ("add",), "remove": ("append",),
    "split": ("rsplit",), "rsplit": ("split",), "partition": ("rpartition",), "rpartition": ("partition",),
    "pop": ("get",), "popleft": ("pop",), "get": ("pop",), "setdefault": ("get",), "union": ("intersection",),
    "intersection": ("union",), "update": ("setdefault",), "match": ("search",), "search": ("match",),
    "isupper": ("islower",), "islower": ("isupper",), "capitalize": ("title",), "title": ("capitalize",),
    "ljust": ("rjust",), "rjust": ("ljust",), "isdigit": ("isalpha",), "isalpha": ("isdigit",), "group": ("groups",),
    "start": ("end",), "end": ("start",), "fullmatch": ("match",), "move_to_end": ("pop",), "insert": ("remove",),
    "issubset": ("issuperset",), "issuperset": ("issubset",), "finditer": ("findall",), "lindex": ("rindex",),
}
_DROPPED_CALLS = frozenset({
    "reversed", "sorted", "abs", "list", "tuple", "set", "dict", "int", "str", "float", "iter", "len", "bool", "repr",
    "frozenset", "enumerate", "next", "round", "sum", "max", "min",
})
# fmt: on
_PREDICATES = ("is", "has", "any", "all", "callable", "startswith", "endswith")
"""Prefixes of the names of functions that return a boolean."""
_RELATED_ERRORS: Mapping[str, str] = {
    "KeyError": "IndexError",
    "IndexError": "KeyError",
    "TypeError": "ValueError",
    "ValueError": "TypeError",
    "AttributeError": "KeyError",
    "StopIteration": "IndexError",
    "LookupError": "ValueError",
}


def _compare(table: Mapping[type[ast.cmpop], tuple[str, str]]) -> Operator:
    def operator(node: ast.AST, around: Surroundings) -> Iterator[Edit]:
        if isinstance(node, ast.Compare):
            operands = [node.left, *node.comparators]
            for left, op, right in zip(operands, node.ops, operands[1:], strict=False):
                # `x is 1` causes a warning at each compilation of the file.
                if type(op) in table and not (table is _IDENTITIES and (_is_literal(left) or _is_literal(right))):
                    yield from around.token(left, right, *table[type(op)])

    return operator


def _arithmetic(node: ast.AST, around: Surroundings) -> Iterator[Edit]:
    if isinstance(node, ast.BinOp) and type(node.op) in _ARITHMETIC and not _is_text(node.left):
        old, others = _ARITHMETIC[type(node.op)]
        for new in others:
            yield from around.token(node.left, node.right, old, new)
    elif isinstance(node, ast.AugAssign) and type(node.op) in _ARITHMETIC and not _is_text(node.value):
        old, others = _ARITHMETIC[type(node.op)]
        yield from around.token(node.target, node.value, f"{old}=", f"{others[0]}=")


def _augmented_assignment(node: ast.AST, around: Surroundings) -> Iterator[Edit]:
    if isinstance(node, ast.AugAssign) and type(node.op) in _ARITHMETIC:
        yield from around.token(node.target, node.value, f"{_ARITHMETIC[type(node.op)][0]}=", "=")


def _logical(node: ast.AST, around: Surroundings) -> Iterator[Edit]:
    if isinstance(node, ast.BoolOp):
        old, new = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
        for left, right in pairwise(node.values):
            yield from around.token(left, right, old, new)


def _negated_condition(node: ast.AST, around: Surroundings) -> Iterator[Edit]:
    tests: list[ast.expr] = []
    if isinstance(node, ast.If | ast.While | ast.IfExp):
        tests = [node.test]
    elif isinstance(node, ast.comprehension):
        tests = node.ifs
    for test in tests:
        # Other operators negate comparisons and negations.
        if isinstance(test, ast.Name | ast.Attribute | ast.Call | ast.Subscript):
            text = around.text(test)
            yield from around.replace(test, f"not {text}" if text else None)


def _removed_negation(node: ast.AST, around: Surroundings) -> Iterator[Edit]:
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub | ast.Invert):
        yield from around.replace(node, around.text(node.operand))


def _swapped_arguments(node: ast.AST, around: Surroundings) -> Iterator[Edit]:
    if isinstance(node, ast.Call) and _called(node) not in ("isinstance", "issubclass"):
        yield from _swaps(node.args, around)


def _swapped_elements(node: ast.AST, around: Surroundings) -> Iterator[Edit]:
    if isinstance(node, ast.Tuple):
        yield from _swaps(node.elts, around)
    elif isinstance(node, ast.Dict) and len(node.keys) == 1 and node.keys[0] is not None:
        yield from _exchange(node.keys[0], node.values[0], around)


def _swapped_operands(node: ast.AST, around: Surroundings) -> Iterator[Edit]:
    ordered = ast.Sub | ast.Div | ast.FloorDiv | ast.Mod | ast.Add
    if isinstance(node, ast.BinOp) and isinstance(node.op, ordered) and not _is_text(node.left):
        yield from _exchange(node.left, node.right, around)


def _exchanged_branches(node: ast.AST, around: Surroundings) -> Iterator[Edit]:
    if isinstance(node, ast.IfExp):
        yield from _exchange(node.body, node.orelse, around)


def _swaps(nodes: list[ast.expr], around: Surroundings) -> Iterator[Edit]:
    for left, right in pairwise(nodes):
        if not isinstance(left, ast.Starred) and not isinstance(right, ast.Starred):
            yield from _exchange(left, right, around)


def _exchange(left: ast.expr, right: ast.expr, around: Surroundings) -> Iterator[Edit]:
    first, second = around.span(left), around.span(right)
    if first is None or second is None or first[0] != second[0] or first[2] > second[1]:
        return
    line = around.lines[first[0] - 1]
    one, two = line[first[1] : first[2]], line[second[1] : second[2]]
    if one != two:
        yield Edit("", first[0], first[1], second[2], two + line[first[2] : second[1]] + one)


def _constant(node: ast.AST, around: Surroundings) -> Iterator[Edit]:
    if isinstance(node, ast.Constant):
        for text in _other_values(node.value):
            yield from around.replace(node, text)


def _other_values(value: object) -> tuple[str, ...]:
    if isinstance(value, bool):
        return (str(not value),)
    if isinstance(value, int) and abs(value) < 10_000:
        return {0: ("1",), 1: ("0", "2"), 2: ("1", "3")}.get(value, (str(value + 1), str(value - 1)))
    if isinstance(value, float) and value in (0.0, 0.5, 1.0, 2.0):
        return (str(value + 1.0),)
    return ()


def _default_argument(node: ast.AST, around: Surroundings) -> Iterator[Edit]:
    if isinstance(node, ast.arguments):
        for default in (*node.defaults, *(value for value in node.kw_defaults if value is not None)):
            if isinstance(default, ast.Constant):
                others = ("True",) if default.value is None else _other_values(default.value)
                for text in others:
                    yield from around.replace(default, text)


def _off_by_one(node: ast.AST, around: Surroundings) -> Iterator[Edit]:
    """`n + 1` -> `n`, `len(x)` -> `len(x) - 1`, `range(n)` -> `range(n - 1)` and `range(1, n)`."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Sub):
        if isinstance(node.right, ast.Constant) and node.right.value == 1:
            yield from around.replace(node, around.text(node.left))
        elif isinstance(node.left, ast.Constant) and node.left.value == 1 and isinstance(node.op, ast.Add):
            yield from around.replace(node, around.text(node.right))
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and len(node.args) == 1:
        text, argument = around.text(node), around.text(node.args[0])
        if node.func.id == "len" and text:
            yield from around.replace(node, f"{text} - 1")
        elif node.func.id in ("range", "xrange") and argument:
            yield from around.replace(node.args[0], f"1, {argument}")
            yield from around.replace(node.args[0], f"{argument} - 1")


def _wrong_variable(node: ast.AST, around: Surroundings) -> Iterator[Edit]:
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in around.names:
        at = around.names.index(node.id)
        others = [*around.names[at + 1 :], *around.names[:at]]
        for other in others[:2]:
            yield from around.replace(node, other)


def _wrong_attribute(node: ast.AST, around: Surroundings) -> Iterator[Edit]:
    if not (isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)):
        return
    if not (isinstance(node.value, ast.Name) and node.value.id == "self"):
        return
    for pool in (around.attributes, around.methods):
        if node.attr in pool:
            at = pool.index(node.attr)
            for other in [*pool[at + 1 :], *pool[:at]][:2]:
                yield from around.replace(node, f"self.{other}")


def _wrong_call(node: ast.AST, around: Surroundings) -> Iterator[Edit]:
    if not isinstance(node, ast.Call):
        return
    function = node.func
    if isinstance(function, ast.Name):
        for other in _RELATED_CALLS.get(function.id, ()):
            yield from around.replace(function, other)
    elif isinstance(function, ast.Attribute):
        value = around.text(function.value)
        for other in _RELATED_METHODS.get(function.attr, ()):
            yield from around.replace(function, f"{value}.{other}" if value else None)


def _dropped_call(node: ast.AST, around: Surroundings) -> Iterator[Edit]:
    if not isinstance(node, ast.Call):
        return
    if isinstance(node.func, ast.Name) and len(node.args) == 1 and node.func.id in _DROPPED_CALLS:
        argument = node.args[0]
        if not isinstance(argument, ast.Starred | ast.GeneratorExp):
            yield from around.replace(node, around.text(argument))
    elif isinstance(node.func, ast.Attribute) and not node.args and not node.keywords:
        yield from around.replace(node, around.text(node.func.value))


def _dropped_argument(node: ast.AST, around: Surroundings) -> Iterator[Edit]:
    if not isinstance(node, ast.Call) or len(node.args) + len(node.keywords) < 2:
        return
    before, last = [*node.args, *(keyword.value for keyword in node.keywords)][-2:]
    first, second = around.span(before), around.span(last)
    if first and second and first[0] == second[0] and first[2] <= second[1]:
        yield Edit("", first[0], first[2], second[2], "")


def _return_value(node: ast.AST, around: Surroundings) -> Iterator[Edit]:
    if not isinstance(node, ast.Return) or node.value is None:
        return
    if isinstance(node.value, ast.Name | ast.Attribute):
        yield from around.replace(node.value, "None")
    is_predicate = isinstance(node.value, ast.Call) and _called(node.value).lstrip("_").startswith(_PREDICATES)
    if is_predicate or isinstance(node.value, ast.Compare | ast.BoolOp):
        text = around.text(node.value)
        yield from around.replace(node.value, f"not ({text})" if isinstance(node.value, ast.BoolOp) else f"not {text}")


def _slice_bound(node: ast.AST, around: Surroundings) -> Iterator[Edit]:
    if not isinstance(node, ast.Subscript) or not isinstance(node.slice, ast.Slice):
        return
    bounds = node.slice
    lower, upper, step = (around.text(part) if part else "" for part in (bounds.lower, bounds.upper, bounds.step))
    if lower is None or upper is None or step is None:
        return
    tail = f":{step}" if step else ""
    others = [f"{upper}:{lower}{tail}"]
    others += [f"{lower}:{upper}"] if step else []
    others += [f":{upper}{tail}", f"{lower}:{tail}"] if lower and upper else []
    for new in others:
        if new != f"{lower}:{upper}{tail}":
            yield from around.replace(bounds, new)


def _index(node: ast.AST, around: Surroundings) -> Iterator[Edit]:
    if isinstance(node, ast.Subscript):
        text = around.text(node.slice)
        others = {"0": ("-1", "1"), "-1": ("0",), "1": ("0", "-1"), "-2": ("-1",), "2": ("1",)}
        for other in others.get(text or "", ()):
            yield from around.replace(node.slice, other)


def _caught_exception(node: ast.AST, around: Surroundings) -> Iterator[Edit]:
    if isinstance(node, ast.ExceptHandler) and node.type is not None:
        for name in [node.type] if isinstance(node.type, ast.Name) else getattr(node.type, "elts", []):
            if isinstance(name, ast.Name) and name.id in _RELATED_ERRORS:
                yield from around.replace(name, _RELATED_ERRORS[name.id])


def _loop_control(node: ast.AST, around: Surroundings) -> Iterator[Edit]:
    if isinstance(node, ast.Break | ast.Continue):
        start = around.column(node.lineno, node.col_offset)
        old, new = ("break", "continue") if isinstance(node, ast.Break) else ("continue", "break")
        yield Edit("", node.lineno, start, start + len(old), new)


def _unpacked(node: ast.AST, around: Surroundings) -> Iterator[Edit]:
    """`f(*args)` -> `f(args)`; also within list and tuple displays."""
    if isinstance(node, ast.Starred) and isinstance(node.ctx, ast.Load):
        yield from around.replace(node, around.text(node.value))


def _called(node: ast.Call) -> str:
    """The name of the called function or method; empty for other expressions."""
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def _is_literal(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is not None


def _is_text(node: ast.expr) -> bool:
    """Is it a string literal? Then `%` and `+` build a message, which does not affect behaviour."""
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str | bytes))


OPERATORS: Mapping[str, Operator] = {
    "arithmetic-operator": _arithmetic,
    "assignment-operator": _augmented_assignment,
    "boundary": _compare(_BOUNDARIES),
    "call-removal": _dropped_call,
    "call-replacement": _wrong_call,
    "caught-exception": _caught_exception,
    "comparison-operator": _compare(_COMPARISONS),
    "conditional-expression": _exchanged_branches,
    "constant": _constant,
    "default-argument": _default_argument,
    "identity": _compare(_IDENTITIES),
    "index": _index,
    "logical-operator": _logical,
    "loop-control": _loop_control,
    "missing-argument": _dropped_argument,
    "negated-condition": _negated_condition,
    "off-by-one": _off_by_one,
    "removed-negation": _removed_negation,
    "return-value": _return_value,
    "slice-bound": _slice_bound,
    "swapped-arguments": _swapped_arguments,
    "swapped-elements": _swapped_elements,
    "swapped-operands": _swapped_operands,
    "unpacking": _unpacked,
    "wrong-attribute": _wrong_attribute,
    "wrong-variable": _wrong_variable,
}
"""Kind -> operator, in any order. The names of kinds must not change, because recipes store them."""
