"""Tasks as other programs can take them: an id that is a name of a folder and of an image, and tests run by pytest."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import replace

from regrade.datasets.errors import UserError
from regrade.datasets.tasks import Task

PORTABLE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,119}")
LONGEST = 80
RUNNER = "pytest"


def portable_id(name: str) -> str:
    """The id itself if it is a plain name, else a plain name made of it: the same id gives the same name."""
    if PORTABLE.fullmatch(name):
        return name
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:8]
    plain = re.sub(r"[^A-Za-z0-9_.]+", "-", name).strip("-_.")[:LONGEST]
    return f"{plain or 'task'}-{digest}"


def portable(tasks: Sequence[Task], name: str) -> list[Task]:
    """The tasks with portable ids.

    Args:
        name: of the format, for the message.

    Raises:
        UserError: there is no task, one is not run by pytest, its PASS_TO_PASS tests are unmeasured, or two get one id.
    """
    if not tasks:
        raise UserError(f"there is no task to write as {name}")
    for task in tasks:
        if task.suite.runner != RUNNER:
            raise UserError(
                f"task {task.id!r} is run by {task.suite.runner}, and {name} is written for pytest: leave it out"
            )
        if task.is_unmeasured:
            raise UserError(f"task {task.id!r} has unmeasured PASS_TO_PASS tests: measure them by `with_pass_to_pass`")
        _check_text(task)
    made = [replace(task, id=portable_id(task.id)) for task in tasks]
    seen: dict[str, str] = {}
    for task, original in zip(made, tasks, strict=True):
        before = seen.setdefault(task.id.lower(), original.id)  # images and some disks know no case
        if before != original.id:
            raise UserError(f"the tasks {before!r} and {original.id!r} both become {task.id!r}: rename one")
    return made


def _check_text(task: Task) -> None:
    """Raises UserError: a text of the task is not UTF-8, as a patch of a file in another encoding is."""
    texts = {"instruction": task.instruction, "reference": task.reference.text if task.reference else ""}
    for key, text in texts.items():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise UserError(
                f"task {task.id!r}: its {key} is not UTF-8 text, which the format needs: leave it out"
            ) from error
