"""The user's own tasks: a JSON file (one task, or a list of them) or a JSON Lines file (one task a line).

Keys of a task:

    instruction    what is wanted, in words
    fail_to_pass   ids of the tests that fail and must pass
    repository     folder of the repository, relative to the task file; or, instead of it,
    package        name of one of the pinned packages (`regrade.datasets.mutation.packages`), which is fetched
  and, all of them optional,
    id             default: FILE:NUMBER
    base_patch     unified diff that turns the folder into the task's base
    pass_to_pass   ids of the tests that must keep passing; default: none is guarded
    reference      unified diff, the known good patch
    failure        what one failing test shows
    difficulty     how hard it is, in a word or two: results are sliced by it
    target         {"file", "function", "first_line", "last_line"}: where the bug lies in the base
    python_path, paths, options   how pytest is run (folders put on sys.path; what to collect; further options)
    requirements   pinned requirements of the environment; default: the package's, or the running interpreter
    limits         {"wall_seconds", "memory_mb", "processes", "file_mb"}
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from regrade.datasets.applying import DOES_NOT_APPLY, apply_patch
from regrade.datasets.errors import UserError
from regrade.datasets.json_fields import Fields, parse_json, read_text, shown
from regrade.datasets.mutation.packages import Package, fetch, package
from regrade.datasets.patches import Patch, PatchError
from regrade.datasets.tasks import Limits, Target, Task, TestSuite, Tree

KEYS = frozenset(
    {
        "id",
        "repository",
        "package",
        "base_patch",
        "instruction",
        "fail_to_pass",
        "pass_to_pass",
        "reference",
        "failure",
        "difficulty",
        "target",
        "python_path",
        "paths",
        "options",
        "requirements",
        "limits",
    }
)


def read_task_file(path: Path, cache: Path | None = None) -> list[Task]:
    """The tasks of a file, in its order.

    Raises:
        UserError: the file is unreadable or wrong, with the line, the key and what to do.
    """
    tasks = [_task(fields, f"{path.name}:{number}", path.parent, cache) for number, fields in _entries(path)]
    if not tasks:
        raise UserError(f"{path} holds no task; a task has at least the keys instruction, fail_to_pass and repository")
    seen: set[str] = set()
    for task in tasks:
        if task.id in seen:
            raise UserError(f"{path}: the id {task.id!r} occurs twice; give every task an id of its own")
        seen.add(task.id)
    return tasks


def _entries(path: Path) -> Iterator[tuple[int, Fields]]:
    """(line number in JSON Lines, else number in the list; the task's fields)."""
    text = read_text(path)
    if path.suffix == ".jsonl":
        for number, line in enumerate(text.split("\n"), start=1):
            if line.strip():
                yield number, Fields(parse_json(line, str(path), number), f"{path}:{number}")
        return
    value = parse_json(text, str(path))
    for number, entry in enumerate(value if isinstance(value, list) else [value], start=1):
        yield number, Fields(entry, f"{path}, task {number}")


def _task(fields: Fields, default_id: str, folder: Path, cache: Path | None) -> Task:
    fields.only(KEYS)
    pinned, root = _repository(fields, folder, cache)
    fail_to_pass = fields.texts("fail_to_pass")
    pass_to_pass = fields.texts("pass_to_pass", ())
    if not fail_to_pass:
        raise UserError(f"{fields.where}: 'fail_to_pass' is empty; name at least one test that fails and must pass")
    if both := set(fail_to_pass) & set(pass_to_pass):
        raise UserError(f"{fields.where}: {min(both)!r} is in 'fail_to_pass' and in 'pass_to_pass': leave it in one")
    base = _base(fields, Tree(root))
    return Task(
        id=fields.text("id", default_id),
        repository=pinned.name if pinned else root.name,
        base=base,
        instruction=fields.text("instruction"),
        fail_to_pass=fail_to_pass,
        pass_to_pass=pass_to_pass,
        suite=_suite(fields, pinned),
        requirements=fields.texts("requirements", pinned.requirements if pinned else ()),
        limits=_limits(fields),
        target=_target(fields, base),
        failure=fields.text("failure", ""),
        reference=_patch(fields, "reference"),
        difficulty=fields.text("difficulty", ""),
    )


def _repository(fields: Fields, folder: Path, cache: Path | None) -> tuple[Package | None, Path]:
    if ("repository" in fields.values) == ("package" in fields.values):
        raise UserError(f"{fields.where}: give either 'repository' (a folder) or 'package' (a pinned package's name)")
    if "package" in fields.values:
        pinned = package(fields.text("package"))
        return pinned, fetch(pinned, cache)
    root = (folder / fields.text("repository")).resolve()
    try:
        is_folder = root.is_dir()
    except OSError:  # a name too long to be one
        is_folder = False
    if not is_folder:
        raise UserError(
            f"{fields.where}: 'repository' is {shown(fields.text('repository'))}, but {shown(str(root))} is no folder: "
            "give one, relative to the task file"
        )
    return None, root


def _base(fields: Fields, pristine: Tree) -> Tree:
    patch = _patch(fields, "base_patch")
    if patch is None:
        return pristine
    try:
        return apply_patch(pristine, patch)
    except PatchError as error:
        why = str(error).removeprefix(DOES_NOT_APPLY)
        raise UserError(f"{fields.where}: 'base_patch' does not apply to {pristine.root}: {why}") from error
    except FileNotFoundError as error:
        raise UserError(
            f"{fields.where}: 'base_patch' is applied by git, which is not installed: install it"
        ) from error


def _patch(fields: Fields, key: str) -> Patch | None:
    if key not in fields.values:
        return None
    patch = Patch(fields.text(key))
    try:
        found = patch.files
    except PatchError as error:
        raise UserError(f"{fields.where}: {key!r} is no patch: {error}") from error
    if not found:
        raise UserError(f"{fields.where}: {key!r} changes nothing; leave the key out or give a unified diff")
    return patch


def _suite(fields: Fields, pinned: Package | None) -> TestSuite:
    default = pinned or TestSuite()
    return TestSuite(
        python_path=fields.texts("python_path", default.python_path),
        paths=fields.texts("paths", default.paths),
        options=fields.texts("options", default.options),
    )


def _limits(fields: Fields) -> Limits:
    given = fields.object("limits")
    if given is None:
        return Limits()
    given.only({"wall_seconds", "memory_mb", "processes", "file_mb"})
    usual = Limits()
    return Limits(
        given.number("wall_seconds", usual.wall_seconds),
        given.integer("memory_mb", usual.memory_mb),
        given.integer("processes", usual.processes),
        given.integer("file_mb", usual.file_mb),
    )


def _target(fields: Fields, base: Tree) -> Target | None:
    given = fields.object("target")
    if given is None:
        return None
    given.only({"file", "function", "first_line", "last_line"})
    target = Target(given.text("file"), given.text("function"), given.integer("first_line"), given.integer("last_line"))
    if target.file not in base.paths():
        raise UserError(f"{given.where}: the base has no file {target.file!r}; give a path relative to the repository")
    lines = base.read(target.file).count("\n") + 1
    if not target.first_line <= target.last_line <= lines:
        raise UserError(
            f"{given.where}: lines {target.first_line} to {target.last_line} are not in {target.file!r}, "
            f"which has {lines} lines: count from 1, in the base"
        )
    return target
