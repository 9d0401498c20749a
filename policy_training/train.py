"""`regrade train`: one algorithm, from a model to a checkpoint in a run's folder."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypedDict

from regrade.datasets.errors import UnstableTrainingError, UserError
from regrade.datasets.plurals import counted
from regrade.datasets.tasks import Task
from regrade.evaluators.scoring.scorer import Scorer
from regrade.evaluators.storage.labelled_attempts import distinct
from regrade.evaluators.storage.run import Run
from regrade.policy_training.cascade.cascade import Cascade, cascade_of
from regrade.policy_training.cascade.permission import check_cascade
from regrade.policy_training.environments.agent_policy import AgentFormat
from regrade.policy_training.environments.attempt_samples import write_samples
from regrade.policy_training.environments.attempts import Attempt, append_attempts, gather, write_attempts
from regrade.policy_training.environments.demonstration_files import (
    DemonstrationFile,
    read_transcripts,
    write_demonstrations,
)
from regrade.policy_training.environments.demonstration_formats import CallExpert, CompactExpert
from regrade.policy_training.environments.demonstrations import Demonstrator
from regrade.policy_training.environments.labelled import labelled
from regrade.policy_training.environments.reward_check import check_teaches
from regrade.policy_training.environments.step_rewards import StepRewards
from regrade.policy_training.environments.training_reward import TrainingReward
from regrade.policy_training.policies.adapters import add_lora
from regrade.policy_training.policies.harmony import Harmony
from regrade.policy_training.policies.local_model import ModelPolicy
from regrade.policy_training.policies.models import LanguageModel, check_memory, checkpoint_gradients, load_model
from regrade.policy_training.policies.single_turn_prompt import prompt_of
from regrade.policy_training.policies.transcripts import Transcript
from regrade.policy_training.recipe_files import TrainingRecipe
from regrade.policy_training.reward_models.training import train_reward_model
from regrade.policy_training.trainers.callbacks import Budget, StepLog
from regrade.policy_training.trainers.executed_tests import KeepAttempts
from regrade.policy_training.trainers.expert_iteration import SAMPLED, ExpertIteration
from regrade.policy_training.trainers.online import train_online
from regrade.policy_training.trainers.ppo import train_ppo
from regrade.policy_training.trainers.probes import executed_probe
from regrade.policy_training.trainers.processes import from_main, is_main, together
from regrade.policy_training.trainers.resuming import ResumePoints, last_step, remove_states
from regrade.policy_training.trainers.settings import (
    ExpertIterationSettings,
    OnlineSettings,
    PPOSettings,
    RewardModelSettings,
    SFTSettings,
    TrainerSettings,
)
from regrade.policy_training.trainers.sft import demonstrations, train_sft
from regrade.policy_training.trainers.stability import StabilityGuard
from regrade.policy_training.trainers.tracking import Tracker, tracked
from regrade.policy_training.training_plan import TrainingPlan, check_plan, configuration_of

Progress = Callable[[str, int, int], None]
"""What is done (`executing demonstrations`, `sampling`, `executing`, `tracing`, `training`), how much of how much."""
Tell = Callable[[str], None]
Lessons = Callable[[Run, LanguageModel, Progress | None, Tell | None], Sequence[Transcript]]


def train_recipe(
    recipe: TrainingRecipe,
    tasks: Sequence[Task],
    scorer: Scorer,
    out: Path,
    *,
    probe_tasks: Sequence[Task] = (),
    progress: Progress | None = None,
) -> Path:
    """Train a model as a recipe says, on these tasks; see `train`.

    Args:
        probe_tasks: held-out tasks that the stability guard probes: those of the recipe's `probe`. Default: none.

    Raises:
        UserError: the recipe has a `probe`, and `probe_tasks` are left out.
    """
    if recipe.probe is not None and not probe_tasks:
        raise UserError(f"the recipe probes {recipe.probe}: load these tasks, and pass them as probe_tasks")
    return train(replace(TrainingPlan.of(recipe), probe_tasks=probe_tasks), tasks, scorer, out, progress=progress)


def train(
    plan: TrainingPlan,
    tasks: Sequence[Task],
    scorer: Scorer,
    out: Path,
    *,
    progress: Progress | None = None,
    tell: Tell | None = None,
) -> Path:
    """Train a model and save it; the training log and the manifest are in `out`.

    If the folder holds this training, unfinished, it goes on from its last state; finished, nothing is done.

    Launched in several processes (`accelerate launch`), SFT, and GRPO and RLOO with TRL's own generation or vLLM, share
    the work; the main one writes (see `processes`).

    `sft` reads the tasks' references; all others read their tests alone (`expert-iteration` learns from verified
    answers of its own, `reward-model` from executed attempts).

    Args:
        progress: called with (what is done now, such as `training`; how much; of how much, 0 if unknown).
        tell: called with one line per alarm of the stability guard, and one about an agent's demonstrations. Default:
            None: the log.

    Returns:
        the folder of the checkpoint. With `save_every`, checkpoints along the training are beside it, as
        ALGORITHM-STEP.

    Raises:
        UserError: there are no tasks or no such model, a task does not fit the policy's prompt, the folder holds a
            training with other settings, or the reward cannot teach: a probe is missing, or it is the same or unscored
            on all generated evidence, or raises.
        UnstableTrainingError: the stability guard gave up; the checkpoint has the best weights of before.
        PeerFailedError: another process of this training failed.
    """
    with together():
        return _train(plan, tasks, scorer, out, progress, tell)


def _train(
    plan: TrainingPlan,
    tasks: Sequence[Task],
    scorer: Scorer,
    out: Path,
    progress: Progress | None,
    tell: Tell | None,
) -> Path:
    check_plan(plan, tasks)
    # Errors in the tasks are reported before a model is loaded and a folder created.
    lessons = _lessons(plan, tasks, scorer)
    if plan.agent is None or plan.learns_traces:
        for task in (*tasks, *plan.probe_tasks):
            prompt_of(task)
    if plan.algorithm != "sft":
        scorer.gather((), plan.reward.reward.needs)  # fails if a probe is missing
        check_teaches(plan.reward)
    if plan.cascade is not None:
        check_cascade(plan.cascade, plan.reward, tasks, scorer)
    if not is_main():
        return _take_part(plan, lessons, tasks, scorer, out)
    run = Run(out)
    with run.writing():
        run.configure(configuration_of(plan, tasks))
        checkpoint = run.checkpoint(plan.algorithm)
        if from_main(not (run.finished(plan.algorithm) and checkpoint.exists())):
            _train_into(run, plan, lessons, tasks, scorer, progress, tell)
        remove_states(run.folder / "trainer")
        from_main(None)  # the others wait until all is written
        return checkpoint


def _take_part(plan: TrainingPlan, lessons: Lessons, tasks: Sequence[Task], scorer: Scorer, out: Path) -> Path:
    """Train as a process beside the main one, which writes all that the training leaves."""
    is_to_train = from_main(False)
    run = Run(out)  # which the main process has made
    if is_to_train:
        language_model = _model(plan)
        examples = lessons(run, language_model, None, None)
        guard = None if plan.stability is None else _guard(run, plan, language_model, scorer, None, lambda _line: None)
        with suppress(UnstableTrainingError):  # the main process reports it
            _run_trainer(run, replace(plan, track=()), language_model, examples, tasks, scorer, None, guard)
    from_main(None)
    return run.checkpoint(plan.algorithm)


def _lessons(plan: TrainingPlan, tasks: Sequence[Task], scorer: Scorer) -> Lessons:
    """What SFT learns in a run; an agent's demonstrations are executed there.

    Raises:
        UserError: a task has no reference, the answer format can express none, or the file of demonstrations is wrong.
    """
    if plan.algorithm != "sft":
        return lambda _run, _model, _progress, _tell: ()
    if plan.demonstrations is not None:
        traces = read_transcripts(plan.demonstrations)
        longest, turns = max(len(trace.turns) for trace in traces), 1 if plan.agent is None else plan.agent.limits.turns
        if longest > turns:
            raise UserError(
                f"{plan.demonstrations}: a trace has {longest} turns, and the agent {turns}: make the traces with "
                f"`turns={turns}`, or give the agent at least {longest}"
            )
        return lambda _run, _model, _progress, _tell: traces
    if plan.agent is None:
        return _single_answers(tasks)
    limits = plan.agent.limits
    Demonstrator(tasks, scorer, limits, seed=plan.seed)  # fails if a reference is missing

    def execute(run: Run, model: LanguageModel, progress: Progress | None, tell: Tell | None) -> Sequence[Transcript]:
        began, path = time.monotonic(), run.folder / "demonstrations.jsonl"
        form = CompactExpert if Harmony.of(model.tokenizer) is None else CallExpert
        told = None if progress is None else partial(progress, "executing demonstrations")
        demonstrator = Demonstrator(tasks, scorer, limits, seed=plan.seed, form=form)
        if run.finished("demonstrations"):
            return write_demonstrations(demonstrator, path, told).transcripts
        with run.phase("demonstrations"):
            made = write_demonstrations(demonstrator, path, told)
            run.rewind("demonstrations")
            counts = {"traces": made.traces, "with_mistakes": made.with_mistakes, "left_out": len(made.left_out)}
            run.log("demonstrations", 1, time.monotonic() - began, **counts)
            if tell is not None:
                tell(f"demonstrations: {made.traces} traces, {made.with_mistakes} of them with a mistake{_gaps(made)}")
        return made.transcripts

    return execute


def _single_answers(tasks: Sequence[Task]) -> Lessons:
    """The references that one answer can express. How many cannot is told, as of an agent's demonstrations."""
    prompts = {task.id: prompt_of(task) for task in tasks}
    able = [task for task in tasks if task.reference is None or prompts[task.id].answer_of(task.reference) is not None]
    if tasks and not able:
        raise UserError(
            f"no reference of the {counted(len(tasks), 'task')} replaces exactly one line that its prompt shows, and "
            "an answer of one turn can do no more: train an agent of several turns, or give other tasks"
        )
    answers = demonstrations(able)

    def lessons(_run: Run, _model: LanguageModel, _progress: Progress | None, tell: Tell | None) -> list[Transcript]:
        if tell is not None and len(able) < len(tasks):
            tell(
                f"demonstrations: {counted(len(able), 'answer')}; {len(tasks) - len(able)} could not be made (the "
                "reference does not replace exactly one line that the prompt shows)"
            )
        return answers

    return lessons


def _gaps(made: DemonstrationFile) -> str:
    """Which traces are missing, and why most of them."""
    if not made.left_out:
        return ""
    why, times = made.reasons[0]
    most = "" if times == len(made.left_out) else f"{times} of them: "
    return f"; {len(made.left_out)} could not be made ({most}{why})"


def _train_into(
    run: Run,
    plan: TrainingPlan,
    lessons: Lessons,
    tasks: Sequence[Task],
    scorer: Scorer,
    progress: Progress | None,
    tell: Tell | None,
) -> None:
    run.update(model=plan.model, seeds={"run": plan.seed}, assurance=scorer.assurance)
    language_model = _model(plan)
    examples = lessons(run, language_model, progress, tell)
    with run.phase(plan.algorithm):
        begun = last_step(run.folder / "trainer")
        run.rewind(plan.algorithm, begun)
        run.rewind_samples(begun)
        log = _log(run, plan, language_model, progress)
        guard = _guard(run, plan, language_model, scorer, log, tell)
        if progress is not None:
            progress("training", 0, 0)  # the first step may take long, as may a probe before it
        try:
            with tracked(plan.track, run.folder):
                _run_trainer(run, plan, language_model, examples, tasks, scorer, log, guard, progress)
        except UnstableTrainingError as error:
            checkpoint = language_model.save(run.checkpoint(plan.algorithm), plan.files)
            raise UnstableTrainingError(f"{error}. The checkpoint is {checkpoint}") from error
        if plan.algorithm != "reward-model":
            language_model.save(run.checkpoint(plan.algorithm), plan.files)


def _model(plan: TrainingPlan) -> LanguageModel:
    if plan.lora_rank is None:
        check_memory(plan.model, _share_that_learns(plan.settings))
    language_model = load_model(plan.model, to_train=True, adapters=plan.lora_rank is not None)
    if plan.lora_rank is not None:
        add_lora(language_model, rank=plan.lora_rank, alpha=2 * plan.lora_rank)
    if plan.gradient_checkpointing:
        checkpoint_gradients(language_model.model)
    return language_model


def _share_that_learns(settings: TrainerSettings) -> float:
    """Of the layers of the model; a reward model may be trained beside it."""
    match settings:
        case RewardModelSettings():
            return 0.0
        case ExpertIterationSettings():
            return 1 - settings.sft.frozen
        case _:
            return 1 - settings.frozen


def _guard(
    run: Run,
    plan: TrainingPlan,
    language_model: LanguageModel,
    scorer: Scorer,
    log: StepLog | None,
    tell: Tell | None,
) -> StabilityGuard | None:
    if plan.stability is None:
        return None
    samples = plan.stability.probe_samples
    probe = None
    if plan.probe_tasks:
        probe = executed_probe(language_model, plan.probe_tasks, scorer, plan.agent, samples=samples)
    guard = StabilityGuard(plan.stability, run.folder / "trainer", probe, log=log)
    return guard if tell is None else replace(guard, tell=tell)


class _TrainerArguments(TypedDict):
    """What every trainer of a policy takes."""

    out: Path
    budget: Budget
    seed: int
    log: StepLog | None
    guard: StabilityGuard | None
    resume: ResumePoints
    track: Sequence[Tracker]


class _OnlineArguments(_TrainerArguments):
    """What the trainers take that learn from their own attempts, step by step."""

    reward: TrainingReward
    agent: AgentFormat | None
    step_rewards: StepRewards | None
    cascade: Cascade | None
    keep: KeepAttempts


def _run_trainer(
    run: Run,
    plan: TrainingPlan,
    model: LanguageModel,
    examples: Sequence[Transcript],
    tasks: Sequence[Task],
    scorer: Scorer,
    log: StepLog | None,
    guard: StabilityGuard | None,
    progress: Progress | None = None,
) -> None:
    of_all: _TrainerArguments = {
        "out": run.folder / "trainer",
        "budget": plan.budget,
        "seed": plan.seed,
        "log": log,
        "guard": guard,
        "resume": plan.resume,
        "track": plan.track,
    }
    keep = partial(_keep, run, plan) if is_main() else _keep_nothing
    cascade = None if plan.cascade is None else cascade_of(plan.cascade, plan.seed)
    online: _OnlineArguments = {
        **of_all,
        "reward": plan.reward,
        "agent": plan.agent,
        "step_rewards": plan.step_rewards,
        "cascade": cascade,
        "keep": keep,
    }
    match plan.settings:
        case SFTSettings() as settings:
            train_sft(model, examples, settings, **of_all)
        case ExpertIterationSettings() as settings:
            loop = ExpertIteration([], settings, agent=plan.agent, cascade=cascade)

            def keep_once(attempts: list[Attempt]) -> None:
                run.rewind_samples(-1)  # a process that was killed at once after it has left the same
                keep(0, attempts)

            done = loop.round(model, tasks, scorer, reward=plan.reward, keep=keep_once, progress=progress, **of_all)
            waited = {} if done.sampling is None else {"waited_share": done.sampling.waited_share}
            seconds = done.spent.generation + done.spent.execution
            run.log("expert-iteration", 1, seconds, **done.figures, **waited)
        case OnlineSettings() as settings:
            train_online(model, tasks, scorer, settings, **online)
        case PPOSettings() as settings:
            train_ppo(model, tasks, scorer, settings, **online)
        case RewardModelSettings() as settings:
            _train_reward_model(run, plan, settings, model, tasks, scorer, log, progress)


def _keep(run: Run, plan: TrainingPlan, step: int, attempts: Sequence[Attempt]) -> None:
    """Samples for the page of the training; with a cascade, all executed attempts, from which a reward model learns."""
    write_samples(run.samples, step, attempts)
    if plan.cascade is not None:
        append_attempts(run.folder / "attempts" / f"{plan.algorithm}.jsonl", attempts)


def _keep_nothing(*_: Any) -> None:
    pass


def _train_reward_model(
    run: Run,
    plan: TrainingPlan,
    settings: RewardModelSettings,
    model: LanguageModel,
    tasks: Sequence[Task],
    scorer: Scorer,
    log: StepLog | None,
    progress: Progress | None,
) -> None:
    sampled = run.folder / "trainer" / SAMPLED
    sampler = ModelPolicy(model, "sampler")
    attempts, _ = gather(sampler, tasks, settings.sampling, plan.seed, scorer, plan.reward, progress, stored=sampled)
    write_attempts(run.folder / "attempts" / "round-1.jsonl", attempts)
    figures = train_reward_model(
        plan.model,
        distinct(labelled(attempts, {task.id: task for task in tasks})),
        settings,
        out=run.checkpoint("reward-model"),
        budget=plan.budget,
        seed=plan.seed,
        store=run.folder / "activations",
        log=log,
        progress=None if progress is None else partial(progress, "reading attempts"),
    )
    run.rewind("reward-model-test")
    run.log("reward-model-test", 1, 0.0, **figures)
    sampled.unlink()


def _log(run: Run, plan: TrainingPlan, language_model: LanguageModel, progress: Progress | None) -> StepLog:
    def log(step: int, seconds: float, numbers: Mapping[str, float]) -> None:
        run.log(plan.algorithm, step, seconds, **numbers)
        if plan.save_every and step and step % plan.save_every == 0:
            language_model.save(run.checkpoint(f"{plan.algorithm}-{step}"), plan.files)
        if progress is not None:
            what = "training, in seconds" if plan.budget.steps is None else "training"
            progress(what, *plan.budget.progress(step, seconds))

    return log
