"""The files of a source: found without following links to folders, and read up to a size, whatever they contain."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from regrade.datasets.errors import UserError
from regrade.datasets.graded.records import Findings
from regrade.datasets.input_files import open_input, read_input
from regrade.datasets.json_text import DoubledKeyError, without_doubled_keys

MOST_FILES = 200_000
LARGEST_FILE = 1 << 28
"""Bytes of a file that is read whole."""
LONGEST_LINE = 1 << 26
"""Bytes of one of the JSON lines, which are read one at a time."""
MOST_LINES = 5_000_000
HEAD = 1 << 16
"""Bytes that decide what kind of file it is."""
JSON_START = re.compile(rb"\s*(?:\{\s*(?:[\"}]|\Z)|\[\s*[\[{\"\]])")
"""A log may begin with a bracket too."""
SUFFIXES = (".json", ".jsonl", ".eval", ".log", ".csv")
"""Of files that should say something, so an empty one is named."""
ARCHIVE = b"PK\x03\x04"
UNREADABLE = "files that cannot be read"
NOT_JSON = "lines or files that are not JSON"

Kind = Literal["json", "lines", "text", "archive"]


@dataclass(frozen=True)
class Document:
    """A file and what its first bytes say of it."""

    path: Path
    head: bytes
    size: int
    findings: Findings = field(compare=False)

    @cached_property
    def kind(self) -> Kind:
        if self.head.startswith(ARCHIVE):
            return "archive"
        start = self.head.lstrip()[:1]
        if not JSON_START.match(self.head):
            return "text"
        first, newline, rest = self.head.lstrip().partition(b"\n")
        if start == b"{" and newline and rest.strip() and isinstance(self._parsed(first), dict):
            return "lines"
        if start == b"{" and self.size > len(self.head) and b"\n" not in self.head:
            return "lines" if self._whole is None else "json"  # the first line is longer than the head
        return "json"

    @cached_property
    def value(self) -> Any:
        """The JSON value of the whole file; None if it has none."""
        if self.kind != "json":
            return None
        if self.size > LARGEST_FILE:
            self.findings.add(UNREADABLE, f"{self.path} (more than {LARGEST_FILE >> 20} MiB)")
        elif self._whole is None:
            self.findings.add(NOT_JSON, str(self.path))
        return self._whole

    @cached_property
    def _whole(self) -> Any:
        return None if self.size > LARGEST_FILE else self._parsed(self.text)

    def _parsed(self, text: str | bytes) -> Any:
        try:
            return json.loads(text, object_pairs_hook=without_doubled_keys)
        except DoubledKeyError as error:
            self.findings.add("JSON with doubled keys, left out", f"{self.path} ({error})")
        except (ValueError, RecursionError):
            pass
        return None

    @cached_property
    def text(self) -> str:
        """The content as text; bytes that are not UTF-8 are replaced."""
        return _read(self.path, self.findings).decode("utf-8", "replace")

    def rows(self) -> Iterator[dict[str, Any]]:
        """The JSON objects of a file of lines, one at a time; a list's objects; or the one object."""
        if self.kind == "json":
            value = self.value
            yield from (each for each in (value if isinstance(value, list) else [value]) if isinstance(each, dict))
            return
        with self.path.open("rb") as file:
            for number in range(1, MOST_LINES):
                line = file.readline(LONGEST_LINE)
                if not line:
                    return
                if not line.strip():
                    continue
                value = self._parsed(line)
                if isinstance(value, dict):
                    yield value
                else:
                    self.findings.add(NOT_JSON, f"{self.path}:{number}")

    @cached_property
    def first_row(self) -> dict[str, Any]:
        """The first of `rows`; empty if there is none."""
        return next(self.rows(), {}) if self.kind in ("json", "lines") else {}

    def table(self) -> Iterator[dict[str, str]]:
        """The rows of a file of comma-separated values, with the keys of its first line."""
        if self.kind != "text":
            return
        csv.field_size_limit(LONGEST_LINE)
        try:
            for row in csv.DictReader(io.StringIO(self.text.replace("\0", "").lstrip("\ufeff"))):
                yield {str(key or "").strip().lower(): str(value or "").strip() for key, value in row.items()}
        except csv.Error as error:
            self.findings.add(UNREADABLE, f"{self.path} ({error})")

    @cached_property
    def columns(self) -> frozenset[str]:
        """The names in the first line of comma-separated values."""
        first = self.head.partition(b"\n")[0].decode("utf-8", "replace")
        names = next(csv.reader([first.lstrip("\ufeff")]), []) if "," in first and "\0" not in first else []
        return frozenset(name.strip().lower() for name in names)


def documents(source: Path, findings: Findings) -> Iterator[Document]:
    """The files of a source, in the order of their names.

    Raises:
        UserError: there is no such file or folder, or it holds too many files.
    """
    if not source.exists():
        raise UserError(f"{source}: no such file or folder; give graded results")
    for path in _files(source, findings):
        try:
            with open_input(path) as file:
                status = os.fstat(file.fileno())
                head = file.read(HEAD) if _is_regular(status) else b""
        except OSError as error:
            findings.add(UNREADABLE, f"{path} ({error.strerror})")
            continue
        if not _is_regular(status):
            findings.add(UNREADABLE, f"{path} (a pipe or a device)")
        elif head:
            yield Document(path, head, status.st_size, findings)
        elif path.suffix in SUFFIXES:
            findings.add("empty files", str(path))


def _is_regular(status: os.stat_result) -> bool:
    return (status.st_mode & 0o170000) == 0o100000


def _files(source: Path, findings: Findings) -> Iterator[Path]:
    if not source.is_dir():
        yield source
        return
    count = 0

    def unreadable(error: OSError) -> None:
        findings.add(UNREADABLE, f"{error.filename} ({error.strerror})")

    for folder, folders, names in os.walk(source, onerror=unreadable):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in folders:
            if (Path(folder) / name).is_symlink():
                findings.add("links to folders, which are not followed", str(Path(folder) / name))
        if folder != str(source) and {"manifest.json", "import.json"} <= {*names}:
            findings.add("imported runs inside the source, left out", folder)
            folders[:], names = [], []
        for name in sorted(names):
            count += 1
            if count > MOST_FILES:
                raise UserError(
                    f"{source} holds more than {MOST_FILES:,} files: give the folder of one policy's results"
                )
            yield Path(folder) / name


def _read(path: Path, findings: Findings) -> bytes:
    try:
        return read_input(path, LARGEST_FILE)
    except (OSError, UserError) as error:
        findings.add(UNREADABLE, f"{path} ({_short(error)})")
        return b""


def _short(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error)
    return text if len(text) <= 80 else f"{text[:77]}..."
