"""`regrade evaluate`: try a policy on tasks and record every attempt with its verdict."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from regrade.cli.console import asides, print_json, progress, stderr, stdout
from regrade.cli.jobs import model_probes
from regrade.cli.score import RewardModelFolder, RewardName, SandboxName, Workers

if TYPE_CHECKING:
    import pandas as pd

    from regrade.datasets.rollouts import Policy, Rollout, Sampling
    from regrade.datasets.tasks import Task

AsRole = Literal["baseline", "control", "candidate", "upper bound", "scripted"]
TaskSource = Annotated[Path | None, typer.Option("--tasks", help="A file of tasks; default: the ready-made ones.")]
Split = Annotated[
    str | None,
    typer.Option(help="Of the ready-made tasks: demonstrations, tests_only, validation or held_out (default)."),
]
Limit = Annotated[int | None, typer.Option(min=1, help="Only so many tasks, drawn by --seed.")]


def evaluate(
    policy: Annotated[
        str, typer.Argument(help="no-op, reference, smollm2-135m, a checkpoint's folder, or a model on the hub.")
    ],
    out: Annotated[
        Path, typer.Option(file_okay=False, help="The run's folder; policies evaluated into one run can be compared.")
    ],
    name: Annotated[str | None, typer.Option(help="What to call the policy in the run; default: its own name.")] = None,
    role: Annotated[AsRole, typer.Option(help="What the policy is in the comparison.")] = "candidate",
    tasks: TaskSource = None,
    split: Split = None,
    limit: Limit = None,
    temperature: Annotated[
        list[float] | None, typer.Option(min=0.0, help="Repeat for a sweep; default 0, greedy.")
    ] = None,
    samples: Annotated[int, typer.Option(min=1, help="Attempts at each task and temperature (greedy: one).")] = 4,
    seed: Annotated[int, typer.Option(help="Seed of sampling, and of what --limit draws.")] = 0,
    reward: RewardName = "default",
    sandbox: SandboxName = "auto",
    workers: Workers = None,
    reward_model: RewardModelFolder = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object a temperature on stdout.")] = False,
) -> None:
    """Try a policy on tasks and record every attempt.

    The whole suite runs on each attempt.
    An evaluation that was stopped goes on where it was when the same command is run again.
    """
    from regrade.datasets.rollouts import Sampling
    from regrade.evaluators import evaluation, table
    from regrade.evaluators.runs import Run
    from regrade.evaluators.scorer import Scorer
    from regrade.policy_training.policies import load_policy
    from regrade.rewards.loading import load_reward

    with asides():
        wanted = load_reward(reward)
    chosen = choose_tasks(tasks, split or ("held_out" if tasks is None else None), limit, seed)
    temperatures = sorted(set(temperature or [0.0]))
    samplings = [Sampling(t, samples if t > 0 else 1) for t in temperatures]
    with asides(), Scorer(sandbox=sandbox, workers=workers, probes=model_probes(reward_model)) as scorer:
        proposer = load_policy(policy, chosen)
        called = name or proposer.name
        run = Run(out)
        run.goes_on()
        run.add_policy(called, role, best_temperature=temperatures[0])
        run.update(sandbox=scorer.sandbox.name, assurance=scorer.assurance, seeds={"evaluation": seed})
        rows = run.evaluation(called)
        waiting = unfinished(chosen, called, samplings, seed, evaluation.recorded(rows))
        if len(waiting) < len(chosen):
            stderr().print(f"{len(chosen) - len(waiting)} of {len(chosen)} tasks are done already")
        attempts = len(waiting) * sum(sampling.samples for sampling in samplings)
        with progress(f"evaluating {called}") as tell:
            rollouts = attempts_of(proposer, called, waiting, samplings, seed)
            evaluation.evaluate(rollouts, chosen, scorer, wanted, rows, progress=lambda done: tell(done, attempts))
    found = table.load(rows)
    for each in temperatures:
        _tell(called, each, found[found["temperature"] == each], json)


def choose_tasks(file: Path | None, split: str | None, limit: int | None, seed: int) -> list[Task]:
    """The tasks of a file or a split; with a limit, as many of them, drawn by the seed."""
    from regrade.cli.tasks import load

    found = load("builtin" if file is None else str(file), split)
    if limit is not None and limit < len(found):
        found = random.Random(seed).sample(sorted(found, key=lambda task: task.id), limit)
    return found


def unfinished(
    tasks: Sequence[Task], policy: str, samplings: Sequence[Sampling], seed: int, done: frozenset[tuple[object, ...]]
) -> list[Task]:
    """The tasks of which some attempt is not recorded yet. (A task is tried whole: its prompt is run once for all.)"""
    numbers = [(sampling.temperature, sample) for sampling in samplings for sample in range(sampling.samples)]
    return [task for task in tasks if any((policy, task.id, t, sample, seed) not in done for t, sample in numbers)]


def attempts_of(
    policy: Policy, name: str, tasks: Sequence[Task], samplings: Sequence[Sampling], seed: int
) -> Iterator[Rollout]:
    """The policy's rollouts under the name that it has in the run."""
    for rollout in policy.propose(tasks, samplings, seed):
        yield replace(rollout, policy=name)


def _tell(policy: str, temperature: float, rows: pd.DataFrame, json: bool) -> None:
    from regrade.evaluators.figures import figures

    if json:
        print_json({"policy": policy, "temperature": temperature, **figures(rows)})
        return
    from regrade.reports.terminal import print_figures

    print_figures(policy, temperature, rows, stdout())
