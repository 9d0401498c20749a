"""The evidence store: an SQLite cache of evidence, so that no test run is executed twice."""

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
ADDED_COLUMNS = ("kind TEXT NOT NULL DEFAULT ''", "used INTEGER NOT NULL DEFAULT 0", "digest BLOB NOT NULL DEFAULT x''")
"""Columns that files of earlier versions lack."""
SELECT = "SELECT CAST(record AS BLOB), used, digest FROM evidence WHERE key = ?"
"""Selects bytes: a damaged record may not decode as text."""
INSERT = "INSERT OR REPLACE INTO evidence (key, record, kind, used, digest) VALUES (?, ?, ?, ?, ?)"
LIMIT_GB = 4.0
"""Default limit of the store in gigabytes: some millions of records. $REGRADE_EVIDENCE_GB overrides it."""
CHECK_INTERVAL = 256
"""Records that one process writes between two checks of the size."""
MOST_PENDING = 10_000
"""Records buffered in memory while the disk is full; beyond that the oldest are dropped, and gathered again later."""
TARGET_SHARE = 0.8
"""Share of the limit that is in use after an eviction: below 1, so that evictions are rare."""
DIGEST_BYTES = 16
"""Bytes of a stored digest: accidental damage escapes it with probability 2^-128."""


@dataclass(frozen=True)
class KindUsage:
    """Size of the records of one type of evidence."""

    kind: str
    records: int
    megabytes: float
    last_used: float
    """Seconds since the epoch, to the hour."""


class EvidenceStore:
    """Evidence by a key that covers every input of it. Many threads and processes may use one file at once.

    Each record is written in its own transaction (SQLite, write-ahead log): a killed process loses at most the record
    that it was writing. Above its limit the store evicts the least recently used records. Each record is stored with
    its digest; a record that does not match its digest counts as missing.
    """

    def __init__(self, path: Path, limit_gb: float | None = None) -> None:
        """
        Args:
            limit_gb: gigabytes of records; None: $REGRADE_EVIDENCE_GB, or LIMIT_GB.

        Raises:
            UserError: SQLite cannot open the file, or $REGRADE_EVIDENCE_GB is not a number above 0.
        """
        self._lock = threading.Lock()
        self._path = path
        self._limit = (_chosen_limit() if limit_gb is None else limit_gb) * 1e9
        self._unchecked = 0
        self._pending: deque[tuple[Any, ...]] = deque(maxlen=MOST_PENDING)
        self.damaged = 0
        """Requested records that did not match their digest."""
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
        """Add the columns that a file of an earlier version lacks. Its records have no digest and count as missing."""
        present = {row[1] for row in self._database.execute("PRAGMA table_info(evidence)")}
        for column in ADDED_COLUMNS:
            if column.split()[0] not in present:
                with contextlib.suppress(sqlite3.OperationalError):  # another process has just added it
                    self._database.execute(f"ALTER TABLE evidence ADD COLUMN {column}")

    def get(self, key: bytes, kind: type, task: Task) -> Any | None:
        """The record under the key; None if it is missing, damaged or not of this type.

        Raises:
            UserError: the file is damaged.
        """
        try:
            with self._lock:
                row = self._database.execute(SELECT, (key,)).fetchone()
        except sqlite3.DatabaseError as error:
            raise _unusable(self._path, error) from error
        if row is None or not row[2]:  # earlier versions stored no digest
            return None
        record, used, digest = row
        if _digest(key, record) != digest:
            with self._lock:
                self.damaged += 1
            logger.warning("damaged record of %s in %s: it will be gathered again", kind.__name__, self._path)
            return None
        if used < _hour():
            self._mark_used(key)
        try:
            return decode(kind, record, task)
        except (ValueError, KeyError, TypeError, IndexError):
            return None

    def put(self, key: bytes, evidence: Any) -> None:
        """Store a record, and the records of earlier failures.

        Raises:
            sqlite3.Error: the disk is full or the file is gone. The next `put`, and `close`, write the record again.
        """
        record = encode(evidence)
        row = (key, record, type(evidence).__qualname__, _hour(), _digest(key, record.encode()))
        with self._lock:
            try:
                self._database.execute(INSERT, row)
            except sqlite3.Error:
                self._pending.append(row)
                raise
            self._write_pending()
            self._unchecked += 1
            is_due = self._unchecked >= CHECK_INTERVAL
        if is_due:
            self.shrink()

    @property
    def waiting(self) -> int:
        """Records in memory, which could not be written so far."""
        return len(self._pending)

    def _write_pending(self) -> None:
        """Write the buffered records up to the first failure, which goes back into the buffer."""
        while self._pending:
            row = self._pending.popleft()
            try:
                self._database.execute(INSERT, row)
            except sqlite3.Error:
                self._pending.append(row)
                return

    def shrink(self, limit_gb: float | None = None) -> int:
        """Evict the least recently used records until the store is within its limit.

        Args:
            limit_gb: a limit for this call alone; the file then shrinks too, which is slow. None: the store's own.

        Returns:
            The number of evicted records.
        """
        limit = self._limit if limit_gb is None else limit_gb * 1e9
        with self._lock:
            self._unchecked = 0
            size = self._size()
            evicted = self._evict(size - (TARGET_SHARE * limit if limit_gb is None else limit)) if size > limit else 0
            if limit_gb is not None:
                self._database.execute("VACUUM")
                self._database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        if evicted:
            logger.info("evicted %d records from %s", evicted, self._path)
        return evicted

    def _size(self) -> int:
        """Bytes of the pages in use; SQLite counts them without reading the file."""
        pages, free, page_bytes = (
            self._database.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("page_count", "freelist_count", "page_size")
        )
        return int((pages - free) * page_bytes)

    def _evict(self, amount: float) -> int:
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
        """Record the time of use. A failure is ignored: the store may be read-only or full."""
        with self._lock, contextlib.suppress(sqlite3.Error):
            self._database.execute("UPDATE evidence SET used = ? WHERE key = ?", (_hour(), key))

    def usage(self) -> list[KindUsage]:
        """Size of the records by type of evidence; type `""`: records of earlier versions."""
        with self._lock:
            rows = self._database.execute(
                "SELECT kind, count(*), total(length(record)), max(used) FROM evidence GROUP BY kind ORDER BY kind"
            ).fetchall()
        return [KindUsage(kind, count, size / 1e6, used * 3600.0) for kind, count, size, used in rows]

    def __len__(self) -> int:
        with self._lock:
            count: int = self._database.execute("SELECT count(*) FROM evidence").fetchone()[0]
        return count

    def close(self) -> None:
        with self._lock:
            self._write_pending()
            self._database.close()


def _digest(key: bytes, record: bytes) -> bytes:
    """Digest of a record and its key: it detects changed bytes, and a record under the key of another."""
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
