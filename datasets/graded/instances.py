"""Files of instances, as SWE-bench publishes them: the lists of tests, and which instances there are."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regrade.datasets.errors import UserError
from regrade.datasets.graded.documents import documents
from regrade.datasets.graded.records import Findings

ID_KEYS = ("instance_id", "id", "task")
REPOSITORY_KEYS = ("repo", "repository")


@dataclass(frozen=True, kw_only=True)
class Instance:
    """An instance of a benchmark."""

    id: str
    repository: str = ""
    fail_to_pass: tuple[str, ...] | None = None
    pass_to_pass: tuple[str, ...] | None = None
    """None: the file names no list."""
    statement: str = ""
    patch: str = ""


def read_instances(paths: Iterable[Path], findings: Findings) -> dict[str, Instance]:
    """Instance id -> the instance.

    Raises:
        UserError: a file has no instances, or two that differ under one id.
    """
    found: dict[str, Instance] = {}
    for path in paths:
        before = len(found)
        for document in documents(path, findings):
            rows = document.rows() if document.kind in ("json", "lines") else document.table()
            for row in rows:
                instance = _instance(row)
                if instance is None:
                    continue
                if found.setdefault(instance.id, instance) != instance:
                    raise UserError(f"{path}: the instance {instance.id!r} occurs twice, and differs: leave one")
        if len(found) == before:
            raise UserError(f"{path}: no instances; give JSON lines with instance_id, FAIL_TO_PASS and PASS_TO_PASS")
    _note_odd_ids(found.values(), findings)
    return found


def _instance(row: Mapping[str, Any]) -> Instance | None:
    name = next((row[key] for key in ID_KEYS if isinstance(row.get(key), str) and row[key]), None)
    if name is None:
        return None
    lower = {key.lower(): value for key, value in row.items()}
    return Instance(
        id=name,
        repository=next((row[key] for key in REPOSITORY_KEYS if isinstance(row.get(key), str)), ""),
        fail_to_pass=_tests(lower.get("fail_to_pass")),
        pass_to_pass=_tests(lower.get("pass_to_pass")),
        statement=str(lower.get("problem_statement") or lower.get("instruction") or ""),
        patch=str(lower.get("patch") or lower.get("reference") or ""),
    )


def _tests(value: object) -> tuple[str, ...] | None:
    """A list of tests, or JSON text of one; None if it is neither."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return None
    return tuple(dict.fromkeys(map(str, value))) if isinstance(value, list) else None


def _note_odd_ids(instances: Iterable[Instance], findings: Findings) -> None:
    for instance in instances:
        for test in (*(instance.fail_to_pass or ()), *(instance.pass_to_pass or ())):
            if test.count("[") > test.count("]") or test.startswith("["):
                findings.add("test ids that are cut off or none", f"{instance.id}: {test}")
        if instance.fail_to_pass == ():
            findings.add("instances without FAIL_TO_PASS tests: they cannot show a fix", instance.id)
        if instance.pass_to_pass == ():
            findings.add("instances without PASS_TO_PASS tests: their breakage is unmeasured", instance.id)
