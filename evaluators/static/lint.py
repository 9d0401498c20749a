"""Lint findings that a patch adds or removes, by ruff.

The candidate has no say in it: ruff reads one file at a time from standard input, ignores `noqa` and every
configuration file, and gets the project's own rules from the pristine tree (see `lint_settings`).
"""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
import tokenize
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from regrade.datasets.errors import UserError
from regrade.datasets.patches import Patch
from regrade.datasets.tasks import Task, Tree
from regrade.evaluators.static.files import LARGEST, ChangedFile, changed_files
from regrade.evaluators.static.lint_settings import LintSettings, default_settings, project_settings
from regrade.evaluators.static.syntax import parses
from regrade.rewards.evidence import Finding, LintDelta

SECONDS = 30.0
"""How long ruff may take over one file; it needs about 0.02."""

Found = tuple[Finding, str]
"""A finding and the text of its line."""


class RuffRefused(RuntimeError):
    """ruff does not accept the settings (another version's rules, say)."""


def probe(before: Tree, after: Tree, patch: Patch, task: Task) -> LintDelta:
    """Findings in the changed Python files, before against after.

    Two findings are the same if rule and text of the line are, wherever the line stands: moved lines are not new.

    Raises:
        PatchError: the text is no patch.
        UserError: ruff is not installed.
    """
    files = [file for file in changed_files(before, after, patch, task) if file.is_python]
    unparsable = tuple(file.path for file in files if _breaks(file))
    old: list[Found] = []
    new: list[Found] = []
    origins: dict[str, None] = {}
    for file in files:
        if file.path not in unparsable:
            was, now, origin = _both(file, before, task)
            old.extend(was)
            new.extend(now)
            origins[origin] = None
    paths = {file.path for file in files}
    lines = sum(len(file.added) + len(file.removed) for file in patch.files if file.path in paths)
    return LintDelta(
        added=_beyond(new, old),
        removed=_beyond(old, new),
        changed_lines=lines,
        unparsable=unparsable,
        rules=", ".join(origins),
    )


@lru_cache(maxsize=512)
def findings(options: tuple[str, ...], path: str, text: str) -> tuple[Found, ...]:
    """ruff's findings in one text.

    Raises:
        RuffRefused: ruff does not accept the options.
        UserError: ruff is not installed.
    """
    source = _utf8(text)
    if source is None:
        return ()
    command = [
        _ruff(),
        "check",
        "--isolated",
        "--ignore-noqa",
        "--no-respect-gitignore",
        "--no-cache",
        "--quiet",
        "--output-format",
        "json",
        *(f"--config={option}" for option in options),
        "--stdin-filename",
        path,
        "-",
    ]
    # From the root of the file system: nothing there can be taken for the project's neighbours.
    root = Path.cwd().anchor
    done = subprocess.run(command, input=source, capture_output=True, cwd=root, timeout=SECONDS, check=False)
    if done.returncode not in (0, 1):
        raise RuffRefused(" ".join(done.stderr.decode("utf-8", "replace").split())[:300])
    lines = text.splitlines()
    records = json.loads(done.stdout)
    return tuple(_found(record, path, lines) for record in records if record["code"] != "invalid-syntax")


def _both(file: ChangedFile, before: Tree, task: Task) -> tuple[tuple[Found, ...], tuple[Found, ...], str]:
    """Findings before and after, by the project's rules where ruff accepts them, and whose rules they were."""
    settings = project_settings(before, task.suite.python_path, file.old_path, file.before or "")
    try:
        return *_pair(settings, file), settings.origin
    except RuffRefused:
        settings = default_settings(file.before or "", "ruff refused the project's settings")
        return *_pair(settings, file), settings.origin


def _pair(settings: LintSettings, file: ChangedFile) -> tuple[tuple[Found, ...], tuple[Found, ...]]:
    was = findings(settings.options, file.old_path, file.before) if file.before is not None else ()
    now = findings(settings.options, file.path, file.after) if file.after is not None else ()
    return was, now


def _beyond(these: Iterable[Found], those: Iterable[Found]) -> tuple[Finding, ...]:
    """The findings of `these` that have no counterpart among `those`."""
    known = Counter((finding.rule, line) for finding, line in those)
    left: list[Finding] = []
    for finding, line in these:
        if known[finding.rule, line]:
            known[finding.rule, line] -= 1
        else:
            left.append(finding)
    return tuple(left)


def _found(record: dict[str, object], path: str, lines: list[str]) -> Found:
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


def _ruff() -> str:
    beside = Path(sys.executable).parent / "ruff"
    found = str(beside) if beside.is_file() else shutil.which("ruff")
    if found is None:
        raise UserError(f"ruff is not installed beside {sys.executable}: run `pip install ruff`")
    return found
