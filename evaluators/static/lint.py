"""Lint findings that a patch adds or removes, by ruff.

The patch cannot influence the rules: ruff reads one file at a time from standard input, and ignores `noqa` and every
configuration file. The rules are from the pristine tree: the project's settings (see `lint_settings`), or the habits
of its code (see `inferred_style`).
"""

from __future__ import annotations

import io
import tokenize
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache

from regrade.datasets.patches import Patch
from regrade.datasets.tasks import Task, Tree
from regrade.evaluators.static.files import LARGEST, ChangedFile, changed_files
from regrade.evaluators.static.inferred_style import inferred_settings
from regrade.evaluators.static.lint_settings import LintSettings, default_settings, project_settings
from regrade.evaluators.static.ruff import RuffError, check_text
from regrade.evaluators.static.syntax import parses, python_lines
from regrade.rewards.evidence import Finding, LintDelta

FindingOnLine = tuple[Finding, str]
"""A finding, and its line without indentation."""


def probe(before: Tree, after: Tree, patch: Patch, task: Task) -> LintDelta:  # noqa: ARG001 (every probe has this signature)
    """The findings in the changed Python files that the patch adds, and those that it removes.

    Two findings are equal if their rule and the text of their line are: a moved line is not a new finding.

    Raises:
        UserError: ruff is not installed.
    """
    files = [file for file in changed_files(before, after, task) if file.is_python]
    unparsable = [file.path for file in files if _breaks(file)]
    old: list[FindingOnLine] = []
    new: list[FindingOnLine] = []
    origins: dict[str, None] = {}
    for file in files:
        if file.path in unparsable:
            continue
        try:
            file_old, file_new, origin = _both(file, before, task)
        except RuffError:  # CPython parses the file, but ruff crashed or timed out
            unparsable.append(file.path)
            continue
        old.extend(file_old)
        new.extend(file_new)
        origins[origin] = None
    lines = sum(len(file.added) + len(file.removed) for file in files)
    return LintDelta(
        added=_difference(new, old),
        removed=_difference(old, new),
        changed_lines=lines,
        unparsable=tuple(unparsable),
        rules=", ".join(origins),
    )


@lru_cache(maxsize=512)
def findings(options: tuple[str, ...], path: str, text: str) -> tuple[FindingOnLine, ...]:
    """ruff's findings in one text.

    Raises:
        RuffError: ruff does not accept the options.
        UserError: ruff is not installed.
    """
    source = _utf8(text)
    if source is None:
        return ()
    lines = python_lines(text)
    return tuple(_finding(record, path, lines) for record in check_text(options, path, source))


def _both(
    file: ChangedFile, before: Tree, task: Task
) -> tuple[tuple[FindingOnLine, ...], tuple[FindingOnLine, ...], str]:
    """Findings before, findings after, and the origin of the rules: the project's, if ruff accepts them.

    Raises:
        RuffError: ruff crashed or timed out on the text.
    """
    settings = project_settings(before, task.suite.python_path, file.old_path)
    if settings is None:
        settings = inferred_settings(before, task.suite) or default_settings(file.before or "")
        return *_pair(settings, file), settings.origin
    try:
        return *_pair(settings, file), settings.origin
    except RuffError:
        settings = default_settings(file.before or "", "ruff refused the project's settings")
        return *_pair(settings, file), settings.origin


def _pair(settings: LintSettings, file: ChangedFile) -> tuple[tuple[FindingOnLine, ...], tuple[FindingOnLine, ...]]:
    old = findings(settings.options, file.old_path, file.before) if file.before is not None else ()
    new = findings(settings.options, file.path, file.after) if file.after is not None else ()
    return old, new


def _difference(minuend: Iterable[FindingOnLine], subtrahend: Iterable[FindingOnLine]) -> tuple[Finding, ...]:
    """The multiset difference of the findings, by rule and line."""
    unmatched = Counter((finding.rule, line) for finding, line in subtrahend)
    difference: list[Finding] = []
    for finding, line in minuend:
        if unmatched[finding.rule, line]:
            unmatched[finding.rule, line] -= 1
        else:
            difference.append(finding)
    return tuple(difference)


def _finding(record: dict[str, object], path: str, lines: list[str]) -> FindingOnLine:
    location = record["location"]
    row = location["row"] if isinstance(location, dict) else 1
    text = lines[row - 1].strip() if 0 < row <= len(lines) else ""
    return Finding(str(record["code"]), path, row, str(record["message"])), text


def _breaks(file: ChangedFile) -> bool:
    was_sound = file.before is None or parses(file.before)
    return file.after is not None and was_sound and (len(file.after) > LARGEST or not parses(file.after))


def _utf8(text: str) -> bytes | None:
    """The source in UTF-8, decoded by its coding cookie; None if it cannot be decoded."""
    raw = text.encode("utf-8", "surrogateescape")
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(raw).readline)
        return raw.decode(encoding).encode("utf-8")
    except (SyntaxError, UnicodeError, LookupError):
        return None
