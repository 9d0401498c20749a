"""The evidence store: what was found out once is never executed again."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import sqlite3
import threading
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regrade.datasets.caches import full_disk
from regrade.datasets.errors import UserError
from regrade.datasets.tasks import Task
from regrade.evaluators.storage.serialisation import decode, encode

logger = logging.getLogger(__name__)
SCHEMA_OF_TABLE = """
CREATE TABLE IF NOT EXISTS evidence
(key BLOB PRIMARY KEY, record TEXT NOT NULL, kind TEXT NOT NULL DEFAULT '', used INTEGER NOT NULL DEFAULT 0,
digest BLOB NOT NULL DEFAULT x'')
WITHOUT ROWID
"""
ADDED_COLUMNS = (
    "kind TEXT NOT NULL DEFAULT ''", "used INTEGER NOT NULL DEFAULT 0", "digest BLOB NOT NULL DEFAULT x''"
)  # fmt: skip
"""Those that files of earlier versions lack."""
FIND = "SELECT CAST(record AS BLOB), used, digest FROM evidence WHERE key = ?"
"""As bytes: a damaged text need not be one any more."""
KEEP = "INSERT OR REPLACE INTO evidence (key, record, kind, used, digest) VALUES (?, ?, ?, ?, ?)"
LIMIT_GB = 4.0
"""Size of the store where $REGRADE_EVIDENCE_GB does not say otherwise: some millions of records."""
CHECKED_EVERY = 256
"""Records written by one process between two looks at the size."""
MOST_WAITING = 10_000
"""Records held in memory while the disk is full; beyond that the oldest are found out again another time."""
KEPT = 0.8
"""Share of the limit that is left after records were dropped, so that this is rare."""
DIGEST_BYTES = 16
"""Of damage that nobody means, one in 2^128 would be missed."""


@dataclass(frozen=True)
class Holding:
    """What the store holds of one kind of evidence."""

    kind: str
    records: int
    megabytes: float
    last_used: float
    """Seconds since the epoch, to the hour."""


class EvidenceStore:
    """Evidence by a key that covers all that could change it. Many threads and processes may use one file at once.

    Each record is written in a transaction of its own (SQLite, write-ahead log), so a process killed at any moment
    loses at most the record that it was writing. Above its limit the store drops the records that were not used for
    the longest time. Each record has its digest beside it; one that is not as it was written is not believed.
    """

    def __init__(self, path: Path, limit_gb: float | None = None) -> None:
        """
        Args:
            limit_gb: gigabytes of records; None: $REGRADE_EVIDENCE_GB, or LIMIT_GB.

        Raises:
            UserError: the file can't be used, or the limit is no number above 0.
        """
        self._lock = threading.Lock()
        self._path = path
        self._limit = (_chosen_limit() if limit_gb is None else limit_gb) * 1e9
        self._unchecked = 0
        self._waiting: deque[tuple[Any, ...]] = deque(maxlen=MOST_WAITING)
        self.damaged = 0
        """Records that were asked for here and were not as they were written."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(path, timeout=60.0, isolation_level=None, check_same_thread=False)
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.execute("PRAGMA synchronous=NORMAL")
            self._database.execute(SCHEMA_OF_TABLE)
            self._add_columns()
        except (sqlite3.Error, OSError) as error:
            raise _unusable(path, error) from error

    def _add_columns(self) -> None:
        """Bring a file that an earlier version made to the present form. What has no digest is not believed."""
        there = {row[1] for row in self._database.execute("PRAGMA table_info(evidence)")}
        for column in ADDED_COLUMNS:
            if column.split()[0] not in there:
                with contextlib.suppress(sqlite3.OperationalError):  # another process has just added it
                    self._database.execute(f"ALTER TABLE evidence ADD COLUMN {column}")

    def get(self, key: bytes, kind: type, task: Task) -> Any | None:
        """The record under the key, or None. A record of another shape, or a damaged one, counts as missing.

        Raises:
            UserError: the file is damaged.
        """
        try:
            with self._lock:
                row = self._database.execute(FIND, (key,)).fetchone()
        except sqlite3.DatabaseError as error:
            raise _unusable(self._path, error) from error
        if row is None or not row[2]:  # of an earlier version, which kept no digests
            return None
        record, used, digest = row
        if _digest(key, record) != digest:
            with self._lock:
                self.damaged += 1
            logger.warning("damaged record of %s in %s: it is gathered again", kind.__name__, self._path)
            return None
        if used < _hour():
            self._mark_used(key)
        try:
            return decode(kind, record, task)
        except (ValueError, KeyError, TypeError, IndexError):
            return None

    def put(self, key: bytes, evidence: Any) -> None:
        """Keep a record, and those that could not be kept before.

        Raises:
            sqlite3.Error: the disk is full or the file is gone. It is tried again with the next record, and at the end.
        """
        record = encode(evidence)
        row = (key, record, type(evidence).__qualname__, _hour(), _digest(key, record.encode()))
        with self._lock:
            try:
                self._database.execute(KEEP, row)
            except sqlite3.Error:
                self._waiting.append(row)
                raise
            self._keep_waiting()
            self._unchecked += 1
            is_due = self._unchecked >= CHECKED_EVERY
        if is_due:
            self.shrink()

    def _keep_waiting(self) -> None:
        """As many as can be kept now; one that fails waits behind the others."""
        while self._waiting:
            row = self._waiting.popleft()
            try:
                self._database.execute(KEEP, row)
            except sqlite3.Error:
                self._waiting.append(row)
                return

    def shrink(self, limit_gb: float | None = None) -> int:
        """Drop the records that were not used for the longest time, down to the limit.

        Args:
            limit_gb: another limit, this time; the file then gives the space back, which takes a while.

        Returns:
            How many were dropped.
        """
        limit = self._limit if limit_gb is None else limit_gb * 1e9
        with self._lock:
            self._unchecked = 0
            size = self._size()
            dropped = self._drop(size - (KEPT * limit if limit_gb is None else limit)) if size > limit else 0
            if limit_gb is not None:
                self._database.execute("VACUUM")
                self._database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        if dropped:
            logger.info("evicted %d records from %s", dropped, self._path)
        return dropped

    def _size(self) -> int:
        """Bytes of the pages in use, which costs nothing to find out."""
        pages, free, page_bytes = (
            self._database.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("page_count", "freelist_count", "page_size")
        )
        return int((pages - free) * page_bytes)

    def _drop(self, amount: float) -> int:
        oldest: list[tuple[bytes]] = []
        for key, size in self._database.execute("SELECT key, length(record) FROM evidence ORDER BY used"):
            if amount <= 0:
                break
            oldest.append((key,))
            amount -= size
        self._database.execute("BEGIN IMMEDIATE")
        try:
            self._database.executemany("DELETE FROM evidence WHERE key = ?", oldest)
        finally:
            self._database.execute("COMMIT")
        return len(oldest)

    def _mark_used(self, key: bytes) -> None:
        """That it was used is worth no failure: the store may be read-only or full."""
        with self._lock, contextlib.suppress(sqlite3.Error):
            self._database.execute("UPDATE evidence SET used = ? WHERE key = ?", (_hour(), key))

    def holdings(self) -> list[Holding]:
        """What is in the store, by kind of evidence; `""` for what earlier versions kept."""
        with self._lock:
            rows = self._database.execute(
                "SELECT kind, count(*), total(length(record)), max(used) FROM evidence GROUP BY kind ORDER BY kind"
            ).fetchall()
        return [Holding(kind, count, size / 1e6, used * 3600.0) for kind, count, size, used in rows]

    def __len__(self) -> int:
        with self._lock:
            count: int = self._database.execute("SELECT count(*) FROM evidence").fetchone()[0]
        return count

    def close(self) -> None:
        with self._lock:
            self._keep_waiting()
            self._database.close()


def _digest(key: bytes, record: bytes) -> bytes:
    """Of a record and its place: neither other bytes nor another record may stand there."""
    return hashlib.sha256(key + record).digest()[:DIGEST_BYTES]


def _hour() -> int:
    return int(time.time() // 3600)


def _chosen_limit() -> float:
    text = os.environ.get("REGRADE_EVIDENCE_GB", str(LIMIT_GB))
    try:
        limit = float(text)
    except ValueError:
        limit = 0.0
    if not 0.0 < limit < float("inf"):
        raise UserError(f"$REGRADE_EVIDENCE_GB is {text!r}: give a number of gigabytes above 0")
    return limit


def _unusable(path: Path, error: Exception) -> UserError:
    advice = full_disk(error) or "delete it, or name another folder with $REGRADE_CACHE"
    return UserError(f"the evidence store {str(path)!r} can't be used ({error}): {advice}")
