"""The static reward model: what it learns, how it is stored, its honest test, and its card."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="needs the extra `static`")

from sklearn.ensemble import HistGradientBoostingClassifier

from regrade.datasets.errors import UserError
from regrade.datasets.patches import Patch
from regrade.datasets.tasks import Task
from regrade.evaluators.storage.labelled_attempts import (
    Component,
    LabelledAttempt,
    PatchOrigin,
    ProposedPatch,
)
from regrade.policy_training.reward_models.attempt_splits import AttemptSplit, folds_of, split_by_repository
from regrade.policy_training.reward_models.boosted_trees import BoostedTrees, fit
from regrade.policy_training.reward_models.loading import CARD, load_reward_model
from regrade.policy_training.reward_models.patch_model import Chance, Chances, PatchModel, load_patch_model
from regrade.policy_training.reward_models.quality import measure_quality, to_json
from regrade.policy_training.reward_models.static_features import FEATURES, features
from regrade.policy_training.reward_models.static_model import FILE, train_static_model
from regrade.policy_training.reward_models.static_training import train_and_test_static
from regrade.policy_training.reward_models.training_record import unseen
from regrade.rewards import learned

REPOSITORIES = ("one", "two", "three", "four", "new")


def made(count: int = 1000, seed: int = 0) -> list[LabelledAttempt]:
    """Attempts at five repositories. A patch is clean if it compares with `<=`, nine times in ten, whatever its size."""
    chance = random.Random(seed)
    found = []
    for number in range(count):
        repository, function = chance.choice(REPOSITORIES), chance.randrange(12)
        operator, filler = chance.choice(["<=", "<", "==", ">"]), chance.randrange(4)
        lines = "".join(f"+    x{number}_{line} = {line}\n" for line in range(filler))
        patch = f"--- a/m.py\n+++ b/m.py\n@@ -1 +1 @@\n-    if a != b:\n+    if a {operator} b:\n{lines}"
        clean = (operator == "<=") != (chance.random() < 0.1)
        attempt = LabelledAttempt(
            task_id=f"{repository}/{function}/{chance.randrange(3)}",
            repository=repository,
            function=f"m.py::f{function}",
            file="m.py",
            instruction="Fix the comparison.",
            failure="assert f(1, 1)",
            fail_to_pass=("test_m.py::test_f",),
            patch=patch,
            labels={Component.CLEAN: clean, Component.FIXES: clean, Component.BREAKS: not clean and filler > 1},
            reward=float(clean),
            origin=PatchOrigin.MUTANT if filler else PatchOrigin.NEAR_MISS,
            policy="mutants",
        )
        found.append(attempt)
    return found


@pytest.fixture(scope="module")
def split() -> AttemptSplit:
    return split_by_repository(made(), {"new"})


@pytest.fixture(scope="module")
def folder(split: AttemptSplit, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("models") / "static"
    train_and_test_static(split, out, iterations=40)
    return out


def test_stored_trees_answer_as_scikit_learn_does() -> None:
    chance = np.random.default_rng(0)
    rows = chance.normal(size=(800, 7))
    rows[chance.random(rows.shape) < 0.2] = np.nan
    rows[:, 5] = np.where(chance.random(800) < 0.5, np.nan, 1.0)  # only whether it is known says something
    rows[:, 6] = np.nan
    outcomes = (np.nan_to_num(rows[:, 0]) + np.isnan(rows[:, 5]) + chance.normal(0, 0.3, 800) > 0.4).astype(float)
    model = fit(rows, outcomes, seed=3, iterations=40)
    read = BoostedTrees.from_json(json.loads(json.dumps(model.to_json())), 7)
    theirs = HistGradientBoostingClassifier(
        learning_rate=0.08, max_iter=40, max_leaf_nodes=15, min_samples_leaf=20, l2_regularization=1.0,
        max_features=0.5, early_stopping=False, random_state=3,
    ).fit(np.where([False] * 6 + [True], 0.0, rows), outcomes.astype(int))  # fmt: skip
    fresh = chance.normal(size=(500, 7))
    fresh[chance.random(fresh.shape) < 0.3] = np.nan
    for sample in (rows, fresh):
        expected = theirs.decision_function(sample)
        np.testing.assert_allclose(model.logits(sample), expected, rtol=1e-9)
        np.testing.assert_allclose(read.logits(sample), expected, rtol=1e-9)


@pytest.mark.parametrize(
    "change",
    [
        {"left": [0]},  # a walk without end
        {"right": [9]},
        {"feature": [7]},
        {"value": [float("nan")]},
        {"threshold": []},
    ],
)
def test_damaged_trees_are_refused(change: dict[str, list[float]]) -> None:
    whole: dict[str, list[float]] = {
        "feature": [0, -1, -1], "threshold": [0.5, 0, 0], "left": [1, 0, 0], "right": [2, 0, 0],
        "missing_left": [1, 0, 0], "value": [0, -1, 1],
    }  # fmt: skip
    BoostedTrees.from_json({"baseline": 0.0, "trees": [whole]}, 6)
    damaged = {**whole, **{name: [*values, *whole[name][1:]] for name, values in change.items()}}
    with pytest.raises(ValueError):
        BoostedTrees.from_json({"baseline": 0.0, "trees": [damaged]}, 6)


def test_it_finds_the_rule_in_a_repository_that_it_never_saw(split: AttemptSplit, folder: Path) -> None:
    model = load_patch_model(folder)
    quality = measure_quality(model, split.test)
    assert quality.auc.value > 0.8
    assert quality.auc.interval.low > 0.7
    assert quality.auc.interval.low < quality.auc.value < quality.auc.interval.high
    assert quality.calibration_error.value < 0.08
    assert quality.best_of[8].value > quality.best_of[1].value + 0.3
    assert quality.best_of[8].value <= quality.best_possible[8].value
    assert {each.component for each in quality.components} >= {Component.FIXES, Component.BREAKS, Component.CLEAN}
    (small,) = (each for each in quality.baselines if each.name == "small diff")
    assert small.is_beaten
    assert small.auc_gain.value == pytest.approx(quality.auc.value - small.auc.value)
    assert json.loads(json.dumps(to_json(quality), allow_nan=False))["auc"]["value"] == quality.auc.value
    doubts = [chances[Component.CLEAN].doubt for chances in model.chances(split.test)]
    assert 0.0 < min(doubts) <= max(doubts) <= 1.0
    assert quality.covered > 0.9


def test_a_model_that_knows_the_outcome_beats_it(split: AttemptSplit, folder: Path) -> None:
    class Knows:
        name = "oracle"

        def chances(self, patches: Sequence[ProposedPatch]) -> list[Chances]:
            return [
                {Component.CLEAN: Chance(float(each.labels[Component.CLEAN]), 0.0)}
                for each in patches
                if isinstance(each, LabelledAttempt)
            ]

    assert isinstance(Knows(), PatchModel)
    static = load_patch_model(folder)
    quality = measure_quality(Knows(), split.test, [static])
    assert quality.auc.value == quality.pair_accuracy.value == 1.0
    assert quality.brier.value == quality.calibration_error.value == 0.0
    assert quality.best_of == quality.best_possible
    assert {each.name for each in quality.baselines if each.is_beaten} >= {"static", "small diff"}
    against = measure_quality(static, split.test, [Knows()])
    assert not next(each for each in against.baselines if each.name == "oracle").is_beaten


def test_the_same_attempts_make_the_same_bytes(split: AttemptSplit, folder: Path, tmp_path: Path) -> None:
    train_and_test_static(split, tmp_path / "static", iterations=40)
    assert (tmp_path / "static" / FILE).read_bytes() == (folder / FILE).read_bytes()
    assert load_reward_model(tmp_path / "static").identity == load_reward_model(folder).identity
    assert learned(tmp_path / "static").kind.digest == learned(folder).kind.digest


def test_the_card_says_what_it_learned_and_what_it_is_not(folder: Path) -> None:
    text = (folder / CARD).read_text()
    for part in ("| one |", "near miss", "never trained on", "small diff", "n = 8", "## Limits", "scikit-learn"):
        assert part in text
    (folder / CARD).write_text(text + "A note of mine.\n")
    assert load_reward_model(folder).identity  # the card is no part of the model


def test_other_versions_and_damage_are_one_line(split: AttemptSplit, tmp_path: Path) -> None:
    model = train_static_model(split.training, iterations=5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("regrade.policy_training.reward_models.static_model.FEATURE_FORMAT", 0)
        model.save(tmp_path / "old", {})
    with pytest.raises(UserError, match=r"features of version 0.*train it again"):
        load_reward_model(tmp_path / "old")
    model.save(tmp_path / "changed", {})
    (tmp_path / "changed" / FILE).write_text("{}")
    with pytest.raises(UserError, match="not those that were trained"):
        load_reward_model(tmp_path / "changed")
    with pytest.raises(UserError, match="does not say which repositories"):
        unseen([tmp_path / "old"], split.test)


def test_attempts_that_teach_nothing_are_refused(split: AttemptSplit) -> None:
    clean = [attempt for attempt in split.training if attempt.labels[Component.CLEAN]]
    for attempts, what in ((clean, "clean fixes alone"), ([], "no attempts"), (split.training[:30], "too few")):
        with pytest.raises(UserError, match=what):
            train_static_model(attempts)
    alone = [attempt for attempt in split.training if attempt.cluster == split.training[0].cluster]
    with pytest.raises(UserError, match="one function"):
        train_static_model(alone)


def test_no_task_and_no_repository_is_on_both_sides(split: AttemptSplit) -> None:
    assert {attempt.repository for attempt in split.test} == {"new"}
    moved = replace(split.test[0], repository="one")
    with pytest.raises(UserError, match=r"task .* in the training set and in the test set"):
        AttemptSplit((*split.training, moved), split.test)
    with pytest.raises(UserError, match="repository 'one'"):
        AttemptSplit(split.training, (replace(moved, task_id="another"),))
    fold = folds_of(split.training, 4)
    by_repository = {attempt.repository: number for attempt, number in zip(split.training, fold, strict=True)}
    assert len(set(by_repository.values())) == 4
    assert all(by_repository[each.repository] == number for each, number in zip(split.training, fold, strict=True))


def test_what_was_learned_is_left_out_of_a_test(split: AttemptSplit, folder: Path) -> None:
    kept, left_out = unseen([folder], [*split.training, *split.test])
    assert (kept, left_out) == (list(split.test), len(split.training))
    with pytest.raises(UserError, match="all attempts are at repositories that the model was trained on"):
        unseen([folder], split.training)


def test_a_stored_patch_and_a_fresh_one_have_the_same_prediction(folder: Path, tasks: list[Task]) -> None:
    """A scorer asks for predictions of patches whose evidence no run has stored."""
    model = load_reward_model(folder)
    reference = tasks[0].reference
    assert reference is not None
    (prediction, broken) = model.predict(
        [(tasks[0], reference), (tasks[0], Patch("--- a/x\n+++ b/x\n@@ -1 +1 @@\n-n\n+m\n"))]
    )
    assert 0.0 <= prediction.resolved <= 1.0
    assert {part.name for part in prediction.parts} >= {"clean", "fixes", "breaks", "style", "complexity"}
    assert (broken.resolved, broken.doubt) == (0.0, 0.0)
    assert "does not apply" in broken.why


def test_features_read_nothing_of_the_reference_or_of_an_execution(split: AttemptSplit) -> None:
    rows = features(split.test[:5])
    assert rows.shape == (5, len(FEATURES))
    others = [replace(each, reward=0.5, labels={}, origin=PatchOrigin.CHEAT, policy="x") for each in split.test[:5]]
    np.testing.assert_array_equal(features(others), rows)
    assert len(set(FEATURES)) == len(FEATURES)
