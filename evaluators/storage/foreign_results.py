"""Are these files graded results of another program? They are no rows, but `regrade import` reads them."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

KEYS = frozenset(
    {
        "instance_id", "tests_status", "resolved", "resolved_ids", "resolved_instances", "patch_successfully_applied",
        "model_patch", "model_name_or_path", "test_result", "trial_name", "verifier_result", "trial_results",
    }
)  # fmt: skip
"""Keys of reports, summaries, predictions and jobs of SWE-bench, SWE-smith, OpenHands and Harbor."""
ID = "instance_id"
PREDICTION_KEYS = frozenset({ID, "model_patch", "model_name_or_path"})
NAMES = frozenset({"report.json", "results.json", "result.json", "preds.json", "run_instance.log", "test_output.txt"})
ENDINGS = (".eval", ".eval.log", ".csv", ".tsv")
MOST_FILES = 5000
"""Files of a folder that are looked at."""
LONGEST = 64 << 20
"""Bytes of a file that is parsed."""


def is_graded(source: Path) -> bool:
    """Is it a file of graded results, or a folder with any? A guess from names and keys: nothing is graded here."""
    if source.is_dir():
        files = (path for path in itertools.islice(source.rglob("*"), MOST_FILES) if path.is_file())
        return any(_has_graded_name(path) or (path.suffix in (".json", ".jsonl") and _has_keys(path)) for path in files)
    return source.name.endswith(ENDINGS) or _has_keys(source)


def is_report(path: Path) -> bool:
    """Is it a file of outcomes, in contrast to one of predictions?"""
    return path.is_file() and _has_keys(path, KEYS - PREDICTION_KEYS) and not _has_keys(path, PREDICTION_KEYS - {ID})


def _has_graded_name(path: Path) -> bool:
    return path.name in NAMES or path.name.endswith(ENDINGS)


def _has_keys(path: Path, keys: frozenset[str] = KEYS) -> bool:
    """Does the JSON value, its first line or one of its members have a known key?"""
    if not path.is_file():  # a pipe or a device may have no end
        return False
    try:
        if path.stat().st_size > LONGEST:
            with path.open("rb") as file:
                return _is_known(_parsed(file.readline(LONGEST)), keys)
        content = path.read_bytes()
    except OSError:
        return False
    whole = _parsed(content)
    return _is_known(_parsed(content.partition(b"\n")[0]) if whole is None else whole, keys)


def _parsed(content: bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


def _is_known(value: Any, keys: frozenset[str]) -> bool:
    if isinstance(value, dict) and keys & value.keys():
        return True
    members = value if isinstance(value, list) else value.values() if isinstance(value, dict) else ()
    return any(isinstance(member, dict) and keys & member.keys() for member in itertools.islice(members, 10))
