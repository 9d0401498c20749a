"""`regrade train`: one algorithm, from a model to a checkpoint in a run's folder."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, get_args

from regrade.datasets.errors import UserError
from regrade.datasets.rollouts import Sampling
from regrade.datasets.tasks import Task
from regrade.evaluators.scoring.scorer import Scorer
from regrade.evaluators.storage.run import Run
from regrade.policy_training.environments.attempts import gather, scored_answers, write_attempts
from regrade.policy_training.environments.reward_shaping import Shaping
from regrade.policy_training.policies.local_model import ModelPolicy
from regrade.policy_training.policies.models import LanguageModel, load_model
from regrade.policy_training.policies.single_turn_prompt import ask
from regrade.policy_training.reward_models.reward_model import train_and_test_reward_model
from regrade.policy_training.trainers.callbacks import Budget, StepLog
from regrade.policy_training.trainers.expert_iteration import ExpertIteration
from regrade.policy_training.trainers.online import rates, train_online
from regrade.policy_training.trainers.ppo import train_ppo
from regrade.policy_training.trainers.sft import Example, demonstrations, train_sft

Algorithm = Literal["sft", "expert-iteration", "grpo", "rloo", "ppo", "reward-model"]

LEARNING_RATES: dict[str, float] = {
    "sft": 1e-4, "expert-iteration": 5e-5, "grpo": 2e-5, "rloo": 2e-5, "ppo": 1e-5, "reward-model": 5e-5,
}  # fmt: skip


@dataclass(frozen=True)
class TrainingPlan:
    """What to train, on what, and for how long."""

    algorithm: Algorithm
    model: str
    budget: Budget
    seed: int = 0
    learning_rate: float | None = None
    """None: the algorithm's default."""
    samples: int = 8
    """Attempts per task where attempts are sampled."""
    temperature: float = 1.0
    save_every: int | None = None
    """A checkpoint every so many steps, beside the last one, so that breakage can be followed along training."""


def train(
    plan: TrainingPlan, tasks: Sequence[Task], scorer: Scorer, out: Path, *,
    progress: Callable[[int, int], None] | None = None,
) -> Path:  # fmt: skip
    """Train and save. Returns the checkpoint's folder; the training log and the manifest lie in `out`.

    `sft` reads the tasks' references; all others read their tests alone (`expert-iteration` learns from verified
    answers of its own, `reward-model` from executed attempts).

    With `save_every`, checkpoints along the way lie beside it as ALGORITHM-STEP.

    Raises:
        UserError: no such algorithm, no tasks, no model, or a task that this policy cannot be shown.
    """
    if plan.algorithm not in get_args(Algorithm):
        raise UserError(f"no training algorithm {plan.algorithm!r}; choose from: {', '.join(get_args(Algorithm))}")
    if not tasks:
        raise UserError("no tasks to train on: choose others with --tasks or --split (see `regrade tasks list`)")
    if plan.save_every and plan.algorithm == "reward-model":
        raise UserError("a reward model proposes nothing that could break: leave out --save-every")
    # Tasks that this policy can't be shown, or learn from, are said before a model is loaded and a folder made.
    examples = demonstrations(tasks) if plan.algorithm == "sft" else []
    for task in tasks:
        ask(task)
    run = Run(out)
    with run.writing():
        return _train_into(run, plan, examples, tasks, scorer, progress)


def _train_into(
    run: Run,
    plan: TrainingPlan,
    examples: Sequence[Example],
    tasks: Sequence[Task],
    scorer: Scorer,
    progress: Callable[[int, int], None] | None,
) -> Path:
    run.update(model=plan.model, seeds={"run": plan.seed}, configuration={**asdict(plan), "tasks": len(tasks)})
    language_model = load_model(plan.model, to_train=True)
    checkpoint = run.checkpoint(plan.algorithm)
    with run.phase(plan.algorithm):
        log = _log(run, plan, language_model, progress)
        if plan.algorithm == "sft":
            train_sft(
                language_model, examples, out=run.folder / "trainer", budget=plan.budget, seed=plan.seed,
                learning_rate=_rate(plan), log=log,
            )  # fmt: skip
        else:
            _learn_from_tests(plan, language_model, tasks, scorer, run, log)
        if plan.algorithm != "reward-model":
            language_model.save(checkpoint)
    return checkpoint


def _rate(plan: TrainingPlan) -> float:
    return plan.learning_rate or LEARNING_RATES[plan.algorithm]


def _learn_from_tests(
    plan: TrainingPlan, language_model: LanguageModel, tasks: Sequence[Task], scorer: Scorer, run: Run, log: StepLog
) -> None:
    scratch = run.folder / "trainer"
    if plan.algorithm == "expert-iteration":
        loop = ExpertIteration([], Sampling(plan.temperature, plan.samples), learning_rate=_rate(plan))
        found = loop.round(language_model, tasks, scorer, out=scratch, budget=plan.budget, seed=plan.seed, log=log)
        run.log("expert-iteration", 1, found.spent.generation + found.spent.execution, **rates(found.attempts))
    elif plan.algorithm in ("grpo", "rloo"):
        train_online(
            language_model, tasks, scorer, algorithm=plan.algorithm, out=scratch, budget=plan.budget, seed=plan.seed,
            learning_rate=_rate(plan), samples_per_prompt=plan.samples, prompts_per_step=min(8, len(tasks)),
            temperature=plan.temperature, log=log,
        )  # fmt: skip
    elif plan.algorithm == "ppo":
        train_ppo(
            language_model,
            tasks,
            scorer,
            out=scratch,
            budget=plan.budget,
            seed=plan.seed,
            learning_rate=_rate(plan),
            log=log,
        )
    else:
        _reward_model(plan, language_model, tasks, scorer, run, log)


def _reward_model(
    plan: TrainingPlan, language_model: LanguageModel, tasks: Sequence[Task], scorer: Scorer, run: Run, log: StepLog
) -> None:
    policy = ModelPolicy(language_model, "sampler")
    attempts, _ = gather(policy, tasks, Sampling(plan.temperature, plan.samples), plan.seed, scorer, Shaping())
    write_attempts(run.folder / "attempts" / "round-1.jsonl", attempts)
    figures = train_and_test_reward_model(
        language_model, scored_answers(attempts), out=run.checkpoint("reward-model"), budget=plan.budget,
        seed=plan.seed, learning_rate=_rate(plan), log=log,
    )  # fmt: skip
    run.log("reward-model-test", 1, 0.0, **figures)


def _log(
    run: Run, plan: TrainingPlan, language_model: LanguageModel, progress: Callable[[int, int], None] | None
) -> StepLog:
    began = time.monotonic()

    def log(step: int, seconds: float, numbers: Mapping[str, float]) -> None:
        run.log(plan.algorithm, step, seconds, **numbers)
        if plan.save_every and step and step % plan.save_every == 0:
            language_model.save(run.checkpoint(f"{plan.algorithm}-{step}"))
        if progress is None:
            return
        if plan.budget.steps is not None:
            progress(step, max(step, plan.budget.steps))
        elif plan.budget.seconds is not None:
            progress(round(time.monotonic() - began), round(plan.budget.seconds))

    return log
