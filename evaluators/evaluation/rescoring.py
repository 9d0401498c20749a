"""Rescoring of a finished run with another reward, from stored evidence: no execution, no sandbox."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from regrade.datasets.errors import UserError
from regrade.datasets.patches import Patch
from regrade.evaluators.evaluation.rollout_scoring import evidence_path
from regrade.evaluators.static.patch_text import as_written
from regrade.evaluators.storage import journal
from regrade.evaluators.storage.evidence_file import EvidenceFile, StoredEvidence
from regrade.evaluators.storage.rows import checked, is_lost
from regrade.evaluators.storage.run import Run
from regrade.rewards.algebra import Reward
from regrade.rewards.errors import described_attempt, errors_of_attempt
from regrade.rewards.evidence import Diff, EvidenceSet, PatchText

LEFT_OUT = ("checkpoints", "trainer", "report.*", "summary.*")
"""Files that a rescored copy of a run omits, as they are large or outdated."""


def rescore(rows: Iterable[Mapping[str, Any]], evidence_file: EvidenceFile, reward: Reward) -> Iterator[dict[str, Any]]:
    """The rows, rescored by `reward`. Equal patches are scored once.

    Raises:
        UserError: the evidence of a row, or a type of it that the reward needs, is not stored.
    """
    scores: dict[tuple[str, str], dict[str, Any]] = {}
    for row in rows:
        if is_lost(row):
            yield {**row, "reward_name": reward.name}
            continue
        key = (row["task_digest"], row["patch_digest"])
        if key not in scores:
            scores[key] = _score(key, row, evidence_file, reward)
        yield {**row, **scores[key]}


def _score(key: tuple[str, str], row: Mapping[str, Any], evidence_file: EvidenceFile, reward: Reward) -> dict[str, Any]:
    stored = evidence_file.get(key)
    if stored is None:
        raise UserError(
            f"{evidence_file.path} has no evidence of the attempt of {row['policy']!r} at {row['task']!r}: evaluate it "
            "again"
        )
    evidence = stored.of(reward.needs)
    if PatchText in reward.needs - evidence.records.keys() - evidence.infrastructure.keys():
        evidence = _with_patch_text(evidence, stored, row)
    missing = sorted(kind.__name__ for kind in reward.needs - evidence.records.keys() - evidence.infrastructure.keys())
    if missing:
        raise UserError(
            f"{evidence_file.path} has no {' and no '.join(missing)}, which reward {reward.name!r} needs: evaluate "
            "again with this reward, or one with the same needs"
        )
    with errors_of_attempt(described_attempt(*(row[name] for name in ("policy", "task", "temperature", "sample")))):
        breakdown = reward.evaluate(evidence)
    return {
        "reward_name": reward.name,
        "status": breakdown.status,
        "cause": breakdown.cause,
        "reward": breakdown.value,
        "parts": breakdown.to_json()["parts"],
    }


def _with_patch_text(evidence: EvidenceSet, stored: StoredEvidence, row: Mapping[str, Any]) -> EvidenceSet:
    """With the patch's text from its row: a run of an earlier version has no record of it."""
    diff = stored.of(frozenset({Diff})).records.get(Diff)
    if diff is None:
        return evidence
    text = as_written(Patch(row["patch"]), diff.files)
    return replace(evidence, records={**evidence.records, PatchText: text})


def rescore_run(run: Run, reward: Reward) -> dict[str, tuple[list[dict[str, Any]], list[dict[str, Any]]]]:
    """Policy -> (its stored rows, the same rows rescored by `reward`).

    Raises:
        UserError: the run has no rows, or lacks evidence that the reward needs.
    """
    files = {name: run.evaluation(name) for name in run.manifest.policies}
    before = {name: list(checked(journal.read(path), str(path))) for name, path in files.items()}
    if not any(before.values()):
        raise UserError(f"{run.folder} has no rows of any policy: give the folder of an evaluation or a demo")
    return {
        name: (rows, list(rescore(rows, EvidenceFile(evidence_path(files[name])), reward)))
        for name, rows in before.items()
        if rows
    }


def write_rescored(run: Run, rescored: Mapping[str, Iterable[Mapping[str, Any]]], out: Path) -> Run:
    """Copy the run with these rows in place of its own, without weights, for `report` and `compare`.

    Raises:
        UserError: `out` exists and is not an empty folder, or it can't be written.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} exists already: choose a new folder with `out=FOLDER`")
    draft = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        shutil.copytree(run.folder, draft, ignore=shutil.ignore_patterns(*LEFT_OUT))
        copy = Run(draft)
        for name, rows in rescored.items():
            text = "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows)
            journal.write_atomically(copy.evaluation(name), text)
        copy.note(f"rescored from the evidence of {run.folder.name}")
        if out.exists():
            out.rmdir()
        draft.rename(out)
    except OSError as error:
        raise UserError(f"{out} can't be written: {error}") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return Run(out)
