"""Copies of test files in which wanted tests have other names, and some an expectation that can't be met.

Every expectation of a wanted test passes through a function at the end of the copy (`inside/expectation_helpers.py`),
which gives it back as it is or turned; literals stand nowhere but there, and not in the clear. So copies that must
pass and copies that must fail have one form.
"""

from __future__ import annotations

import ast
import hashlib
import re
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from regrade.datasets.syntax_trees import PARSE_ERRORS
from regrade.evaluators import inside
from regrade.evaluators.inside.expectation_helpers import perturbed_value
from regrade.evaluators.verification.expectations import Definition, Form, Site
from regrade.evaluators.verification.parsed_tests import TestCopyError, TestFile, TestFunction

INSIDE = Path(inside.__file__).parent
HELPERS: Mapping[Form, str] = {
    Form.VALUE: "passed_value",
    Form.LITERAL: "passed_literal",
    Form.PARAMETER: "passed_value",
    Form.TRUTH: "passed_truth",
    Form.ERROR: "passed_error",
    Form.END: "passed_truth",
}


class Replacement(NamedTuple):
    """A span of a text and what stands there instead."""

    start: int
    end: int
    rank: int
    """Settles which comes first of two at one place: what closes an expression, the end of a test, what follows it."""
    text: str


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
        TestCopyError: it is no Python.
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
        TestCopyError: the copy is no Python.
    """
    random = Random(seed)
    drawn = {name: f"_{random.getrandbits(48):012x}" for name in dict.fromkeys(HELPERS.values())}
    helpers = {form: drawn[name] for form, name in HELPERS.items()}
    key = f"{random.getrandbits(64):016x}"
    wanted = [function for function in functions if function.key in turned]
    names = _names(wanted, random) if renamed else {function.key: function.name for function in wanted}
    known = [value for function in functions for value in _values(function)]
    edits: list[Replacement] = []
    for function in wanted:
        named = (*function.names, *file.uses_of(function))
        edits += [Replacement(start, end, 0, names[function.key]) for start, end in named]
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
    except PARSE_ERRORS as error:
        raise TestCopyError(f"its copy is no Python: {error}") from error
    folder = file.path.rpartition("/")[0]
    name = f"test_{random.getrandbits(48):012x}.py"
    return Twin(f"{folder}/{name}" if folder else name, text, names)


def _edited(text: str, edits: Iterable[Replacement], gone: Iterable[tuple[int, int]]) -> str:
    """A text with some spans replaced, and others left empty, line by line."""
    spans = sorted(gone)
    starts = [start for start, _ in spans]
    changes = [Replacement(start, end, 0, "pass" + "\n" * text.count("\n", start, end)) for start, end in spans]
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


def _method(function: TestFunction, name: str, end: Replacement) -> Replacement:
    """A method of its own class that does what an inherited one does."""
    assert function.added is not None
    start, indent = function.added
    text = f"\n\n{indent}def {name}(self):\n{indent}    self.{function.name}()\n{indent}    {end.text.lstrip('; ')}"
    return Replacement(start, start, 2, text)


def _edits(site: Site, helper: str, key: str, random: Random, *, is_turned: bool) -> list[Replacement]:
    if site.form is Form.LITERAL:
        return [Replacement(site.start, site.end, 0, f'{helper}("{_hidden(repr(site.value), key, random)}")')]
    token = _token(key, random, is_turned=is_turned)
    if site.form is Form.PARAMETER:
        between = f"\n{site.indent}" if site.indent else "; "
        return [Replacement(site.start, site.end, 0, f'{site.value} = {helper}("{token}", {site.value}){between}')]
    if site.form is Form.END:
        lead = f"\n{site.indent}" if site.indent else "; "
        return [Replacement(site.start, site.end, 1, f'{lead}assert {helper}("{token}", True)')]
    return [Replacement(site.start, site.start, 0, f'{helper}("{token}", '), Replacement(site.end, site.end, 0, ")")]


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
    """`inside/expectation_helpers.py` under these names, as code alone."""
    text = _turning().replace("TURNING_KEY = ''", f"TURNING_KEY = '{key}'", 1)
    names = {name: helpers[form] for form, name in HELPERS.items()}
    for name in ("TURNING_KEY", "perturbed_value", "turning_digest", "hashlib"):
        names[name] = f"_{random.getrandbits(48):012x}"
    text = text.replace("import hashlib", "import hashlib as hashlib_", 1)
    for name, new in names.items():
        text = re.sub(rf"\b{name}\b(?! as )", new, text)
    return text.replace("hashlib_", names["hashlib"], 1)


@lru_cache(maxsize=1)
def _turning() -> str:
    """Without docstrings, annotations and what they need."""
    module = ast.parse((INSIDE / "expectation_helpers.py").read_text("utf-8"))
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
