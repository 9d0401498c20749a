"""The JSON values of a file of tasks, one a task: JSON, JSON Lines or Parquet."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from regrade.datasets.errors import UserError
from regrade.datasets.input_files import LARGEST
from regrade.datasets.json_text import parse_json, read_text

PARQUET = ".parquet"


def task_rows(path: Path) -> Iterator[tuple[Any, int, str]]:
    """(value, its number in the file, the file and the place in it).

    Raises:
        UserError: the file is unreadable, damaged or incomplete.
    """
    if path.suffix == PARQUET:
        for number, row in enumerate(_parquet_rows(path), start=1):
            yield row, number, f"{path}, row {number}"
        return
    text = read_text(path)
    if path.suffix == ".jsonl":
        for number, line in enumerate(text.split("\n"), start=1):
            if line.strip():
                yield parse_json(line, str(path), number), number, f"{path}:{number}"
        return
    value = parse_json(text, str(path))
    for number, item in enumerate(value if isinstance(value, list) else [value], start=1):
        yield item, number, f"{path}, task {number}"


def _parquet_rows(path: Path) -> list[dict[str, Any]]:
    try:
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise UserError(
            f"{path} is a Parquet file, which needs pyarrow: run pip install '.[parquet]' in the checkout of Regrade, "
            "or give JSON lines"
        ) from error
    try:
        if path.stat().st_size > LARGEST:
            raise UserError(f"cannot read {path}: it has more than {LARGEST:,} bytes: give a smaller file")
        rows: list[dict[str, Any]] = parquet.read_table(path).to_pylist()
    except (OSError, ValueError) as error:  # pyarrow's own errors are among these
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:200]
        raise UserError(f"cannot read {path}: {reason}; give a complete Parquet file") from error
    return rows
