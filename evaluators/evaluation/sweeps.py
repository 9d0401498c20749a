"""Evaluation of several policies, each at its best temperature, chosen on validation tasks, never on held-out tasks.

    grpo = "runs/rl/checkpoints/grpo"
    candidate = Entrant(name="rl", role="candidate", load=lambda tasks: load_policy(grpo))
    judge = Judge(scorer=scorer, reward=default)
    sweep = Sweep(temperatures=(0.2, 0.6, 1.0), samples=4)
    enter(run, candidate, sweep, validation_tasks, held_out_tasks, judge)

The run stores the rows of all temperatures, for a curve of fixes against breakage. A stopped evaluation continues where
it stopped: recorded attempts are not repeated.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from regrade.datasets.errors import UserError
from regrade.datasets.rollouts import Policy, PolicyWithoutScorer, Rollout, Sampling, Trial, TrialPolicy, trials
from regrade.datasets.tasks import Task
from regrade.evaluators.analysis.comparison import TOLERATED_MISSING
from regrade.evaluators.analysis.metrics import best_temperature
from regrade.evaluators.evaluation.answers import Answers
from regrade.evaluators.evaluation.rollout_scoring import CHUNK, EvidenceSource, evaluate, recorded
from regrade.evaluators.evaluation.side_effects import COLLATERAL
from regrade.evaluators.evaluation.step_measurement import measure_steps
from regrade.evaluators.evaluation.stored_rollouts import stored_rollouts
from regrade.evaluators.storage import journal
from regrade.evaluators.storage.episode_file import episodes_path
from regrade.evaluators.storage.manifest import PolicyRole
from regrade.evaluators.storage.rows import table
from regrade.evaluators.storage.run import Run
from regrade.rewards import tests
from regrade.rewards.algebra import Reward

GREEDY = 0.0
ANSWERS = ".answers"
"""Suffix of the file of answers beside the rows."""
CHUNK_OF_TRIALS = 32
"""Answers a batch of the scorer, for policies that answer trial by trial: others are generated meanwhile."""

Stage = Callable[[str], AbstractContextManager[Callable[[int, int], None]]]
"""Opens a progress display: `with stage("judging rl") as report: report(done, total)`."""


class TooManyLostError(UserError):
    """The infrastructure lost too many attempts for a result."""


@dataclass(frozen=True, kw_only=True)
class Entrant:
    """A policy of an evaluation, loaded when its turn comes, so that one model at a time is in memory."""

    name: str
    role: PolicyRole
    load: Callable[[Sequence[Task]], Policy]
    """Loads the policy for these tasks, from which scripted policies answer."""
    label: str = ""
    series: str = ""
    step: int | None = None
    """Of a checkpoint: see `regrade.evaluators.storage.manifest.PolicyEntry`."""
    spec: Mapping[str, Any] = field(default_factory=dict)
    is_fixed: bool = False
    """Are its patches fixed beforehand (scripted, recorded predictions)? They are then greedy attempts."""
    patches: int = 1
    """Attempts at each task of a policy whose patches are fixed."""


@dataclass(frozen=True)
class Sweep:
    """The temperatures of an evaluation, and the attempts at each."""

    temperatures: tuple[float, ...] = (GREEDY,)
    samples: int = 4
    """Attempts at each task at a policy's best temperature (greedy: one)."""
    samples_elsewhere: int | None = None
    """Attempts at each task at other temperatures, for the trade-off of fixes and breakage; None: `samples`."""
    validation_samples: int = 2
    """Attempts at each validation task and temperature."""

    def for_validation(self) -> list[Sampling]:
        return [_sampling(temperature, self.validation_samples) for temperature in self.temperatures]

    def for_judging(self, best: float) -> list[Sampling]:
        """Samplings on the held-out tasks, lowest temperature first."""
        elsewhere = self.samples if self.samples_elsewhere is None else self.samples_elsewhere
        temperatures = sorted({*self.temperatures, best})
        return [_sampling(t, self.samples if t == best else elsewhere) for t in temperatures]


@dataclass(frozen=True, kw_only=True)
class Judge:
    """Scorer, reward and seed of an evaluation, with its progress callbacks."""

    scorer: EvidenceSource
    reward: Reward
    seed: int = 0
    also: Collection[type] = COLLATERAL
    """Types of evidence to gather besides the reward's needs: see `regrade.evaluators.evaluation.rollout_scoring`."""
    steps: bool = False
    """Does the whole suite run after each change of an agent too? See `regrade.evaluators.evaluation.step_measurement`.
    Each distinct tree costs as much as an attempt. It may be done afterwards: `regrade report --steps`."""
    stage: Stage = lambda _title: nullcontext(lambda _done, _total: None)
    note: Callable[[str], None] = lambda _text: None
    """Called with each note for the user."""


def enter(
    run: Run, entrant: Entrant, sweep: Sweep, validation: Sequence[Task], held_out: Sequence[Task], judge: Judge
) -> pd.DataFrame:
    """Choose the entrant's temperature, record its attempts, and return the rows of all temperatures.

    Args:
        validation: tasks that choose among several temperatures; empty: the lowest one is used.

    Raises:
        UserError: a task is in both lists, or the run has another policy of that name or another baseline.
        TooManyLostError: see `choose_temperature`.
    """
    check_disjoint(validation, held_out)
    check_entrant(run, entrant)
    policy = cache(lambda: entrant.load(held_out))  # loaded at most once, and only if needed
    best = choose_temperature(run, entrant, policy, sweep, validation, judge)
    out = run.evaluation(entrant.name)
    if entrant.is_fixed:
        return record(entrant, policy, held_out, [Sampling(GREEDY, entrant.patches)], judge, out)
    return record(entrant, policy, held_out, sweep.for_judging(best), judge, out)


def choose_temperature(
    run: Run,
    entrant: Entrant,
    policy: Callable[[], Policy],
    sweep: Sweep,
    validation: Sequence[Task],
    judge: Judge,
) -> float:
    """Choose the best temperature on the validation tasks (see `best_temperature`) and record it in the run.

    With one temperature or no validation tasks, an earlier choice stays; else it is the lowest.

    Raises:
        TooManyLostError: too many attempts at validation tasks were lost; the next call repeats them.
    """
    entry = run.manifest.policies.get(entrant.name)
    temperatures = (GREEDY,) if entrant.is_fixed else sweep.temperatures
    best, is_chosen = min(temperatures), False
    if len(temperatures) > 1 and validation:
        # The tests alone choose the temperature, whatever the reward.
        by_tests = replace(judge, reward=tests, also=(), steps=False)
        title = f"choosing the temperature of {entrant.label or entrant.name}"
        sampled = sweep.for_validation()
        rows = record(entrant, policy, validation, sampled, by_tests, run.validation(entrant.name), title)
        _check_lost(entrant.name, rows)
        best, is_chosen = best_temperature(rows), True
    elif entry is not None and entry.chosen:
        best, is_chosen = entry.best_temperature, True
    run.add_policy(
        entrant.name,
        entrant.role,
        best_temperature=best,
        label=entrant.label,
        chosen=is_chosen,
        series=entrant.series,
        step=entrant.step,
        spec=dict(entrant.spec),
    )
    return best


def _check_lost(name: str, rows: pd.DataFrame) -> None:
    lost = rows[rows["broke"].isna()]
    if len(lost) > TOLERATED_MISSING * len(rows):
        raise TooManyLostError(
            f"the infrastructure lost {len(lost)} of {len(rows)} attempts of {name!r} at validation tasks, too many to "
            f"choose a temperature ({lost['cause'].iloc[0]}): fix the cause and run the same command again"
        )


def record(
    entrant: Entrant,
    policy: Callable[[], Policy],
    tasks: Sequence[Task],
    samplings: Sequence[Sampling],
    judge: Judge,
    out: Path,
    title: str = "",
) -> pd.DataFrame:
    """Generate the attempts that `out` lacks, score them, and return the rows of all attempts.

    A fixed policy proposes all its patches again, since they may have changed; recorded patches are not scored again.

    Args:
        policy: loads the policy; called only if an attempt is missing.
        title: of the progress display; empty: `judging` and the label. Progress counts the answers of models, which may
            take hours and are scored meanwhile; of fixed policies it counts scored patches.
    """
    name, due = entrant.name, trials(tasks, samplings)
    done = recorded(out, tasks)
    lacking = [trial for trial in due if _attempt(name, trial, judge.seed) not in done]
    missing = due if entrant.is_fixed else lacking
    if len(lacking) < len(due):
        judge.note(f"{name}: {len(due) - len(lacking)} of {len(due)} attempts are recorded already")
    if missing:
        with judge.stage(title or f"judging {entrant.label or name}") as report:
            loaded = policy()
            if isinstance(loaded, PolicyWithoutScorer):
                loaded = loaded.with_scorer(judge.scorer)
            is_by_trial = isinstance(loaded, TrialPolicy)
            # Other policies answer task by task: the prompt is processed once for all attempts.
            waiting = {trial.task.id for trial in missing}
            total = len(missing) if is_by_trial else sum(trial.task.id in waiting for trial in due)
            report(0, total)
            answers, asked = out.with_suffix(ANSWERS), [task for task in tasks if task.id in waiting]
            if isinstance(loaded, TrialPolicy):
                rollouts = _by_trial(loaded, missing, judge.seed, answers, lambda count: report(count, total))
            elif entrant.is_fixed:
                rollouts = loaded.propose(asked, samplings, judge.seed)
            else:
                rollouts = stored_rollouts(loaded, asked, samplings, judge.seed, answers)
            counted = None if is_by_trial else lambda count: report(count, total)
            with closing(_named(rollouts, name, None if entrant.is_fixed else counted)) as source:
                evaluate(
                    source,
                    tasks,
                    judge.scorer,
                    judge.reward,
                    out,
                    also=judge.also,
                    chunk=CHUNK_OF_TRIALS if is_by_trial else CHUNK,
                    progress=counted if entrant.is_fixed else None,
                )
            if not is_by_trial:  # all of them are in the rows
                answers.unlink(missing_ok=True)
    if judge.steps and episodes_path(out).exists():
        with judge.stage(f"running the tests of every step of {entrant.label or name}") as report:
            measure_steps(out, tasks, judge.scorer, report)
    attempts = {_attempt(name, trial, judge.seed) for trial in due}
    rows = table(journal.read(out), str(out))
    keys = zip(rows["policy"], rows["task"], rows["temperature"], rows["sample"], rows["seed"], strict=True)
    return rows[[key in attempts for key in keys]].reset_index(drop=True)


def check_disjoint(validation: Sequence[Task], held_out: Sequence[Task]) -> None:
    """Raises UserError if a validation task is also a held-out task."""
    judged = {task.digest for task in held_out}
    shared = next((task for task in validation if task.digest in judged), None)
    if shared is not None:
        raise UserError(
            f"task {shared.id!r} is among the validation tasks and the held-out tasks: a temperature chosen on it "
            "would bias the result; give other validation tasks"
        )


def check_entrant(run: Run, entrant: Entrant) -> None:
    """Raises UserError if the run has another policy of that name, or another baseline."""
    policies = run.manifest.policies
    entry = policies.get(entrant.name)
    if entry is not None and entry.spec and entrant.spec and _identity(entry.spec) != _identity(entrant.spec):
        raise UserError(
            f"{entrant.name!r} is {_listed(entry.spec)} in {run.folder}, but {_listed(entrant.spec)} here: give it "
            "another name, or the run another folder"
        )
    same = [name for name in policies if name != entrant.name and run.evaluation(name) == run.evaluation(entrant.name)]
    if same:
        raise UserError(f"{entrant.name!r} and {same[0]!r} would be written to one file: give one of them another name")
    baselines = [name for name, entry in policies.items() if entry.role == "baseline" and name != entrant.name]
    if entrant.role == "baseline" and baselines:
        raise UserError(
            f"{run.folder} has the baseline {baselines[0]!r} already, and a run has one: give {entrant.name!r} another "
            "role, or the run another folder"
        )


def _identity(spec: Mapping[str, Any]) -> dict[str, Any]:
    """The spec without the endpoint: a server may move, its model may not change."""
    return {key: value for key, value in spec.items() if key != "endpoint"}


def _listed(spec: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value!r}" for key, value in spec.items())


def _sampling(temperature: float, samples: int) -> Sampling:
    return Sampling(temperature, samples if temperature > GREEDY else 1)


def _attempt(name: str, trial: Trial, seed: int) -> tuple[Any, ...]:
    return (name, trial.task.id, float(trial.temperature), trial.sample, seed)


def _named(
    rollouts: Iterator[Rollout], name: str, progress: Callable[[int], None] | None = None
) -> Generator[Rollout, None, None]:
    """The rollouts under the policy's name in the run; closing this generator closes them."""
    try:
        for number, rollout in enumerate(rollouts, start=1):
            if progress:
                progress(number)
            yield replace(rollout, policy=name)
    finally:
        if hasattr(rollouts, "close"):
            rollouts.close()


def _by_trial(
    policy: TrialPolicy, missing: Sequence[Trial], seed: int, path: Path, progress: Callable[[int], None]
) -> Iterator[Rollout]:
    """Rollouts of the missing trials: stored answers that a killed run had not scored, then new ones, stored at once.

    `progress` counts answers: they may take hours, and are scored meanwhile.
    """
    answers = Answers(path)
    unanswered: list[Trial] = []
    counter = itertools.count(1)

    def store(trial: Trial, rollout: Rollout) -> None:
        answers.add(trial, rollout)
        progress(next(counter))

    for trial in missing:
        answer = answers.get(trial, seed)
        if answer is None:
            unanswered.append(trial)
        else:
            progress(next(counter))
            yield answer
    if unanswered:
        yield from policy.attempt(unanswered, seed, store)
