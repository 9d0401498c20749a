"""The short answer format: a function with numbered lines and one failing test go in, `LINE new text` comes out.

A prompt for a small model must be short. It contains the body of one function, without its docstring, dedented and
numbered, and the line and error of a failing test. The answer replaces one line:

    1 def second(seq):
    2     return seq[2]
    >>> assert second([1, 2, 3]) == 2
    AssertionError: assert 3 == 2
    Fix:
    2 return seq[1]

The line keeps its indentation, so the answer does not repeat it. An answer that repeats the line changes nothing.
"""

from __future__ import annotations

import ast
import re
import textwrap
from dataclasses import dataclass

from regrade.datasets.applying import apply_patch
from regrade.datasets.errors import UserError
from regrade.datasets.patches import Patch, PatchError
from regrade.datasets.syntax_trees import parse_or_none
from regrade.datasets.tasks import Target, Task
from regrade.evaluators.static.files import patched_files

MAX_ANSWER_TOKENS = 40
"""An answer is one line; a longer one is malformed."""
_ANSWER = re.compile(r"\s*([0-9]{1,3}) (\S[^\n]*?)\s*")


@dataclass(frozen=True)
class SingleTurnPrompt:
    """A task as a prompt for a small model, and the parser of answers into patches."""

    task: Task
    text: str
    lines: tuple[int, ...]
    """For each shown line, its 1-based number in the file."""

    def patch(self, answer: str) -> Patch | None:
        """The patch of an answer: empty without a change, None if the answer is malformed."""
        match = _ANSWER.fullmatch(answer)
        if match is None or not 1 <= int(match[1]) <= len(self.lines):
            return None
        target = _target(self.task)
        before = self.task.base.read(target.file)
        lines = before.split("\n")
        index = self.lines[int(match[1]) - 1] - 1
        old = lines[index]
        lines[index] = old[: len(old) - len(old.lstrip())] + match[2]
        return Patch.between({target.file: before}, {target.file: "\n".join(lines)})

    def reference_answer(self) -> str:
        """The answer that expresses the task's reference patch.

        Raises:
            UserError: the task has no reference, or it changes more than one shown line.
        """
        if self.task.reference is None:
            raise UserError(f"task {self.task.id!r} has no reference patch: it cannot serve as a demonstration")
        answer = self.answer_of(self.task.reference)
        if answer is None:
            raise UserError(
                f"task {self.task.id!r}: the reference does not replace exactly one line that the prompt shows"
            )
        return answer

    def answer_of(self, patch: Patch) -> str | None:
        """The answer that expresses a patch; None if the patch does not replace exactly one shown line, without its
        indentation."""
        try:
            files = patched_files(self.task.base, patch)
        except PatchError:
            return None
        if len(files) != 1 or files[0].path != _target(self.task).file:
            return None
        (file,) = files
        if len(file.added) != 1 or len(file.removed) != 1 or file.removed[0][0] not in self.lines:
            return None
        answer = f"{self.lines.index(file.removed[0][0]) + 1} {file.added[0][1].strip()}"
        expressed = self.patch(answer)
        if expressed is None or apply_patch(self.task.base, expressed).read(file.path) != file.after:
            return None  # such as another indentation
        return answer


def prompt_of(task: Task) -> SingleTurnPrompt:
    """The prompt of a task.

    Raises:
        UserError: the task has no target function, or its file lacks the lines.
    """
    target = _target(task)
    source = (task.base.read_or_none(target.file) or "").split("\n")
    if not 1 <= target.first_line <= target.last_line <= len(source):
        lines = f"lines {target.first_line} to {target.last_line}"
        raise UserError(f"task {task.id!r}: {target.file} has no {lines}: correct the task's `target`")
    hidden = _docstring_lines(source, target.first_line, target.last_line)
    shown = tuple(
        n for n in range(target.first_line, target.last_line + 1) if n not in hidden and source[n - 1].strip()
    )
    text = textwrap.dedent("\n".join(source[n - 1] for n in shown))
    body = "\n".join(f"{number} {line}" for number, line in enumerate(text.split("\n"), 1))
    return SingleTurnPrompt(task, f"{body}\n{task.failure}\nFix:\n", shown)


def _target(task: Task) -> Target:
    if task.target is None:
        raise UserError(
            f"task {task.id!r} names no target function: this policy is shown one function, so give the task a "
            "`target` (file, function, first_line, last_line)"
        )
    return task.target


def _docstring_lines(source: list[str], first: int, last: int) -> set[int]:
    """File line numbers of the function's own docstring."""
    text = textwrap.dedent("\n".join(source[first - 1 : last]))
    module = parse_or_none(text)
    function = module.body[0] if module is not None and module.body else None
    if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef) or ast.get_docstring(function) is None:
        return set()
    docstring = function.body[0]
    return set(range(first + docstring.lineno - 1, first + (docstring.end_lineno or docstring.lineno)))
