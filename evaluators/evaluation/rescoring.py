"""Another reward for a run that is over: its evidence is kept, so nothing is run, and no sandbox is needed."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from regrade.datasets.errors import UserError
from regrade.evaluators.evaluation.rollout_scoring import evidence_path
from regrade.evaluators.storage import journal
from regrade.evaluators.storage.evidence_file import EvidenceFile
from regrade.evaluators.storage.rows import checked, is_lost
from regrade.evaluators.storage.run import Run
from regrade.rewards.algebra import Reward

LEFT_OUT = ("checkpoints", "trainer", "report.*", "summary.*")
"""What a copy of a run with other rewards does without: it is large, or no longer true."""


def rescore(rows: Iterable[Mapping[str, Any]], kept: EvidenceFile, reward: Reward) -> Iterator[dict[str, Any]]:
    """The rows with the verdict of `reward` in place of the one that they had. Equal patches are judged once.

    Raises:
        UserError: a row's evidence was not kept, or none of a type that the reward needs.
    """
    judged: dict[tuple[str, str], dict[str, Any]] = {}
    for row in rows:
        if is_lost(row):
            yield {**row, "reward_name": reward.name}
            continue
        key = (row["task_digest"], row["patch_digest"])
        if key not in judged:
            judged[key] = _judge(key, row, kept, reward)
        yield {**row, **judged[key]}


def _judge(key: tuple[str, str], row: Mapping[str, Any], kept: EvidenceFile, reward: Reward) -> dict[str, Any]:
    stored = kept.get(key)
    if stored is None:
        raise UserError(
            f"{kept.path} holds no evidence of the attempt of {row['policy']!r} at {row['task']!r}: evaluate it again"
        )
    evidence = stored.of(reward.needs)
    missing = sorted(kind.__name__ for kind in reward.needs - evidence.records.keys() - evidence.infrastructure.keys())
    if missing:
        raise UserError(
            f"{kept.path} holds no {' and no '.join(missing)}, which reward {reward.name!r} needs: evaluate again with "
            "this reward, or one that needs the same"
        )
    found = reward.evaluate(evidence)
    return {
        "reward_name": reward.name,
        "status": found.status,
        "cause": found.cause,
        "reward": found.value,
        "parts": found.to_json()["parts"],
    }


def rescore_run(run: Run, reward: Reward) -> dict[str, tuple[list[dict[str, Any]], list[dict[str, Any]]]]:
    """Policy -> its rows as they were, and as `reward` judges them.

    Raises:
        UserError: the run holds no rows, or not the evidence that is needed.
    """
    files = {name: run.evaluation(name) for name in run.manifest.policies}
    before = {name: list(checked(journal.read(path), str(path))) for name, path in files.items()}
    if not any(before.values()):
        raise UserError(f"{run.folder} holds no rows of any policy: give the folder of an evaluation or a demo")
    return {
        name: (rows, list(rescore(rows, EvidenceFile(evidence_path(files[name])), reward)))
        for name, rows in before.items()
        if rows
    }


def write_rescored(run: Run, rescored: Mapping[str, Iterable[Mapping[str, Any]]], out: Path) -> Run:
    """A copy of the run with these rows in place of its own, for `report` and `compare`; weights are not copied.

    Raises:
        UserError: there is something at `out` already, or it can't be written.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} exists already: give --out a new folder")
    making = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        shutil.copytree(run.folder, making, ignore=shutil.ignore_patterns(*LEFT_OUT))
        copy = Run(making)
        for name, rows in rescored.items():
            text = "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows)
            journal.write_atomically(copy.evaluation(name), text)
        copy.note(f"rewards given anew, from the evidence of {run.folder.name}")
        if out.exists():
            out.rmdir()
        making.rename(out)
    except OSError as error:
        raise UserError(f"{out} can't be written: {error}") from error
    finally:
        shutil.rmtree(making, ignore_errors=True)
    return Run(out)
