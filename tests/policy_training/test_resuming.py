"""A training that is killed goes on, to the same numbers, and is refused with other settings."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainerControl, TrainerState

from regrade.datasets.errors import UserError
from regrade.datasets.rollouts import Sampling
from regrade.datasets.tasks import Task
from regrade.evaluators.scoring.scorer import Scorer
from regrade.evaluators.storage.run import Run
from regrade.policy_training.environments.agent_policy import AgentFormat
from regrade.policy_training.environments.agent_tools import EpisodeLimits
from regrade.policy_training.recipe.phases import Phases
from regrade.policy_training.recipe.settings import Recipe
from regrade.policy_training.train import train
from regrade.policy_training.trainers.callbacks import Budget, StepLog, StopAndLog
from regrade.policy_training.trainers.resuming import ResumePoints, _WriteStates
from regrade.policy_training.trainers.settings import (
    ExpertIterationSettings,
    OnlineSettings,
    PPOSettings,
    SFTSettings,
    StabilitySettings,
)
from regrade.policy_training.trainers.sft import demonstrations
from regrade.policy_training.training_plan import TrainingPlan

STEPS, EVERY = 6, 3
"""So that a state falls within an epoch of the data, and between the steps that share one generation."""
TWO = {"prompts_per_step": 1, "samples_per_prompt": 4, "steps_per_generation": 2, "learning_rate": 1e-3}
AGENT = AgentFormat(EpisodeLimits(turns=3, test_runs=1), max_tokens=120)
FEW_TURNS = AgentFormat(EpisodeLimits(turns=8, test_runs=3))
"""Of executed demonstrations: four traces."""
PLANS: dict[str, dict[str, Any]] = {
    "sft": {"settings": SFTSettings(batch_size=2, learning_rate=1e-3, frozen=0.5), "agent": FEW_TURNS},
    "sft-of-adapters": {"settings": SFTSettings(batch_size=1, learning_rate=1e-2), "lora_rank": 2},
    "expert-iteration": {
        "settings": ExpertIterationSettings(sampling=Sampling(1.0, 12), sft=SFTSettings(batch_size=1))
    },
    "grpo-agent": {"settings": OnlineSettings(algorithm="grpo", **TWO), "agent": AGENT},
    "rloo": {"settings": OnlineSettings(algorithm="rloo", **TWO)},
    "ppo": {"settings": PPOSettings(learning_rate=1e-3, samples_per_prompt=4, epochs=4)},
}
DEATHS = (
    ("regrade.evaluators.storage.run:Run", "log", EVERY + 2, False),  # in a step: a state of step 3, a log of 5
    ("torch", "save", 2, False),  # when half of the second state is written
    ("regrade.policy_training.policies.models:LanguageModel", "save", 1, True),  # with all steps done
)
TIMES = ("seconds", "step_time", "waiting_share")

Train = Callable[..., int]


@pytest.fixture(scope="module")
def train_in_child(evidence: Path, tasks: list[Task], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Train]:
    """Runs a plan in a process of its own; returns its exit code."""
    program = Path(__file__).with_name("killed_training.py")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    job = tmp_path_factory.mktemp("jobs") / "job"
    with subprocess.Popen(
        [sys.executable, program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None

        def run(plan: dict[str, Any], out: Path, death: tuple[Any, ...] | None = None) -> int:
            values = {"plan": plan, "out": out, "death": death, "tasks": tasks, "evidence": evidence}
            job.write_bytes(pickle.dumps(values))
            server.stdin.write(f"{job}\n")
            server.stdin.flush()
            return int(server.stdout.readline())

        yield run
        server.stdin.close()


def rows(run: Path) -> list[dict[str, Any]]:
    """All logged numbers but times."""
    logs = sorted((run / "training").glob("*.jsonl"))
    return without_times([json.loads(line) for path in logs for line in path.read_text().splitlines()])


def without_times(logged: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k not in TIMES and not k.endswith("_seconds")} for row in logged]


@pytest.mark.slow
@pytest.mark.parametrize("name", PLANS)
def test_a_killed_training_goes_on_with_the_same_curve(
    undecided_folder: Path, train_in_child: Train, tmp_path: Path, name: str
) -> None:
    plan = {**PLANS[name], "model": str(undecided_folder), "budget": Budget(steps=STEPS)}
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert train_in_child(plan, whole) == 0
    plan["resume"] = ResumePoints(every=EVERY)
    for death in DEATHS:
        assert train_in_child(plan, killed, death) == -signal.SIGKILL
    assert [path.name for path in sorted((killed / "trainer").glob("checkpoint-*"))] == ["checkpoint-3", "checkpoint-6"]
    assert train_in_child(plan, killed) == 0
    assert rows(killed) == rows(whole)
    assert [row["step"] for row in rows(killed) if "loss" in row] == list(range(1, STEPS + 1))
    weights = {path.relative_to(whole): path.read_bytes() for path in whole.rglob("*.safetensors")}
    assert len(weights) == 1 + (name == "ppo")
    for path, expected in weights.items():
        assert (killed / path).read_bytes() == expected, path
    assert not list((killed / "trainer").glob("checkpoint-*"))
    if not name.startswith("sft"):
        assert (killed / "samples.jsonl").read_bytes() == (whole / "samples.jsonl").read_bytes()


DEATHS_OF_A_ROUND = (
    ("regrade.evaluators.evaluation.answers:Answers", "add_all", 1, False),  # all is sampled, nothing executed
    ("regrade.policy_training.trainers.expert_iteration", "write_round", 1, True),  # all is executed
)
SAMPLES = ("regrade.policy_training.policies.local_model", "complete", 1, True)


@pytest.mark.slow
def test_a_round_that_is_killed_before_its_training_samples_nothing_again(
    undecided_folder: Path, train_in_child: Train, tmp_path: Path
) -> None:
    plan = {**PLANS["expert-iteration"], "model": str(undecided_folder), "budget": Budget(steps=1)}
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert train_in_child(plan, whole) == 0
    for death in (*DEATHS_OF_A_ROUND, SAMPLES):
        ended = train_in_child(plan, killed, death)
        assert ended == (0 if death == SAMPLES else -signal.SIGKILL), death
    assert rows(killed) == rows(whole)
    for name in ("samples.jsonl", "checkpoints/expert-iteration/model.safetensors"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes(), name
    assert sorted(path.name for path in (killed / "trainer").iterdir()) == ["round.json"]


ALARMING: dict[str, Any] = {
    "sft": SFTSettings(batch_size=2, learning_rate=0.3),
    "ppo": PPOSettings(learning_rate=0.25, samples_per_prompt=4, epochs=2),
}
"""Rates that are far too high: each guard rolls back twice, and then gives up."""
DEATHS_OF_A_GUARD = (
    ("regrade.evaluators.storage.journal", "flush_to_disk", 1, True),  # the first alarm's record is not yet in place
    ("regrade.policy_training.trainers.snapshots:LearnedState", "restore", 1, False),  # half of a rollback
    ("regrade.evaluators.storage.run:Run", "log", 2, False),  # in a step
)


@pytest.mark.slow
@pytest.mark.parametrize("name", ALARMING)
def test_a_killed_training_has_the_alarms_and_the_best_weights_of_one_never_killed(
    undecided_folder: Path, train_in_child: Train, tasks: list[Task], tmp_path: Path, name: str
) -> None:
    """Its record of an alarm is whole or absent, and none stays of a step that was taken again."""
    guarded = StabilitySettings(patience=1, max_rollbacks=2, probe_every=2, probe_samples=1, kl_every=1)
    plan = {
        "settings": ALARMING[name], "model": str(undecided_folder), "budget": Budget(steps=14), "stability": guarded,
        "probe_tasks": [replace(task, id=f"held out {task.id}") for task in tasks],
    }  # fmt: skip
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert train_in_child(plan, whole) == 1, "it is given up"
    plan["resume"] = ResumePoints(every=2)
    stale = killed / "trainer" / "alarms" / "step-99"
    for number, death in enumerate(DEATHS_OF_A_GUARD):
        assert train_in_child(plan, killed, death) == -signal.SIGKILL, death
        left = [path.name for path in stale.parent.glob("*")]
        assert any(each.startswith(".step-") for each in left) == (number == 0), left
        stale.mkdir()
    assert train_in_child(plan, killed) == 1
    assert rows(killed) == rows(whole)
    assert alarms(killed) == alarms(whole)
    assert len(alarms(whole)) == 3
    for path in whole.rglob("*.safetensors"):
        assert (killed / path.relative_to(whole)).read_bytes() == path.read_bytes(), path


def alarms(run: Path) -> dict[str, Any]:
    """The records of all alarms, with the weights of each; the folder holds nothing else."""
    found = {}
    for folder in (run / "trainer" / "alarms").iterdir():
        record = json.loads((folder / "alarm.json").read_text())
        weights = {name: weight.tolist() for name, weight in torch.load(folder / "weights.pt").items()}
        found[folder.name] = record | {"steps": without_times(record["steps"]), "weights": weights}
    return found


@pytest.fixture
def plan(undecided_folder: Path) -> TrainingPlan:
    return TrainingPlan(settings=SFTSettings(), model=str(undecided_folder), budget=Budget(steps=1))


def test_a_finished_training_is_not_repeated_and_other_settings_are_refused(
    plan: TrainingPlan, tasks: list[Task], scorer: Scorer, tmp_path: Path
) -> None:
    checkpoint = train(plan, tasks, scorer, tmp_path)
    written, logged = (checkpoint / "model.safetensors").stat().st_mtime_ns, rows(tmp_path)
    assert train(plan, tasks, scorer, tmp_path) == checkpoint
    assert ((checkpoint / "model.safetensors").stat().st_mtime_ns, rows(tmp_path)) == (written, logged)
    for other, given, said in [
        (
            replace(plan, settings=SFTSettings(learning_rate=0.5)),
            tasks,
            "settings.learning_rate was 0.0001 and is now 0.5",
        ),
        (replace(plan, budget=Budget(steps=2)), tasks, "budget.steps was 1 and is now 2;"),
        (replace(plan, settings=PPOSettings()), tasks, 'algorithm was "sft" and is now "ppo"'),
        (plan, tasks[::-1], "tasks_sha256 was"),
    ]:
        with pytest.raises(UserError, match=said):
            train(other, given, scorer, tmp_path)
    train(replace(plan, resume=ResumePoints(every=1)), tasks, scorer, tmp_path)  # which changes no result


def test_time_spent_before_a_kill_counts() -> None:
    killed = StopAndLog(Budget(seconds=100.0))
    killed.began -= 60.0
    going_on = StopAndLog(Budget(seconds=100.0))
    assert going_on.spent(0) == pytest.approx(0.0, abs=0.01)
    going_on.load_state_dict(killed.state_dict())
    assert going_on.spent(0) == pytest.approx(0.6, abs=0.01)


def test_states_are_due_by_time_or_by_steps() -> None:
    now = [0.0]

    def due(callback: _WriteStates, step: int) -> bool:
        control = TrainerControl()
        callback.on_step_end(None, TrainerState(global_step=step), control)
        if control.should_save:
            callback.on_save(None, None, control)
        return bool(control.should_save)

    by_time = _WriteStates(ResumePoints(seconds=10.0), now=lambda: now[0])
    found = []
    for step, now[0] in enumerate((4.0, 9.0, 11.0, 15.0, 20.9, 21.0), 1):
        found.append(due(by_time, step))
    assert found == [False, False, True, False, False, True]
    by_steps = _WriteStates(ResumePoints(every=2))
    assert [due(by_steps, step) for step in range(1, 5)] == [False, True, False, True]


class Killed(BaseException):
    """In place of a signal, in this process."""


def phases_until(run: Run, scorer: Scorer, left: int) -> Phases:
    """One-turn phases with a state after each step, killed when so many steps are logged."""
    recipe = Recipe(
        sft=SFTSettings(batch_size=1, learning_rate=1e-3, frozen=0.5), sft_steps=6, check_every=2, rounds=2, task_shares=1,
        expert_iteration=ExpertIterationSettings(sampling=Sampling(1.0, 6), sft=SFTSettings(batch_size=1)), round_steps=3,
    )  # fmt: skip
    count = [left]

    @contextmanager
    def stage(_title: str) -> Iterator[Callable[[int, int], None]]:
        yield lambda _done, _total: None

    phases = Phases(run, recipe, 0, stage, scorer)
    phases.resume = ResumePoints(every=1)
    log = phases.log

    def deadly(*arguments: Any) -> StepLog:
        write = log(*arguments)

        def step(*numbers: Any) -> None:
            write(*numbers)
            count[0] -= 1
            if not count[0]:
                raise Killed

        return step

    phases.log = deadly  # type: ignore[method-assign]
    return phases


@pytest.mark.slow
def test_a_killed_phase_of_the_recipe_goes_on_within_it(
    undecided_folder: Path, tasks: list[Task], scorer: Scorer, tmp_path: Path
) -> None:
    """SFT to its plateau, and expert iteration in its second round: the same weights and logs as without a kill."""
    hidden = [task.without_reference() for task in tasks]

    def work(run: Run, left: int) -> None:
        phases = phases_until(run, scorer, left)
        phases.sft(str(undecided_folder), tasks, tasks)
        phases.expert_iteration(run.checkpoint("sft"), demonstrations(tasks), hidden)

    whole, killed = Run(tmp_path / "whole"), Run(tmp_path / "killed")
    work(whole, -1)
    for left in (4, 8):  # SFT's fourth step; then, from the third on, the second round's second one or later
        with pytest.raises(Killed):
            work(killed, left)
    left = [path.relative_to(killed.folder / "trainer").parts for path in (killed.folder / "trainer").glob("*/*")]
    assert ("expert-iteration-1", "model") in left  # killed in the second round
    work(killed, -1)
    for path in whole.folder.glob("checkpoints/*/model.safetensors"):
        assert (killed.folder / path.relative_to(whole.folder)).read_bytes() == path.read_bytes()
    assert {name: without_times(rows) for name, rows in killed.training().items()} == {
        name: without_times(rows) for name, rows in whole.training().items()
    }
    assert not list((killed.folder / "trainer").glob("*/*"))
