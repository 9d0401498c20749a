"""Instructions of tasks: what a user would see, never the fix and never the place of the bug."""

from __future__ import annotations

import ast

from regrade.datasets.node_ids import file_of
from regrade.datasets.plurals import counted
from regrade.datasets.syntax_trees import parse_tree
from regrade.datasets.tasks import Target, Task
from regrade.rewards.components import asked_complexity

MOST_NAMED = 5
"""FAIL_TO_PASS tests that an instruction names."""


def failing_behaviour(task: Task) -> str:
    """The failing tests, and the error of one of them."""
    failure = "\n".join(f"    {line}" for line in task.failure.strip().splitlines())
    error = f"\n\nOne of the failures:\n\n{failure}" if failure else ""
    return f"{_failing(task)}{error}\n\nThe tests are right: change the code that they test."


def missing_feature(task: Task) -> str:
    """The signature and the docstring of a function without a body, and the tests that need it."""
    target = task.target
    assert target is not None
    text = _declaration(task.base.read(target.file), target)
    return (
        f"`{target.function}` in `{target.file}` is declared and not implemented. Implement it as it is described:\n\n"
        f"{text}\n\n{_failing(task)}"
    )


def lower_complexity(file: str, function: str, complexity: int, guards: int) -> str:
    """A function to simplify, how far, and what must stay."""
    return (
        f"`{function}` in `{file}` has a cyclomatic complexity of {complexity}. Lower it to at most "
        f"{asked_complexity(complexity)} without a change of behaviour: keep its name and signature.\n\n"
        f"{counted(guards, 'test')} execute it, and all tests must still pass. Branches that only move into another "
        "function are no gain: the complexity of all functions that you change counts as well."
    )


def _failing(task: Task) -> str:
    named = list(task.fail_to_pass[:MOST_NAMED])
    more = len(task.fail_to_pass) - len(named)
    files = {file_of(test) for test in task.fail_to_pass}
    head = f"{counted(len(task.fail_to_pass), 'test')} in {counted(len(files), 'file')} fail:\n\n"
    if len(task.fail_to_pass) == 1:
        head = "1 test fails:\n\n"
    lines = [f"- `{test}`" for test in named] + ([f"- and {more} more"] if more > 0 else [])
    return head + "\n".join(lines)


def _declaration(source: str, target: Target) -> str:
    """The function's lines up to its body, indented; in languages with comments above a function, with these."""
    if not target.file.endswith(".py"):
        return _commented_declaration(source.split("\n"), target)
    for node in ast.walk(parse_tree(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.lineno == target.first_line:
            lines = source.split("\n")[node.lineno - 1 : node.body[-1].lineno - 1]
            return "\n".join(f"    {line}" for line in lines).rstrip()
    raise ValueError(f"{target.file} has no function at line {target.first_line}")


def _commented_declaration(lines: list[str], target: Target) -> str:
    first = target.first_line - 1
    while first and lines[first - 1].strip().startswith(("//", "/*", "*")):
        first -= 1
    # The statement in place of the body has a line of its own, as a body of several lines had.
    head = lines[first : target.last_line]
    end = next((number for number, line in enumerate(head) if "not implemented" in line), len(head))
    return "\n".join(f"    {line}" for line in head[:end]).rstrip()
