"""The reward `learned`: a trained reward model as evidence, kept apart by its weights, with its doubt."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from regrade.cli.main import app
from regrade.datasets.errors import UserError
from regrade.datasets.patches import Patch
from regrade.datasets.tasks import Task
from regrade.evaluators.scoring.scorer import Scorer
from regrade.policy_training.environments.attempts import ScoredAnswer
from regrade.policy_training.policies.models import LanguageModel
from regrade.policy_training.policies.single_turn_prompt import prompt_of
from regrade.policy_training.reward_models.probe import RewardModelProbe
from regrade.policy_training.reward_models.reward_model import train_and_test_reward_model
from regrade.policy_training.trainers.callbacks import Budget
from regrade.policy_training.trainers.settings import RewardModelSettings
from regrade.rewards import Prediction, learned


@pytest.fixture
def folder(language_model: LanguageModel, tmp_path: Path) -> Path:
    answers = [
        ScoredAnswer(f"t{task}", f"Prompt {task}:\n", text, reward, reward == 1.0)
        for task in range(8)
        for text, reward in (("1 return x", 1.0), ("1 pass", -0.3), ("2 pass", -0.3))
    ]
    out = tmp_path / "judge"
    train_and_test_reward_model(language_model, answers, RewardModelSettings(), out=out, budget=Budget(steps=2), seed=0)
    return out


def test_it_judges_what_it_can_be_asked_and_only_that(folder: Path, tasks: list[Task], tmp_path: Path) -> None:
    task = tasks[0]
    assert task.reference is not None
    new_file = Patch.between({}, {"other.py": "x = 1\n"})
    with Scorer(
        workers=1, sandbox="process", cache=tmp_path / "cache", probes={Prediction: RewardModelProbe(folder)}
    ) as scorer:
        found = scorer.gather([(task, task.reference), (task, new_file)], [Prediction])
        asked, unasked = (evidence.records[Prediction] for evidence in found)
        hits = scorer.stats.hits
        scorer.gather([(task, task.reference)], [Prediction])
        assert scorer.stats.hits == hits + 1
    assert asked.model == "judge"
    assert 0.0 <= asked.resolved <= 1.0
    assert 0.0 < asked.doubt <= 0.5
    assert unasked.resolved is None
    verdict = learned.evaluate(found[0])
    assert verdict.value == pytest.approx(max(0.0, asked.resolved - asked.doubt))
    assert "judge predicts" in verdict.parts[0].why
    assert learned.evaluate(found[1]).value is None


def test_the_command_line_evaluates_with_a_model(
    folder: Path, library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REGRADE_CACHE", str(tmp_path / "cache"))
    text = (library / "library.py").read_text()
    task = {
        "id": "double",
        "instruction": "Mend `double`.",
        "repository": str(library),
        "base_patch": Patch.between(
            {"library.py": text}, {"library.py": text.replace("number * 2", "number * 3")}
        ).text,
        "reference": Patch.between({"library.py": text.replace("number * 2", "number * 3")}, {"library.py": text}).text,
        "fail_to_pass": ["test_library.py::test_double"],
        "pass_to_pass": ["test_library.py::test_add_nothing"],
        "failure": "AssertionError",
        "target": {"file": "library.py", "function": "double", "first_line": 25, "last_line": 26},
    }
    (tmp_path / "tasks.jsonl").write_text(json.dumps(task))
    asked = ["evaluate", "reference", "--tasks", tmp_path / "tasks.jsonl", "--out", tmp_path / "run"]
    asked += ["--reward", "learned", "--reward-model", folder, "--sandbox", "process"]
    done = CliRunner().invoke(app, [str(each) for each in asked], catch_exceptions=False)
    assert done.exit_code == 0, done.stderr
    (row,) = [json.loads(line) for line in (tmp_path / "run/evaluations/reference.jsonl").read_text().splitlines()]
    assert row["reward_name"] == "learned"
    assert 0.0 <= row["reward"] <= 1.0
    assert "judge predicts" in row["parts"][0]["why"]


def test_other_weights_are_another_identity(folder: Path, language_model: LanguageModel, tmp_path: Path) -> None:
    assert RewardModelProbe(folder).identity == RewardModelProbe(folder).identity
    answers = [
        ScoredAnswer(f"t{task}", "P:\n", text, float(text == "1 a"), text == "1 a")
        for task in range(8)
        for text in ("1 a", "1 b")
    ]
    train_and_test_reward_model(
        language_model, answers, RewardModelSettings(), out=tmp_path / "other", budget=Budget(steps=3), seed=1
    )
    assert RewardModelProbe(tmp_path / "other").identity != RewardModelProbe(folder).identity


def test_a_model_that_was_never_tested_is_refused(folder: Path) -> None:
    (folder / "calibration.json").unlink()
    with pytest.raises(UserError, match="never tested"):
        RewardModelProbe(folder)


def test_a_patch_and_its_answer_are_two_forms_of_one_thing(tasks: list[Task]) -> None:
    for task in tasks:
        prompt = prompt_of(task)
        answer = prompt.reference_answer()
        patch = prompt.patch(answer)
        assert patch is not None
        assert prompt.answer_of(patch) == answer
        assert prompt.answer_of(Patch("")) is None


def test_without_a_model_one_line_says_what_to_do(tasks: list[Task], tmp_path: Path) -> None:
    with (
        Scorer(workers=1, sandbox="process", cache=tmp_path) as scorer,
        pytest.raises(UserError, match="RewardModelProbe"),
    ):
        scorer.score([(tasks[0], Patch(""))], learned)
