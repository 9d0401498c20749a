"""The reward `learned`: a model's predictions as evidence, in any composition, answered in batches, without execution."""

from __future__ import annotations

import copy
import functools
import pickle
import shutil
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from regrade.datasets.errors import UserError
from regrade.datasets.patches import Patch
from regrade.datasets.tasks import Task
from regrade.evaluators.sandboxes import SandboxError
from regrade.evaluators.scoring import model_probes
from regrade.evaluators.scoring.jobs import Job
from regrade.evaluators.scoring.scorer import Scorer
from regrade.policy_training.adapters.trl import PatchReward
from regrade.policy_training.reward_models.language_reward_model import LanguageRewardModel
from regrade.policy_training.reward_models.loading import write_record
from regrade.rewards import (
    Prediction,
    Score,
    builtin_rewards,
    learned,
    load_reward,
    minimum,
    prediction_of,
    reward,
    small_diff,
)  # fmt: skip
from regrade.rewards.conformance import check_reward
from regrade.rewards.evidence import EvidenceSet
from regrade.rewards.reward_model_folders import read_record
from tests.policy_training.reward_models.conftest import BREAKING, RIGHT, WRONG, patch_of


@pytest.fixture
def scorer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scorer]:
    """All scorers share the loaded models, of which each has a process for static evidence."""
    monkeypatch.setattr(model_probes, "load_predictor", loaded)
    with Scorer(workers=1, sandbox="process", cache=tmp_path / "cache") as scorer:
        yield scorer


loaded = functools.cache(model_probes.load_predictor)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of patches in each call of a model."""
    sizes: list[int] = []
    predict = LanguageRewardModel.predict

    def counting(self: LanguageRewardModel, jobs: Sequence[Job]) -> list[Prediction]:
        sizes.append(len(jobs))
        return predict(self, jobs)

    monkeypatch.setattr(LanguageRewardModel, "predict", counting)
    return sizes


def jobs_of(tasks: Sequence[Task]) -> list[Job]:
    return [(task, patch_of(task, body)) for task in tasks for body in (RIGHT, WRONG, BREAKING)]


def test_it_is_the_lower_end_of_the_interval_and_runs_nothing(
    model_folder: Path, sums: list[Task], scorer: Scorer, calls: list[int]
) -> None:
    judge = learned(model_folder)
    jobs = jobs_of(sums[:4])
    evidence = scorer.gather(jobs, judge.needs)
    assert calls == [len(jobs)], "one call for all"
    assert scorer.stats.executions == 0
    (kind,) = judge.needs
    for each in evidence:
        prediction = each.records[kind]
        verdict = judge.evaluate(each)
        assert verdict.value == pytest.approx(max(0.0, prediction.resolved - prediction.doubt))
        assert f"judge predicts {prediction.resolved:.2f}" in verdict.parts[0].why
    hits = scorer.stats.hits
    assert scorer.gather(jobs, judge.needs) == evidence
    assert calls == [len(jobs)], "stored evidence is not predicted again"
    assert scorer.stats.hits == hits + len(jobs)


def test_it_composes_with_evidence_that_is_gathered_and_with_another_model(
    model_folder: Path, sums: list[Task], scorer: Scorer, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(model_folder, other)
    both = (0.7 * learned(model_folder) + 0.3 * small_diff).only_if(learned(model_folder).at_least(0.0))
    found = scorer.score(jobs_of(sums[:2]), both)
    assert all(breakdown.value is not None for breakdown in found)
    assert all({part.name for part in breakdown.parts} >= {"learned(judge)", "small_diff"} for breakdown in found)
    assert learned(other).kind.digest == learned(model_folder).kind.digest, "equal models have equal evidence"


def test_a_reward_of_ones_own_reads_the_prediction(
    model_folder: Path, sums: list[Task], scorer: Scorer, tmp_path: Path
) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        "from regrade.rewards import Score, learned, prediction_of, reward, tests\n\n"
        f"Judge = prediction_of({str(model_folder)!r})\n\n\n"
        "@reward\ndef harmless(prediction: Judge) -> Score:\n"
        "    (breaks,) = [part for part in prediction.parts if part.name == 'breaks']\n"
        "    return Score(1.0 - breaks.value, why=f'breaks something with {breaks.value:.2f}')\n\n\n"
        f"mixed = 0.5 * learned({str(model_folder)!r}) + 0.5 * harmless\n"
    )
    found = scorer.score(jobs_of(sums[:1]), load_reward(f"{path}:mixed"))
    harmless = [part.value for breakdown in found for part in breakdown.parts if part.name == "harmless"]
    assert len(harmless) == 3
    assert harmless[0] > harmless[2]


def test_the_command_line_names_it_by_its_folder(model_folder: Path) -> None:
    assert load_reward(f"learned:{model_folder}") == learned(model_folder)
    assert "learned" not in builtin_rewards()
    for spec in ("learned", "learned:"):
        with pytest.raises(UserError, match="pass learned:FOLDER"):
            load_reward(spec)


def test_it_passes_the_checks_of_rewards(model_folder: Path) -> None:
    assert check_reward(learned(model_folder), examples=50) == ()
    assert check_reward(minimum(learned(model_folder), small_diff), examples=20) == ()


def test_types_and_records_survive_pickling_and_copies(model_folder: Path) -> None:
    kind = prediction_of(model_folder)
    record = kind(0.5, 0.1, "judge")
    evidence = EvidenceSet({kind: record})
    for again in (pickle.loads(pickle.dumps(evidence)), copy.deepcopy(evidence)):
        assert again == evidence
        assert learned(model_folder).evaluate(again).value == pytest.approx(0.4)
    assert pickle.loads(pickle.dumps(kind)) is kind
    assert pickle.loads(pickle.dumps(Prediction)) is Prediction
    assert pickle.loads(pickle.dumps(learned(model_folder))) == learned(model_folder)


def test_concurrent_calls_are_answered_in_few_batches(
    model_folder: Path, sums: list[Task], scorer: Scorer, calls: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """While one call is answered, the others wait, and are then answered together."""
    judge = learned(model_folder)
    scorer.gather((), judge.needs)
    (probe,) = [each for kind, each in scorer._probes.items() if kind in judge.needs]
    jobs = jobs_of(sums[:4])
    begun, release = threading.Event(), threading.Event()
    predict = probe._predictor.predict  # type: ignore[attr-defined]

    def slow(asked: Sequence[Job]) -> list[Prediction]:
        begun.set()
        assert release.wait(60)
        found: list[Prediction] = predict(asked)
        return found

    monkeypatch.setattr(probe._predictor, "predict", slow)  # type: ignore[attr-defined]
    answers: dict[int, list[Prediction]] = {}

    def ask(index: int) -> None:
        answers[index] = probe.predict([jobs[index]])  # type: ignore[attr-defined]

    threads = [threading.Thread(target=ask, args=(index,)) for index in range(len(jobs))]
    threads[0].start()
    assert begun.wait(60)
    for thread in threads[1:]:
        thread.start()
    while len(probe._waiting) < len(jobs) - 1:  # type: ignore[attr-defined]
        threading.Event().wait(0.01)
    release.set()
    for thread in threads:
        thread.join(60)
    assert calls == [1, len(jobs) - 1]
    together = predict(jobs)
    assert [answers[index][0].resolved for index in range(len(jobs))] == pytest.approx(
        [each.resolved for each in together], abs=1e-5
    )


def test_a_failure_of_the_machine_leaves_one_patch_unscored(
    model_folder: Path, sums: list[Task], scorer: Scorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = jobs_of(sums[:1])
    predict = LanguageRewardModel.predict

    def failing(self: LanguageRewardModel, asked: Sequence[Job]) -> list[Prediction]:
        if any(patch == jobs[1][1] for _, patch in asked):
            raise SandboxError("the process was killed")
        return predict(self, asked)

    monkeypatch.setattr(LanguageRewardModel, "predict", failing)
    found = scorer.score(jobs, learned(model_folder))
    assert [breakdown.is_lost for breakdown in found] == [False, True, False]
    assert "the process was killed" in str(found[1].cause)


def test_the_model_never_sees_the_reference(
    model_folder: Path, sums: list[Task], scorer: Scorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Task] = []
    predict = LanguageRewardModel.predict

    def looking(self: LanguageRewardModel, asked: Sequence[Job]) -> list[Prediction]:
        seen.extend(task for task, _ in asked)
        return predict(self, asked)

    monkeypatch.setattr(LanguageRewardModel, "predict", looking)
    scorer.score([(replace(sums[0], reference=patch_of(sums[0], RIGHT)), Patch(""))], learned(model_folder))
    assert [task.reference for task in seen] == [None]


def test_a_prediction_without_a_model_says_what_to_write(sums: list[Task], scorer: Scorer) -> None:
    @reward
    def mine(prediction: Prediction) -> Score:
        return Score(prediction.doubt, why=prediction.model)

    with pytest.raises(UserError, match="prediction_of"):
        scorer.score([(sums[0], Patch(""))], mine)


def test_a_model_that_was_trained_again_meanwhile_is_refused(
    model_folder: Path, tmp_path: Path, scorer: Scorer
) -> None:
    folder = tmp_path / "judge"
    shutil.copytree(model_folder, folder)
    judge = learned(folder)
    write_record(folder, "language", {**read_record(folder).details, "seed": 7})
    with pytest.raises(UserError, match="another model now"):
        scorer.gather((), judge.needs)


# ---------------------------------------------------------------- TRL


def test_trl_gets_the_values_of_the_patches(
    model_folder: Path, sums: list[Task], scorer: Scorer, calls: list[int]
) -> None:
    function = PatchReward(learned(model_folder), sums, scorer)
    assert function.__name__ == "learned(judge)"
    task = sums[0]
    patches = [patch_of(task, body) for body in (RIGHT, WRONG)]
    edit = "sum_0.py\n<<<<<<< SEARCH\n    return number - 0\n=======\n    return number + 0\n>>>>>>> REPLACE\n"
    conversation = [{"role": "assistant", "content": edit}]
    completions = [patches[0].text, patches[1].text, "I don't know.", conversation]
    values = function(prompts=["p"] * 4, completions=completions, completion_ids=[[]] * 4, task_id=[task.id] * 4)
    expected = [
        breakdown.value for breakdown in scorer.score([(task, patch) for patch in patches], learned(model_folder))
    ]
    assert values == [expected[0], expected[1], 0.0, expected[0]]
    assert calls == [2], "equal patches once, all in one call"


def test_an_unscored_attempt_leaves_its_group_out(
    model_folder: Path, sums: list[Task], scorer: Scorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = patch_of(sums[0], WRONG)
    predict = LanguageRewardModel.predict

    def failing(self: LanguageRewardModel, asked: Sequence[Job]) -> list[Prediction]:
        if any(patch == lost for _, patch in asked):
            raise SandboxError("killed")
        return predict(self, asked)

    monkeypatch.setattr(LanguageRewardModel, "predict", failing)
    function = PatchReward(learned(model_folder), sums, scorer)
    texts = [patch_of(sums[0], RIGHT).text, lost.text, patch_of(sums[1], RIGHT).text]
    values = function(texts, task_id=[sums[0].id, sums[0].id, sums[1].id])
    assert values[:2] == [None, None]
    assert values[2] is not None


def test_a_dataset_without_the_tasks_is_refused(model_folder: Path, sums: list[Task], scorer: Scorer) -> None:
    function = PatchReward(learned(model_folder), sums[:1], scorer)
    with pytest.raises(UserError, match="no column task_id"):
        function(["x"])
    with pytest.raises(UserError, match="'add-1'"):
        function(["x"], task_id=["add-1"])
