"""The examples of a test in a docstring: recorded at the base, and put into the test that the candidate's code shows.

A docstring belongs to the code under test, which may also assign it at run time. As text, the examples are a JSON list
of `[source, expected output, expected exception, line, indentation, [[option, is set], ...]]`.
"""

from __future__ import annotations

import doctest
import json
import os
import traceback
from collections.abc import Iterable, Mapping

import pytest


def examples_of(item: pytest.DoctestItem) -> str:
    """The examples as text."""
    examples = item.dtest.examples if item.dtest is not None else []
    return json.dumps(
        [
            [example.source, example.want, example.exc_msg, example.lineno, example.indent, [*example.options.items()]]
            for example in examples
        ]
    )


def restore_examples(items: Iterable[pytest.Item], recorded: Mapping[str, str]) -> None:
    """Give the tests in docstrings the recorded examples."""
    for item in items:
        if isinstance(item, pytest.DoctestItem) and item.dtest is not None and item.nodeid in recorded:
            item.dtest.examples = [
                doctest.Example(
                    source, want, exception, line, indent, {int(option): value for option, value in options}
                )
                for source, want, exception, line, indent, options in json.loads(recorded[item.nodeid])
            ]


def explain(error: BaseException, root: str) -> str:
    """`file:line: first line of the example`, and what it gave instead; empty for an error of anything but a doctest.

    What the candidate could put into these objects only leads to another text: any failure to read them gives none.
    """
    try:
        first = (getattr(error, "failures", None) or [error])[0]  # pytest collects several
        if not isinstance(first, (doctest.DocTestFailure, doctest.UnexpectedException)):
            return ""
        example, test = first.example, first.test
        if isinstance(first, doctest.DocTestFailure):
            what = f"expected {example.want.strip()!r}, got {str(first.got).strip()!r}"
        else:
            what = "".join(traceback.format_exception_only(*first.exc_info[:2])).strip()
        place = f"{os.path.relpath(str(test.filename), root)}:{(test.lineno or 0) + example.lineno + 1}"
        return f"{place}: {example.source.strip().splitlines()[0]}\n{what}"
    except Exception:  # of whatever the candidate made
        return ""
