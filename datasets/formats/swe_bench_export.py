"""Writes tasks as SWE-bench instances (v5), in a folder that has all that they need:

    instances.jsonl             one instance a line; or instances.parquet, instances.json
    repositories/NAME.git       bare git repositories: a branch with one commit for each `base_commit`
    suites/NAME.json            measured tests (see `measured_suites.py`), named by the key `regrade` of an instance
    images/NAME.Dockerfile      the environment of a suite; the README has the command that builds an `image`
    README.md

If all files that a base changes are tests, they are the `test_patch`, as in SWE-bench; else the tests are part of the
base commit and `test_patch` is empty. Reading the folder and writing it again gives the same bytes.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from regrade.datasets.errors import UserError
from regrade.datasets.formats.base_commits import write_base_commits
from regrade.datasets.formats.dockerfiles import (
    WORKDIR,
    protected_paths,
    pytest_arguments,
    python_environment,
    variables_of_tests,
)
from regrade.datasets.formats.portable_tasks import portable
from regrade.datasets.formats.swe_bench import OWN
from regrade.datasets.formats.task_sets import (
    SetTask,
    SuiteFiles,
    described,
    patch_to,
    plain_name,
)
from regrade.datasets.output_folders import check_parts, completed_folder
from regrade.datasets.patches import Patch
from regrade.datasets.tasks import Task, Tree

INSTANCES = "instances"
CLONES, IMAGES = "repositories", "images"
FileType = Literal["jsonl", "json", "parquet"]
FORMS: tuple[FileType, ...] = ("jsonl", "json", "parquet")
PARTS = (*(f"{INSTANCES}.{form}" for form in FORMS), CLONES, IMAGES, "suites", "README.md")
MARKERS = (": '>>>>> Start Test Output'", ": '>>>>> End Test Output'")
"""Of SWE-bench: it reads what the tests print between these lines of the trace."""
DELIMITER = "EOF_114329324912"
PARSER, EVALUATION = "parse_log_pytest", "pass_and_fail"
MOST_ARGUMENTS = 100_000
"""Characters of one command."""


@dataclass(frozen=True)
class ExportedInstances:
    """What was written."""

    folder: Path
    instances: int
    without_space: int
    """Tests whose id contains a space. SWE-bench's parser cuts ids there, so they are in the key `regrade` alone."""


def write_swe_bench(folder: Path, tasks: Sequence[Task], form: FileType = "jsonl") -> ExportedInstances:
    """Write tasks as instances, in place of those that are there. The same tasks give the same bytes.

    Args:
        tasks: with measured PASS_TO_PASS tests, run by pytest.

    Raises:
        UserError: the folder holds other things, a task cannot be written in this format, or a package is missing.
        OSError: the disk is full, for example; what was there before is then unchanged.
    """
    check_parts(folder, PARTS, "folder of instances")
    writer = _InstanceWriter(portable(tasks, "SWE-bench instances"))
    with completed_folder(folder) as made:
        rows = writer.rows(made)
        _write_rows(made / f"{INSTANCES}.{form}", rows, form)
        (made / "README.md").write_text(_readme(rows, form), "utf-8")
    return ExportedInstances(folder, len(rows), writer.without_space)


def _write_rows(path: Path, rows: Sequence[dict[str, Any]], form: FileType) -> None:
    if form == "parquet":
        try:
            import pyarrow
            import pyarrow.parquet as parquet
        except ImportError as error:
            raise UserError(
                "Parquet needs pyarrow: run pip install '.[parquet]' in the checkout of Regrade, or write jsonl"
            ) from error
        flat = [{**row, OWN: json.dumps(row[OWN], ensure_ascii=True)} for row in rows]
        parquet.write_table(pyarrow.Table.from_pylist(flat), path)
        return
    lines = [json.dumps(row, ensure_ascii=True) for row in rows]
    text = "".join(f"{line}\n" for line in lines) if form == "jsonl" else "[\n" + ",\n".join(lines) + "\n]\n"
    path.write_text(text, "utf-8")


class _InstanceWriter:
    def __init__(self, tasks: Sequence[Task]) -> None:
        self._tasks = tasks
        self.without_space = 0

    def rows(self, folder: Path) -> list[dict[str, Any]]:
        """Write everything but the instances, and return them."""
        suites = SuiteFiles(folder)
        patches = {task.id: _test_patch(task) for task in self._tasks}
        commits = self._commits(folder, patches)
        (folder / IMAGES).mkdir()
        rows = []
        for task in self._tasks:
            suite = suites.name_of(SetTask(task))
            rows.append(self._row(task, suite, patches[task.id], commits[task.id]))
            image = folder / IMAGES / f"{Path(suite).stem}.Dockerfile"
            if not image.exists():
                image.write_text(_dockerfile(task), "utf-8")
        return rows

    def _commits(self, folder: Path, patches: dict[str, Patch]) -> dict[str, str]:
        groups: dict[str, dict[str, Tree]] = {}
        for task in self._tasks:
            base = Tree(task.base.root, known=task.base.known) if patches[task.id].text else task.base
            groups.setdefault(_repo(task), {})[task.id] = base
        commits: dict[str, str] = {}
        for repo, bases in groups.items():
            commits.update(write_base_commits(folder / CLONES / f"{plain_name(repo)}.git", bases))
        return commits

    def _row(self, task: Task, suite: str, test_patch: Patch, commit: str) -> dict[str, Any]:
        own = {"suite": suite, **described(SetTask(task))}
        lists = {"fail_to_pass": task.fail_to_pass, "pass_to_pass": task.pass_to_pass}
        plain = {key: [test for test in tests if not _has_space(test)] for key, tests in lists.items()}
        for key, tests in lists.items():
            if len(plain[key]) < len(tests):
                own[key] = list(tests)
                self.without_space += len(tests) - len(plain[key])
        return {
            "repo": _repo(task),
            "instance_id": task.id,
            "base_commit": commit,
            "patch": task.reference.text if task.reference is not None else "",
            "test_patch": test_patch.text,
            "problem_statement": task.instruction,
            "hints_text": "",
            "created_at": "",
            "version": "",
            "FAIL_TO_PASS": plain["fail_to_pass"],
            "PASS_TO_PASS": plain["pass_to_pass"],
            "environment_setup_commit": commit,
            "image": f"regrade/{task.id.lower()}:latest",
            "eval_script": _eval_script(task, commit, test_patch),
            "log_parser": PARSER,
            "eval_type": EVALUATION,
            OWN: own,
        }


def _repo(task: Task) -> str:
    """`owner/name`; a name alone is its own owner."""
    owner, slash, name = task.repository.partition("/")
    return task.repository if slash and owner and name else f"{task.repository}/{task.repository}"


def _test_patch(task: Task) -> Patch:
    """What the base changes in the task's folder, if it changes tests alone; else empty."""
    patch = patch_to(task)
    return patch if all(task.suite.protects(file.path) for file in patch.files) else Patch("")


def _has_space(test: str) -> bool:
    return any(character.isspace() for character in test)


def _eval_script(task: Task, commit: str, test_patch: Patch) -> str:
    """As SWE-bench's harness runs it: the tests of the base, their outcomes between markers, the tests of the base."""
    added = {file.path for file in test_patch.files if file.old_path is None}
    restored = _restore(commit, [path for path in protected_paths(task) if path not in added])
    applied = [f"git apply -v - <<'{DELIMITER}'", test_patch.text.rstrip("\n"), DELIMITER] if test_patch.text else []
    variables = " ".join(f"{key}={shlex.quote(value)}" for key, value in variables_of_tests(task).items())
    lines = [
        "#!/bin/bash",
        "set -uxo pipefail",
        f"cd {WORKDIR}",
        f"git config --global --add safe.directory {WORKDIR}",
        "git status",
        *restored,
        *applied,
        MARKERS[0],
        f"{variables} python -m pytest -rA {shlex.join(pytest_arguments(task))}",
        MARKERS[1],
        *restored,
    ]
    return "\n".join(lines) + "\n"


def _restore(commit: str, paths: Sequence[str]) -> list[str]:
    """Commands that restore files, each short enough for a shell."""
    commands, line = [], ""
    for path in map(shlex.quote, paths):
        if line and len(line) + len(path) > MOST_ARGUMENTS:
            commands.append(line)
            line = ""
        line = f"{line or f'git checkout {commit} --'} {path}"
    return [*commands, *([line] if line else [])]


def _dockerfile(task: Task) -> str:
    steps = (
        "ARG REPOSITORY",
        "ARG INSTANCE",
        "COPY repositories/${REPOSITORY}.git /tmp/repository.git",
        f"RUN git clone --quiet --no-local --single-branch --branch ${{INSTANCE}} /tmp/repository.git {WORKDIR} \\",
        f"    && git -C {WORKDIR} remote remove origin && rm -rf /tmp/repository.git",
    )
    return python_environment(task.requirements, f"task {task.id!r}").dockerfile(steps)


def _readme(rows: Sequence[dict[str, Any]], form: FileType) -> str:
    first = rows[0]
    image = f"{IMAGES}/{Path(first[OWN]['suite']).stem}.Dockerfile"
    return f"""# SWE-bench instances

{len(rows)} instances (v5) in `{INSTANCES}.{form}`. Each `base_commit` is a commit without history in
`{CLONES}/`. The key `{OWN}` holds what the format has no field for; SWE-bench ignores it.

Build the image of an instance in this folder. The Dockerfile has the name of the suite in its key `{OWN}`:

```sh
docker build --file {image} --build-arg REPOSITORY={plain_name(first["repo"])} \\
  --build-arg INSTANCE={first["instance_id"]} --tag {first["image"]} .
```
"""
