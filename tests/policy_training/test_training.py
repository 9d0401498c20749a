"""`regrade train`: every algorithm, from a saved model to a checkpoint."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from regrade.datasets.errors import UserError
from regrade.datasets.patches import Patch
from regrade.datasets.rollouts import Sampling
from regrade.datasets.tasks import Task
from regrade.evaluators.scoring.scorer import Scorer
from regrade.policy_training.environments.agent_policy import AgentFormat
from regrade.policy_training.environments.agent_tools import EpisodeLimits
from regrade.policy_training.policies.models import load_model
from regrade.policy_training.recipe_files import TrainingRecipe
from regrade.policy_training.reward_models.loading import load_reward_model
from regrade.policy_training.train import train, train_recipe
from regrade.policy_training.trainers.callbacks import Budget
from regrade.policy_training.trainers.settings import (
    ExpertIterationSettings,
    OnlineSettings,
    PPOSettings,
    RewardModelSettings,
    SFTSettings,
    TrainerSettings,
)
from regrade.policy_training.training_plan import TrainingPlan

SETTINGS: tuple[TrainerSettings, ...] = (
    SFTSettings(), ExpertIterationSettings(sampling=Sampling(1.0, 6)),
    OnlineSettings(algorithm="grpo", samples_per_prompt=6), OnlineSettings(algorithm="rloo", samples_per_prompt=6),
    PPOSettings(),
    RewardModelSettings(objective="preferences", input_tokens=384, members=2, sampling=Sampling(1.0, 24)),
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("settings", SETTINGS, ids=lambda settings: settings.algorithm)
def test_every_algorithm_leaves_a_checkpoint_and_a_log(
    undecided_folder: Path, tasks: list[Task], scorer: Scorer, tmp_path: Path, settings: TrainerSettings
) -> None:
    algorithm = settings.algorithm
    every = None if algorithm == "reward-model" else 1
    plan = TrainingPlan(settings=settings, model=str(undecided_folder), budget=Budget(steps=2), save_every=every)
    seen: list[tuple[str, int, int]] = []
    checkpoint = train(plan, tasks, scorer, tmp_path / "run", progress=lambda *counts: seen.append(counts))
    if algorithm == "reward-model":
        assert tasks[0].reference is not None
        (prediction,) = load_reward_model(checkpoint).predict([(tasks[0], tasks[0].reference)])
        assert prediction.resolved is not None
        assert prediction.resolved > 0.0
    else:
        before, after = (
            load_model(str(folder), device="cpu").model.state_dict() for folder in (undecided_folder, checkpoint)
        )
        assert any(not weight.equal(after[name]) for name, weight in before.items())
        kept = checkpoint.parent.glob(f"{algorithm}-*")
        assert sorted(path.name for path in kept) == [f"{algorithm}-1", f"{algorithm}-2"]
    lines = (tmp_path / "run" / "training" / f"{algorithm}.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines if "loss" in json.loads(line)] == [1, 2]
    assert not [line for line in lines if "alarms" in json.loads(line)]
    assert ("training", 2, 2) in seen
    assert seen[-1][1:] == (2, 2) or seen[-1][0] == "reading attempts"
    executes_first = algorithm in ("expert-iteration", "reward-model")
    assert executes_first == any(what == "executing" and 0 < done == total for what, done, total in seen)


def test_an_agent_learns_executed_demonstrations(
    undecided_folder: Path, tasks: list[Task], scorer: Scorer, tmp_path: Path
) -> None:
    plan = TrainingPlan(
        settings=SFTSettings(), model=str(undecided_folder), budget=Budget(steps=2),
        agent=AgentFormat(EpisodeLimits(turns=8, test_runs=3)),
    )  # fmt: skip
    checkpoint = train(plan, tasks, scorer, tmp_path)
    assert AgentFormat.of_checkpoint(checkpoint) == plan.agent
    rows = [json.loads(line) for line in (tmp_path / "demonstrations.jsonl").read_text().splitlines()]
    assert [(row["task_id"], row["mistakes"] > 0) for row in rows] == [
        ("second", False), ("second", True), ("second", False), ("add", False), ("add", True), ("add", False)
    ]  # fmt: skip
    assert [sum(not turn["is_learned"] for turn in row["turns"]) > 0 for row in rows] == [False, True, True] * 2
    (logged,) = (tmp_path / "training" / "demonstrations.jsonl").read_text().splitlines()
    assert json.loads(logged)["traces"] == 6
    known = (checkpoint / "model.safetensors").read_bytes()
    given = replace(plan, demonstrations=tmp_path / "demonstrations.jsonl")
    assert (train(given, [], scorer, tmp_path / "given") / "model.safetensors").read_bytes() == known
    with pytest.raises(UserError, match=r"a trace has 6 turns, and the agent 1: .* give the agent at least 6"):
        train(replace(given, agent=None), [], scorer, tmp_path / "other")
    iterated = replace(plan, settings=ExpertIterationSettings(sampling=Sampling(1.0, 6)), budget=Budget(steps=1))
    hidden = [task.without_reference() for task in tasks]
    assert AgentFormat.of_checkpoint(train(iterated, hidden, scorer, tmp_path / "iterated")) == plan.agent
    (_, summary) = (tmp_path / "iterated" / "training" / "expert-iteration.jsonl").read_text().splitlines()
    assert 0 <= json.loads(summary)["waited_share"] < 1
    with pytest.raises(UserError, match="answers of one turn"):
        train(replace(plan, settings=RewardModelSettings()), tasks, scorer, tmp_path / "other")


def test_a_probe_on_what_is_learned_is_a_user_error(tasks: list[Task], scorer: Scorer, tmp_path: Path) -> None:
    plan = TrainingPlan(settings=SFTSettings(), model="m", budget=Budget(steps=1), probe_tasks=tasks[1:])
    with pytest.raises(UserError, match="probe_tasks: add is trained on too"):
        train(plan, tasks, scorer, tmp_path)


def test_sft_of_one_turn_leaves_out_references_that_no_answer_expresses_and_says_so(
    undecided_folder: Path, tasks: list[Task], scorer: Scorer, tmp_path: Path
) -> None:
    source = tasks[0].base.read("library.py")
    elsewhere = Patch.between({"library.py": source}, {"library.py": source.replace("number * 2", "number + number")})
    other = replace(tasks[0], reference=elsewhere)
    plan = TrainingPlan(settings=SFTSettings(), model=str(undecided_folder), budget=Budget(steps=1), stability=None)
    told: list[str] = []
    train(plan, [other, tasks[1]], scorer, tmp_path / "run", tell=told.append)
    (line,) = [line for line in told if line.startswith("demonstrations")]
    assert line.startswith("demonstrations: 1 answer; 1 could not be made (the reference does not replace")
    with pytest.raises(UserError, match=r"no reference of the 1 task .* train an agent of several turns"):
        train(plan, [other], scorer, tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_no_tasks_are_a_user_error(scorer: Scorer, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no tasks to train on"):
        train(TrainingPlan(settings=PPOSettings(), model="m", budget=Budget(steps=1)), [], scorer, tmp_path)


def test_a_recipe_trains_and_neither_its_probe_nor_its_precision_is_forgotten(
    undecided_folder: Path, tasks: list[Task], scorer: Scorer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REGRADE_PRECISION", "float32")
    recipe = TrainingRecipe(settings=SFTSettings(), model=str(undecided_folder), steps=1, probe="held_out.jsonl")
    with pytest.raises(UserError, match=r"the recipe probes held_out\.jsonl: load these tasks"):
        train_recipe(recipe, tasks, scorer, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    checkpoint = train_recipe(recipe, tasks[:1], scorer, tmp_path / "run", probe_tasks=tasks[1:])
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["configuration"]["probe_tasks"] == [tasks[1].id]
    assert (checkpoint / "model.safetensors").is_file()
    monkeypatch.setenv("REGRADE_PRECISION", "bfloat16")
    with pytest.raises(UserError, match='precision was "float32" and is now "bfloat16"'):
        train_recipe(recipe, tasks[:1], scorer, tmp_path / "run", probe_tasks=tasks[1:])
