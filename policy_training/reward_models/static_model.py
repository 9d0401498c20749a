"""The static reward model: gradient boosting over features that need no execution and no language model.

It is the cheap rival that a language reward model must beat. Each component has an ensemble of boosted trees. A member
leaves out one fold of repositories, and its answers there are those of a repository that it never saw: they calibrate
the head. A new patch gets the mean logit of all members; their disagreement, and what the calibration leaves open, are
the doubt.

Style and complexity need no model: the static evidence says what the patch adds.
"""

from __future__ import annotations

import json
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from regrade.datasets.errors import UserError
from regrade.datasets.json_text import without_doubled_keys
from regrade.datasets.patches import Patch, PatchError
from regrade.datasets.tasks import Task
from regrade.evaluators.execution.workspaces import prepare
from regrade.evaluators.sandboxes import SandboxError
from regrade.evaluators.scoring.jobs import Job
from regrade.evaluators.scoring.static_workers import StaticWorkers
from regrade.evaluators.storage.journal import replaced_folder, write_atomically
from regrade.evaluators.storage.labelled_attempts import Component, LabelledAttempt, ProposedPatch, proposed
from regrade.policy_training.reward_models.attempt_splits import folds_of
from regrade.policy_training.reward_models.boosted_trees import ITERATIONS, BoostedTrees, Floats, fit
from regrade.policy_training.reward_models.calibration import Calibration
from regrade.policy_training.reward_models.loading import write_record
from regrade.policy_training.reward_models.patch_model import Chance, Chances
from regrade.policy_training.reward_models.static_features import FEATURE_FORMAT, FEATURES, STATIC_KINDS, features
from regrade.rewards.evidence import ComplexityDelta, EvidenceSet, LintDelta, PredictedPart, Prediction
from regrade.rewards.reward_model_folders import RewardModelRecord

KIND = "static"
FILE = "heads.json"
LEARNED = (Component.FIXES, Component.BREAKS, Component.BUILDS, Component.CLEAN)
FEWEST = 10
"""Attempts of either outcome that a head needs, in each fold's rest."""
FOLDS = 5
NORMAL_95 = 1.96
"""Standard deviations within which 95 % of a normal distribution lie."""


@dataclass(frozen=True)
class StaticHead:
    """One component: an ensemble and its calibration."""

    members: tuple[BoostedTrees, ...]
    calibration: Calibration

    def chances(self, rows: Floats) -> list[Chance]:
        logits = np.stack([member.logits(rows) for member in self.members])
        means = logits.mean(axis=0)
        spread = self.calibration.probabilities(logits).std(axis=0, ddof=1) if len(logits) > 1 else 0.0 * means
        doubts = np.minimum(NORMAL_95 * spread + self.calibration.margins(means), 1.0)
        probabilities = self.calibration.probabilities(means)
        return [Chance(float(p), float(d)) for p, d in zip(probabilities, doubts, strict=True)]

    def to_json(self) -> dict[str, Any]:
        return {
            "members": [member.to_json() for member in self.members],
            "calibration": self.calibration.to_json(),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> StaticHead:
        members = tuple(BoostedTrees.from_json(member, len(FEATURES)) for member in values["members"])
        if not members:
            raise ValueError("a head has no member")
        return cls(members, Calibration.from_json(values["calibration"]))


class StaticRewardModel:
    """Predicts the components of a verdict from static evidence: a `Predictor` and a `PatchModel`."""

    def __init__(self, name: str, heads: Mapping[Component, StaticHead], identity: str = "") -> None:
        self.name = name
        self.heads = heads
        self.identity = identity
        """Digest of its files; empty: it is not stored."""
        self._workers = StaticWorkers()
        weakref.finalize(self, self._workers.close)

    def chances(self, patches: Sequence[ProposedPatch]) -> list[Chances]:
        """From the static evidence of the patches."""
        if not patches:
            return []
        rows = features(patches)
        by_head = {component: head.chances(rows) for component, head in self.heads.items()}
        return [
            {**{component: found[index] for component, found in by_head.items()}, **_measured(patch)}
            for index, patch in enumerate(patches)
        ]

    def predict(self, jobs: Sequence[Job]) -> list[Prediction]:
        """One prediction for each task and patch, in order: see `Predictor`."""
        read = [self._read(task, patch) for task, patch in jobs]
        predicted = iter(self.chances([each for each in read if isinstance(each, ProposedPatch)]))
        return [
            self._prediction(next(predicted))
            if isinstance(each, ProposedPatch)
            else Prediction(0.0, 0.0, self.name, each)
            for each in read
        ]

    def _read(self, task: Task, patch: Patch) -> ProposedPatch | str:
        """The patch with its static evidence, or why it has none. Raises SandboxError."""
        try:
            workspace = prepare(task, patch)
        except PatchError as error:
            return f"the patch does not apply: {error}"
        except OSError as error:
            raise SandboxError(f"{type(error).__name__}: {error}") from error
        sides = workspace.before, workspace.after
        records = {kind: self._workers.evidence(kind, *sides, patch, task) for kind in STATIC_KINDS}
        return proposed(task, patch, EvidenceSet(records))

    def _prediction(self, chances: Chances) -> Prediction:
        clean = chances[Component.CLEAN]
        parts = tuple(PredictedPart(name, chance.probability, chance.doubt) for name, chance in chances.items())
        return Prediction(clean.probability, clean.doubt, self.name, parts=parts)

    def save(self, folder: Path, about: Mapping[str, Any]) -> RewardModelRecord:
        """Write the model atomically. `about`: of its training, for the record."""
        heads = {str(component): head.to_json() for component, head in self.heads.items()}
        details = {**about, "feature_format": FEATURE_FORMAT, "features": list(FEATURES)}
        with replaced_folder(folder) as draft:
            write_atomically(draft / FILE, json.dumps(heads))
            record = write_record(draft, KIND, details)
        self.name, self.identity = folder.name, record.digest
        return record


def _measured(patch: ProposedPatch) -> dict[Component, Chance]:
    """The components that static evidence answers itself."""
    records = patch.evidence.of(frozenset({LintDelta, ComplexityDelta})).records
    found: dict[Component, Chance] = {}
    if (lint := records.get(LintDelta)) is not None and not lint.unparsable:
        found[Component.STYLE] = Chance(float(bool(lint.added)), 0.0)
    if (delta := records.get(ComplexityDelta)) is not None and not delta.unparsable:
        found[Component.COMPLEXITY] = Chance(float(delta.sum_after > delta.sum_before), 0.0)
    return found


def train_static_model(
    attempts: Sequence[LabelledAttempt],
    name: str = KIND,
    *,
    seed: int = 0,
    folds: int = FOLDS,
    iterations: int = ITERATIONS,
) -> StaticRewardModel:
    """Train on distinct executed attempts.

    Args:
        folds: of repositories, or with fewer of them, of functions; each is left out by one member of the ensembles.
        iterations: trees of a member.

    Raises:
        UserError: there are no attempts, fewer than two functions, or all attempts are clean fixes, or none is.
    """
    _check_learnable(attempts)
    fold = folds_of(attempts, folds)
    rows = features(attempts)
    heads = {}
    for component in LEARNED:
        known = np.array([component in attempt.labels for attempt in attempts])
        outcomes = np.array([float(attempt.labels.get(component, False)) for attempt in attempts])
        head = _head(rows, outcomes, known, fold, [attempt.cluster for attempt in attempts], seed, iterations)
        if head is not None:
            heads[component] = head
    if Component.CLEAN not in heads:
        raise UserError(
            f"too few clean fixes, or too few other attempts, in {len(set(fold))} folds of repositories: each fold "
            f"needs {FEWEST} of both in the others; execute more attempts (`regrade reward-model attempts`)"
        )
    return StaticRewardModel(name, heads)


def _check_learnable(attempts: Sequence[LabelledAttempt]) -> None:
    labels = [attempt.labels[Component.CLEAN] for attempt in attempts if Component.CLEAN in attempt.labels]
    if len(set(labels)) < 2:
        what = "no attempts" if not labels else "clean fixes alone" if labels[0] else "no clean fix"
        raise UserError(
            f"the training attempts have {what}: a reward model learns from both outcomes; execute attempts with "
            "`regrade reward-model attempts`"
        )
    if len({attempt.cluster for attempt in attempts}) < 2:
        raise UserError("all training attempts are at one function: nothing could calibrate the model; execute more")


def _head(
    rows: Floats,
    outcomes: Floats,
    known: np.ndarray,
    fold: np.ndarray,
    clusters: Sequence[Any],
    seed: int,
    iterations: int,
) -> StaticHead | None:
    """None if a member would learn from too few attempts of one outcome."""
    members, logits = [], np.zeros(len(outcomes))
    for number in np.unique(fold):
        learned, left_out = known & (fold != number), fold == number
        if min(outcomes[learned].sum(), (1 - outcomes[learned]).sum()) < FEWEST:
            return None
        member = fit(rows[learned], outcomes[learned], seed=seed + int(number), iterations=iterations)
        members.append(member)
        logits[left_out] = member.logits(rows[left_out])
    kept = np.flatnonzero(known).tolist()
    calibration = Calibration.fit(logits[kept], outcomes[kept], [clusters[index] for index in kept])
    return StaticHead(tuple(members), calibration)


def load_predictor(folder: Path, record: RewardModelRecord) -> StaticRewardModel:
    """The model of a folder.

    Raises:
        UserError: it reads features of another version, or is damaged.
    """
    if (record.details.get("feature_format"), tuple(record.details.get("features", ()))) != (FEATURE_FORMAT, FEATURES):
        raise UserError(
            f"the reward model in {folder} reads static features of version {record.details.get('feature_format')!r}, "
            f"and this version of regrade computes {FEATURE_FORMAT}: train it again"
        )
    try:
        values = json.loads((folder / FILE).read_text(encoding="utf-8"), object_pairs_hook=without_doubled_keys)
        heads = {Component(name): StaticHead.from_json(head) for name, head in values.items()}
        _ = heads[Component.CLEAN]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"the reward model in {folder} is damaged ({error}): train it again") from error
    return StaticRewardModel(folder.name, heads, record.digest)
