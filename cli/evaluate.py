"""`regrade evaluate`: run policies on tasks and record every attempt with its verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from regrade.cli.console import print_json, progress, stderr, stdout, stdout_to_stderr
from regrade.cli.loading import is_ready_made, limited, load, measured
from regrade.cli.options import (
    LARGEST_SEED,
    MOST,
    MOST_WORKERS,
    AnswerLimit,
    AssuranceOption,
    EndpointURL,
    KeyVariable,
    Limit,
    RewardName,
    SandboxName,
    Workers,
    creatable,
)
from regrade.cli.policy_arguments import PolicyOptions, entrants
from regrade.datasets.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

    from regrade.datasets.tasks import Task
    from regrade.evaluators.evaluation.sweeps import Entrant, Sweep
    from regrade.evaluators.storage.run import Run
    from regrade.rewards.algebra import Reward

AsRole = Literal["baseline", "control", "candidate", "checkpoint", "upper bound", "scripted"]
Api = Literal["chat", "completions"]
TaskSource = Annotated[Path | None, typer.Option("--tasks", help="A task file, or cross-module. Default: builtin.")]
Split = Annotated[
    str | None,
    typer.Option(help="Split of the ready-made tasks: demonstrations, tests_only, validation or held_out (default)."),
]
RunFolder = Annotated[
    Path,
    typer.Option(
        file_okay=False, callback=creatable, help="Folder of the run. Policies of the same run can be compared."
    ),
]
PolicyWords = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[NAME=]POLICY",
        help="no-op, reference, mutants, near-misses, rewrites, cheats, smollm2-135m, the folder of a checkpoint, "
        "a model on the Hugging Face hub, endpoint:MODEL (with --endpoint), or 'command:PROGRAM ARGUMENTS' with "
        "{instruction} as a placeholder.",
    ),
]
PolicyFile = Annotated[
    Path | None, typer.Option("--policies", help="A TOML file with policies (see docs/policies.md).")
]
PredictionPaths = Annotated[
    list[Path] | None,
    typer.Option(help="A file of patches in the format of SWE-bench (JSON or JSONL). Repeat for more."),
]
CheckpointFolders = Annotated[
    list[Path] | None, typer.Option(help="A folder of checkpoints NAME-STEP of one training. Repeat for more.")
]
OnlyName = Annotated[str | None, typer.Option(help="Name of the policy, if there is only one.")]
PolicyRole = Annotated[
    AsRole | None,
    typer.Option(help="Role of the policies in comparisons. Default: candidate (no-op and reference: scripted)."),
]
BaselineName = Annotated[str | None, typer.Option(help="Name of the policy with which the candidates are compared.")]
ControlNames = Annotated[
    list[str] | None, typer.Option(help="Name of a control: an alternative explanation of a gain. Repeat for more.")
]
Temperatures = Annotated[
    list[float] | None,
    typer.Option(min=0.0, max=100.0, help="Sampling temperature. Repeat for a sweep. Default: 0 (greedy)."),
]
Samples = Annotated[int, typer.Option(min=1, max=MOST, help="Attempts per task and temperature (greedy: one).")]
SamplesElsewhere = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=MOST,
        help="Attempts per task at all temperatures except the best of a policy. Default: --samples.",
    ),
]
ValidationSource = Annotated[
    str | None,
    typer.Option(
        help="Tasks that select the best temperature of each policy in a sweep: a task file, a split of the "
        "ready-made tasks, or none. Default: the split validation for ready-made tasks, none for others."
    ),
]
ValidationLimit = Annotated[
    int | None, typer.Option(min=1, help="Maximum number of validation tasks, drawn by --seed.")
]
ValidationSamples = Annotated[int, typer.Option(min=1, max=MOST, help="Attempts per validation task and temperature.")]
EvaluationSeed = Annotated[int, typer.Option(min=0, max=LARGEST_SEED, help="Seed of sampling and of --limit.")]
ApiName = Annotated[
    Api,
    typer.Option(help="API of the endpoint. chat: for any task. completions: the short prompt of local models."),
]
ParallelRequests = Annotated[
    int, typer.Option(min=1, max=MOST_WORKERS, help="Number of parallel requests to the endpoint.")
]
AgentTurns = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=MOST,
        help="Models work as agents that read, edit and test, with at most this number of actions. Default: as "
        "their checkpoint says, else they answer once.",
    ),
]
AgentTestRuns = Annotated[int, typer.Option(min=0, max=MOST, help="With --turns: test runs of an agent, at most.")]
MeasureSteps = Annotated[
    bool,
    typer.Option(
        "--steps",
        help="Run the whole suite after each change of an agent too, for the report. Each distinct tree costs as "
        "much as an attempt; `regrade report --steps` does it afterwards.",
    ),
]
JsonLines = Annotated[bool, typer.Option("--json", help="One line of JSON per policy and temperature.")]


def evaluate(
    out: RunFolder,
    policies: PolicyWords = None,
    file: PolicyFile = None,
    predictions: PredictionPaths = None,
    checkpoints: CheckpointFolders = None,
    name: OnlyName = None,
    role: PolicyRole = None,
    baseline: BaselineName = None,
    control: ControlNames = None,
    tasks: TaskSource = None,
    split: Split = None,
    limit: Limit = None,
    temperature: Temperatures = None,
    samples: Samples = 4,
    samples_elsewhere: SamplesElsewhere = None,
    validation: ValidationSource = None,
    validation_limit: ValidationLimit = None,
    validation_samples: ValidationSamples = 2,
    seed: EvaluationSeed = 0,
    endpoint: EndpointURL = "",
    key_env: KeyVariable = None,
    api: ApiName = "chat",
    requests: ParallelRequests = 8,
    answer_limit: AnswerLimit = 300.0,
    turns: AgentTurns = None,
    test_runs: AgentTestRuns = 10,
    reward: RewardName = "default",
    sandbox: SandboxName = "auto",
    workers: Workers = None,
    assured: AssuranceOption = None,
    steps: MeasureSteps = False,
    json: JsonLines = False,
) -> None:
    """Run policies on tasks and record every attempt.

    The whole test suite runs on each attempt. With several temperatures and validation tasks, each policy is evaluated
    at its best temperature on the validation tasks.

    The same command resumes a stopped evaluation. Attempts that this machine or an endpoint lost are unscored, never 0.
    The command then exits with 2, and the same command repeats them.
    """
    from regrade.evaluators.evaluation.sweeps import Sweep
    from regrade.evaluators.storage.run import Run
    from regrade.policy_training.policy_files import EndpointRow

    loaded_reward, level = _reward_at(reward, assured)
    chosen = choose_tasks(tasks, split or ("held_out" if is_ready_made(tasks) else None), limit, seed, sandbox)
    if split is None and tasks is not None and not is_ready_made(tasks):
        _note_splits(tasks)
    server = EndpointRow(
        endpoint=endpoint, model="", api=api, key=key_env, at_a_time=requests, seconds=answer_limit, turns=turns,
        test_runs=test_runs,
    )  # fmt: skip
    policy_options = PolicyOptions(
        words=policies or (), file=file, predictions=predictions or (), checkpoints=checkpoints or (), endpoint=server,
        name=name, role=role, baseline=baseline, controls=control or (),
    )  # fmt: skip
    contest = entrants(policy_options, chosen)
    sweep = Sweep(tuple(sorted(set(temperature or [0.0]))), samples, samples_elsewhere, validation_samples)
    validation_tasks = _validation_tasks(validation, validation_limit, sweep.temperatures, tasks, seed, sandbox)
    judge_options = JudgeOptions(loaded_reward, sandbox, workers, seed, level, steps)
    with Run.started(out) as run:
        rows_of, failures = _enter_all(run, contest, sweep, validation_tasks, chosen, judge_options)
    _print_results(run, rows_of, json)
    _raise_failures(rows_of, failures)


def judge_recorded(
    contest: Sequence[Entrant],
    tasks: Sequence[Task],
    out: Path,
    *,
    reward: str,
    assured: str | None,
    sandbox: str,
    workers: int | None,
    json: bool,
) -> None:
    """Record the fixed attempts of policies, such as stored trajectories, as an evaluation in a run.

    Raises:
        UserError: as `evaluate`.
    """
    from regrade.evaluators.evaluation.sweeps import Sweep
    from regrade.evaluators.storage.run import Run

    loaded_reward, level = _reward_at(reward, assured)
    with Run.started(out) as run:
        options = JudgeOptions(loaded_reward, sandbox, workers, 0, level)
        rows_of, failures = _enter_all(run, contest, Sweep(), (), tasks, options)
    _print_results(run, rows_of, json)
    _raise_failures(rows_of, failures)


def _reward_at(name: str, assured: str | None) -> tuple[Reward, str]:
    """The reward of an assurance level, and the level; empty: it requires none."""
    from regrade.rewards.assurance import BY_DEFAULT, at_level
    from regrade.rewards.loading import load_reward

    with stdout_to_stderr():
        plain = load_reward(name)
    reward = at_level(plain, assured)
    if reward is plain:
        return plain, ""
    level = assured or BY_DEFAULT
    return reward.named(f"{plain.name}, assured {level}"), level  # rows of another level are not reused


@dataclass(frozen=True)
class JudgeOptions:
    """How the attempts of all policies are judged."""

    reward: Reward
    sandbox: str
    workers: int | None
    seed: int
    level: str = ""
    """The assurance level that its reward requires; empty: none."""
    steps: bool = False
    """Does the whole suite run after each change of an agent?"""


def _enter_all(
    run: Run,
    contest: Sequence[Entrant],
    sweep: Sweep,
    validation_tasks: Sequence[Task],
    chosen: Sequence[Task],
    options: JudgeOptions,
) -> tuple[dict[str, pd.DataFrame], list[str]]:
    """Policy -> its rows; and why other policies have none. Raises UserError if no policy has any."""
    from regrade.evaluators.evaluation import sweeps
    from regrade.evaluators.scoring.scorer import Scorer

    for entrant in contest:  # before the first evaluation, which may take hours
        sweeps.check_entrant(run, entrant)
    sweeps.check_disjoint(validation_tasks, chosen)
    rows_of: dict[str, pd.DataFrame] = {}
    failures: list[str] = []
    scoring = Scorer(sandbox=options.sandbox, workers=options.workers)
    with run.writing(), stdout_to_stderr(), scoring as scorer:
        scorer.gather((), options.reward.needs)  # fails if a probe is missing
        run.record_continuation()
        level = options.level if scorer.sandbox.isolated and options.level else scorer.assurance
        run.update(sandbox=scorer.sandbox.name, assurance=level, seeds={"evaluation": options.seed})
        _record_tasks(run, chosen)
        judge = sweeps.Judge(
            scorer=scorer,
            reward=options.reward,
            seed=options.seed,
            steps=options.steps,
            stage=progress,
            note=_note,
        )
        for entrant in contest:
            try:
                rows_of[entrant.name] = sweeps.enter(run, entrant, sweep, validation_tasks, chosen, judge)
            except sweeps.TooManyLostError as error:  # the evaluation goes on with the other policies
                failures.append(str(error))
    if not rows_of:
        raise UserError("; ".join(failures))
    return rows_of, failures


def _print_results(run: Run, rows_of: dict[str, pd.DataFrame], json: bool) -> None:
    """Write the summary of the run; print the figures of the policies."""
    from regrade.reports.results import load_results
    from regrade.reports.summary import write_summary

    results = load_results(run.folder)
    write_summary(results)
    if json or len(rows_of) == 1:  # several policies: the tables below are shorter
        for name, rows in rows_of.items():
            _print_policy(run, name, rows, results.assurance if json else None)
    if not json:
        from regrade.reports.terminal import print_assurance, print_evaluation, print_slices

        if len(results.policies) > 1:
            print_evaluation(results, stdout())
        else:
            print_slices(results, stdout())
            print_assurance(results, stdout())
        _print_notes(run.folder, rows_of, can_compare=bool(results.pairs))


def _print_notes(out: Path, rows_of: dict[str, pd.DataFrame], *, can_compare: bool) -> None:
    """The number of patches that do not apply, and the next commands."""
    for name, rows in rows_of.items():
        scored = rows[rows["broke"].notna()]
        stale = int((scored["well_formed"].astype(bool) & ~scored["applied"].astype(bool)).sum())
        if stale:
            _note(f"note: {stale} of {len(rows)} patches of {name!r} do not apply, and count as changing nothing")
    step = f"regrade compare {out}; " if can_compare else ""
    _note(f"next: {step}regrade report {out}")


def _note_splits(tasks: Path) -> None:
    """Say that the tasks of all splits are judged: a training learns from some of them."""
    from regrade.datasets.sources import split_names

    names = split_names(tasks)
    if "held_out" in names and len(names) > 1:
        _note(
            f"note: judges the tasks of all splits ({', '.join(names)}); for a policy that was trained on this set, "
            "give --split held_out"
        )


def choose_tasks(file: Path | None, split: str | None, limit: int | None, seed: int, sandbox: str) -> list[Task]:
    """The tasks of a file or a split; with a limit, at most that number, drawn by the seed."""
    return measured(limited(load("builtin" if file is None else str(file), split), limit, seed), sandbox)


def _validation_tasks(
    source: str | None, limit: int | None, temperatures: Sequence[float], tasks: Path | None, seed: int, sandbox: str
) -> list[Task]:
    """The tasks that select temperatures; none for a single temperature, or without a source."""
    from regrade.datasets.mutation.splits import SPLITS

    if len(temperatures) < 2 or source == "none":
        return []
    if source is None and tasks is not None:
        _note(
            f"note: no --validation tasks select among {len(temperatures)} temperatures: all figures are those at the "
            f"lowest temperature, {temperatures[0]:g}"
        )
        return []
    if source is None or source in SPLITS:
        return choose_tasks(None, source or "validation", limit, seed, sandbox)
    return choose_tasks(Path(source), None, limit, seed, sandbox)


def _record_tasks(run: Run, tasks: Sequence[Task]) -> None:
    from regrade.evaluators.analysis.slices import traits_of

    with progress("describing the tasks") as report:
        report(0, 1)
        run.record_tasks(tasks, traits_of(tasks, run.tasks()))
        report(1, 1)


def _note(text: str) -> None:
    stderr().print(text, markup=False, soft_wrap=True)


def _raise_failures(rows_of: dict[str, pd.DataFrame], failures: Sequence[str]) -> None:
    """Raises UserError if attempts were lost, or if there are failures from the validation tasks."""
    messages = list(failures)
    lost = {name: rows[rows["broke"].isna()] for name, rows in rows_of.items() if rows["broke"].isna().any()}
    if lost:
        counts = ", ".join(f"{len(rows)} of {len(rows_of[name])} of {name!r}" for name, rows in lost.items())
        cause = next(iter(lost.values()))["cause"].iloc[0]
        messages.append(
            f"attempts were lost for a reason outside the policy, and are unscored: {counts}; the first because "
            f"{cause}; fix it and run the same command again, scored attempts are stored"
        )
    if messages:
        raise UserError("; ".join(messages))


def _print_policy(run: Run, policy: str, rows: pd.DataFrame, assurance: Mapping[str, Any] | None) -> None:
    best = run.manifest.policies[policy].best_temperature
    for temperature in sorted(map(float, rows["temperature"].unique())):
        _print_temperature(
            policy, temperature, rows[rows["temperature"] == temperature], temperature == best, assurance
        )


def _print_temperature(
    policy: str, temperature: float, rows: pd.DataFrame, is_best: bool, assurance: Mapping[str, Any] | None
) -> None:
    """
    Args:
        assurance: of the run, for a line of JSON; None: print a table.
    """
    from regrade.evaluators.analysis.figures import figures

    if assurance is not None:
        identity = {"policy": policy, "temperature": temperature, "is_best": is_best}
        print_json({**identity, **figures(rows), "assurance": assurance})
        return
    from regrade.reports.terminal import print_figures

    print_figures(policy, temperature, rows, stdout())
