"""Many policies, each at its own best temperature, which validation tasks choose and the judged tasks never do.

    grpo = "runs/rl/checkpoints/grpo"
    candidate = Entrant(name="rl", role="candidate", load=lambda tasks: load_policy(grpo))
    judge = Judge(scorer=scorer, reward=default)
    sweep = Sweep(temperatures=(0.2, 0.6, 1.0), samples=4)
    enter(run, candidate, sweep, validation_tasks, held_out_tasks, judge)

Rows of all temperatures stay in the run, so that a curve of fixing against breaking can be drawn. Everything can be
stopped: what is recorded is not done again.
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
from regrade.datasets.rollouts import Policy, Rollout, Sampling, Trial, TrialPolicy, trials
from regrade.datasets.tasks import Task
from regrade.evaluators.analysis.comparison import TOLERATED_MISSING
from regrade.evaluators.analysis.metrics import best_temperature
from regrade.evaluators.evaluation.answers import Answers
from regrade.evaluators.evaluation.rollout_scoring import CHUNK, EvidenceSource, evaluate, recorded
from regrade.evaluators.evaluation.side_effects import COLLATERAL
from regrade.evaluators.storage import journal
from regrade.evaluators.storage.rows import table
from regrade.evaluators.storage.run import PolicyRole, Run
from regrade.rewards import tests
from regrade.rewards.algebra import Reward

GREEDY = 0.0
CHUNK_OF_TRIALS = 32
"""Answers of a policy asked one by one that are scored at once, while others are under way."""

Stage = Callable[[str], AbstractContextManager[Callable[[int, int], None]]]
"""Opens a progress display: `with stage("judging rl") as tell: tell(done, total)`."""


class TooManyLostError(UserError):
    """The infrastructure lost so many attempts that nothing can be said."""


@dataclass(frozen=True, kw_only=True)
class Entrant:
    """A policy among others, made when its turn comes: a model of gigabytes is not held while others are judged."""

    name: str
    role: PolicyRole
    load: Callable[[Sequence[Task]], Policy]
    """Makes the policy for some tasks (scripted ones answer from them)."""
    label: str = ""
    series: str = ""
    step: int | None = None
    """For a checkpoint: see `regrade.evaluators.storage.run.PolicyEntry`."""
    spec: Mapping[str, Any] = field(default_factory=dict)
    is_fixed: bool = False
    """Is what it proposes known beforehand (scripted, recorded predictions)? It is then tried once, as if greedily."""


@dataclass(frozen=True)
class Sweep:
    """At which temperatures policies are tried, and how often."""

    temperatures: tuple[float, ...] = (GREEDY,)
    samples: int = 4
    """Attempts at each task at a policy's best temperature (greedy: one is all there is)."""
    samples_elsewhere: int | None = None
    """The same at the other temperatures, which show how fixing and breaking trade off; None: as many."""
    validation_samples: int = 2
    """Attempts at each validation task and temperature."""
    with_greedy: bool = False
    """Is each policy tried greedily too, although that is not among those to choose from?"""

    def for_validation(self) -> list[Sampling]:
        return [_sampling(temperature, self.validation_samples) for temperature in self.temperatures]

    def for_judging(self, best: float) -> list[Sampling]:
        """What is tried on the tasks that the verdict rests on, lowest temperature first."""
        elsewhere = self.samples if self.samples_elsewhere is None else self.samples_elsewhere
        every = {*self.temperatures, best, *([GREEDY] if self.with_greedy else [])}
        return [_sampling(t, self.samples if t == best else elsewhere) for t in sorted(every)]


@dataclass(frozen=True, kw_only=True)
class Judge:
    """What attempts are scored by."""

    scorer: EvidenceSource
    reward: Reward
    seed: int = 0
    also: Collection[type] = COLLATERAL
    """Evidence to gather beside what the reward needs: see `regrade.evaluators.evaluation.rollout_scoring`."""
    stage: Stage = lambda _title: nullcontext(lambda _done, _total: None)
    note: Callable[[str], None] = lambda _text: None
    """Is told what a person wants to know on the way."""


def enter(
    run: Run, entrant: Entrant, sweep: Sweep, validation: Sequence[Task], held_out: Sequence[Task], judge: Judge
) -> pd.DataFrame:
    """Choose the entrant's temperature, record its attempts, and return their rows at all temperatures.

    Args:
        validation: chooses the temperature where there are several; empty: nothing chooses, and the lowest is taken.

    Raises:
        UserError: a task is among both, or the run knows another policy by that name or another baseline.
        TooManyLostError: see `choose_temperature`.
    """
    check_disjoint(validation, held_out)
    check_entrant(run, entrant)
    policy = cache(lambda: entrant.load(held_out))  # once for both, and only if it is needed at all
    best = choose_temperature(run, entrant, policy, sweep, validation, judge)
    out = run.evaluation(entrant.name)
    if entrant.is_fixed:
        return record(entrant, policy, held_out, [Sampling(GREEDY, 1)], judge, out)
    return record(entrant, policy, held_out, sweep.for_judging(best), judge, out)


def choose_temperature(
    run: Run, entrant: Entrant, policy: Callable[[], Policy], sweep: Sweep, validation: Sequence[Task], judge: Judge
) -> float:
    """The temperature that does best on the validation tasks (see `best_temperature`), entered into the run.

    Where there is nothing to choose among or by, what was chosen before stays, else it is the lowest.

    Raises:
        TooManyLostError: of the attempts at the validation tasks; they are made again by the next call.
    """
    known = run.manifest.policies.get(entrant.name)
    temperatures = (GREEDY,) if entrant.is_fixed else sweep.temperatures
    best, is_chosen = min(temperatures), False
    if len(temperatures) > 1 and validation:
        # A temperature is chosen by what the tests say, whatever is rewarded and whatever else a patch does.
        by_tests = replace(judge, reward=tests, also=())
        title = f"choosing the temperature of {entrant.label or entrant.name}"
        sampled = sweep.for_validation()
        rows = record(entrant, policy, validation, sampled, by_tests, run.validation(entrant.name), title)
        _check_known(entrant.name, rows)
        best, is_chosen = best_temperature(rows), True
    elif known is not None and known.chosen:
        best, is_chosen = known.best_temperature, True
    run.add_policy(
        entrant.name, entrant.role, best_temperature=best, label=entrant.label, chosen=is_chosen,
        series=entrant.series, step=entrant.step, spec=dict(entrant.spec),
    )  # fmt: skip
    return best


def _check_known(name: str, rows: pd.DataFrame) -> None:
    lost = rows[rows["broke"].isna()]
    if len(lost) > TOLERATED_MISSING * len(rows):
        raise TooManyLostError(
            f"{len(lost)} of {len(rows)} attempts of {name!r} at validation tasks were lost, for no fault of its own: "
            f"no temperature can be chosen ({lost['cause'].iloc[0]}); mend that and run the same command again"
        )


def record(
    entrant: Entrant, policy: Callable[[], Policy], tasks: Sequence[Task], samplings: Sequence[Sampling], judge: Judge,
    out: Path, title: str = "",
) -> pd.DataFrame:  # fmt: skip
    """Have a policy make the attempts that `out` lacks, score them, and return the rows of all that were asked for.

    A fixed policy is asked for all of them, since what it proposes may have been mended; what is recorded already is
    not scored again.

    Args:
        policy: called only if some attempt is missing.
        title: of the progress display; empty: that it is judged.
    """
    name, wanted = entrant.name, trials(tasks, samplings)
    done = recorded(out, tasks)
    lacking = [each for each in wanted if _attempt(name, each, judge.seed) not in done]
    missing = wanted if entrant.is_fixed else lacking
    if len(lacking) < len(wanted):
        judge.note(f"{name}: {len(wanted) - len(lacking)} of {len(wanted)} attempts are recorded already")
    if missing:
        with judge.stage(title or f"judging {entrant.label or name}") as tell:
            made = policy()
            one_by_one = isinstance(made, TrialPolicy)
            # A task of any other policy is tried whole: its prompt is run once for all its attempts.
            waiting = {each.task.id for each in missing}
            total = len(missing) if one_by_one else sum(each.task.id in waiting for each in wanted)
            tell(0, total)
            rollouts = (
                _one_by_one(made, missing, judge.seed, out, lambda count: tell(count, total))
                if isinstance(made, TrialPolicy)
                else made.propose([task for task in tasks if task.id in waiting], samplings, judge.seed)
            )
            with closing(_named(rollouts, name)) as source:
                evaluate(
                    source, tasks, judge.scorer, judge.reward, out, also=judge.also,
                    chunk=CHUNK_OF_TRIALS if one_by_one else CHUNK,
                    progress=None if one_by_one else lambda count: tell(count, total),
                )  # fmt: skip
    asked = {_attempt(name, each, judge.seed) for each in wanted}
    rows = table(journal.read(out), str(out))
    keys = zip(rows["policy"], rows["task"], rows["temperature"], rows["sample"], rows["seed"], strict=True)
    return rows[[key in asked for key in keys]].reset_index(drop=True)


def check_disjoint(validation: Sequence[Task], held_out: Sequence[Task]) -> None:
    """Raises UserError if a task that chooses a temperature is also one that the verdict rests on."""
    judged = {task.digest: task.id for task in held_out}
    both = next((task for task in validation if task.digest in judged), None)
    if both is not None:
        raise UserError(
            f"task {both.id!r} is among the validation tasks and among those that policies are judged on: a "
            "temperature chosen on it would flatter the policy; give other tasks to choose by"
        )


def check_entrant(run: Run, entrant: Entrant) -> None:
    """Raises UserError if the run knows another policy by that name, or has another baseline."""
    policies = run.manifest.policies
    known = policies.get(entrant.name)
    if known is not None and known.spec and entrant.spec and _identity(known.spec) != _identity(entrant.spec):
        raise UserError(
            f"{run.folder} knows {entrant.name!r} as {_told(known.spec)}, and this is {_told(entrant.spec)}: give it "
            "another name, or the run another folder"
        )
    same = [name for name in policies if name != entrant.name and run.evaluation(name) == run.evaluation(entrant.name)]
    if same:
        raise UserError(f"{entrant.name!r} and {same[0]!r} would be written to one file: give one of them another name")
    others = [name for name, entry in policies.items() if entry.role == "baseline" and name != entrant.name]
    if entrant.role == "baseline" and others:
        raise UserError(
            f"{run.folder} has the baseline {others[0]!r}: a run has one, so give {entrant.name!r} another role, or "
            "the run another folder"
        )


def _identity(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Where a server listens may change; which model it is may not."""
    return {key: value for key, value in spec.items() if key != "endpoint"}


def _told(spec: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value!r}" for key, value in spec.items())


def _sampling(temperature: float, samples: int) -> Sampling:
    return Sampling(temperature, samples if temperature > GREEDY else 1)


def _attempt(name: str, trial: Trial, seed: int) -> tuple[Any, ...]:
    return (name, trial.task.id, float(trial.temperature), trial.sample, seed)


def _named(rollouts: Iterator[Rollout], name: str) -> Generator[Rollout, None, None]:
    """The rollouts under the name that the policy has in the run; closing this closes them."""
    try:
        for rollout in rollouts:
            yield replace(rollout, policy=name)
    finally:
        if hasattr(rollouts, "close"):
            rollouts.close()


def _one_by_one(
    policy: TrialPolicy, missing: Sequence[Trial], seed: int, out: Path, progress: Callable[[int], None]
) -> Iterator[Rollout]:
    """An answer is kept as soon as it is there, and one that was never scored, since the run was killed, is read.

    Progress is that of the answers: they may take hours, and scoring goes on beside.
    """
    answers = Answers(out.with_suffix(".answers"))
    asked: list[Trial] = []
    there = itertools.count(1)

    def keep(trial: Trial, rollout: Rollout) -> None:
        answers.add(trial, rollout)
        progress(next(there))

    for trial in missing:
        known = answers.get(trial, seed)
        if known is None:
            asked.append(trial)
        else:
            progress(next(there))
            yield known
    if asked:
        yield from policy.attempt(asked, seed, keep)
