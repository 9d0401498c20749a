"""Folders of reward models: their record, and the type of evidence that each model predicts.

The record is a JSON file beside the model's own files. It names the kind of the model, which says how to load it, and a
digest of all files. Reading it needs no library of training, so a reward can name a model, and be stored, compared and
rescored, where the model itself cannot run.
"""

from __future__ import annotations

import copyreg
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from regrade.datasets.errors import UserError
from regrade.datasets.json_text import without_doubled_keys
from regrade.rewards.evidence import Prediction

RECORD = "reward_model.json"
FORMAT = 1
"""Version of the folders. It grows when a file changes its meaning."""
WRITERS = "give a folder that `regrade train reward-model` wrote"


@dataclass(frozen=True)
class RewardModelRecord:
    """What a folder says of its reward model."""

    kind: str
    """How to load it: a key of `regrade.policy_training.reward_models.loading.LOADERS`."""
    digest: str
    """SHA-256 of the model's files, and of `details`."""
    details: Mapping[str, Any]
    """What the loader of this kind needs."""


def read_record(folder: str | Path) -> RewardModelRecord:
    """The record of a reward model.

    Raises:
        UserError: the folder contains no reward model, one of another version, or a damaged record.
    """
    path = Path(folder).expanduser() / RECORD
    if not path.is_file():
        raise UserError(f"{folder} holds no reward model: {WRITERS}")
    try:
        values = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=without_doubled_keys)
        version = values["format"]
        if version != FORMAT:
            raise UserError(
                f"the reward model in {folder} has format {version!r}, and this version of regrade reads {FORMAT}: "
                "train it again, or use the version of regrade that wrote it"
            )
        record = RewardModelRecord(values["kind"], values["digest"], values["details"])
        if not (isinstance(record.kind, str) and isinstance(record.digest, str) and isinstance(record.details, dict)):
            raise TypeError("a key has a value of another type")
    except UserError:
        raise
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged ({error}): train the reward model again") from error
    return record


class PredictionKind(type):
    """The class of the types of evidence that single reward models predict."""

    folder: str
    """The model's folder, absolute."""
    digest: str
    """See `RewardModelRecord`. Evidence is stored by it, so another model in the same folder has other evidence."""


def prediction_of(folder: str | Path) -> type[Prediction]:
    """The type of evidence that the reward model of a folder predicts: a subclass of `Prediction`.

    Annotate a parameter of your own reward with it. Equal models have equal types.

    Raises:
        UserError: see `read_record`.
    """
    record = read_record(folder)
    return _kind(os.path.realpath(Path(folder).expanduser()), record.digest)


@cache
def _kind(folder: str, digest: str) -> PredictionKind:
    kind = PredictionKind(f"Prediction[{digest[:16]}]", (Prediction,), {"__module__": __name__})
    kind.folder, kind.digest = folder, digest
    return kind


def _reduced(kind: PredictionKind) -> tuple[Any, ...]:
    return _kind, (kind.folder, kind.digest)


copyreg.pickle(PredictionKind, _reduced)  # type: ignore[arg-type]  # no module has it as an attribute
