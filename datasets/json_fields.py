"""Reading JSON that a person may have written: every mistake is named with its file, its place and its key."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Collection
from pathlib import Path
from typing import NoReturn

from regrade.datasets.errors import UserError

LARGEST = 10**9
"""No number in a task is larger: seconds, megabytes, processes, lines."""


class Fields:
    """A JSON object whose values are read by key and checked."""

    def __init__(self, value: object, where: str) -> None:
        if not isinstance(value, dict):
            raise UserError(f"{where}: expected a JSON object, found {shown(value)}")
        self.values = value
        self.where = where

    def only(self, keys: Collection[str]) -> None:
        """Refuse keys that mean nothing: most are misspelt."""
        for key in self.values:
            if key not in keys:
                raise UserError(f"{self.where}: unknown key {key!r}; known keys: {', '.join(sorted(keys))}")

    def text(self, key: str, default: str | None = None) -> str:
        value = self.values.get(key, default)
        if not isinstance(value, str):
            self._wrong(key, "a string")
        return self._plain(key, value)

    def number(self, key: str, default: float | None = None, most: float = LARGEST) -> float:
        value = self.values.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= most:  # nor NaN
            self._wrong(key, f"a positive number, at most {most:,}")
        return float(value)

    def integer(self, key: str, default: int | None = None, least: int = 1, most: int = LARGEST) -> int:
        value = self.values.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            self._wrong(key, f"an integer of at least {least} and at most {most:,}")
        return value

    def texts(self, key: str, default: tuple[str, ...] | None = None) -> tuple[str, ...]:
        value = self.values.get(key, default)
        if not isinstance(value, list | tuple) or not all(isinstance(part, str) for part in value):
            self._wrong(key, "a list of strings")
        return tuple(self._plain(key, part) for part in value)

    def objects(self, key: str) -> list[Fields]:
        value = self.values.get(key)
        if not isinstance(value, list):
            self._wrong(key, "a list of objects")
        return [Fields(part, f"{self.where}, {key}[{number}]") for number, part in enumerate(value)]

    def object(self, key: str) -> Fields | None:
        """The object under a key; None if the key is missing."""
        return Fields(self.values[key], f"{self.where}, {key}") if key in self.values else None

    def _plain(self, key: str, text: str) -> str:
        """Text that may become a file's name or a program's argument."""
        if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
            self._wrong(key, "free of NUL characters and lone surrogates")
        return text

    def _wrong(self, key: str, wanted: str) -> NoReturn:
        found = f"found {shown(self.values[key])}" if key in self.values else "the key is missing"
        raise UserError(f"{self.where}: {key!r} must be {wanted}; {found}")


def read_text(path: Path) -> str:
    """The text of a file, unpacked if its name ends in `.gz`.

    Raises:
        UserError: it is missing, unreadable or not UTF-8.
    """
    try:
        raw = path.read_bytes()
        return (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode("utf-8")
    except (OSError, EOFError, zlib.error) as error:  # gzip.BadGzipFile is an OSError
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"cannot read {path}: {reason}; give the path of a readable file") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text (byte {error.start}): save it as UTF-8") from error


def parse_json(text: str, where: str, first_line: int = 1) -> object:
    """Parse JSON; the error names the line. Raises UserError."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        line = first_line + error.lineno - 1
        raise UserError(f"{where}:{line}: not JSON: {error.msg} (column {error.colno})") from error
    except RecursionError as error:
        raise UserError(f"{where}:{first_line}: JSON nested too deeply to be read") from error
    except ValueError as error:  # Python reads no integer of more than some thousand digits
        raise UserError(f"{where}:{first_line}: JSON with a number that is too long to be read") from error


def is_text(value: object) -> bool:
    """Can all texts in a JSON value be written? A lone surrogate, unless it stands for a byte of a name, cannot."""
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
    return True


def shown(value: object) -> str:
    """The value as JSON, cut to what an error can hold."""
    try:
        text = json.dumps(value, ensure_ascii=False).encode("utf-8", "replace").decode()
    except ValueError:  # an integer too long to be written
        text = "a very large number"
    return text if len(text) <= 60 else f"{text[:57]}..."
