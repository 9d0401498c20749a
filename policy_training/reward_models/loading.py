"""Folders of reward models: write the record of one, and load the model by the kind that the record names.

A kind of model is a module with `load_predictor(folder, record)`, which returns an object with `identity` and `predict`
(see `Predictor`), and a row of `LOADERS`. Whoever writes such a folder calls `write_record` last.
"""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from regrade.datasets.errors import UserError
from regrade.evaluators.scoring.model_probes import Predictor
from regrade.evaluators.storage.journal import write_atomically
from regrade.policy_training.policies.models import INSTALL_TRAINING
from regrade.rewards.reward_model_folders import FORMAT, RECORD, WRITERS, RewardModelRecord, read_record

LOADERS: Mapping[str, str] = MappingProxyType({"language": "language_reward_model"})
"""Kind of model -> the module of this package that loads it, imported when it is needed."""


def write_record(folder: Path, kind: str, details: Mapping[str, Any]) -> RewardModelRecord:
    """Write the record of a model whose other files are all in the folder.

    Args:
        kind: a key of `LOADERS`.
        details: what its loader needs; JSON values.
    """
    record = RewardModelRecord(kind, _digest(folder, kind, details), details)
    values = {"format": FORMAT, "kind": kind, "digest": record.digest, "details": details}
    write_atomically(folder / RECORD, json.dumps(values, indent=1) + "\n")
    return record


def load_reward_model(folder: str | Path) -> Predictor:
    """The reward model of a folder.

    Raises:
        UserError: the folder contains no reward model, one of another version, or one whose files, base or libraries
            are not those that it was trained with.
    """
    path = Path(folder).expanduser()
    record = read_record(path)
    if record.kind not in LOADERS:
        known = ", ".join(LOADERS)
        raise UserError(f"the reward model in {folder} is of kind {record.kind!r}, not one of {known}: {WRITERS}")
    if _digest(path, record.kind, record.details) != record.digest:
        raise UserError(
            f"the files of the reward model in {folder} are not those that were trained: copy the whole folder again, "
            "or train it again"
        )
    try:
        module = importlib.import_module(f"{__package__}.{LOADERS[record.kind]}")
    except ModuleNotFoundError as error:
        if (error.name or "regrade").partition(".")[0] == "regrade":  # a defect of this program
            raise
        raise UserError(
            f"the reward model in {folder} needs {error.name}, which is not installed: {INSTALL_TRAINING}"
        ) from error
    predictor: Predictor = module.load_predictor(path, record)
    return predictor


def _digest(folder: Path, kind: str, details: Mapping[str, Any]) -> str:
    """SHA-256 over the kind, the details, and each file with its path."""
    whole = hashlib.sha256(json.dumps([kind, details], sort_keys=True).encode())
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / RECORD):
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        whole.update(f"{path.relative_to(folder).as_posix()}\0{content}\n".encode())
    return whole.hexdigest()
