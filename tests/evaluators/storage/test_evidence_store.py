"""The evidence store: records survive concurrent writers and killed processes unchanged."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regrade.datasets.errors import UserError
from regrade.datasets.tasks import Task, Tree
from regrade.evaluators.storage.digests import key_of
from regrade.evaluators.storage.evidence_store import EvidenceStore
from regrade.evaluators.storage.serialisation import decode, encode
from regrade.rewards.evidence import (
    BuildRun,
    ComplexityDelta,
    Diff,
    End,
    Finding,
    FunctionComplexity,
    FunctionReadability,
    Impact,
    ImpactedModule,
    Integrity,
    LintDelta,
    Readability,
    ReadabilityDelta,
    Tampering,
    TestOutcome,
    TestRun,
    TestStatus,
)


def a_task(fail_to_pass=("t::a",), pass_to_pass=("t::b", "t::c")):
    return Task(
        id="id",
        repository="repository",
        base=Tree(Path("/nowhere")),
        instruction="",
        fail_to_pass=fail_to_pass,
        pass_to_pass=pass_to_pass,
    )


@dataclass(frozen=True)
class Own:
    """Evidence of a user's own."""

    names: tuple[str, ...]
    pairs: tuple[tuple[str, int], ...] = ()
    maybe: float | None = None


RECORDS = [
    BuildRun(False, 3, "calculator.py:1: invalid syntax"),
    LintDelta((Finding("E1", "a.py", 1, "x"),), (), 4, ("b.py",)),
    ReadabilityDelta((FunctionReadability("a.py", "f", None, Readability(3, 20.5, 81.0)),), (), ("a.py",)),
    ComplexityDelta(
        functions=(FunctionComplexity("a.py", "f", None, 3), FunctionComplexity("a.py", "g", 2, None)),
        sum_before=2,
        sum_after=3,
        max_before=2,
        max_after=3,
    ),
    Impact(
        changed_symbols=("a.f",),
        modules=(
            ImpactedModule(module="b", hops=1, weight=0.5, path=("a.f", "b"), tests=("test_b.py",), dangling=("g",)),
        ),
        new_cycles=(("a", "b"),),
    ),
    Diff(1, 2, ("a.py",)),
    Integrity((Tampering("kind", "a.py", 1, "detail"),), ("tests/test_a.py",)),
    Own(("x",), (("y", 1),), 0.5),
    Own(()),
]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_evidence_survives(record, tmp_path):
    store = EvidenceStore(tmp_path / "evidence.sqlite")
    store.put(b"key", record)
    store.close()
    again = EvidenceStore(tmp_path / "evidence.sqlite")
    assert again.get(b"key", type(record), a_task()) == record
    again.close()


outcomes = st.builds(TestOutcome, st.sampled_from(TestStatus), st.text(max_size=20), st.sampled_from([0.0, 0.25]))


@given(st.lists(outcomes, min_size=3, max_size=3), st.sampled_from(End), st.text(max_size=20))
def test_a_run_of_tests_survives(found, end, detail):
    task = a_task()
    run = TestRun(
        outcomes=dict(zip(task.fail_to_pass + task.pass_to_pass, found, strict=True)),
        fail_to_pass=task.fail_to_pass,
        pass_to_pass=task.pass_to_pass,
        end=end,
        detail=detail,
        scope="reachable",
        seconds=1.5,
    )
    assert decode(TestRun, encode(run), task) == run


def test_a_run_takes_about_a_letter_a_test():
    tests = tuple(f"tests/test_module.py::test_function[{number}]" for number in range(1000))
    run = TestRun(outcomes=dict.fromkeys(tests, TestOutcome(TestStatus.PASSED)), fail_to_pass=(), pass_to_pass=tests)
    assert len(encode(run)) < 1200


def test_a_record_of_another_shape_counts_as_missing(tmp_path):
    store = EvidenceStore(tmp_path / "evidence.sqlite")
    store.put(b"key", Diff(1, 2, ()))
    assert store.get(b"key", LintDelta, a_task()) is None
    assert store.get(b"key", TestRun, a_task()) is None
    task = a_task()
    store.put(b"run", TestRun(outcomes={}, fail_to_pass=(), pass_to_pass=()))
    assert store.get(b"run", TestRun, task) is None
    assert store.get(b"nothing", Diff, task) is None
    store.close()


def test_keys_of_different_parts_differ():
    assert key_of(["ab", "c"]) != key_of(["a", "bc"])
    assert key_of(["a"]) != key_of(["a", ""])


WRITER = """
import sys
from pathlib import Path
from regrade.evaluators.storage.evidence_store import EvidenceStore
from regrade.rewards.evidence import Diff
store = EvidenceStore(Path(sys.argv[1]))
for number in range(int(sys.argv[3])):
    store.put(f"{sys.argv[2]}-{number}".encode(), Diff(number, 0, ()))
    print(number, flush=True)
"""


def test_processes_write_at_once_and_nothing_is_lost(tmp_path):
    path = tmp_path / "evidence.sqlite"
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(path), str(number), "50"], stdout=subprocess.DEVNULL)
        for number in range(3)
    ]
    assert [writer.wait(300) for writer in writers] == [0, 0, 0]
    store = EvidenceStore(path)
    assert len(store) == 150
    assert store.get(b"2-49", Diff, a_task()) == Diff(49, 0, ())
    store.close()


def test_what_was_written_before_a_kill_stays(tmp_path):
    path = tmp_path / "evidence.sqlite"
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), "x", "100000"], stdout=subprocess.PIPE, text=True
    )
    for _ in range(20):
        last = int(writer.stdout.readline())
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    writer.stdout.close()
    store = EvidenceStore(path)
    assert all(store.get(f"x-{number}".encode(), Diff, a_task()) == Diff(number, 0, ()) for number in range(last + 1))
    store.close()


def test_a_file_that_is_no_store_is_a_mistake(tmp_path):
    (tmp_path / "evidence.sqlite").write_text("something else entirely, and longer than a header of a database\n" * 20)
    with pytest.raises(UserError, match=r"evidence store .* can't be used .*delete it"):
        EvidenceStore(tmp_path / "evidence.sqlite")


def test_a_store_that_is_damaged_inside_is_a_mistake(tmp_path):
    path = tmp_path / "evidence.sqlite"
    store = EvidenceStore(path)
    for number in range(2000):
        store.put(str(number).encode(), Own((str(number) * 20,)))
    store.close()
    content = bytearray(path.read_bytes())
    content[4096:] = os.urandom(len(content) - 4096)
    path.write_bytes(content)
    again = EvidenceStore(path)
    with pytest.raises(UserError, match=r"evidence.sqlite' can't be used .*REGRADE_CACHE"):
        again.get(b"7", Own, a_task())
    again.close()


def damage(path, change):
    """Change the record of each row behind the store's back."""
    database = sqlite3.connect(path)
    rows = database.execute("SELECT key, CAST(record AS BLOB) FROM evidence").fetchall()
    for key, record in rows:
        database.execute("UPDATE evidence SET record = ? WHERE key = ?", (change(bytearray(record)), key))
    database.commit()
    database.close()


def flipped(record, place, bit):
    record[place] ^= 1 << bit
    return bytes(record)


@given(st.integers(0), st.integers(0, 7))
def test_a_record_with_a_flipped_bit_counts_as_missing(tmp_path_factory, place, bit):
    path = tmp_path_factory.mktemp("store") / "evidence.sqlite"
    store = EvidenceStore(path)
    run = TestRun(outcomes={"t::a": TestOutcome(TestStatus.FAILED)}, fail_to_pass=("t::a",), pass_to_pass=())
    store.put(b"key", run)
    damage(path, lambda record: flipped(record, place % len(record), bit))
    assert store.get(b"key", TestRun, a_task(pass_to_pass=())) is None
    assert store.damaged == 1
    store.put(b"key", run)
    assert store.get(b"key", TestRun, a_task(pass_to_pass=())) == run
    assert store.damaged == 1
    store.close()


def test_a_record_under_the_key_of_another_counts_as_missing(tmp_path):
    path = tmp_path / "evidence.sqlite"
    store = EvidenceStore(path)
    store.put(b"good", BuildRun(True, 1))
    store.put(b"bad", BuildRun(False, 1))
    store.close()
    database = sqlite3.connect(path)
    good = database.execute("SELECT record, digest FROM evidence WHERE key = ?", (b"good",)).fetchone()
    database.execute("UPDATE evidence SET record = ?, digest = ? WHERE key = ?", (*good, b"bad"))
    database.commit()
    database.close()
    again = EvidenceStore(path)
    assert (again.get(b"bad", BuildRun, a_task()), again.damaged) == (None, 1)
    assert again.get(b"good", BuildRun, a_task()) == BuildRun(True, 1)
    again.close()


def test_a_store_on_a_full_disk_says_to_free_space(tmp_path, monkeypatch):
    def is_full(*_, **__):
        error = sqlite3.OperationalError("database or disk is full")
        error.sqlite_errorcode = sqlite3.SQLITE_FULL
        raise error

    monkeypatch.setattr(sqlite3, "connect", is_full)
    with pytest.raises(UserError, match=r"disk is full\): free space .*`regrade cache`"):
        EvidenceStore(tmp_path / "evidence.sqlite")


def test_a_cache_that_can_not_be_made_is_a_mistake(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="can't be used"):
        EvidenceStore(tmp_path / "file" / "evidence.sqlite")


def test_a_lookup_is_quick(tmp_path):
    store = EvidenceStore(tmp_path / "evidence.sqlite")
    for number in range(200):
        store.put(str(number).encode(), Diff(number, 0, ()))
    started = time.process_time()
    for number in range(200):
        store.get(str(number).encode(), Diff, a_task())
    assert time.process_time() - started < 0.5
    store.close()


def test_the_least_recently_used_records_are_evicted(tmp_path, monkeypatch):
    store = EvidenceStore(tmp_path / "e.sqlite", limit_gb=0.001)
    record = BuildRun(False, 3, "x" * 10_000)
    now = time.time()
    for number in range(150):
        monkeypatch.setattr(time, "time", lambda number=number: now + 3600 * number)
        store.put(key_of([str(number)]), record)
    assert store.get(key_of(["0"]), BuildRun, a_task()) == record  # used again, last of all
    assert 0 < store.shrink() < 150
    assert store.get(key_of(["0"]), BuildRun, a_task()) == record
    assert store.get(key_of(["149"]), BuildRun, a_task()) == record
    assert store.get(key_of(["1"]), BuildRun, a_task()) is None
    (held,) = store.usage()
    assert (held.kind, held.records) == ("BuildRun", len(store))
    assert held.megabytes <= 1.0
    store.shrink(0.0)
    assert len(store) == 0
    store.close()
    assert (tmp_path / "e.sqlite").stat().st_size < 100_000


def test_it_stays_within_its_limit_by_itself(tmp_path):
    store = EvidenceStore(tmp_path / "e.sqlite", limit_gb=0.001)
    for number in range(1500):
        store.put(key_of([str(number)]), BuildRun(False, 3, "x" * 4_000))
    assert 100 < len(store) < 600
    assert store.get(key_of(["1499"]), BuildRun, a_task()) is not None
    store.close()


def test_records_of_an_earlier_version_have_no_digest_and_count_as_missing(tmp_path):
    database = sqlite3.connect(tmp_path / "e.sqlite")
    database.execute("CREATE TABLE evidence (key BLOB PRIMARY KEY, record TEXT NOT NULL) WITHOUT ROWID")
    database.execute("INSERT INTO evidence VALUES (?, ?)", (key_of(["a"]), encode(BuildRun(True, 1))))
    database.commit()
    database.close()
    store = EvidenceStore(tmp_path / "e.sqlite")
    assert store.get(key_of(["a"]), BuildRun, a_task()) is None
    assert store.damaged == 0
    store.put(key_of(["a"]), BuildRun(True, 1))
    assert store.get(key_of(["a"]), BuildRun, a_task()) == BuildRun(True, 1)
    assert [held.kind for held in store.usage()] == ["BuildRun"]
    store.close()


@pytest.mark.parametrize("limit", ["much", "0", "-1", "nan", "inf"])
def test_a_limit_that_is_none_is_refused(tmp_path, monkeypatch, limit):
    monkeypatch.setenv("REGRADE_EVIDENCE_GB", limit)
    with pytest.raises(UserError, match="REGRADE_EVIDENCE_GB"):
        EvidenceStore(tmp_path / "e.sqlite")
