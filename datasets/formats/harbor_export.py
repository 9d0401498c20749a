"""Writes tasks as folders of Harbor tasks (schema 1.4), one folder a task:

    instruction.md                      the instruction
    task.toml                           name, limits, and where the task comes from
    environment/Dockerfile, repository/ the base, without history
    solution/solve.sh, reference.patch  applies the reference; missing if there is none
    tests/test.sh, verify.py            grade: see `harbor_verifier.py`
    tests/base/                         the tests of the base, which the verifier restores
    tests/verifier.json                 what it runs
    tests/task.json, suite.json         what Harbor has no field for: read by `harbor.py`

Harbor copies `tests/` and `solution/` into the container when it grades or solves, so an agent sees neither. Reading
the folders and writing them again gives the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from regrade.datasets.errors import UserError
from regrade.datasets.formats import harbor_verifier
from regrade.datasets.formats.base_commits import content_of, is_executable
from regrade.datasets.formats.dockerfiles import (
    WORKDIR,
    protected_paths,
    pytest_arguments,
    python_environment,
    variables_of_tests,
)
from regrade.datasets.formats.harbor import (
    CONFIGURATION,
    ENTRY,
    INSTRUCTION,
    PLACE,
    REFERENCE,
    REPOSITORY,
    SUITE,
    is_harbor,
)
from regrade.datasets.formats.portable_tasks import portable
from regrade.datasets.formats.task_sets import SetTask, described, measured_suite_of
from regrade.datasets.globs import regex_of
from regrade.datasets.output_folders import completed_folder
from regrade.datasets.tasks import Task, Tree

SCHEMA, ORGANISATION = "1.4", "regrade"
STORAGE_MB = 10_240
SHORTEST = 600.0
"""Seconds of Harbor's own default limit of a verifier."""
GIT = "git -c user.name=Regrade -c user.email=regrade@invalid"


def write_harbor(folder: Path, tasks: Sequence[Task]) -> list[Path]:
    """Write tasks as Harbor tasks, in place of those that are there. The same tasks give the same bytes.

    Args:
        tasks: with measured PASS_TO_PASS tests, run by pytest.

    Returns:
        The folder of each task.

    Raises:
        UserError: the folder holds other things, or a task cannot be written in this format.
        OSError: the disk is full, for example; what was there before is then unchanged.
    """
    _check_writable(folder)
    made_tasks = portable(tasks, "Harbor tasks")
    with completed_folder(folder) as made:
        for task in made_tasks:
            _write_task(made / task.id, task)
    return [folder / task.id for task in made_tasks]


def _check_writable(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file: pass a new folder")
    other = next((path for path in sorted(folder.glob("*")) if not is_harbor(path)), None)
    if other is not None:
        raise UserError(f"{folder} contains {other.name!r}, which is no Harbor task: pass a new folder")


def _write_task(folder: Path, task: Task) -> None:
    environment = python_environment(task.requirements, f"task {task.id!r}")
    steps = (
        f"COPY repository {WORKDIR}",
        f"RUN git init --quiet && git add --all --force && {GIT} commit --quiet --message Base",
    )
    texts = {
        CONFIGURATION: _configuration(task),
        INSTRUCTION: task.instruction + PLACE,
        "environment/Dockerfile": environment.dockerfile(steps),
        "tests/verify.py": Path(harbor_verifier.__file__).read_text("utf-8"),
        "tests/verifier.json": json.dumps(_settings(task), indent=1) + "\n",
        ENTRY: json.dumps(_entry(task), indent=1) + "\n",
        SUITE: measured_suite_of(SetTask(task)).text,
    }
    if task.reference is not None:
        texts[REFERENCE] = task.reference.text
    for path, text in texts.items():
        _write(folder / path, text.encode())
    script = "#!/bin/bash\nset -euo pipefail\n"
    _write(
        folder / "tests/test.sh",
        f'#!/bin/bash\nexec python -I "$(dirname "$0")/verify.py" {WORKDIR} /logs/verifier\n'.encode(),
        is_program=True,
    )
    if task.reference is not None:
        apply = f'git -C {WORKDIR} apply "$(cd "$(dirname "$0")" && pwd)/reference.patch"\n'
        _write(folder / "solution/solve.sh", (script + apply).encode(), is_program=True)
    _copy(task.base, task.base.paths(), folder / REPOSITORY)
    _copy(task.base, protected_paths(task), folder / "tests/base")


def _write(path: Path, content: bytes, *, is_program: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    path.chmod(0o755 if is_program else 0o644)


def _copy(tree: Tree, paths: Sequence[str], folder: Path) -> None:
    for path in paths:
        _write(folder / path, content_of(tree, path), is_program=is_executable(tree, path))


def _entry(task: Task) -> dict[str, Any]:
    return {
        "id": task.id,
        "fail_to_pass": list(task.fail_to_pass),
        "pass_to_pass": list(task.pass_to_pass),
        **described(SetTask(task)),
    }


def _settings(task: Task) -> dict[str, Any]:
    suite = task.suite
    environment = variables_of_tests(task)
    del environment["PYTHONPATH"]  # made from the folders
    return {
        "fail_to_pass": list(task.fail_to_pass),
        "pass_to_pass": list(task.pass_to_pass),
        "arguments": pytest_arguments(task),
        "python_path": list(suite.python_path),
        "environment": environment,
        "protected": {"pattern": regex_of(suite.protected), "exempt": sorted(suite.product_files)},
        "seconds": _seconds(task),
    }


def _seconds(task: Task) -> float:
    """Limit of a run in a container: it starts cold, and runs all tests."""
    return 2 * task.limits.wall_seconds + 60


def _configuration(task: Task) -> str:
    metadata = {"source": task.source, "kind": task.kind, "repository": task.repository, "difficulty": task.difficulty}
    tables: dict[str, Mapping[str, Any]] = {
        "": {"schema_version": SCHEMA},
        "task": {
            "name": f"{ORGANISATION}/{task.id}",
            "description": f"{len(task.fail_to_pass)} FAIL_TO_PASS and {len(task.pass_to_pass)} PASS_TO_PASS tests of "
            f"{task.repository}",
            "keywords": ["regrade"],
        },
        "metadata": {key: value for key, value in metadata.items() if value},
        "verifier": {"timeout_sec": max(SHORTEST, _seconds(task) + 60)},
        "environment": {"memory_mb": task.limits.memory_mb, "storage_mb": STORAGE_MB, "workdir": WORKDIR},
    }
    return "\n".join(
        "".join([f"[{name}]\n" if name else "", *(f"{key} = {_toml(value)}\n" for key, value in table.items())])
        for name, table in tables.items()
    )


def _toml(value: Any) -> str:
    """A number, a text or a list of texts: JSON is TOML then, but for the escapes of surrogate pairs and of DEL."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
