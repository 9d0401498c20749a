"""What describes a test runner or a compile check of another language: the rows of `commands.py`."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

Case = tuple[str, str, str]
"""(test id, status, message)"""
LONGEST_MESSAGE = 500
WHOLE_FILE = "(the file)"
"""Name of the test that represents a test file which fails as a whole."""


class NoReportError(OSError):
    """The run wrote no report, or one that it did not finish; with the reason."""


@dataclass(frozen=True, kw_only=True)
class Runner:
    """The command that runs test files, and the parser of its report."""

    command: Callable[[Sequence[str], Path], list[str]]
    """(test files, an empty folder with `REPORT` in it) -> the command. It may write further files to the folder."""
    read: Callable[[Path, Sequence[str], str], Iterator[Case]]
    """(the same folder, test files, printed output) -> the cases. Raises OSError or ValueError: there is no report.
    Printed output supplies messages only: a candidate can print that a test passed."""
    group: Callable[[str], str] = lambda file: file
    """Test file -> key: files of one key run in one process."""
    prints_report: bool = False
    """Is standard output the report? The command then cannot write it to a file."""
    signs_report: bool = False
    """Does the command read a key from standard input, and write `sign` of the report as its first line?"""
    error: re.Pattern[str] | None = None
    """Matches a compiler's error in the output, with the groups `location` and `message`."""
    environment: Callable[[], Mapping[str, str]] = dict
    """Environment variables of the command, beside those of this process."""


REPORT = "report"
"""Name of a runner's report."""


@dataclass(frozen=True, kw_only=True)
class CompileCheck:
    """The command that checks whether source compiles."""

    command: tuple[str, ...]
    """`{file}` is replaced by the file; a command without it checks the whole project."""
    error: re.Pattern[str]
    """Matches an error in its output, with the groups `location` and `message`."""
    environment: Callable[[], Mapping[str, str]] = dict


def sign(report: str, key: bytes) -> str:
    """HMAC (SHA-256) of the report, in hexadecimal."""
    return hmac.new(key, report.encode(), hashlib.sha256).hexdigest()


def remove_signature(path: Path, key: bytes) -> None:
    """Leave the report without its first line, which signs it.

    Raises:
        NoReportError: the signature is another.
    """
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        signature, _, report = file.read().partition("\n")
    if not hmac.compare_digest(signature.encode(), sign(report, key).encode()):
        raise NoReportError("the runner did not write its report")
    path.write_text(report, "utf-8", newline="")


def first_error(printed: str, pattern: re.Pattern[str], *, otherwise: str = "") -> str:
    """`FILE:LINE: message`; without a match `otherwise`, or else the last line printed."""
    printed = printed.replace(f"{Path.cwd()}/", "")
    match = pattern.search(printed)
    if match is None:
        if otherwise:
            return otherwise
        lines = [line.strip() for line in printed.splitlines() if line.strip()]
        return (lines[-1] if lines else "it does not compile")[:LONGEST_MESSAGE]
    return f"{match['location'].removeprefix('./')}: {match['message']}"[:LONGEST_MESSAGE]
