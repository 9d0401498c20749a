"""Copies of test files: some tests have other names, and some of these a perturbed expectation, which can't be met.

Every expectation of such a test is passed through a function at the end of the copy (`inside/expectation_helpers.py`),
which returns it unchanged or perturbed; expected literals appear only as its argument, masked. So must-pass and
must-fail copies look alike.
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

from regrade.datasets.syntax_trees import PARSE_ERRORS, parse_tree
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
    """A span of a text and its new text."""

    start: int
    end: int
    rank: int
    """Order of several at one offset: the close of an expression, the end of a test, the text after it."""
    text: str


@dataclass(frozen=True)
class CopiedTestFile:
    """A copy of a test file."""

    path: str
    text: str
    names: Mapping[str, str]
    """Key of a function -> its name in the copy."""

    def id_of(self, test: str, function: TestFunction) -> str:
        """The node id, in the copy, of a test of the file."""
        _, _, rest = test.partition("::")
        head, bracket, parameters = rest.partition("[")
        *owners, _ = head.split("::")
        return "::".join([self.path, *owners, self.names[function.key]]) + bracket + parameters


def hide_expectations(file: TestFile, functions: Sequence[TestFunction], seed: str) -> str:
    """Return the text of a file with its own names, in which the expectations of some tests are masked.

    Raises:
        TestCopyError: the copy does not parse.
    """
    own = list({function.key: function for function in functions if function.added is None}.values())
    return copy_test_file(file, {function.key: None for function in own}, own, seed, whole=True, renamed=False).text


def copy_test_file(
    file: TestFile,
    perturbed: Mapping[str, Site | None],
    functions: Sequence[TestFunction],
    seed: str,
    *,
    whole: bool,
    renamed: bool = True,
) -> CopiedTestFile:
    """Copy a file with other names for some of its functions, each with one perturbed expectation or none.

    Args:
        perturbed: key of a function -> its perturbed expectation; None: none.
        seed: determines all names.
        whole: copy the file's other tests as well, which cost compile time even if they are not run.
        renamed: False: the tests keep their names.

    Raises:
        TestCopyError: the copy does not parse.
    """
    random = Random(seed)
    drawn = {name: f"_{random.getrandbits(48):012x}" for name in dict.fromkeys(HELPERS.values())}
    helpers = {form: drawn[name] for form, name in HELPERS.items()}
    key = f"{random.getrandbits(64):016x}"
    copied = [function for function in functions if function.key in perturbed]
    names = _names(copied, random) if renamed else {function.key: function.name for function in copied}
    literals = [value for function in functions for value in _literals(function)]
    edits: list[Replacement] = []
    for function in copied:
        spans = (*function.names, *file.uses_of(function))
        edits += [Replacement(start, end, 0, names[function.key]) for start, end in spans]
        for site in function.sites:
            is_perturbed = site is perturbed[function.key]
            if is_perturbed and site.form is Form.LITERAL:
                # An expected member of a container must not become another one of its members.
                substitutes = [_literals(function), literals] if site.certain else []
                site = site._replace(value=_perturbed_literal(site.value, substitutes, random))
            edits += _edits_of(site, helpers[site.form], key, random, is_perturbed=is_perturbed)
        if function.added is not None:
            edits.append(_method(function, names[function.key], edits.pop()))
    text = _apply_edits(file.text, edits, [] if whole else file.spare_tests(copied))
    text = f"{text.rstrip()}\n\n\n{_renamed_helpers(helpers, key, random)}"
    try:
        compile(text, file.path, "exec", dont_inherit=True)
    except PARSE_ERRORS as error:
        raise TestCopyError(f"its copy does not parse: {error}") from error
    folder = file.path.rpartition("/")[0]
    name = f"test_{random.getrandbits(48):012x}.py"
    return CopiedTestFile(f"{folder}/{name}" if folder else name, text, names)


def _apply_edits(text: str, edits: Iterable[Replacement], removed: Iterable[tuple[int, int]]) -> str:
    """The text with edits, and with blank lines in place of the removed spans."""
    spans = sorted(removed)
    starts = [start for start, _ in spans]
    changes = [Replacement(start, end, 0, "pass" + "\n" * text.count("\n", start, end)) for start, end in spans]
    for edit in set(edits):
        enclosing = bisect_right(starts, edit.start) - 1
        if enclosing < 0 or edit.start >= spans[enclosing][1]:
            changes.append(edit)
    pieces, done = [], 0
    for edit in sorted(changes):
        pieces += [text[done : edit.start], edit.text]
        done = edit.end
    return "".join((*pieces, text[done:]))


def _names(functions: Iterable[TestFunction], random: Random) -> dict[str, str]:
    """New names in the order of the old ones, since unittest runs tests in the order of their names."""
    old = sorted({function.name for function in functions})
    numbers = sorted(random.sample(range(1 << 40, 1 << 44), len(old)))
    new = {}
    for name, number in zip(old, numbers, strict=True):
        start = re.match(r"test_?|[^\W_]+_?", name)
        new[name] = f"{start[0] if start else 'test_'}{number:x}"
    return {function.key: new[function.name] for function in functions}


def _method(function: TestFunction, name: str, end: Replacement) -> Replacement:
    """A new method of the class that calls the inherited one."""
    assert function.added is not None
    start, indent = function.added
    text = f"\n\n{indent}def {name}(self):\n{indent}    self.{function.name}()\n{indent}    {end.text.lstrip('; ')}"
    return Replacement(start, start, 2, text)


def _edits_of(site: Site, helper: str, key: str, random: Random, *, is_perturbed: bool) -> list[Replacement]:
    if site.form is Form.LITERAL:
        return [Replacement(site.start, site.end, 0, f'{helper}("{_masked(repr(site.value), key, random)}")')]
    token = _token(key, random, is_perturbed=is_perturbed)
    if site.form is Form.PARAMETER:
        between = f"\n{site.indent}" if site.indent else "; "
        return [Replacement(site.start, site.end, 0, f'{site.value} = {helper}("{token}", {site.value}){between}')]
    if site.form is Form.END:
        lead = f"\n{site.indent}" if site.indent else "; "
        return [Replacement(site.start, site.end, 1, f'{lead}assert {helper}("{token}", True)')]
    return [Replacement(site.start, site.start, 0, f'{helper}("{token}", '), Replacement(site.end, site.end, 0, ")")]


def _literals(function: TestFunction) -> list[Any]:
    return [site.value for site in function.sites if site.form is Form.LITERAL]


def _perturbed_literal(value: Any, substitutes: Iterable[Iterable[Any]], random: Random) -> Any:
    """In place of a number or text, another one that the test, or else another test, expects, if there is one: an
    exploit's object may equal exactly the values that tests expect. In a container, one item is perturbed.
    """
    for literals in substitutes if isinstance(value, int | float | complex | str | bytes) else ():
        different = [literal for literal in literals if type(literal) is type(value) and literal != value]
        if different:
            return random.choice(different)
    return perturbed_value(value, random.getrandbits(8))


def _token(key: str, random: Random, *, is_perturbed: bool) -> str:
    while True:
        token = f"{random.getrandbits(64):016x}"
        if hashlib.sha256(f"{key} {token}".encode()).digest()[0] & 1 == is_perturbed:
            return token


def _masked(text: str, key: str, random: Random) -> str:
    start, plain = f"{random.getrandbits(64):016x}", text.encode("utf-8", "surrogatepass")
    mask = hashlib.shake_256(f"{key} {start}".encode()).digest(len(plain))
    return f"{start}.{bytes(one ^ other for one, other in zip(plain, mask, strict=True)).hex()}"


def _renamed_helpers(helpers: Mapping[Form, str], key: str, random: Random) -> str:
    """The code of `inside/expectation_helpers.py`, under these names."""
    text = _helper_source().replace("PERTURBATION_KEY = ''", f"PERTURBATION_KEY = '{key}'", 1)
    names = {name: helpers[form] for form, name in HELPERS.items()}
    for name in ("PERTURBATION_KEY", "perturbed_value", "_perturbed_instance", "perturbation_digest", "hashlib"):
        names[name] = f"_{random.getrandbits(48):012x}"
    text = text.replace("import hashlib", "import hashlib as hashlib_", 1)
    for name, new in names.items():
        text = re.sub(rf"\b{name}\b(?! as )", new, text)
    return text.replace("hashlib_", names["hashlib"], 1)


@lru_cache(maxsize=1)
def _helper_source() -> str:
    """The helpers' code without docstrings, annotations and imports for annotations."""
    module = parse_tree((INSIDE / "expectation_helpers.py").read_text("utf-8"))
    statements: list[ast.stmt] = []
    for node in module.body:
        if isinstance(node, Definition):
            node.returns = None
            for argument in node.args.args:
                argument.annotation = None
            node.body = node.body[1:] if ast.get_docstring(node) else node.body
        if isinstance(node, ast.Import | ast.Assign | Definition):
            statements.append(node)
    return ast.unparse(ast.Module(statements, [])) + "\n"
