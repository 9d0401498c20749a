"""Regular expressions of an agent's searches: Python's syntax, bounded in time and memory.

The module `regex` can stop a search at a time limit, which Python's `re` cannot. Its own syntax has recursion, which
takes any amount of memory, and errors that are allowed (`{e<=2}`), which braces in source code would mean by accident.
So a pattern must be one of `re`, and only then goes to `regex`.
"""

from __future__ import annotations

import math
import re
import warnings
from typing import Any

import regex

from regrade.policy_training.environments.edited_tree import ToolMistakeError

LONGEST_PATTERN = 500
LARGEST_COMPILED = 100_000
"""Limit of the pattern's length times its repetitions, which `regex` writes out."""
_BRACE = re.compile(r"(\\.)|\{(?![0-9]*,?[0-9]*\})", re.DOTALL)
_LEAST = re.compile(r"\{([0-9]+)(?:,[0-9]*)?\}")


def compiled(pattern: str) -> Any:
    """The compiled expression, whose `search` takes a `timeout`.

    Raises:
        ToolMistakeError: it is no regular expression, or too large.
    """
    if len(pattern) > LONGEST_PATTERN:
        raise ToolMistakeError(f"the pattern has {len(pattern)} characters; give at most {LONGEST_PATTERN}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            re.compile(pattern)
        size = len(pattern) * math.prod(max(1, int(count)) for count in _LEAST.findall(pattern))
        if size > LARGEST_COMPILED:
            raise ToolMistakeError("the pattern repeats too much: use * or + instead of large counts")
        return regex.compile(_BRACE.sub(lambda brace: brace[1] or r"\{", pattern))
    except (re.error, regex.error, OverflowError, RecursionError, ValueError) as error:
        raise ToolMistakeError(f"{pattern!r} is no regular expression: {error}") from None
