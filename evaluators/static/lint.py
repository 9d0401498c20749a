"""Lint findings that a patch adds or removes, by ruff.

The candidate has no say in it: ruff reads one file at a time from standard input, ignores `noqa` and every
configuration file, and gets the rules from the pristine tree: those that the project states (see `lint_settings`), or
those that its own code keeps to (see `habits`).
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
from regrade.evaluators.static.inferred_style import kept_settings
from regrade.evaluators.static.lint_settings import LintSettings, default_settings, project_settings
from regrade.evaluators.static.ruff import RuffError, check_text
from regrade.evaluators.static.syntax import parses
from regrade.rewards.evidence import Finding, LintDelta

FindingOnLine = tuple[Finding, str]
"""A finding and the text of its line."""


def probe(before: Tree, after: Tree, patch: Patch, task: Task) -> LintDelta:
    """Findings in the changed Python files, before against after.

    Two findings are the same if rule and text of the line are, wherever the line stands: moved lines are not new.

    Raises:
        PatchError: the text is no patch.
        UserError: ruff is not installed.
    """
    files = [file for file in changed_files(before, after, patch, task) if file.is_python]
    unparsable = [file.path for file in files if _breaks(file)]
    old: list[FindingOnLine] = []
    new: list[FindingOnLine] = []
    origins: dict[str, None] = {}
    for file in files:
        if file.path in unparsable:
            continue
        try:
            was, now, origin = _both(file, before, task)
        except RuffError:  # CPython can read it and ruff cannot: it died, or took too long
            unparsable.append(file.path)
            continue
        old.extend(was)
        new.extend(now)
        origins[origin] = None
    paths = {file.path for file in files}
    lines = sum(len(file.added) + len(file.removed) for file in patch.files if file.path in paths)
    return LintDelta(
        added=_beyond(new, old),
        removed=_beyond(old, new),
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
    lines = text.splitlines()
    return tuple(_found(record, path, lines) for record in check_text(options, path, source))


def _both(
    file: ChangedFile, before: Tree, task: Task
) -> tuple[tuple[FindingOnLine, ...], tuple[FindingOnLine, ...], str]:
    """Findings before and after, by the project's rules where ruff accepts them, and whose rules they were.

    Raises:
        RuffError: ruff cannot read the text.
    """
    settings = project_settings(before, task.suite.python_path, file.old_path)
    if settings is None:
        settings = kept_settings(before, task.suite) or default_settings(file.before or "")
        return *_pair(settings, file), settings.origin
    try:
        return *_pair(settings, file), settings.origin
    except RuffError:
        settings = default_settings(file.before or "", "ruff refused the project's settings")
        return *_pair(settings, file), settings.origin


def _pair(settings: LintSettings, file: ChangedFile) -> tuple[tuple[FindingOnLine, ...], tuple[FindingOnLine, ...]]:
    was = findings(settings.options, file.old_path, file.before) if file.before is not None else ()
    now = findings(settings.options, file.path, file.after) if file.after is not None else ()
    return was, now


def _beyond(these: Iterable[FindingOnLine], those: Iterable[FindingOnLine]) -> tuple[Finding, ...]:
    """The findings of `these` that have no counterpart among `those`."""
    known = Counter((finding.rule, line) for finding, line in those)
    left: list[Finding] = []
    for finding, line in these:
        if known[finding.rule, line]:
            known[finding.rule, line] -= 1
        else:
            left.append(finding)
    return tuple(left)


def _found(record: dict[str, object], path: str, lines: list[str]) -> FindingOnLine:
    place = record["location"]
    row = place["row"] if isinstance(place, dict) else 1
    text = lines[row - 1].strip() if 0 < row <= len(lines) else ""
    return Finding(str(record["code"]), path, row, str(record["message"])), text


def _breaks(file: ChangedFile) -> bool:
    was_sound = file.before is None or parses(file.before)
    return file.after is not None and was_sound and (len(file.after) > LARGEST or not parses(file.after))


def _utf8(text: str) -> bytes | None:
    """The source as UTF-8, whatever its coding cookie says; None where it cannot be decoded."""
    raw = text.encode("utf-8", "surrogateescape")
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(raw).readline)
        return raw.decode(encoding).encode("utf-8")
    except (SyntaxError, UnicodeError, LookupError):
        return None
