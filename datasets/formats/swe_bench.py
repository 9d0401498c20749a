"""SWE-bench instances as tasks: rows of SWE-bench (v4, v5), SWE-smith and R2E.

A row names a repository and a commit, and has no files: they come from the user's clones (`checkouts.py`). The base of
a task is the commit with the tests of the row applied.

| rows | base commit | applied to it | reference | tests |
|-|-|-|-|-|
| SWE-bench | `base_commit` | `test_patch` | `patch` | `FAIL_TO_PASS`, `PASS_TO_PASS`: lists, or JSON text of lists |
| SWE-smith | at the end of `repo` | `patch`, the bug | the reverse of `patch` | the same |
| R2E | the parent of `commit_hash` | the stored test files | the commit without tests | by the two stored logs |

The key `regrade` of a row that this project wrote holds what the format has no field for, as in a task file.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec

from regrade.datasets.errors import UserError
from regrade.datasets.formats.checkouts import Checkout
from regrade.datasets.graded.records import Findings
from regrade.datasets.graded.run_logs import ESCAPES, PASSING, statuses
from regrade.datasets.json_structs import Plain, converted
from regrade.datasets.json_text import parse_json, shown
from regrade.datasets.patches import Patch, PatchError

SOURCE = "swe-bench"
SWE_SMITH, R2E = "swe-smith", "r2e"
SECONDS = 1800
"""Limit of a run, as in SWE-bench's own harness; rows have none."""
OWN = "regrade"
"""Key of what the format has no field for."""
NOT_OWN = frozenset({"id", "instruction", "repository", "package", "base_patch", "reference"})
"""Keys of a task that a row has fields for."""
SMITH_REPOSITORY = re.compile(r"(?:[\w.-]+/)?(?P<owner>[\w.-]+?)__(?P<name>[\w.-]+)\.(?P<commit>[0-9a-f]{7,40})")
CUT, NO_TEST, DOUBLED, NO_FILE = (
    "test ids that are cut off, left out",
    "entries among the tests that are no test ids, left out",
    "tests that are listed twice, counted once",
    "tests that name no file, which pytest cannot select, left out",
)
NO_TARGET = "instances without a usable FAIL_TO_PASS test, left out"
REMEDY = "or make a task set by `regrade tasks import`, which leaves such entries out and says so"

Name = Annotated[str, msgspec.Meta(pattern=r"^[^\0\ud800-\udfff]+\Z")]
Tests = list[str] | str


class _InstanceRow(msgspec.Struct):
    """The fields of SWE-bench and SWE-smith that a task is made of; others are ignored."""

    instance_id: Name
    repo: Name
    FAIL_TO_PASS: Tests
    PASS_TO_PASS: Tests | None = None
    base_commit: Plain | None = None
    patch: Plain | None = None
    test_patch: Plain | None = None
    problem_statement: Plain | None = None
    difficulty: Plain | None = None


class _R2ERow(msgspec.Struct):
    repo_name: Name
    commit_hash: Name
    parsed_commit_content: str
    execution_result_content: str
    problem_statement: Plain | None = None


class _FileDiff(msgspec.Struct):
    header: dict[str, Any]
    old_file_content: str = ""
    new_file_content: str = ""
    is_binary_file: bool = False

    @property
    def path(self) -> str:
        file = self.header.get("file")
        return str(file.get("path", "")) if isinstance(file, dict) else ""


class _ParsedCommit(msgspec.Struct):
    file_diffs: list[_FileDiff]


class _Execution(msgspec.Struct):
    test_file_codes: list[str]
    test_file_names: list[str]
    new_commit_res_stdout: str | None = None
    old_commit_res_stdout: str | None = None


@dataclass(frozen=True, kw_only=True)
class RowTask:
    """A row as an entry of a task file, with the base commit that the entry lacks."""

    entry: Mapping[str, Any]
    checkout: Checkout
    plants_bug: bool = False
    """Is the base patch the bug, so that its reverse is the reference?"""


def is_row(value: object) -> bool:
    """Is it a row of one of these formats, rather than a task of a task file?"""
    return isinstance(value, dict) and ("instance_id" in value or _is_r2e(value))


def _is_r2e(value: Mapping[str, Any]) -> bool:
    return {"repo_name", "parsed_commit_content"} <= value.keys()


def task_of_row(value: Mapping[str, Any], where: str, findings: Findings | None = None) -> RowTask | None:
    """The row as a task.

    Args:
        where: the file and the place in it.
        findings: receives what is odd in the lists of tests, which is then left out; None: it is an error.

    Returns:
        None, with findings only: no FAIL_TO_PASS test is usable.

    Raises:
        UserError: a value is missing or has another type, or see `findings`.
    """
    if _is_r2e(value):
        return _of_r2e(value, where, findings)
    row = converted(value, _InstanceRow, where)
    where = f"{where} ({row.instance_id})"
    own = _own(value.get(OWN), where)
    smith = SMITH_REPOSITORY.fullmatch(row.repo) if "base_commit" not in value or "image_name" in value else None
    if smith is None and not row.base_commit:
        raise UserError(f"{where}: 'base_commit' is missing: set the commit that the patches are made for")
    files = _changed(row.test_patch, "test_patch", where)
    lists = _Lists(where, findings, files)
    targets = lists.read("FAIL_TO_PASS", row.FAIL_TO_PASS)
    guards = None if row.PASS_TO_PASS is None else lists.read("PASS_TO_PASS", row.PASS_TO_PASS)
    both = set(targets) & set(guards or ())
    if both:
        raise UserError(f"{where}: {min(both)!r} is in FAIL_TO_PASS and in PASS_TO_PASS: leave it in one")
    if not targets and OWN not in value:
        _no_target(row.instance_id, where, findings)
        return None
    patch, test_patch = (text if (text or "").strip() else None for text in (row.patch, row.test_patch))
    entry = {
        "id": row.instance_id,
        "instruction": row.problem_statement or "",
        "fail_to_pass": list(targets),
        **({} if guards is None else {"pass_to_pass": list(guards)}),
        **({"difficulty": row.difficulty} if row.difficulty else {}),
        **({} if "suite" in own else {"limits": {"wall_seconds": SECONDS}}),
        "origin": {"source": SWE_SMITH if smith else SOURCE, "repository": _repository(row.repo, smith)},
        **own,
    }
    if smith:
        _changed(patch, "patch", where)
        checkout = Checkout(repository=_repository(row.repo, smith), commit=smith["commit"])
        return RowTask(entry={**entry, "base_patch": patch or ""}, checkout=checkout, plants_bug=True)
    if test_patch:
        entry["base_patch"] = test_patch
    if patch:
        entry["reference"] = patch
    return RowTask(entry=entry, checkout=Checkout(repository=row.repo, commit=row.base_commit or ""))


def _repository(repo: str, smith: re.Match[str] | None) -> str:
    return f"{smith['owner']}/{smith['name']}" if smith else repo


def _own(value: object, where: str) -> dict[str, Any]:
    """The value of the key `regrade`: an object, or JSON text of one, as in Parquet."""
    if isinstance(value, str):
        value = parse_json(value, f"{where}, {OWN}")
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise UserError(f"{where}: {OWN!r} must be a JSON object; found {shown(value)}")
    if wrong := sorted(NOT_OWN & value.keys()):
        raise UserError(f"{where}: {OWN!r} contains {wrong[0]!r}, which has a field of its own: leave it out")
    return value


def _changed(text: str | None, key: str, where: str) -> tuple[str, ...]:
    """The files that a patch of a row changes."""
    if not (text or "").strip():
        return ()
    try:
        return tuple(file.path for file in Patch(text or "").files)
    except PatchError as error:
        raise UserError(f"{where}: {key!r} is not a patch: {error}") from error


def _no_target(name: str, where: str, findings: Findings | None) -> None:
    if findings is None:
        raise UserError(f"{where}: FAIL_TO_PASS is empty: name at least one test that fails and must pass, {REMEDY}")
    findings.add(NO_TARGET, name)


class _Lists:
    """Reads lists of tests, and names or drops what is no id that pytest can select."""

    def __init__(self, where: str, findings: Findings | None, files: Sequence[str]) -> None:
        self._where = where
        self._findings = findings
        self._files = [file for file in files if file.endswith(".py")]

    def read(self, key: str, value: Tests) -> tuple[str, ...]:
        if isinstance(value, str):
            parsed = parse_json(value, f"{self._where}, {key}")
            value = converted(parsed, list[str], f"{self._where}, {key}")
        self._note(key, DOUBLED, sorted(test for test, count in Counter(value).items() if count > 1))
        distinct = list(dict.fromkeys(value))
        kept = []
        for test in distinct:
            problem = _problem(test)
            if problem == NO_FILE and len(self._files) == 1 and test.isidentifier():
                kept.append(f"{self._files[0]}::{test}")  # the format runs the files that the test patch changes
            elif problem:
                self._note(key, problem, [test])
            else:
                kept.append(test)
        return tuple(kept)

    def _note(self, key: str, problem: str, tests: Iterable[str]) -> None:
        for test in tests:
            if self._findings is None:
                kind = problem.partition(",")[0].replace("tests that are", "a test that is")
                raise UserError(f"{self._where}: {key} has {shown(test)} ({kind}): repair the list, {REMEDY}")
            self._findings.add(problem, f"{self._where}: {test}")


def _problem(test: str) -> str:
    """Why an entry is no id that pytest can select; empty: it is one."""
    if not test.strip() or test.startswith("["):
        return NO_TEST
    if test.count("[") > test.count("]"):
        return CUT
    return "" if "::" in test else NO_FILE


def _of_r2e(value: Mapping[str, Any], where: str, findings: Findings | None) -> RowTask | None:
    row = converted(value, _R2ERow, where)
    where = f"{where} ({row.repo_name} {row.commit_hash[:12]})"
    commit, execution = (
        converted(parse_json(text, f"{where}, {key}"), kind, f"{where}, {key}")
        for key, text, kind in (
            ("parsed_commit_content", row.parsed_commit_content, _ParsedCommit),
            ("execution_result_content", row.execution_result_content, _Execution),
        )
    )
    assert isinstance(commit, _ParsedCommit)
    assert isinstance(execution, _Execution)
    before, after = (
        _outcomes(log or "", execution.test_file_names)
        for log in (execution.old_commit_res_stdout, execution.new_commit_res_stdout)
    )
    passing = [test for test, passes in after.items() if passes]
    lists = _Lists(where, findings, ())
    targets = lists.read("FAIL_TO_PASS", [test for test in passing if not before.get(test, False)])
    name = f"{row.repo_name}-{row.commit_hash[:12]}"
    if not targets:
        _no_target(name, where, findings)
        return None
    files = {
        f"r2e_tests/{name}": code
        for name, code in zip(execution.test_file_names, execution.test_file_codes, strict=False)
    }
    changed = [each for each in commit.file_diffs if not each.is_binary_file and each.path and not _is_test(each.path)]
    entry = {
        "id": name,
        "instruction": (row.problem_statement or "").removeprefix("[ISSUE]").removesuffix("[/ISSUE]").strip(),
        "fail_to_pass": list(targets),
        "pass_to_pass": list(lists.read("PASS_TO_PASS", [test for test in passing if before.get(test, False)])),
        "base_patch": Patch.between({}, files).text,
        "reference": Patch.between(_texts(changed, "old_file_content"), _texts(changed, "new_file_content")).text,
        "limits": {"wall_seconds": SECONDS},
        "origin": {"source": R2E, "repository": row.repo_name},
    }
    return RowTask(entry=entry, checkout=Checkout(repository=row.repo_name, commit=row.commit_hash, is_parent=True))


def _outcomes(log: str, names: Sequence[str]) -> dict[str, bool]:
    """Test of these files -> does it pass? By the log of a run."""
    folders = tuple(f"r2e_tests/{name}::" for name in names)
    found = statuses(ESCAPES.sub("", log))
    return {test: status in PASSING for test, status in found.items() if test.startswith(folders)}


def _is_test(path: str) -> bool:
    """As R2E itself splits a commit into tests and the rest."""
    *folders, name = path.split("/")
    return (
        name.startswith("test_") or path.endswith("_test.py") or bool({"tests", "Tests", "test", "Test"} & {*folders})
    )


def _texts(files: Iterable[_FileDiff], key: str) -> dict[str, str]:
    """Path -> text; an empty text is a file that does not exist."""
    return {file.path: text for file in files if (text := getattr(file, key)) and text != "/dev/null"}
