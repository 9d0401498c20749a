"""Training of the language reward model: what it learns, what it refuses, and what it leaves as it is."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from regrade.datasets.errors import UserError
from regrade.datasets.patches import Patch
from regrade.datasets.tasks import Task
from regrade.evaluators.storage.labelled_attempts import Component, LabelledAttempt
from regrade.policy_training.policies.models import LanguageModel
from regrade.policy_training.reward_models import training
from regrade.policy_training.reward_models.inputs import InputReader
from regrade.policy_training.reward_models.language_reward_model import LanguageRewardModel
from regrade.policy_training.reward_models.loading import load_reward_model
from regrade.policy_training.reward_models.preference_trainer import adapt_trunk, packed_scores
from regrade.policy_training.reward_models.preferences import agreement, pairs, split_by_cluster
from regrade.policy_training.reward_models.training import ReadAttempts, UnlearnableError, train_reward_model
from regrade.policy_training.reward_models.trunks import Trunk
from regrade.policy_training.trainers.callbacks import Budget
from regrade.policy_training.trainers.settings import RewardModelSettings
from regrade.policy_training.trainers.shared_prompts import pack
from tests.policy_training.reward_models.conftest import BREAKING, RIGHT, SETTINGS, WRONG, attempt_of, patch_of

STEP = Budget(steps=1)


def test_it_predicts_and_explains_what_the_patches_show(model_folder: Path, sums: list[Task]) -> None:
    model = load_reward_model(model_folder)
    found = model.predict([(task, patch_of(task, body)) for task in sums for body in (RIGHT, WRONG, BREAKING)])
    right, wrong, breaking = found[::3], found[1::3], found[2::3]
    ranked = [
        one.resolved > other.resolved for rest in (wrong, breaking) for one, other in zip(right, rest, strict=True)
    ]
    assert sum(ranked) >= 0.9 * len(ranked)
    breaks = [{part.name: part.value for part in each.parts}["breaks"] for each in (*breaking, *right)]
    assert min(breaks[: len(breaking)]) > 0.3 > sum(breaks[len(breaking) :]) / len(right)
    for prediction in found:
        assert 0.0 < prediction.doubt <= 1.0
        assert [part.name for part in prediction.parts] == ["fixes", "breaks", "clean"]
        assert prediction.parts[-1].value == prediction.resolved
        assert (prediction.model, prediction.why, prediction.cut) == ("judge", "", "")


def test_a_batch_gives_what_single_questions_give(model_folder: Path, sums: list[Task]) -> None:
    model = load_reward_model(model_folder)
    jobs = [(sums[0], patch_of(sums[0], RIGHT)), (sums[1], Patch("")), (sums[0], patch_of(sums[0], BREAKING))]
    alone = [model.predict([job])[0] for job in jobs]
    for one, other in zip(model.predict(jobs), alone, strict=True):
        assert one.resolved == pytest.approx(other.resolved, abs=1e-5)
        assert one.doubt == pytest.approx(other.doubt, abs=1e-4)
    assert model.predict([]) == []


def test_a_patch_that_does_not_apply_fixes_nothing(model_folder: Path, sums: list[Task]) -> None:
    (found,) = load_reward_model(model_folder).predict([(sums[0], Patch("--- a/x\n+++ b/x\n@@ -1 +1 @@\n-y\n+z\n"))])
    assert (found.resolved, found.doubt) == (0.0, 0.0)
    assert "does not apply" in found.why


def test_the_same_seed_gives_the_same_files(base_folder: Path, attempts: list[LabelledAttempt], tmp_path: Path) -> None:
    digests = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        train_reward_model(str(base_folder), attempts, SETTINGS, out=tmp_path / name, budget=STEP, seed=seed)
        digests.append(load_reward_model(tmp_path / name).identity)
    assert digests[0] == digests[1] != digests[2]


def test_a_missing_label_is_masked_and_a_component_of_one_outcome_has_no_head(
    base_folder: Path, sums: list[Task], tmp_path: Path
) -> None:
    """STYLE is known of wrong patches alone; all patches build, so nothing can be learned of builds."""
    few = [attempt_of(task, RIGHT, builds=True) for task in sums]
    few += [attempt_of(task, WRONG, builds=True, style=index % 2 == 0) for index, task in enumerate(sums)]
    figures = train_reward_model(str(base_folder), few, SETTINGS, out=tmp_path / "model", budget=STEP, seed=0)
    (found,) = load_reward_model(tmp_path / "model").predict([(sums[0], patch_of(sums[0], RIGHT))])
    names = [part.name for part in found.parts]
    assert Component.BUILDS not in names
    assert Component.BREAKS not in names
    assert Component.CLEAN in names
    assert figures["training_attempts"] + figures["answers"] == len(few)


def test_a_killed_training_does_not_compute_activations_again(
    base_folder: Path, attempts: list[LabelledAttempt], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_args: object, **_options: object) -> None:
        raise KeyboardInterrupt

    store = tmp_path / "activations"
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(training, "train_heads", killed)
        train_reward_model(str(base_folder), attempts, SETTINGS, out=tmp_path / "m", budget=STEP, seed=0, store=store)
    assert not (tmp_path / "m").exists()
    monkeypatch.setattr(Trunk, "activations", killed)
    train_reward_model(str(base_folder), attempts, SETTINGS, out=tmp_path / "m", budget=STEP, seed=0, store=store)
    assert load_reward_model(tmp_path / "m").identity


# ---------------------------------------------------------------- Bradley-Terry


@pytest.mark.slow
def test_preferences_adapt_a_copy_of_the_trunk(
    base: LanguageModel, attempts: list[LabelledAttempt], tmp_path: Path
) -> None:
    before = {name: weight.clone() for name, weight in base.model.state_dict().items()}
    settings = RewardModelSettings(
        objective="preferences", input_tokens=384, members=2, learning_rate=1e-3, pairs_per_step=8, preferences=16
    )
    steps: list[dict[str, float]] = []
    figures = train_reward_model(
        base, attempts, settings, out=tmp_path / "judge", budget=Budget(steps=3), seed=0,
        log=lambda _step, _seconds, numbers: steps.append(dict(numbers)),
    )  # fmt: skip
    for name, weight in base.model.state_dict().items():
        assert torch.equal(weight, before[name])
    model = load_reward_model(tmp_path / "judge")
    assert isinstance(model, LanguageRewardModel)
    changed = {
        name
        for name, weight in model.trunk.model.state_dict().items()
        if not torch.equal(weight, before[f"model.{name}"])
    }
    assert changed
    assert all(name.startswith(("layers.1.", "norm")) for name in changed), "the lower half stays as it is"
    assert steps
    assert {"loss", "accuracy"} <= steps[0].keys()
    assert not math.isnan(figures["auc"])


def test_scores_of_shared_prompts_are_those_of_plain_transformers(
    base: LanguageModel, attempts: list[LabelledAttempt]
) -> None:
    trunk = Trunk.of(base)
    read = ReadAttempts.of(attempts[:4], InputReader(trunk.encode, 384))
    config = base.model.config
    config.num_labels = 1
    plain = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32).eval()
    plain.base_model.load_state_dict(trunk.model.state_dict())
    rows, positions = pack([each.prompt for each in read.inputs], [each.completion for each in read.inputs])
    with torch.no_grad():
        flat = packed_scores(plain, rows).tolist()
        starts = [sum(len(row.completions) for row in rows[:index]) for index in range(len(rows))]
        for each, (row, column) in zip(read.inputs, positions, strict=True):
            ids = torch.tensor([[*each.prompt, *each.completion]])
            expected = plain(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0, 0].item()
            assert flat[starts[row] + column] == pytest.approx(expected, abs=1e-4)


@pytest.mark.slow
def test_bradley_terry_learns_which_patch_is_better(base: LanguageModel, attempts: list[LabelledAttempt]) -> None:
    trunk = Trunk.of(base)
    read = ReadAttempts.of(attempts, InputReader(trunk.encode, 384))
    settings = RewardModelSettings(learning_rate=3e-3, head_learning_rate=1e-2, frozen=0.0, pairs_per_step=16)
    accuracies: list[float] = []
    adapt_trunk(
        trunk, read.inputs, [attempt.task_id for attempt in read.attempts], pairs(read.attempts), settings,
        budget=Budget(steps=20), seed=0, log=lambda _step, _seconds, numbers: accuracies.append(numbers["accuracy"]),
    )  # fmt: skip
    assert sum(accuracies[-4:]) / 4 > 0.9 > accuracies[0]


# ---------------------------------------------------------------- preferences and splits


def test_pairs_are_of_one_task_and_of_different_rewards(attempts: list[LabelledAttempt]) -> None:
    found = pairs(attempts[:6], per_task=None)
    assert len(found) == 6
    for pair in found:
        chosen, rejected = attempts[pair.chosen], attempts[pair.rejected]
        assert chosen.group == rejected.group
        assert pair.margin == pytest.approx(chosen.reward - rejected.reward)
        assert pair.margin > 0
    assert len(pairs(attempts, per_task=1)) == len(attempts) / 3
    assert pairs([attempts[0], attempts[3]]) == []


def test_a_split_keeps_functions_whole(attempts: list[LabelledAttempt]) -> None:
    learned, held_out = split_by_cluster(attempts, 0.25, seed=0)
    assert len(held_out) == len(attempts) / 4
    assert not {each.cluster for each in learned} & {each.cluster for each in held_out}
    assert len(learned) + len(held_out) == len(attempts)
    assert split_by_cluster(attempts[:3], 0.25, seed=0) == (attempts[:3], [])


def test_agreement_counts_pairs_and_ranks(attempts: list[LabelledAttempt]) -> None:
    of_two = attempts[:2] + attempts[3:5]  # right and wrong, of two tasks
    good = agreement(of_two, [3.0, 1.0, 2.0, 0.0])
    assert (good.pair_accuracy, good.pairs, good.auc, good.answers, good.verified, good.tasks) == (1.0, 2, 1.0, 4, 2, 2)
    # a tie counts a half; of the 4 (verified, other) pairs 2 are in order and 1 is a tie
    mixed = agreement(of_two, [1.0, 1.0, 0.5, 0.0])
    assert (mixed.pair_accuracy, mixed.auc) == (0.75, 0.625)
    nothing = agreement(of_two[:1], [1.0])
    assert (nothing.pair_accuracy, nothing.auc) == (None, None)


# ---------------------------------------------------------------- what is refused


def test_attempts_that_teach_nothing_are_refused(
    base_folder: Path, attempts: list[LabelledAttempt], tmp_path: Path
) -> None:
    def train(given: list[LabelledAttempt], **options: object) -> None:
        out = tmp_path / "none"
        train_reward_model(str(base_folder), given, SETTINGS, out=out, budget=STEP, seed=0, **options)  # type: ignore[arg-type]

    with pytest.raises(UnlearnableError, match="no executed attempts"):
        train([])
    with pytest.raises(UnlearnableError, match="training tasks have clean fixes alone"):
        train(attempts[::3])
    with pytest.raises(UnlearnableError, match="training tasks have no clean fix"):
        train(attempts[1::3])
    with pytest.raises(UnlearnableError, match="validation tasks have no clean fix"):
        train(attempts[:18], validation=attempts[19::3])
    with pytest.raises(UserError, match="in the training set and in the validation set"):
        train(attempts[:18], validation=attempts[15:])
    with pytest.raises(UserError, match="have no files"):
        train([type(each)(**{**vars(each), "task": None}) for each in attempts])
    assert not (tmp_path / "none").exists()


def test_an_input_longer_than_the_context_is_refused(
    base_folder: Path, attempts: list[LabelledAttempt], tmp_path: Path
) -> None:
    for tokens, reason in ((513, "reads 512 at most"), (63, "needs at least 64")):
        settings = RewardModelSettings(input_tokens=tokens)
        with pytest.raises(UserError, match=reason):
            train_reward_model(str(base_folder), attempts, settings, out=tmp_path / "m", budget=STEP, seed=0)
