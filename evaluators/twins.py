"""Copies of test files in which wanted tests have other names, and some an expectation that can't be met.

Every expectation of a wanted test passes through a function at the end of the copy (`inside/turning.py`), which gives
it back as it is or turned; literals stand nowhere but there, and not in the clear. So copies that must pass and copies
that must fail have one form.
"""

from __future__ import annotations

import ast
import hashlib
import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property, lru_cache
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from regrade.datasets.syntax_trees import parse_tree
from regrade.evaluators.inside.turning import perturbed_value

Definition = ast.FunctionDef | ast.AsyncFunctionDef
Block = ast.For | ast.AsyncFor | ast.While | ast.If | ast.With | ast.AsyncWith | ast.Try
SECOND_IS_EXPECTED = re.compile(
    r"(?!\w*not)(?:assert|assert_|failUnless)_?(?:\w*equals?|is|almost_?equals?|count_?equal|array_equal|allclose)",
    re.IGNORECASE,
)
"""Names of methods and functions whose second argument is expected of the first."""
EXPECTED_NAME = re.compile(r"expect|want|correct|desired|truth|answer", re.IGNORECASE)
RAISING = frozenset({"raises", "assertRaises", "assertRaisesRegex", "assert_raises", "warns", "assertWarns"})
TRUE = frozenset({"assertTrue", "assertFalse", "assert_", "assert_true", "assert_false", "ok_"})
NONE = frozenset({"assertIsNone"})
INSIDE = Path(__file__).with_name("inside")


UNDEFINED = "its file does not define it as a function of its own"


class TwinError(ValueError):
    """No copy of a test can be made; says why."""


class Form(StrEnum):
    """What is expected at a site."""

    VALUE = "value"
    LITERAL = "literal"
    TRUTH = "truth"
    PARAMETER = "parameter"
    """A value that the test is given, and uses for nothing else."""
    ERROR = "error"
    """The class of an exception, or another one."""
    END = "end"
    """That the test comes to its end."""


HELPERS: Mapping[Form, str] = {
    Form.VALUE: "passed_value",
    Form.LITERAL: "passed_literal",
    Form.PARAMETER: "passed_value",
    Form.TRUTH: "passed_truth",
    Form.ERROR: "passed_error",
    Form.END: "passed_truth",
}


class Site(NamedTuple):
    """An expectation of a test."""

    start: int
    """Offset in the file's text; of an END and a PARAMETER, where a statement may be added."""
    end: int
    form: Form
    line: int
    """Counts from 1."""
    certain: bool
    """What it is turned into can't be met, whatever the code under test is."""
    value: Any = None
    """Of a literal; the name of a parameter."""
    indent: str = ""
    """Of what is a line of its own; empty: it is added to another one."""


class Edit(NamedTuple):
    """A span of a text and what stands there instead."""

    start: int
    end: int
    rank: int
    """Settles which comes first of two at one place: what closes an expression, the end of a test, what follows it."""
    text: str


@dataclass(frozen=True)
class TestFunction:
    """A function of a test file, or several of one name, of which the last counts."""

    __test__ = False

    owner: str
    """Qualified name of its class; empty: it has none."""
    name: str
    names: tuple[tuple[int, int], ...]
    """Where its definitions have their name."""
    sites: tuple[Site, ...]
    """In the order of the file; the END is the last."""
    added: tuple[int, str] | None = None
    """Of a method that the class inherits from elsewhere: where one may be added that calls it, and the indent."""

    @property
    def key(self) -> str:
        return f"{self.owner}.{self.name}" if self.owner else self.name


class TestFile:
    """A test file and what may be changed in it."""

    __test__ = False

    def __init__(self, path: str, text: str) -> None:
        """Raises TwinError: it can't be read as Python that keeps its form."""
        self.path = path
        self.text = text.replace("\r\n", "\n")
        if re.search(r"[\r\f\ud800-\udfff]", self.text):
            raise TwinError("it holds bytes that are no plain text")
        try:
            self._module = parse_tree(self.text)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise TwinError(f"it is no Python: {error}") from error
        self._lines = self.text.split("\n")
        self._starts = [0]
        for line in self._lines:
            self._starts.append(self._starts[-1] + len(line) + 1)
        self._definitions: dict[str, dict[str, list[Definition]]] = {}
        self._classes: dict[str, ast.ClassDef] = {}
        self._bases: dict[str, list[str]] = {}
        self._collect(self._module.body, "")
        self._functions: dict[tuple[str, str], TestFunction] = {}
        self._assigned = _assigned(self._module)
        """Variable -> all that is assigned to it in the file."""
        self._origins: dict[str, ast.expr | Definition] = {}
        self._named: dict[str, list[ast.Name]] = {}
        self._mentioned: set[str] = set()
        for each in ast.walk(self._module):
            if isinstance(each, ast.Name):
                self._named.setdefault(each.id, []).append(each)
            elif isinstance(each, ast.Attribute | ast.arg):
                self._mentioned.add(each.attr if isinstance(each, ast.Attribute) else each.arg)
        self._mentioned |= self._named.keys()

    def function(self, test: str) -> TestFunction:
        """The function of a test by its id. Raises TwinError where the file does not define it."""
        head, bracket, _ = test.partition("::")[2].partition("[")
        *owners, name = head.split("::")
        owner = self._owner_of(".".join(owners), name)
        if owner is None:
            if bracket or not name.isidentifier():
                raise TwinError(UNDEFINED)
            return self._inherited(".".join(owners), name)
        key = (owner, name)
        if key not in self._functions:
            nodes = self._definitions[owner][name]
            names = tuple(self._name_of(node) for node in nodes)
            self._functions[key] = TestFunction(owner, name, names, tuple(self._sites_of(nodes[-1])))
        return self._functions[key]

    def uses_of(self, function: TestFunction) -> list[tuple[int, int]]:
        """Where else in the file a function of the module is named."""
        return [] if function.owner else [self._span(node) for node in self._named.get(function.name, ())]

    def others(self, kept: Iterable[TestFunction]) -> list[tuple[int, int]]:
        """Where tests stand that nothing in the file needs, but for some."""
        keys = {(function.owner, function.name) for function in kept}
        return [span for owner, name, span in self._spare if (owner, name) not in keys and name not in self._mentioned]

    @cached_property
    def _spare(self) -> list[tuple[str, str, tuple[int, int]]]:
        return [
            (owner, name, self._span_of_definition(node))
            for owner, named in self._definitions.items()
            for name, nodes in named.items()
            if name.startswith("test")
            for node in nodes
        ]

    def _span_of_definition(self, node: Definition) -> tuple[int, int]:
        line = min([node.lineno, *(each.lineno for each in node.decorator_list)])
        return self._offset(line, node.col_offset), self._offset(node.end_lineno or line, node.end_col_offset or 0)

    def _collect(self, body: Sequence[ast.stmt], owner: str) -> None:
        self._definitions.setdefault(owner, {})
        for node in body:
            if isinstance(node, Definition):
                self._definitions[owner].setdefault(node.name, []).append(node)
            elif isinstance(node, ast.ClassDef):
                name = f"{owner}.{node.name}" if owner else node.name
                self._classes[name] = node
                self._bases[name] = [
                    base.attr if isinstance(base, ast.Attribute) else getattr(base, "id", "") for base in node.bases
                ]
                self._collect(node.body, name)
            elif isinstance(node, Block):
                for inner in _blocks_of(node):
                    self._collect(inner, owner)

    def _inherited(self, owner: str, name: str) -> TestFunction:
        """A method that a case of unittest has from another file: it takes no arguments."""
        node = self._classes.get(owner)
        bases = {base for each in self._lineage(owner) for base in self._bases.get(each, ())}
        if node is None or not any(base.endswith("TestCase") for base in bases):
            raise TwinError(UNDEFINED)
        first, last = node.body[0], node.body[-1]
        if first.lineno == node.lineno:
            raise TwinError("its class is a single line")
        indent = self._lines[first.lineno - 1][: first.col_offset]
        start = self._offset(last.end_lineno or last.lineno, last.end_col_offset or 0)
        end = Site(start, start, Form.END, node.lineno, certain=True)
        return TestFunction(owner, name, (), (end,), (start, indent))

    def _lineage(self, owner: str) -> list[str]:
        """A class and its bases in this file."""
        found = [owner]
        for each in found:
            found += [base for base in self._bases.get(each, ()) if base in self._bases and base not in found]
        return found

    def _owner_of(self, owner: str, name: str) -> str | None:
        """The class that defines a test, among a class and its bases; None: no one here."""
        return next((each for each in self._lineage(owner) if name in self._definitions.get(each, ())), None)

    def _name_of(self, node: Definition) -> tuple[int, int]:
        start = self._offset(node.lineno, node.col_offset)
        found = re.compile(r"(?:async\s+)?def\s+(\w+)").match(self.text, start)
        if found is None or found[1] != node.name:
            raise TwinError("the place of its name is not clear")
        return found.span(1)

    def _sites_of(self, node: Definition) -> Iterator[Site]:
        """The expectations that a test which passes has met, whatever the code under test is."""
        self._origins = dict(self._origins_in(node))
        own = list(_own_nodes(node))
        if any(isinstance(each, ast.Return | ast.Yield | ast.YieldFrom) for each in own):
            yield from self._sites_in(_before_leaving(node.body))
        else:
            yield from self._sites_in(node.body)
            yield self._end_of(node)

    def _origins_in(self, node: Definition) -> Iterator[tuple[str, ast.expr | Definition]]:
        """Name -> where its value comes from, of those that are used once: the test's parameters, or an assignment.

        What is turned there is turned for those as well who read it in the test's frame.
        """
        names = [each for each in ast.walk(node) if isinstance(each, ast.Name)]
        loads = Counter(each.id for each in names if isinstance(each.ctx, ast.Load))
        stores = Counter(each.id for each in names if not isinstance(each.ctx, ast.Load))
        for argument in node.args.args:
            if loads[argument.arg] == 1 and not stores[argument.arg]:
                yield argument.arg, node
        for statement in node.body:
            if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
                name = statement.targets[0].id
                if len(statement.targets) == 1 and loads[name] == stores[name] == 1:
                    yield name, statement.value

    def _sites_in(self, body: Sequence[ast.stmt]) -> Iterator[Site]:
        for statement in body:
            if isinstance(statement, ast.Assert):
                yield self._site_of_assert(statement.test)
            elif isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
                yield from self._site_of_call(statement.value)
            elif isinstance(statement, ast.With | ast.AsyncWith):
                yield from self._sites_of_with(statement)
            elif isinstance(statement, ast.For) and self._is_never_empty(statement.iter):
                leaves = any(isinstance(each, ast.Break | ast.Continue) for each in _own_nodes(statement))
                yield from self._sites_in(() if leaves else statement.body)
            elif isinstance(statement, ast.Try):
                yield from self._sites_in(statement.finalbody)

    def _sites_of_with(self, statement: ast.With | ast.AsyncWith) -> Iterator[Site]:
        calls = [item.context_expr for item in statement.items if isinstance(item.context_expr, ast.Call)]
        raising = [call for call in calls if _name_of_call(call) in RAISING]
        if len(statement.items) == 1 and raising:
            yield from self._site_of_call(raising[0])
        elif not raising and not any("suppress" in _name_of_call(call) for call in calls):
            yield from self._sites_in(statement.body)

    def _is_never_empty(self, node: ast.expr) -> bool:
        """Does a loop over it run at least once, whatever the code under test is?"""
        if isinstance(node, ast.Name):
            values = self._assigned.get(node.id, ())
            displayed = all(isinstance(value, ast.List | ast.Tuple | ast.Set | ast.Dict) for value in values)
            return bool(values) and displayed and all(map(self._is_never_empty, values))
        if isinstance(node, ast.List | ast.Tuple | ast.Set):
            return bool(node.elts) and not isinstance(node.elts[0], ast.Starred)
        if isinstance(node, ast.Dict):
            return bool(node.keys) and node.keys[0] is not None
        if isinstance(node, ast.Constant):
            return isinstance(node.value, str | bytes) and bool(node.value)
        if not isinstance(node, ast.Call):
            return False
        if isinstance(node.func, ast.Attribute):
            views = node.func.attr in ("items", "keys", "values") and not node.args
            return views and isinstance(node.func.value, ast.Name | ast.Dict) and self._is_never_empty(node.func.value)
        name = _name_of_call(node)
        if name == "range":
            number = node.args[0] if len(node.args) == 1 else None
            return isinstance(number, ast.Constant) and isinstance(number.value, int) and number.value > 0
        several = name in ("enumerate", "zip", "product", "reversed", "sorted", "list", "tuple")
        return several and bool(node.args) and all(map(self._is_never_empty, node.args))

    def _site_of_assert(self, test: ast.expr) -> Site:
        if isinstance(test, ast.Compare) and len(test.ops) == 1:
            left, operator, right = test.left, test.ops[0], test.comparators[0]
            if isinstance(operator, ast.Eq):
                return self._site(self._expected_of(left, right), Form.VALUE)
            if isinstance(operator, ast.Is):
                return self._site(right, Form.VALUE)
            if isinstance(operator, ast.In) and _is_literal(left):
                return self._site(left, Form.VALUE, certain=False)
        return self._site(test, Form.TRUTH)

    def _site_of_call(self, call: ast.Call) -> Iterator[Site]:
        name, given = _name_of_call(call), call.args
        if not given or any(isinstance(each, ast.Starred) for each in given[:2]):
            return
        if name in RAISING:
            yield self._site(given[0], Form.ERROR)
        elif name in TRUE:
            yield self._site(given[0], Form.TRUTH)
        elif name in NONE:
            yield self._site(given[0], Form.VALUE, hide=False)
        elif name == "assertIsInstance" and len(given) > 1:
            yield self._site(given[1], Form.ERROR)
        elif name == "assertIn":
            yield self._site(given[0], Form.VALUE, certain=False)
        elif len(given) > 1 and SECOND_IS_EXPECTED.fullmatch(name):
            expected = self._expected_of(given[0], given[1])
            yield self._site(expected, Form.VALUE, certain=name.startswith("assert"))

    def _expected_of(self, first: ast.expr, second: ast.expr) -> ast.expr:
        """Which of two values that must be equal the code under test has no part in, as far as can be seen."""
        return first if self._rank(first) > self._rank(second) else second

    def _rank(self, node: ast.expr) -> int:
        if _is_literal(node):
            return 3
        if isinstance(node, ast.Name):
            if EXPECTED_NAME.search(node.id) or isinstance(self._origins.get(node.id), Definition):
                return 2
            return int(node.id in self._assigned and all(map(_is_literal, self._assigned[node.id])))
        return 0

    def _site(self, node: ast.expr, form: Form, *, certain: bool = True, hide: bool = True) -> Site:
        if form is Form.VALUE and isinstance(node, ast.Name) and node.id in self._origins:
            origin = self._origins[node.id]
            if isinstance(origin, Definition):
                return self._site_of_parameter(origin, node.id)
            node = origin
        start, end = self._span(node)
        if form is Form.VALUE and hide and _is_literal(node):
            value = ast.literal_eval(node)
            if _has_text(value):
                return Site(start, end, Form.LITERAL, node.lineno, certain, value)
        # What a value of another kind is turned into may equal what it is compared with by the code under test.
        return Site(start, end, form, node.lineno, certain and form is not Form.VALUE)

    def _site_of_parameter(self, node: Definition, name: str) -> Site:
        documented = ast.get_docstring(node, clean=False) is not None and len(node.body) > 1
        first = node.body[int(documented)]
        line = min([first.lineno, *(each.lineno for each in getattr(first, "decorator_list", ()))])
        start = self._offset(line, first.col_offset)
        simple = not isinstance(first, Block | Definition | ast.ClassDef | ast.Match)
        indent = "" if simple else self._lines[line - 1][: first.col_offset]
        return Site(start, start, Form.PARAMETER, line, certain=False, value=name, indent=indent)

    def _end_of(self, node: Definition) -> Site:
        last = node.body[-1]
        line = last.end_lineno or last.lineno
        end = self._offset(line, last.end_col_offset or 0)
        if not isinstance(last, Block | Definition | ast.ClassDef | ast.Match):
            return Site(end, end, Form.END, line, certain=True)
        column = node.body[0].col_offset
        return Site(end, end, Form.END, line, certain=True, indent=self._lines[node.body[0].lineno - 1][:column])

    def _span(self, node: ast.expr) -> tuple[int, int]:
        return (
            self._offset(node.lineno, node.col_offset),
            self._offset(node.end_lineno or node.lineno, node.end_col_offset or 0),
        )

    def _offset(self, line: int, column: int) -> int:
        """The place in the text; columns of the syntax tree count bytes of UTF-8."""
        text = self._lines[line - 1]
        return self._starts[line - 1] + (column if text.isascii() else len(text.encode()[:column].decode()))


@dataclass(frozen=True)
class Twin:
    """A copy of a test file."""

    path: str
    text: str
    names: Mapping[str, str]
    """Function by its key -> its name here."""

    def id_of(self, test: str, function: TestFunction) -> str:
        """The id that a test of the file has in this one."""
        _, _, rest = test.partition("::")
        head, bracket, parameters = rest.partition("[")
        *owners, _ = head.split("::")
        return "::".join([self.path, *owners, self.names[function.key]]) + bracket + parameters


def without_expectations(file: TestFile, functions: Sequence[TestFunction], seed: str) -> str:
    """The text of a file, under its own names, in which what some tests expect is not to be read.

    Raises:
        TwinError: it is no Python.
    """
    own = list({function.key: function for function in functions if function.added is None}.values())
    return make_twin(file, {function.key: None for function in own}, own, seed, whole=True, renamed=False).text


def make_twin(
    file: TestFile,
    turned: Mapping[str, Site | None],
    functions: Sequence[TestFunction],
    seed: str,
    *,
    whole: bool,
    renamed: bool = True,
) -> Twin:
    """The copy of a file in which some functions have other names, and each of those a site turned, or none.

    Args:
        turned: key of a function -> the site that is turned; None: none.
        seed: decides all names.
        whole: with the file's other tests, which take time to compile even where they are not run.
        renamed: False: the tests keep their names.

    Raises:
        TwinError: the copy is no Python.
    """
    random = Random(seed)
    drawn = {name: f"_{random.getrandbits(48):012x}" for name in dict.fromkeys(HELPERS.values())}
    helpers = {form: drawn[name] for form, name in HELPERS.items()}
    key = f"{random.getrandbits(64):016x}"
    wanted = [function for function in functions if function.key in turned]
    names = _names(wanted, random) if renamed else {function.key: function.name for function in wanted}
    known = [value for function in functions for value in _values(function)]
    edits: list[Edit] = []
    for function in wanted:
        named = (*function.names, *file.uses_of(function))
        edits += [Edit(start, end, 0, names[function.key]) for start, end in named]
        for site in function.sites:
            is_turned = site is turned[function.key]
            if is_turned and site.form is Form.LITERAL:
                # What is only to be among others must not be turned into another one of them.
                others = [_values(function), known] if site.certain else []
                site = site._replace(value=_turned_literal(site.value, others, random))
            edits += _edits(site, helpers[site.form], key, random, is_turned=is_turned)
        if function.added is not None:
            edits.append(_method(function, names[function.key], edits.pop()))
    text = _edited(file.text, edits, [] if whole else file.others(wanted))
    text = f"{text.rstrip()}\n\n\n{_helpers(helpers, key, random)}"
    try:
        compile(text, file.path, "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise TwinError(f"its copy is no Python: {error}") from error
    folder = file.path.rpartition("/")[0]
    name = f"test_{random.getrandbits(48):012x}.py"
    return Twin(f"{folder}/{name}" if folder else name, text, names)


def _edited(text: str, edits: Iterable[Edit], gone: Iterable[tuple[int, int]]) -> str:
    """A text with some spans replaced, and others left empty, line by line."""
    spans = sorted(gone)
    starts = [start for start, _ in spans]
    changes = [Edit(start, end, 0, "pass" + "\n" * text.count("\n", start, end)) for start, end in spans]
    for edit in set(edits):
        around = bisect_right(starts, edit.start) - 1
        if around < 0 or edit.start >= spans[around][1]:
            changes.append(edit)
    pieces, done = [], 0
    for edit in sorted(changes):
        pieces += [text[done : edit.start], edit.text]
        done = edit.end
    return "".join((*pieces, text[done:]))


def _names(functions: Iterable[TestFunction], random: Random) -> dict[str, str]:
    """Other names in the order of the old ones, since unittest runs tests in the order of their names."""
    old = sorted({function.name for function in functions})
    numbers = sorted(random.sample(range(1 << 40, 1 << 44), len(old)))
    new = {}
    for name, number in zip(old, numbers, strict=True):
        start = re.match(r"test_?|[^\W_]+_?", name)
        new[name] = f"{start[0] if start else 'test_'}{number:x}"
    return {function.key: new[function.name] for function in functions}


def _method(function: TestFunction, name: str, end: Edit) -> Edit:
    """A method of its own class that does what an inherited one does."""
    assert function.added is not None
    start, indent = function.added
    text = f"\n\n{indent}def {name}(self):\n{indent}    self.{function.name}()\n{indent}    {end.text.lstrip('; ')}"
    return Edit(start, start, 2, text)


def _edits(site: Site, helper: str, key: str, random: Random, *, is_turned: bool) -> list[Edit]:
    if site.form is Form.LITERAL:
        return [Edit(site.start, site.end, 0, f'{helper}("{_hidden(repr(site.value), key, random)}")')]
    token = _token(key, random, is_turned=is_turned)
    if site.form is Form.PARAMETER:
        between = f"\n{site.indent}" if site.indent else "; "
        return [Edit(site.start, site.end, 0, f'{site.value} = {helper}("{token}", {site.value}){between}')]
    if site.form is Form.END:
        lead = f"\n{site.indent}" if site.indent else "; "
        return [Edit(site.start, site.end, 1, f'{lead}assert {helper}("{token}", True)')]
    return [Edit(site.start, site.start, 0, f'{helper}("{token}", '), Edit(site.end, site.end, 0, ")")]


def _values(function: TestFunction) -> list[Any]:
    return [site.value for site in function.sites if site.form is Form.LITERAL]


def _turned_literal(value: Any, known: Iterable[Iterable[Any]], random: Random) -> Any:
    """Of numbers and texts what the test, or else another one, expects elsewhere, if one does: there are objects that
    equal just what tests expect. In a container a single item is turned.
    """
    for each in known if isinstance(value, int | float | complex | str | bytes) else ():
        others = [other for other in each if type(other) is type(value) and other != value]
        if others:
            return random.choice(others)
    return perturbed_value(value, random.getrandbits(8))


def _token(key: str, random: Random, *, is_turned: bool) -> str:
    while True:
        token = f"{random.getrandbits(64):016x}"
        if hashlib.sha256(f"{key} {token}".encode()).digest()[0] & 1 == is_turned:
            return token


def _hidden(text: str, key: str, random: Random) -> str:
    start, plain = f"{random.getrandbits(64):016x}", text.encode("utf-8", "surrogatepass")
    mask = hashlib.shake_256(f"{key} {start}".encode()).digest(len(plain))
    return f"{start}.{bytes(one ^ other for one, other in zip(plain, mask, strict=True)).hex()}"


def _helpers(helpers: Mapping[Form, str], key: str, random: Random) -> str:
    """`inside/turning.py` under these names, as code alone."""
    text = _turning().replace("TURNING_KEY = ''", f"TURNING_KEY = '{key}'", 1)
    names = {name: helpers[form] for form, name in HELPERS.items()}
    for name in ("TURNING_KEY", "perturbed_value", "turning_digest", "hashlib"):
        names[name] = f"_{random.getrandbits(48):012x}"
    text = text.replace("import hashlib", "import hashlib as hashlib_", 1)
    for name, new in names.items():
        text = re.sub(rf"\b{name}\b(?! as )", new, text)
    return text.replace("hashlib_", names["hashlib"], 1)


@lru_cache(maxsize=32)
def read_test_file(path: str, text: str) -> TestFile:
    """Raises TwinError: see `TestFile`."""
    return TestFile(path, text)


@lru_cache(maxsize=1)
def _turning() -> str:
    """Without docstrings, annotations and what they need."""
    module = ast.parse((INSIDE / "turning.py").read_text("utf-8"))
    kept: list[ast.stmt] = []
    for node in module.body:
        if isinstance(node, Definition):
            node.returns = None
            for argument in node.args.args:
                argument.annotation = None
            node.body = node.body[1:] if ast.get_docstring(node) else node.body
        if isinstance(node, ast.Import | ast.Assign | Definition):
            kept.append(node)
    return ast.unparse(ast.Module(kept, [])) + "\n"


def _assigned(module: ast.Module) -> dict[str, list[ast.expr]]:
    """Variables that are bound by plain assignments alone."""
    found: dict[str, list[ast.expr]] = {}
    stores: Counter[str] = Counter()
    for node in ast.walk(module):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Name):
                    found.setdefault(target.id, []).append(node.value)
        elif isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            stores[node.id] += 1
        elif isinstance(node, ast.arg):
            stores[node.arg] += 1
    return {name: values for name, values in found.items() if stores[name] == len(values)}


def _before_leaving(body: Sequence[ast.stmt]) -> Sequence[ast.stmt]:
    """The statements before the first one that may return."""
    leaving = (ast.Return, ast.Yield, ast.YieldFrom)
    for number, statement in enumerate(body):
        if any(isinstance(each, leaving) for each in (statement, *_own_nodes(statement))):
            return body[:number]
    return body


def _blocks_of(statement: ast.stmt) -> Iterator[list[ast.stmt]]:
    for name in ("body", "orelse", "finalbody"):
        inner = getattr(statement, name, None)
        if inner:
            yield inner
    for handler in getattr(statement, "handlers", ()):
        yield handler.body


def _own_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """What is in a function, and in no other one within it."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, Definition | ast.Lambda | ast.ClassDef):
            yield child
            yield from _own_nodes(child)


def _name_of_call(call: ast.Call) -> str:
    function = call.func
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def _is_literal(node: ast.expr) -> bool:
    try:
        ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        return False
    return True


def _has_text(value: Any) -> bool:
    """Do it and what it is turned into come out of their texts as they are?"""
    try:
        return all(repr(ast.literal_eval(repr(each))) == repr(each) for each in (value, perturbed_value(value)))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
