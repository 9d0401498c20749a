"""The examples of a test in a docstring: recorded at the base, and put into the test that the candidate's code shows.

A docstring belongs to the code under test, which may also assign it at run time. As text, the examples are a JSON list
of `[source, expected output, expected exception, line, indentation, [[option, is set], ...]]`.
"""

from __future__ import annotations

import doctest
import json
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
