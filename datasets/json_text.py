"""JSON as text: read from a file, parsed with the line of a mistake, and shown in a message."""

from __future__ import annotations

import gzip
import json
import zlib
from pathlib import Path

from regrade.datasets.errors import UserError


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
        text = json.dumps(value, ensure_ascii=False, default=str).encode("utf-8", "replace").decode()
    except ValueError:  # an integer too long to be written
        text = "a very large number"
    return text if len(text) <= 60 else f"{text[:57]}..."
