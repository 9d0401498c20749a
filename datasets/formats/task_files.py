"""The user's own tasks: a JSON file (one task, or a list of them) or a JSON Lines file (one task a line).

Keys of a task:

    instruction    the problem, in words
    fail_to_pass   ids of the tests that fail and must pass
    repository     folder of the repository, relative to the task file; or, instead of it,
    package        name of a pinned package (`regrade.datasets.mutation.packages`), which is fetched
  and, all of them optional,
    id             default: FILE:NUMBER
    base_patch     unified diff from the folder to the task's base
    pass_to_pass   ids of the tests that must still pass; default: all tests that pass at the base in every run, which
                   are measured; []: no test is guarded
    reference      unified diff, a patch known to be correct
    failure        the message of one failing test
    difficulty     the author's estimate, in a word or two: results are sliced by it
    target         {"file", "function", "first_line", "last_line"}: the place of the bug in the base
    shown          {"tests": ids or files of the tests that an agent may run and read, "names_failing_tests": is it told
                   the FAIL_TO_PASS tests among them}; default: all, and told
    python_path, paths, options   for pytest: folders on sys.path; files and folders to collect; further options
    requirements   pinned requirements of the environment; default: those of the package, or the current interpreter
    image          {"name", "workdir", "user", "activate", "setup", "command", "reader", "environment"}: the Docker
                   image that the tests run in, in place of requirements; without 'repository', the files at its
                   'workdir' are the repository
    limits         {"wall_seconds", "memory_mb", "processes", "file_mb"}
    suite          file of measured tests, relative to the task file (`regrade.datasets.formats.measured_suites`), which
                   many tasks share: how to run the tests, requirements, limits, and the tests that must still pass
    assurance      least assurance level of a verdict that pays: tripwired, out-of-process or held-out
    split          name of the task's split
    wrong_fix      unified diff, a patch that passes the shown tests and breaks others
    origin         {"source", "kind", "repository", ...}: how the task was made

Rows of SWE-bench, SWE-smith and R2E are read too (`swe_bench.py`), and folders of Harbor tasks (`harbor.py`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from msgspec import UNSET

from regrade.datasets.catalogue import CatalogueEntry, entry_of
from regrade.datasets.errors import UserError
from regrade.datasets.formats.checkouts import Clones
from regrade.datasets.formats.harbor import harbor_entries
from regrade.datasets.formats.swe_bench import RowTask, is_row, task_of_row
from regrade.datasets.formats.task_construction import Suites, patch_of, repository_of, task_of_entry, task_of_suite
from regrade.datasets.formats.task_entries import TaskEntry
from regrade.datasets.formats.task_rows import task_rows
from regrade.datasets.formats.task_sets import patch_from
from regrade.datasets.graded.records import Findings
from regrade.datasets.json_structs import converted
from regrade.datasets.mutation.packages import Package, package
from regrade.datasets.patches import Patch
from regrade.datasets.tasks import Task


@dataclass(frozen=True)
class _Listed:
    """A task of a file."""

    entry: TaskEntry
    where: str
    """The file and the place in it."""
    row: RowTask | None = None
    """Where the base comes from, if the file names a commit."""


CLONES = "repositories"
"""The folder of clones, beside a file of rows that name a commit."""


def read_task_file(
    path: Path,
    cache: Path | None = None,
    split: str | None = None,
    *,
    repositories: Path | None = None,
    findings: Findings | None = None,
) -> list[Task]:
    """The tasks of a file, of a folder of Harbor tasks, or of one of their splits, in order.

    Args:
        repositories: clones, for rows that name a commit: see `Clones`; None: the folder `repositories` beside
            the file.
        findings: receives what is odd in the lists of tests of such rows, which is then left out; None: it is an error.

    Raises:
        UserError: the file is unreadable or wrong, or has no such split; with the line, the key and the remedy.
    """
    reader = _TaskReader(path, cache, repositories)
    tasks = [reader.task(each) for each in _chosen(path, split, findings)]
    _check_ids([task.id for task in tasks], path)
    return tasks


def read_wrong_fixes(path: Path, split: str | None = None) -> dict[str, Patch]:
    """Id -> wrong fix, of the tasks that have one. Raises UserError as `read_task_file`."""
    found = {}
    for each in _chosen(path, split):
        if (patch := patch_of(each.entry.wrong_fix, "wrong_fix", each.where)) is not None:
            found[each.entry.id] = patch
    return found


def _chosen(path: Path, split: str | None, findings: Findings | None = None) -> list[_Listed]:
    """The tasks of a split. Raises UserError if the file has no such split."""
    tasks = list(_listed(path, findings))
    if split is None:
        return tasks
    names = sorted({each.entry.split for each in tasks} - {""})
    if not names:
        raise UserError(f"{path} is a task file, which has no splits: omit the split {split!r}")
    if split not in names:
        raise UserError(f"{path} has no task in the split {split!r}: choose from {', '.join(names)}")
    return [each for each in tasks if each.entry.split == split]


def split_names_of_file(path: Path) -> tuple[str, ...]:
    """The names of the splits in a task file, sorted; empty if its tasks have none. Raises UserError as
    `read_task_file`."""
    return tuple(sorted({each.entry.split for each in _listed(path, None)} - {""}))


def list_task_file(path: Path, split: str | None = None) -> list[CatalogueEntry]:
    """The tasks of a file, in its order; neither packages nor clones are read. Raises UserError as `read_task_file`."""
    reader = _TaskReader(path, None, None)
    listed = [_catalogued(each, reader) for each in _chosen(path, split)]
    _check_ids([task.id for task in listed], path)
    return listed


def _check_ids(ids: Sequence[str], path: Path) -> None:
    if not ids:
        raise UserError(f"{path} contains no task; a task needs the keys instruction, fail_to_pass and repository")
    twice = next((each for each, count in Counter(ids).items() if count > 1), None)
    if twice is not None:
        raise UserError(f"{path}: the id {twice!r} occurs twice; ids must be unique")


def _catalogued(each: _Listed, reader: _TaskReader) -> CatalogueEntry:
    """An entry of the list; an image that holds the files of a task is not opened."""
    entry = each.entry
    is_in_image = entry.image is not UNSET and entry.repository is UNSET and entry.package is UNSET
    if each.row is None and not is_in_image and (entry.package is UNSET or entry.repository is not UNSET):
        return entry_of(reader.task(each))
    origin = entry.origin
    if entry.image is not UNSET and is_in_image:
        repository = entry.image.name
    else:
        repository = package(entry.package).name if entry.package is not UNSET else str(origin.repository)
    return CatalogueEntry(
        id=entry.id,
        repository=repository,
        source=origin.source,
        file=None if entry.target is UNSET else entry.target.file,
        function=None if entry.target is UNSET else entry.target.function,
        fail_to_pass=len(entry.fail_to_pass),
        pass_to_pass=0 if entry.pass_to_pass is UNSET else len(entry.pass_to_pass),
    )


def _listed(path: Path, findings: Findings | None) -> Iterator[_Listed]:
    if path.is_dir():
        for value, where in harbor_entries(path):
            yield _Listed(converted(value, TaskEntry, where), where)
        return
    for value, number, where in task_rows(path):
        if not is_row(value):
            with_id = {"id": f"{path.name}:{number}", **value} if isinstance(value, dict) else value
            yield _Listed(converted(with_id, TaskEntry, where), where)
        elif (row := task_of_row(value, where, findings)) is not None:
            named = f"{where} ({row.entry['id']})"
            yield _Listed(converted(row.entry, TaskEntry, named), named, row)


class _TaskReader:
    """Makes the tasks of one file."""

    def __init__(self, path: Path, cache: Path | None, clones: Path | None) -> None:
        self._folder = path if path.is_dir() else path.parent
        self._cache = cache
        self._suites = Suites(self._folder)
        advice = (
            f"clone it into {self._folder / CLONES / 'OWNER__NAME'}, or name the folder of your clones with "
            "`repositories=FOLDER` (of `regrade tasks import`)"
        )
        self._clones = Clones(clones or self._folder / CLONES, cache, "" if clones else advice)

    def task(self, each: _Listed) -> Task:
        """Raises UserError: see `read_task_file`."""
        if each.row is None:
            pinned, root = repository_of(each.entry, each.where, self._folder, self._cache)
            return self._task(each, pinned, root)
        task = self._task(each, None, self._clones.export(each.row.checkout, each.where))
        return replace(task, reference=patch_from(task)) if each.row.plants_bug else task

    def _task(self, each: _Listed, pinned: Package | None, root: Path) -> Task:
        if each.entry.suite is not UNSET:
            return task_of_suite(each.entry, each.where, root, self._suites)
        return task_of_entry(each.entry, each.where, pinned, self._suites.tree(root))
