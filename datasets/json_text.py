"""JSON as text: read from a file, parsed with the line of an error, and shortened for a message."""

from __future__ import annotations

import gzip
import io
import json
import zlib
from pathlib import Path
from typing import Any

from regrade.datasets.errors import UserError
from regrade.datasets.input_files import read_input

LARGEST = 10**9
"""Bytes of a text that was compressed: a few kilobytes may expand without end."""


def read_text(path: Path) -> str:
    """The text of a file, decompressed if its name ends in `.gz`.

    Raises:
        UserError: the file is missing, unreadable or not UTF-8.
    """
    try:
        raw = read_input(path)
        return (_decompressed(raw, path) if path.suffix == ".gz" else raw).decode("utf-8")
    except (OSError, EOFError, zlib.error) as error:  # gzip.BadGzipFile is an OSError
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"cannot read {path}: {reason}; pass the path of a readable file") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text (byte {error.start}): save it as UTF-8") from error


def _decompressed(raw: bytes, path: Path) -> bytes:
    with gzip.open(io.BytesIO(raw)) as file:
        content = file.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise UserError(f"{path}: its content has more than {LARGEST:,} bytes: give a smaller file")
    return content


class DoubledKeyError(ValueError):
    """A key occurs twice in one JSON object: a parser would take the last one in silence."""

    def __init__(self, key: str) -> None:
        super().__init__(f"the key {shown(key)} occurs twice in one object")


def without_doubled_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The `object_pairs_hook` of json. Raises DoubledKeyError."""
    value: dict[str, Any] = {}
    for key, item in pairs:
        if key in value:
            raise DoubledKeyError(key)
        value[key] = item
    return value


def parse_json(text: str, where: str, first_line: int = 1) -> object:
    """Parse JSON. Raises UserError, with the line."""
    try:
        return json.loads(text, object_pairs_hook=without_doubled_keys)
    except DoubledKeyError as error:
        raise UserError(f"{where}:{first_line}: {error}: leave one") from error
    except json.JSONDecodeError as error:
        line = first_line + error.lineno - 1
        raise UserError(f"{where}:{line}: not JSON: {error.msg} (column {error.colno})") from error
    except RecursionError as error:
        raise UserError(f"{where}:{first_line}: the JSON is nested too deeply: leave out levels") from error
    except ValueError as error:  # Python limits the digits of an integer to some thousands
        raise UserError(f"{where}:{first_line}: the JSON contains a number with too many digits: shorten it") from error


def is_text(value: object) -> bool:
    """Can all strings of a JSON value be encoded? A lone surrogate cannot, unless it represents a byte of a name."""
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
    return True


def shown(value: object) -> str:
    """The value as JSON, shortened for a message."""
    try:
        text = json.dumps(value, ensure_ascii=False, default=str).encode("utf-8", "replace").decode()
    except ValueError:  # an integer with too many digits
        text = "a very large number"
    return text if len(text) <= 60 else f"{text[:57]}..."
