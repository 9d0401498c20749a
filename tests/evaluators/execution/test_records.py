"""Records of a sandbox: no line raises, and each line of the programs inside is decoded to its record."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from regrade.datasets.patches import Patch
from regrade.datasets.tasks import Limits, Task, TestSuite
from regrade.evaluators.execution import worker as worker_module
from regrade.evaluators.execution.records import (
    CollectRecord,
    DoneRecord,
    LeftRecord,
    Record,
    TestRecord,
    UnknownRecord,
    decode,
    decode_event,
)
from regrade.evaluators.execution.replies import ending, statuses
from regrade.evaluators.execution.worker import Reply, Request, Worker
from regrade.evaluators.execution.workspaces import prepare
from regrade.evaluators.inside.bytecode import COLLECT_ONLY
from regrade.evaluators.sandboxes import Mount, choose
from regrade.evaluators.verification.boundaries import boundary_of
from regrade.evaluators.verification.two_process import WorkerPair
from regrade.rewards.evidence import End, TestOutcome, TestStatus


def reply(records: tuple[Record, ...], status: int = 0, output: str = "") -> Reply:
    return Reply(status=status, stopped="", records=records, output=output, seconds=1.0, cpu_seconds=1.0)


LIMITS = Limits(wall_seconds=20.0, memory_mb=400, processes=24, file_mb=8)
names = st.text(st.characters())  # with halves of surrogate pairs
contents = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), names, st.just(10**400)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(names, inner, max_size=4)),
    max_leaves=10,
)
WHOLE: dict[str, tuple[st.SearchStrategy[Any], ...]] = {
    "configuration": (names, st.none() | names),
    "collect": (names, contents),
    "test": (names, names, contents, contents),
    "import": (names, contents),
    "threads": (st.integers(0, 1000),),
    "imported": (st.lists(names),),
    "reach": (names, st.lists(names), st.booleans(), st.booleans()),
    "unmeasured": (names,),
    "checked": (names, contents),
    "wheel": (contents, contents),
    "crossed": (names, st.integers(0, 1000), names),
    "called": (st.lists(contents), st.lists(contents), st.dictionaries(names, contents)),
    "unrecorded": (names,),
    "answer": (st.integers(0, 1000), st.dictionaries(names, contents)),
    "altered": (st.lists(names),),
    "likeness": (st.integers(0, 1000), names),
    "done": (contents,),
    "left": (contents,),
}
"""Kind -> strategies for the fields of a complete record."""
TYPES: dict[str, tuple[type, ...]] = {
    "configuration": (str, str | None),
    "collect": (str, object),
    "test": (str, str, object, object),
    "import": (str, object),
    "unmeasured": (str,),
    "checked": (str, object),
    "wheel": (object, object),
    "called": (list, list, dict),
    "unrecorded": (str,),
    "done": (object,),
    "left": (object,),
}
"""Kind -> the types of its fields, for kinds whose complete records they distinguish."""
whole = st.sampled_from(sorted(WHOLE)).flatmap(lambda kind: st.tuples(st.just(kind), *WHOLE[kind])).map(list)


def plain(record: Record) -> Any:
    """The value of `json.loads` for the line of the record."""
    return [record.__struct_config__.tag, *msgspec.structs.astuple(record)]


def same(one: Any, other: Any) -> bool:
    """Equal, or both NaN, and of the same types."""
    return repr(one) == repr(other)


@given(whole)
def test_complete_records_are_decoded(content: list[Any]) -> None:
    (record,) = decode([json.dumps(content)])
    assert same(plain(record), content)


@given(st.text(st.characters()))
def test_any_text(line: str) -> None:
    assert all(isinstance(record, Record) for record in decode([line]))


@given(st.one_of(contents, st.tuples(st.sampled_from([*WHOLE, "other"])), st.lists(contents)))
def test_any_json(content: Any) -> None:
    records = decode([json.dumps(content)])
    assert len(records) == (isinstance(content, list | tuple) and bool(content) and isinstance(content[0], str))


@given(st.sampled_from(sorted(TYPES)), st.lists(contents, max_size=5))
def test_a_record_is_decoded_if_its_length_and_types_are_right(kind: str, fields: list[Any]) -> None:
    (record,) = decode([json.dumps([kind, *fields])])
    types = TYPES[kind]
    is_whole = len(fields) == len(types) and all(map(isinstance, fields, types))
    assert isinstance(record, UnknownRecord) is not is_whole
    if is_whole:
        assert same(plain(record), [kind, *fields])


@given(whole, st.data())
def test_a_truncated_line_is_no_record(content: list[Any], data: st.DataObject) -> None:
    line = json.dumps(content)
    assert decode([line[: data.draw(st.integers(0, len(line) - 1))]]) == ()


@pytest.mark.parametrize(
    "line",
    [
        "[" * 100_000,
        f'["answer", 0, {"[" * 5000 + "]" * 5000}]',
        f'["done", {"9" * 5000}]',
        '["done", 0',
        '["done", nan]',
        "\ufeff[]",
        "",
        "null",
        '{"done": 0}',
        "[]",
        "[0]",
        '[["done"], 0]',
    ],
)
def test_lines_that_are_no_records(line: str) -> None:
    assert decode([line, '["done", 0]']) == (DoneRecord(0),)


@pytest.mark.parametrize(
    "line",
    [
        '["done"]',
        '["done", 0, 0]',
        '["left"]',
        '["test", "a", "passed", 0.1]',
        '["test", "a", "passed", 0.1, "", ""]',
        '["test", 5, "passed", 0.1, ""]',
        '["test", "a", ["passed"], 0.1, ""]',
        '["later", 1]',
        '["\\ud800"]',
        '["imported", ["a", 5]]',
        '["imported", "\\ud800"]',
        '["reach", "a", ["b"], 0, 1]',
        '["answer", 0, 5]',
        '["threads", true]',
    ],
)
def test_malformed_records_are_not_dropped(line: str) -> None:
    records = decode(['["done", 0]', line])
    assert records == (DoneRecord(0), UnknownRecord())
    assert ending(reply(records), 20) == (
        End.CRASHED,
        "the process exited with status 0 before it reported a result",
    )


@pytest.mark.parametrize(
    ("status", "line", "end"),
    [
        (0, '["done", 0]', (End.COMPLETED, "")),
        (1, '["done", 1]', (End.COMPLETED, "")),
        (0, '["done", 1]', (End.CRASHED, "pytest stopped with status 1: printed")),
        (3, '["done", [3]]', (End.CRASHED, "pytest stopped with status [3]: printed")),
        (0, '["left", "SystemExit: 0"]', (End.CRASHED, "the test session ended with SystemExit: 0")),
        (-9, '["test", "a", "passed", 0, ""]', (End.CRASHED, "killed by signal 9 (SIGKILL)")),
    ],
)
def test_the_last_record_determines_the_ending(status: int, line: str, end: tuple[End, str]) -> None:
    assert ending(reply(decode(['["done", 0]', line]), status, "printed\n"), 20) == end


def test_of_several_outcomes_of_a_test_the_worst_counts() -> None:
    lines = ['["test", "a", "failed", "soon", 5]', '["test", "a", "passed", 0.1, ""]', '["test", "b", "fine", 0, ""]']
    assert statuses(reply(decode(lines))) == {"a": TestOutcome(TestStatus.FAILED, "5")}


def test_text_that_only_python_writes_is_read() -> None:
    lines = ['["test", "\\ud800", "passed", NaN, ""]', '["collect", "a", Infinity]']
    (test, collect) = decode(lines)
    assert isinstance(test, TestRecord)
    assert (test.id, repr(test.seconds)) == ("\ud800", "nan")
    assert collect == CollectRecord("a", float("inf"))


@pytest.mark.parametrize("line", [b"", b"[]", b"null", b"{}", b'{"event": "other"}', b'{"event": "done"}', b"\xff"])
def test_lines_that_are_no_events(line: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        decode_event(line)


# ---------------------------------------------------------------- of real workers

Lines = list[tuple[str, Record]]


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Lines:
    """The lines of all runs, each with its decoded record."""
    collected: Lines = []

    def spy(lines: list[str]) -> tuple[Record, ...]:
        records = decode(lines)
        collected.extend(zip(lines, records, strict=True))
        return records

    monkeypatch.setattr(worker_module, "decode", spy)
    return collected


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Worker]:
    scratch = tmp_path / "scratch"
    scratch.mkdir(mode=0o755)
    with Worker(choose(), Path(sys.executable), scratch, limits=LIMITS) as worker:
        yield worker


def kinds(written: Lines) -> list[Any]:
    assert all(same(plain(record), json.loads(line)) for line, record in written)
    tags = [record.__struct_config__.tag for _, record in written]
    written.clear()
    return tags


def test_the_records_of_a_candidate(worker: Worker, write_files: Callable[..., Any], written: Lines) -> None:
    tree = write_files({
        "a.py": "def one(): return 1\n",
        "broken.py": "1 / 0\n",
        "tests/test_a.py": "import a\ndef test_one(): assert a.one() == 1\ndef test_two(): assert '\\ud800' == 2\n",
        "tests/test_b.py": "import broken\n",
        "pytest.ini": "[pytest]\n",
    })  # fmt: skip
    suite = TestSuite()
    reply = worker.run(tree, Request(suite=suite, limits=LIMITS))
    assert sorted(kinds(written)) == [
        "collect",
        "collected",
        "configuration",
        "done",
        "started",
        "started",
        "test",
        "test",
    ]
    assert {test.id: test.status for test in reply.of(TestRecord)} == {
        "tests/test_a.py::test_one": "passed",
        "tests/test_a.py::test_two": "failed",
    }
    worker.run(tree, Request(suite=suite, limits=LIMITS, paths=("tests/test_a.py",), options=(COLLECT_ONLY,)))
    assert kinds(written) == ["configuration", "collected", "imported", "done"]
    reach = {"tests/test_a.py::test_one": 0.1}
    worker.run(tree, Request(suite=suite, limits=LIMITS, paths=("tests/test_a.py",), reach=reach))
    assert set(kinds(written)) == {
        "configuration",
        "collected",
        "started",
        "test",
        "reach",
        "imported",
        "done",
    }  # forks also record outcomes
    worker.run(tree, Request(suite=suite, limits=LIMITS, kind="imports", modules=("a", "broken")))
    assert kinds(written) == ["import", "threads", "done"]
    worker.run(tree, Request(suite=suite, limits=LIMITS, kind="wheel"))
    assert kinds(written) == ["wheel", "done"]
    unmeasurable = "import threading, time\nthreading.Thread(target=time.sleep, args=(9,), daemon=True).start()\n"
    reply = worker.run(
        write_files({"test_c.py": f"{unmeasurable}def test_c(): pass\n"}), Request(suite=suite, limits=LIMITS, reach={})
    )
    assert kinds(written) == ["configuration", "collected", "unmeasured", "imported", "done"]
    reply = worker.run(
        write_files({"d/conftest.py": "import gone\n", "d/test_d.py": ""}), Request(suite=suite, limits=LIMITS)
    )
    assert kinds(written)[-1] == "left"
    assert isinstance(reply.records[-1], LeftRecord)


def test_the_records_of_both_sides_of_a_two_process_run(
    tmp_path: Path, write_files: Callable[..., Any], written: Lines
) -> None:
    sandbox = choose()
    if not sandbox.isolated:
        pytest.skip("no sandbox keeps two candidates apart here")
    before, test = "def twice(n):\n    return n\n", "test_a.py::test_twice"
    task = Task(
        id="a",
        repository="a",
        base=write_files(
            {"a.py": before, "test_a.py": "from a import twice\ndef test_twice(): assert twice(2) == 4\n"}
        ),
        instruction="",
        fail_to_pass=(test,),
        pass_to_pass=(),
        suite=TestSuite(),
        limits=LIMITS,
    )
    workspace = prepare(task, Patch.between({"a.py": before}, {"a.py": before.replace("n\n", "2 * n\n")}))
    boundary = boundary_of(task, workspace)
    folders = [tmp_path / name for name in ("channel", "tests", "candidate")]
    for folder in folders:
        folder.mkdir()
        folder.chmod(0o777)
    sides = [
        Worker(sandbox, Path(sys.executable), folder, limits=LIMITS, channel=Mount(folders[0], "/channel", writable))
        for folder, writable in zip(folders[1:], (True, False), strict=True)
    ]
    pair = WorkerPair(*sides, folders[0])
    try:
        split = pair.run(task, workspace, boundary, frozenset({test}))
        assert split.passed == {test}
        assert set(kinds(written)) == {"configuration", "collected", "started", "called", "test", "crossed", "done"}
        ((call, answer),) = split.answered
        assert (call[0][0], answer["value"]) == ("a", 4)
        (answer,) = pair.answers(task, workspace, boundary, [call])
        assert (answer["value"], answer["raised"]) == (4, False)
        assert set(kinds(written)) == {"answer", "done"}
        crossing = {"answers": [(call[1], answer, answer)], "others": [], "chance": []}
        assert pair.likeness(task, workspace.after, crossing) == [""]
        assert set(kinds(written)) == {"likeness", "done"}
    finally:
        pair.close()
