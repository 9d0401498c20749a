"""The results of a run in SWE-bench's formats: predictions, `report.json` with the outcome of each test, a summary.

One folder for each attempt at the tasks (policy, temperature, sample, seed), since SWE-bench has one prediction an
instance. The reports follow Regrade's rules: a test that is skipped or missing has not passed, and `resolved` is a
clean fix. An attempt that the infrastructure lost is an `infra_failure`, never unresolved.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from regrade.datasets.errors import UserError
from regrade.datasets.output_folders import check_parts, completed_folder
from regrade.evaluators.storage import journal
from regrade.evaluators.storage.evidence_file import EvidenceFile, evidence_path
from regrade.evaluators.storage.rows import OUTCOMES, attempt, checked, is_lost
from regrade.evaluators.storage.run import Run
from regrade.rewards.evidence import TestRun

PredictionsForm = Literal["jsonl", "list", "dict"]
FILES: Mapping[PredictionsForm, str] = {"jsonl": "preds.jsonl", "list": "preds.json", "dict": "preds.json"}
REPORT, SUMMARY, CONTENTS = "report.json", "summary.json", "export.json"
SCHEMA = 2
Row = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class ExportedAttempts:
    """One folder of an export."""

    folder: str
    policy: str
    temperature: float
    sample: int
    seed: int
    predictions: int
    resolved: int


def write_results(run: Run, folder: Path, form: PredictionsForm = "jsonl") -> list[ExportedAttempts]:
    """Write the results on the held-out tasks, in place of an earlier export. The same run gives the same bytes.

    Args:
        form: of the predictions: JSON lines, a JSON list, or an object keyed by instance.

    Raises:
        UserError: the run has no results, or the folder holds other things.
        OSError: the disk is full, for example; what was there before is then unchanged.
    """
    attempts = _attempts(run)
    if not attempts:
        raise UserError(f"{run.folder} has no results on held-out tasks: evaluate a policy, or import results")
    names = _folder_names([*attempts])
    _check(folder)
    total = sorted({row["task"] for rows, _ in attempts.values() for row in rows})
    written = []
    with completed_folder(folder) as made:
        for key, (rows, evidence) in attempts.items():
            place = made / names[key]
            place.mkdir()
            reports = {row["task"]: _report(row, evidence) for row in rows}
            predictions = [_prediction(row, names[key]) for row in rows if not is_lost(row)]
            _write_predictions(place / FILES[form], predictions, form)
            _write(place / REPORT, reports)
            summary = _summary(total, predictions, reports)
            _write(place / SUMMARY, summary)
            policy, temperature, sample, seed = key
            written.append(
                ExportedAttempts(
                    folder=names[key],
                    policy=policy,
                    temperature=temperature,
                    sample=sample,
                    seed=seed,
                    predictions=len(predictions),
                    resolved=summary["resolved_instances"],
                )
            )
        _write(made / CONTENTS, [vars(each) for each in written])
    return written


Key = tuple[str, float, int, int]
"""Policy, temperature, sample, seed."""


def _attempts(run: Run) -> dict[Key, tuple[list[Row], EvidenceFile]]:
    found: dict[Key, tuple[list[Row], EvidenceFile]] = {}
    for path in sorted((run.folder / "evaluations").glob("*.jsonl")):
        evidence = EvidenceFile(evidence_path(path))
        newest = {attempt(row): row for row in checked(journal.read(path), str(path))}
        for row in newest.values():
            key = (row["policy"], float(row["temperature"]), row["sample"], row["seed"])
            found.setdefault(key, ([], evidence))[0].append(row)
    for rows, _ in found.values():
        rows.sort(key=lambda row: row["task"])
    return dict(sorted(found.items(), key=lambda item: item[0]))


def _folder_names(keys: Sequence[Key]) -> dict[Key, str]:
    """The policy's name, with the parts of the key in which attempts of the run differ."""
    varying = [len({key[index] for key in keys}) > 1 for index in range(4)]
    names: dict[Key, str] = {}
    for key in keys:
        policy, temperature, sample, seed = key
        parts = [re.sub(r"[^\w.@-]+", "-", policy).strip(".-") or "policy"]
        parts += [f"t{temperature:g}"] * varying[1] + [f"sample-{sample}"] * varying[2] + [f"seed-{seed}"] * varying[3]
        name = "-".join(parts)
        taken = {each.lower() for each in names.values()}
        numbered = [name, *(f"{name}-{number}" for number in range(2, len(keys) + 2))]
        names[key] = next(each for each in numbered if each.lower() not in taken)
    return names


def _check(folder: Path) -> None:
    if not (folder / CONTENTS).is_file():
        check_parts(folder, (), "folder of results")


def _prediction(row: Row, name: str) -> dict[str, Any]:
    return {"instance_id": row["task"], "model_name_or_path": name, "model_patch": row["patch"] or ""}


def _report(row: Row, evidence: EvidenceFile) -> dict[str, Any]:
    lost = is_lost(row) or all(row[outcome] is None for outcome in OUTCOMES)
    report: dict[str, Any] = {
        "patch_is_None": row["patch"] is None,
        "patch_exists": bool(row["patch"]),
        "patch_successfully_applied": bool(row["patch"]) and row["applied"] is not False,
        "resolved": bool(row["clean_fix"]),
        "infra_failure": lost,
    }
    if lost:
        report["infra_failure_reason"] = row["cause"] or "no result"
    stored = None if lost else evidence.get((row["task_digest"], row["patch_digest"]))
    run = None if stored is None else stored.of(frozenset({TestRun})).records.get(TestRun)
    if isinstance(run, TestRun) and run.outcomes:
        report["tests_status"] = _tests_status(run)
    return report


def _tests_status(run: TestRun) -> dict[str, dict[str, list[str]]]:
    targets, guards, further = set(run.fixed), set(run.broken), set(run.also_fixed)
    return {
        "FAIL_TO_PASS": _split(run.fail_to_pass, targets),
        "PASS_TO_PASS": _split(run.pass_to_pass, set(run.pass_to_pass) - guards),
        "FAIL_TO_FAIL": _split(run.unnamed, further),
        "PASS_TO_FAIL": {"success": [], "failure": []},
    }


def _split(tests: Iterable[str], passed: set[str]) -> dict[str, list[str]]:
    lists: dict[str, list[str]] = {"success": [], "failure": []}
    for test in tests:
        lists["success" if test in passed else "failure"].append(test)
    return lists


def _summary(
    total: Sequence[str], predictions: Sequence[Row], reports: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """As SWE-bench's harness counts: an empty patch is not completed, an error has no outcome."""
    submitted = [each["instance_id"] for each in predictions]
    empty = [each["instance_id"] for each in predictions if not each["model_patch"].strip()]
    lost = [name for name, report in reports.items() if report["infra_failure"]]
    completed = [name for name in submitted if name not in {*empty, *lost}]
    lists = {
        "completed": completed,
        "incomplete": [name for name in total if name not in {*submitted}],
        "empty_patch": empty,
        "submitted": submitted,
        "resolved": [name for name in completed if reports[name]["resolved"]],
        "unresolved": [name for name in completed if not reports[name]["resolved"]],
        "infra_failure": lost,
        "ambiguous_failure": [],
        "error": [name for name in submitted if name in {*lost} and name not in {*empty}],
    }
    counts = {f"{key}_instances": len(names) for key, names in lists.items() if key != "incomplete"}
    return {
        "total_instances": len(total),
        **counts,
        **{f"{key}_ids": sorted(names) for key, names in lists.items()},
        "failure_reasons": {name: reports[name]["infra_failure_reason"] for name in sorted(lost)},
        "schema_version": SCHEMA,
    }


def _write_predictions(path: Path, predictions: Sequence[dict[str, Any]], form: PredictionsForm) -> None:
    if form == "jsonl":
        path.write_text("".join(json.dumps(each) + "\n" for each in predictions), "utf-8")
    else:
        _write(path, predictions if form == "list" else {each["instance_id"]: each for each in predictions})


def _write(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n", "utf-8")
