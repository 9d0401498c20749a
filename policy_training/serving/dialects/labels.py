"""The id of the task in the label of a data set's row."""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.exceptions import HTTPException

KEYS = ("task_id", "instance_id")


def task_id_of(label: Any) -> str:
    """The label itself, or the `task_id` (or `instance_id`) of a label that is an object, or JSON of one.

    Raises:
        HTTPException: it names no task.
    """
    content = label
    if isinstance(label, str) and label.lstrip().startswith("{"):
        try:
            content = msgspec.json.decode(label)
        except (msgspec.DecodeError, RecursionError):
            content = label
    if isinstance(content, dict):
        content = next((content[key] for key in KEYS if isinstance(content.get(key), str)), None)
    if not isinstance(content, str) or not content:
        raise HTTPException(
            422, f"the label {label!r:.200} names no task: it must be the id of a task, or an object with {KEYS[0]!r}"
        )
    return content
