"""Files that survive `kill -9`: JSON lines are appended by whole lines, other files and folders replaced whole."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from regrade.datasets.errors import UserError
from regrade.datasets.input_files import read_input
from regrade.datasets.json_text import without_doubled_keys
from regrade.datasets.process_identity import is_gone, this_process

LONGEST_INTEGER = 300
"""Digits; a longer integer does not fit into a float."""
OWNER = re.compile(r"\d+-\d+")
"""Of a draft: `this_process()`."""


def write_atomically(path: Path, text: str) -> None:
    """Replace the content of `path` by `text`: a reader sees the old content or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_drafts(path)
    draft = path.with_name(f".{path.name}.{this_process()}")
    try:
        with draft.open("w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError as error:
        draft.unlink(missing_ok=True)  # on a full disk, each byte counts
        raise _naming(error, path) from error


def _remove_drafts(path: Path) -> None:
    """Those of processes that were killed while they wrote."""
    start = f".{path.name}."
    for left in path.parent.iterdir():
        owner = left.name.removeprefix(start)
        if left.name.startswith(start) and OWNER.fullmatch(owner) and is_gone(owner):
            left.unlink(missing_ok=True)


@contextmanager
def replaced_folder(target: Path) -> Iterator[Path]:
    """A new folder to write into. At the end of the `with` block it becomes `target`, in place of an earlier one.

    So `target` is complete or absent. Drafts that killed processes left are removed; nobody else may write `target`.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{target.name}-"
    for left in target.parent.glob(f"{prefix}*"):
        shutil.rmtree(left)
    draft = Path(tempfile.mkdtemp(prefix=prefix, dir=target.parent))
    try:
        yield draft
        flush_to_disk(draft)
        if target.exists():
            shutil.rmtree(target)
        draft.rename(target)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    flush_to_disk(target.parent)


def flush_to_disk(folder: Path) -> None:
    """The files of a folder, and its list of them."""
    files = [path for path in folder.iterdir() if path.is_file()]
    for path in files if os.name == "nt" else (*files, folder):  # Windows opens no folder
        descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _naming(error: OSError, path: Path) -> OSError:
    """The error with the file, which errors of an open file do not name."""
    return error if error.filename is not None else OSError(error.errno, error.strerror, str(path))


def append(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Append each row as one line of JSON by one `write`, then flush to disk.

    `repair` first removes the torn line of a killed process, so that no row is appended to it.

    Raises:
        OSError: a row does not fit on the disk. The rows before it are stored.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    repair(path)
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        for row in rows:
            _write_whole(descriptor, (json.dumps(row, ensure_ascii=True, allow_nan=False) + "\n").encode())
        os.fsync(descriptor)
    except OSError as error:
        raise _naming(error, path) from error
    finally:
        os.close(descriptor)


def _write_whole(descriptor: int, line: bytes) -> None:
    """One `write`. If it stores a part only, as on a disk that becomes full, the next one says why."""
    while line:
        line = line[os.write(descriptor, line) :]


def repair(path: Path) -> None:
    """Remove a torn last line: its writer was killed, and its work counts as not done. A whole one gets its newline."""
    if is_torn(path):
        last = path.read_bytes().rpartition(b"\n")[2]
        with path.open("rb+") as file:
            if _is_whole(last):
                file.seek(0, os.SEEK_END)
                file.write(b"\n")
            else:
                file.truncate(path.stat().st_size - len(last))


def is_torn(path: Path) -> bool:
    """Does the file end in a line without a newline? `read` skips it unless it is a whole JSON object."""
    if not path.is_file() or not path.stat().st_size:
        return False
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"


def read(path: Path) -> list[dict[str, Any]]:
    """The rows of a file of JSON lines, without a torn last line; a missing file has no rows.

    A last line without a newline is torn unless it is a whole JSON object, as an editor or another program leaves it.

    Raises:
        UserError: a line is not a JSON object.
    """
    if not path.exists():
        return []
    *lines, last = read_input(path).split(b"\n")
    if _is_whole(last):
        lines.append(last)
    return [_row(path, number, line) for number, line in enumerate(lines, 1) if line.strip()]


def _is_whole(line: bytes) -> bool:
    """Is the text after the last newline a whole JSON object? A torn one lacks at least its last brace."""
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _row(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        row = json.loads(
            line,
            parse_constant=_refuse_number,
            parse_float=_finite,
            parse_int=_integer,
            object_pairs_hook=without_doubled_keys,
        )
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}, line {number}: not JSON ({error}); delete that line and run again") from error
    if not isinstance(row, dict):
        start = repr(line[:40])
        raise UserError(f"{path}, line {number}: expected a JSON object, found {start}; delete that line and run again")
    return row


def _refuse_number(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number")


def _finite(text: str) -> float:
    """json reads a number too large for a float as infinity, which would make every mean infinite."""
    value = float(text)
    return value if math.isfinite(value) else _refuse_number(f"{text[:20]}, too large for a float,")


def _integer(text: str) -> float:
    return int(text) if len(text) < LONGEST_INTEGER else _refuse_number(f"an integer of {len(text)} digits")
