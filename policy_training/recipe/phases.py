"""The phases of the recipe on one run's folder. A finished phase is skipped, so a killed run resumes in the phase in
which it was killed."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from regrade.datasets.errors import UserError
from regrade.datasets.tasks import Task
from regrade.evaluators.evaluation.sweeps import Stage
from regrade.evaluators.scoring.scorer import Scorer
from regrade.evaluators.storage.run import Run
from regrade.policy_training.environments.attempts import ScoredAnswer, read_attempts, write_attempts
from regrade.policy_training.policies.models import LanguageModel, load_model
from regrade.policy_training.recipe.settings import Recipe
from regrade.policy_training.recipe.tasks import informative_tasks
from regrade.policy_training.trainers.callbacks import Budget, StepLog
from regrade.policy_training.trainers.expert_iteration import ExpertIteration, shares
from regrade.policy_training.trainers.online import rates, train_online
from regrade.policy_training.trainers.sft import Plateau, answer_quality, demonstrations, train_sft

RL_PHASES = ("expert iteration", "grpo")


class Phases:
    """SFT, expert iteration, GRPO, and more SFT. The names of phases are those of the checkpoints that they save."""

    def __init__(self, run: Run, settings: Recipe, seed: int, stage: Stage) -> None:
        self.run = run
        self.settings = settings
        self.seed = seed
        self.stage = stage

    @property
    def rl_seconds(self) -> float:
        """Wall time of reinforcement learning."""
        return sum(self.run.manifest.phases[name].seconds for name in RL_PHASES)

    def sft(self, model: str, tasks: Sequence[Task], validation: Sequence[Task]) -> None:
        """SFT on the references of `tasks`, to its plateau on the validation tasks: the checkpoint `sft`."""
        if self.run.finished("sft"):
            return
        examples, held = demonstrations(tasks), demonstrations(validation)
        with self.run.phase("sft"):
            language_model = load_model(model, to_train=True)
            plateau = Plateau(
                model=language_model.model,
                measure=lambda: answer_quality(language_model, held),
                every=self.settings.check_every,
            )
            with self.stage("SFT") as report:
                train_sft(
                    language_model,
                    examples,
                    self.settings.sft,
                    out=self.run.folder / "trainer",
                    budget=Budget(self.settings.sft_steps),
                    seed=self.seed,
                    plateau=plateau,
                    log=self.log("sft", report, self.settings.sft_steps),
                )
            for step, quality in plateau.history:
                self.run.log(
                    "sft-validation",
                    step,
                    0.0,
                    answer_probability=quality.probability,
                    exact_answers=quality.exact,
                    validation_loss=-quality.log_likelihood,
                )
            language_model.save(self.run.checkpoint("sft"))

    def expert_iteration(
        self, start: Path, demonstrated: Sequence[Task], tests_only: Sequence[Task], scorer: Scorer
    ) -> None:
        """Rounds of sampling, execution, and training on the verified answers: the checkpoint `expert-iteration`."""
        if self.run.finished("expert iteration"):
            return
        settings = self.settings
        with self.run.phase("expert iteration"):
            language_model = load_model(str(start), to_train=True)
            loop = ExpertIteration(demonstrations(demonstrated), settings.expert_iteration)
            dealt = shares(tests_only, min(settings.task_shares, len(tests_only)), self.seed)
            for number in range(settings.rounds):
                self._round(loop, language_model, dealt[number % len(dealt)], scorer, number)
            language_model.save(self.run.checkpoint("expert-iteration"))

    def _round(
        self, loop: ExpertIteration, language_model: LanguageModel, tasks: Sequence[Task], scorer: Scorer, number: int
    ) -> None:
        phase, began = f"expert-iteration-{number + 1}", time.monotonic()
        with self.stage(f"expert iteration, round {number + 1}") as report:
            outcome = loop.round(
                language_model,
                tasks,
                scorer,
                out=self.run.folder / "trainer",
                budget=Budget(self.settings.round_steps),
                seed=self.seed * 1000 + number,
                log=self.log(phase, None, self.settings.round_steps),
                progress=lambda _what, done, total: report(done, total),
            )
        seconds = time.monotonic() - began
        write_attempts(self.run.folder / "attempts" / f"round-{number + 1}.jsonl", outcome.attempts)
        self.run.log(
            "expert-iteration",
            number + 1,
            seconds,
            verified=len(outcome.verified),
            **rates(outcome.attempts),
            execution_seconds=outcome.spent.execution,
            generation_seconds=outcome.spent.generation,
            training_seconds=seconds - outcome.spent.execution - outcome.spent.generation,
        )

    def grpo(self, tests_only: Sequence[Task], scorer: Scorer) -> None:
        """GRPO continues from expert iteration, on the tests-only tasks whose attempts had different rewards: the
        checkpoint `rl`."""
        if self.run.finished("grpo"):
            return
        settings = self.settings
        with self.run.phase("grpo"), self.stage("GRPO") as report:
            language_model = load_model(str(self.run.checkpoint("expert-iteration")), to_train=True)
            per_generation = settings.grpo.prompts_per_step * settings.grpo.steps_per_generation
            train_online(
                language_model,
                informative_tasks(tests_only, self.stored_answers(), per_generation),
                scorer,
                settings.grpo,
                out=self.run.folder / "trainer",
                budget=Budget(settings.grpo_steps),
                seed=self.seed,
                log=self.log("grpo", report, settings.grpo_steps),
            )
            language_model.save(self.run.checkpoint("rl"))

    def more_sft(self, name: str, title: str, start: Path, tasks: Sequence[Task], budget: Budget) -> None:
        """SFT continues from a checkpoint on the references of `tasks`: the checkpoint `name`."""
        if self.run.finished(name):
            return
        with self.run.phase(name), self.stage(title) as report:
            language_model = load_model(str(start), to_train=True)
            train_sft(
                language_model,
                demonstrations(tasks),
                self.settings.expert_iteration.sft,
                out=self.run.folder / "trainer",
                budget=budget,
                seed=self.seed + 1,
                log=self.log(name, report, budget.steps or 0),
            )
            language_model.save(self.run.checkpoint(name))

    def log(self, phase: str, report: Callable[[int, int], None] | None, steps: int) -> StepLog:
        """Writes each step into the run's training log."""

        def log(step: int, seconds: float, numbers: Mapping[str, float]) -> None:
            if report is not None:
                report(step, max(step, steps) if steps else 0)  # a time budget has no number of steps
            parts = dict(numbers)
            if "execution_seconds" in parts and "step_time" in parts:
                busy = parts["execution_seconds"] + parts["generation_seconds"]
                parts["training_seconds"] = max(0.0, parts["step_time"] - busy)
            self.run.log(phase, step, seconds, **parts)

        return log

    def stored_answers(self) -> list[ScoredAnswer]:
        """The executed attempts of expert iteration."""
        return [
            answer for path in sorted((self.run.folder / "attempts").glob("*.jsonl")) for answer in read_attempts(path)
        ]


def check_same(run: Run, **configuration: Any) -> None:
    """Record the configuration of a run. Raises UserError if the run was started with another one."""
    plain = json.loads(json.dumps(configuration))
    stored = run.manifest.configuration
    if stored and dict(stored) != plain:
        changed = sorted(key for key in {*plain, *stored} if stored.get(key) != plain.get(key))
        raise UserError(
            f"{run.folder} holds a run with other {' and '.join(changed)}: give another folder (`folder=FOLDER`), or "
            "delete this one"
        )
    run.update(configuration=plain)
