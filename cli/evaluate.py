"""`regrade evaluate`: try policies on tasks and record every attempt with its verdict."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from regrade.cli.console import asides, print_json, progress, stderr, stdout
from regrade.cli.jobs import model_probes
from regrade.cli.options import RewardModelFolder, RewardName, SandboxName, Workers
from regrade.cli.policy_arguments import PolicyOptions, entrants
from regrade.datasets.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

    from regrade.datasets.tasks import Task
    from regrade.evaluators.storage.run import Run

AsRole = Literal["baseline", "control", "candidate", "checkpoint", "upper bound", "scripted"]
Api = Literal["chat", "completions"]
TaskSource = Annotated[Path | None, typer.Option("--tasks", help="A file of tasks; default: the ready-made ones.")]
Split = Annotated[
    str | None,
    typer.Option(help="Of the ready-made tasks: demonstrations, tests_only, validation or held_out (default)."),
]
Limit = Annotated[int | None, typer.Option(min=1, help="Only so many tasks, drawn by --seed.")]


def evaluate(
    out: Annotated[
        Path, typer.Option(file_okay=False, help="The run's folder; policies evaluated into one run can be compared.")
    ],
    policies: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME=]POLICY",
            help="no-op, reference, smollm2-135m, a checkpoint's folder, a model on the hub, endpoint:MODEL (with "
            "--endpoint), or 'command:PROGRAM ARGUMENTS' with {instruction} in them.",
        ),
    ] = None,
    file: Annotated[
        Path | None, typer.Option("--policies", help="A TOML file of policies: see docs/policies.md.")
    ] = None,
    predictions: Annotated[
        list[Path] | None,
        typer.Option(help="Patches made elsewhere, in SWE-bench's format (JSON or JSONL); repeat for more files."),
    ] = None,
    checkpoints: Annotated[
        list[Path] | None, typer.Option(help="A folder of checkpoints NAME-STEP: a series along a training.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="What to call the only policy; default: its own name.")] = None,
    role: Annotated[
        AsRole | None,
        typer.Option(help="What they are in the comparison; default: candidate (no-op and reference: scripted)."),
    ] = None,
    baseline: Annotated[str | None, typer.Option(help="Name of the policy that the candidates must beat.")] = None,
    control: Annotated[
        list[str] | None, typer.Option(help="Name of a policy that stands for an easier explanation of a gain.")
    ] = None,
    tasks: TaskSource = None,
    split: Split = None,
    limit: Limit = None,
    temperature: Annotated[
        list[float] | None, typer.Option(min=0.0, max=100.0, help="Repeat for a sweep; default 0, greedy.")
    ] = None,
    samples: Annotated[int, typer.Option(min=1, help="Attempts at each task and temperature (greedy: one).")] = 4,
    samples_elsewhere: Annotated[
        int | None,
        typer.Option(min=1, help="The same at temperatures other than a policy's best; default: as many."),
    ] = None,
    validation: Annotated[
        str | None,
        typer.Option(
            help="What chooses each policy's temperature in a sweep: a file of tasks, a split of the ready-made ones, "
            "or none. Default: the split validation for ready-made tasks, none for others."
        ),
    ] = None,
    validation_limit: Annotated[
        int | None, typer.Option(min=1, help="Only so many validation tasks, drawn by --seed.")
    ] = None,
    validation_samples: Annotated[int, typer.Option(min=1, help="Attempts at each of them and temperature.")] = 2,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of sampling, and of what --limit draws.")] = 0,
    endpoint: Annotated[
        str, typer.Option(help="Base URL of an OpenAI-compatible server, such as http://localhost:8000/v1.")
    ] = "",
    key_env: Annotated[
        str | None, typer.Option(help="Environment variable that holds its key; default: OPENAI_API_KEY.")
    ] = None,
    api: Annotated[
        Api, typer.Option(help="chat: any task. completions: the short format, as local models are asked.")
    ] = "chat",
    requests: Annotated[int, typer.Option(min=1, help="Requests to the endpoint under way at a time.")] = 8,
    answer_limit: Annotated[
        float, typer.Option(min=0.1, help="Seconds that the endpoint may take for one answer.")
    ] = 300.0,
    reward: RewardName = "default",
    sandbox: SandboxName = "auto",
    workers: Workers = None,
    reward_model: RewardModelFolder = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object a policy and temperature on stdout.")] = False,
) -> None:
    """Try policies on tasks and record every attempt.

    The whole suite runs on each attempt. With several temperatures and validation tasks, each policy is judged at its
    own best one, which the validation tasks choose.

    An evaluation that was stopped goes on where it was when the same command is run again. Attempts that the machine or
    an endpoint lost are unscored, never 0, and are made again then; the command exits 2 while there are any.
    """
    from regrade.evaluators.evaluation import sweeps
    from regrade.evaluators.scoring.scorer import Scorer
    from regrade.evaluators.storage.run import Run
    from regrade.policy_training.policies.policy_files import EndpointRow
    from regrade.reports.results import load_results
    from regrade.reports.summary import write_summary
    from regrade.rewards.loading import load_reward

    with asides():
        wanted = load_reward(reward)
    chosen = choose_tasks(tasks, split or ("held_out" if tasks is None else None), limit, seed)
    behind = EndpointRow(endpoint=endpoint, model="", api=api, key=key_env, at_a_time=requests, seconds=answer_limit)
    given = PolicyOptions(
        words=policies or (),
        file=file,
        predictions=predictions or (),
        checkpoints=checkpoints or (),
        behind=behind,
        name=name,
        role=role,
        baseline=baseline,
        controls=control or (),
    )
    contest = entrants(given, chosen)
    sweep = sweeps.Sweep(tuple(sorted(set(temperature or [0.0]))), samples, samples_elsewhere, validation_samples)
    by = _validation_tasks(validation, validation_limit, sweep.temperatures, tasks, seed)
    run = Run(out)
    for entrant in contest:  # said before the first of them is judged, for hours perhaps
        sweeps.check_entrant(run, entrant)
    sweeps.check_disjoint(by, chosen)
    found: dict[str, pd.DataFrame] = {}
    lost: list[str] = []
    probes = model_probes(reward_model)
    with run.writing(), asides(), Scorer(sandbox=sandbox, workers=workers, probes=probes) as scorer:
        run.record_continuation()
        run.update(sandbox=scorer.sandbox.name, assurance=scorer.assurance, seeds={"evaluation": seed})
        _record_tasks(run, chosen)
        judge = sweeps.Judge(scorer=scorer, reward=wanted, seed=seed, stage=progress, note=_note)
        for entrant in contest:
            try:
                found[entrant.name] = sweeps.enter(run, entrant, sweep, by, chosen, judge)
            except sweeps.TooManyLostError as error:  # the others are judged all the same
                lost.append(str(error))
    if not found:
        raise UserError("; ".join(lost))
    results = load_results(out)
    write_summary(results)
    if json or len(found) == 1:  # of several, the tables that follow say it shorter
        for name, rows in found.items():
            _tell(run, name, rows, json)
    if not json:
        from regrade.reports.terminal import print_evaluation, print_slices

        if len(results.policies) > 1:
            print_evaluation(results, stdout())
        else:
            print_slices(results, stdout())
        _tell_more(out, found, can_compare=bool(results.pairs))
    _complain(found, lost)


def _tell_more(out: Path, found: dict[str, pd.DataFrame], *, can_compare: bool) -> None:
    """What the figures don't say, and where to go from here."""
    for name, rows in found.items():
        known = rows[rows["broke"].notna()]
        stale = int((known["well_formed"].astype(bool) & ~known["applied"].astype(bool)).sum())
        if stale:
            _note(f"note: {stale} of {len(rows)} patches of {name!r} do not apply, and count as changing nothing")
    step = f"regrade compare {out}; " if can_compare else ""
    _note(f"next: {step}regrade report {out}")


def choose_tasks(file: Path | None, split: str | None, limit: int | None, seed: int) -> list[Task]:
    """The tasks of a file or a split; with a limit, as many of them, drawn by the seed."""
    from regrade.cli.loading import load

    found = load("builtin" if file is None else str(file), split)
    if limit is not None and limit < len(found):
        found = random.Random(seed).sample(sorted(found, key=lambda task: task.id), limit)
    return found


def _validation_tasks(
    source: str | None, limit: int | None, temperatures: Sequence[float], tasks: Path | None, seed: int
) -> list[Task]:
    """What chooses temperatures; empty where there is nothing to choose, or nothing to choose by."""
    from regrade.datasets.mutation.splits import SPLITS

    if len(temperatures) < 2 or source == "none":
        return []
    if source is None and tasks is not None:
        _note(
            f"note: no --validation tasks choose among {len(temperatures)} temperatures, so that each policy's figures "
            f"are those at the lowest, {temperatures[0]:g}"
        )
        return []
    if source is None or source in SPLITS:
        return choose_tasks(None, source or "validation", limit, seed)
    return choose_tasks(Path(source), None, limit, seed)


def _record_tasks(run: Run, tasks: Sequence[Task]) -> None:
    from regrade.evaluators.analysis.slices import traits_of

    with progress("looking at the tasks") as tell:
        tell(0, 1)
        run.record_tasks(tasks, traits_of(tasks, run.tasks()))
        tell(1, 1)


def _note(text: str) -> None:
    stderr().print(text, markup=False, soft_wrap=True)


def _complain(found: dict[str, pd.DataFrame], before: Sequence[str]) -> None:
    """Raises UserError if attempts were lost, here or `before`, at the validation tasks."""
    complaints = list(before)
    lost = {name: rows[rows["broke"].isna()] for name, rows in found.items() if rows["broke"].isna().any()}
    if lost:
        counts = ", ".join(f"{len(rows)} of {len(found[name])} of {name!r}" for name, rows in lost.items())
        cause = next(iter(lost.values()))["cause"].iloc[0]
        complaints.append(
            f"attempts were lost, for no fault of the policy's, and are unscored: {counts}; the first because {cause}; "
            "mend that and run the same command again, what was scored is kept"
        )
    if complaints:
        raise UserError("; ".join(complaints))


def _tell(run: Run, policy: str, rows: pd.DataFrame, json: bool) -> None:
    best = run.manifest.policies[policy].best_temperature
    for temperature in sorted(map(float, rows["temperature"].unique())):
        _tell_one(policy, temperature, rows[rows["temperature"] == temperature], temperature == best, json)


def _tell_one(policy: str, temperature: float, rows: pd.DataFrame, is_best: bool, json: bool) -> None:
    from regrade.evaluators.analysis.figures import figures

    if json:
        print_json({"policy": policy, "temperature": temperature, "is_best": is_best, **figures(rows)})
        return
    from regrade.reports.terminal import print_figures

    print_figures(policy, temperature, rows, stdout())
