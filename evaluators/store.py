"""The evidence store: what was found out once is never executed again."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from regrade.datasets.errors import UserError
from regrade.datasets.tasks import Task
from regrade.evaluators.serialisation import decode, encode


class EvidenceStore:
    """Evidence by a key that covers all that could change it. Many threads and processes may use one file at once.

    Each record is written in a transaction of its own (SQLite, write-ahead log), so a process killed at any moment
    loses at most the record that it was writing.
    """

    def __init__(self, path: Path) -> None:
        """Raises UserError where the file can't be used."""
        self._lock = threading.Lock()
        self._path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(path, timeout=60.0, isolation_level=None, check_same_thread=False)
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.execute("PRAGMA synchronous=NORMAL")
            self._database.execute(
                "CREATE TABLE IF NOT EXISTS evidence (key BLOB PRIMARY KEY, record TEXT NOT NULL) WITHOUT ROWID"
            )
        except (sqlite3.Error, OSError) as error:
            raise _unusable(path, error) from error

    def get(self, key: bytes, kind: type, task: Task) -> Any | None:
        """The record under the key, or None. A record of another shape counts as missing.

        Raises:
            UserError: the file is damaged.
        """
        try:
            with self._lock:
                row = self._database.execute("SELECT record FROM evidence WHERE key = ?", (key,)).fetchone()
        except sqlite3.DatabaseError as error:
            raise _unusable(self._path, error) from error
        if row is None:
            return None
        try:
            return decode(kind, row[0], task)
        except (ValueError, KeyError, TypeError, IndexError):
            return None

    def put(self, key: bytes, evidence: Any) -> None:
        """Keep a record. Raises sqlite3.Error where the disk is full or the file is gone."""
        record = encode(evidence)
        with self._lock:
            self._database.execute("INSERT OR REPLACE INTO evidence VALUES (?, ?)", (key, record))

    def __len__(self) -> int:
        with self._lock:
            count: int = self._database.execute("SELECT count(*) FROM evidence").fetchone()[0]
        return count

    def close(self) -> None:
        with self._lock:
            self._database.close()


def _unusable(path: Path, error: Exception) -> UserError:
    advice = "delete it, or name another folder with $REGRADE_CACHE"
    return UserError(f"the evidence store {str(path)!r} can't be used ({error}): {advice}")


def key_of(parts: Sequence[str]) -> bytes:
    """SHA-256 of a list of texts; no two lists share one."""
    return hashlib.sha256(json.dumps(list(parts)).encode("utf-8", "surrogatepass")).digest()
