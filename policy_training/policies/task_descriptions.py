"""Task descriptions for chat models and agents, and the parser of their answers.

An answer consists of edits, each the path of a file and blocks of old and new lines,

    src/shop.py
    <<<<<<< SEARCH
        return price * rate
    =======
        return price / rate
    >>>>>>> REPLACE

or of a unified diff, bare or in a fence.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath

from regrade.datasets.node_ids import file_of
from regrade.datasets.patches import LARGEST_MB, Patch
from regrade.datasets.tasks import Task
from regrade.evaluators.static.dependencies.distance import seen_by_failing_tests

MOST_TESTS = 20
"""Names of tests in a description; one change rarely fixes more."""
LARGEST_QUESTION = 60_000
"""Characters of source in a prompt, about 15,000 tokens."""

HOW_TO_ANSWER = """\
You mend bugs in a code repository. Answer with edits and nothing else. Each edit is the path of a file on a line of its
own, then a block:

path/to/file.py
<<<<<<< SEARCH
lines exactly as they are in the file
=======
lines to put in their place
>>>>>>> REPLACE

Give as few lines as make the place unique, with their indentation. Several blocks are allowed. Tests may not be
changed: what you do to them is ignored."""

_SEARCH = re.compile(r"<{5,9} SEARCH[ \t]*\n")
_DIVIDER = re.compile(r"^={5,9}[ \t]*\n", re.MULTILINE)
_REPLACE = re.compile(r"^>{5,9} REPLACE[ \t]*$", re.MULTILINE)
_DIFF = re.compile(r"^\ufeff?(?:diff --git |--- \S)", re.MULTILINE)


def describe(task: Task) -> str:
    """The instruction, the FAIL_TO_PASS tests, and the failure of one of them, as text."""
    names = [f"- {test}" for test in task.fail_to_pass[:MOST_TESTS]]
    if (more := len(task.fail_to_pass) - MOST_TESTS) > 0:
        names.append(f"- and {more} more")
    parts = [task.instruction.strip()]
    if names:
        parts.append("These tests fail now and must pass:\n" + "\n".join(names))
    if task.failure.strip():
        parts.append("What one of them shows:\n" + task.failure.strip())
    parts.append(
        "All tests that pass now must go on passing. Tests may not be changed: what is done to them is ignored."
    )
    return "\n\n".join(part for part in parts if part)


@dataclass(frozen=True)
class ChatPrompt:
    """A task as the messages of a chat, and the parser of answers into patches."""

    task: Task
    largest: int = LARGEST_QUESTION

    @cached_property
    def messages(self) -> list[dict[str, str]]:
        """OpenAI's `messages`: the answer format, then the task description and the relevant source."""
        shown = [f"{path}\n```\n{text}\n```" for path, text in self.sources().items()]
        return [
            {"role": "system", "content": HOW_TO_ANSWER},
            {"role": "user", "content": "\n\n".join([describe(self.task), *shown])},
        ]

    def sources(self) -> dict[str, str]:
        """Path -> text of the files in the prompt, as many as fit: the target's file, then the imports of the failing
        tests, nearest first, then those tests."""
        tests = sorted({file_of(test) for test in self.task.fail_to_pass})
        near = [path for path in seen_by_failing_tests(self.task) if path not in tests]
        named = [self.task.target.file] if self.task.target else []
        protects = self.task.suite.protects
        code = [path for path in near if not protects(path)]
        helpers = [path for path in near if protects(path)]
        shown: dict[str, str] = {}
        room = self.largest
        for path in dict.fromkeys([*named, *code, *tests, *helpers]):
            try:
                text = self.task.base.read(path)
            except OSError:  # a test id without a file
                continue
            if len(text) <= room:
                shown[path] = text
                room -= len(text)
        return shown

    def patch(self, answer: str) -> Patch | None:
        """The patch of an answer; None if it is malformed, or edits lines that do not exist."""
        if len(answer) > LARGEST_MB << 20:  # no patch may be so long
            return None
        text = answer.replace("\r\n", "\n")
        if "<<<<< SEARCH" in text:
            return self._edited(text)
        return Patch(answer) if _DIFF.search(text) else None

    def _edited(self, text: str) -> Patch | None:
        before: dict[str, str] = {}
        after: dict[str, str] = {}
        for path, old, new in _edits(text):
            if path not in after:
                text_before = self._read(path)
                if text_before is not None:
                    before[path] = text_before
                after[path] = text_before or ""
            edited = after[path] + new if path not in before and not old.strip() else _replaced(after[path], old, new)
            if edited is None or not path:
                return None
            after[path] = edited
        return Patch.between(before, after) if after else None

    def _read(self, path: str) -> str | None:
        """None if the task has no such file."""
        root = self.task.base.root.resolve()
        if not path or not (root / path).resolve().is_relative_to(root):
            return None
        try:
            return self.task.base.read(path)
        except (OSError, ValueError):  # a folder, or an invalid path
            return None


def _replaced(text: str, old: str, new: str) -> str | None:
    """None if the old lines do not occur."""
    if old.strip() and old in text:
        return text.replace(old, new, 1)
    last = old.removesuffix("\n")  # of a file that does not end in a newline
    return text.removesuffix(last) + new.removesuffix("\n") if last.strip() and text.endswith(last) else None


def _edits(text: str) -> list[tuple[str, str, str]]:
    """(path, old lines, new lines) of each block; one without a path applies to the file of the block before it.

    In linear time, whatever the answer repeats: a model in a loop writes thousands of beginnings without an end.
    """
    edits: list[tuple[str, str, str]] = []
    current, end = "", 0
    while (
        (search := _SEARCH.search(text, end))
        and (divider := _DIVIDER.search(text, search.end()))
        and (replace := _REPLACE.search(text, divider.end()))
    ):
        path = _path_before(text[end : search.start()])
        current = str(PurePosixPath(path)) if path else current
        edits.append((current, text[search.end() : divider.start()], text[divider.end() : replace.start()]))
        end = replace.end()
    return edits


def _path_before(text: str) -> str:
    """The path in the last line before a block, or in the line before its fence; empty: there is none."""
    lines = text.rsplit("\n", 3)[-3:]
    if len(lines) < 2 or lines.pop():  # the block does not begin its line
        return ""
    line = (lines[-2] if lines[-1].startswith("```") and len(lines) > 1 else lines[-1]).strip(" \t")
    line = line.lstrip("#").lstrip(" \t") if line.startswith("#") else line.removeprefix("**")
    path = line.removeprefix("`").removesuffix(":").removesuffix("**").removesuffix("`")
    return "" if "`" in path or "*" in path or path[:1].isspace() else path.strip()
