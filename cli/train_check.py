"""`regrade train check`: the preflight of online training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from regrade.cli.console import activities, print_json, stdout, stdout_to_stderr
from regrade.cli.evaluate import TaskSource
from regrade.cli.extras import training_libraries
from regrade.cli.loading import limited, load_to_learn, measured
from regrade.cli.options import (
    MOST,
    ModelName,
    SandboxName,
    Seed,
    TestRuns,
    Turns,
    Workers,
    agent_limits,
    takes,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from regrade.policy_training.trainers.preflight import PreflightCheck

UNFIT = 1


@dataclass(frozen=True, kw_only=True)
class PreflightOptions:
    """The options of the command; None: not given."""

    model: ModelName = "smollm2-135m"
    tasks: TaskSource = None
    split: Annotated[
        str | None,
        typer.Option(help="Split of the ready-made tasks: tests_only (default), demonstrations, validation."),
    ] = None
    limit: Annotated[int, typer.Option(min=1, max=MOST, help="Number of tasks, drawn by --seed.")] = 4
    samples: Annotated[int, typer.Option(min=2, max=MOST, help="Attempts per task.")] = 8
    temperature: Annotated[float, typer.Option(min=0.01, max=100.0, help="Sampling temperature.")] = 1.0
    turns: Turns = None
    test_runs: TestRuns = None
    reward: Annotated[
        str | None, typer.Option(help="What an attempt is paid, as in `regrade train`. Default: as there.")
    ] = None
    seed: Seed = 0
    sandbox: SandboxName = "auto"
    workers: Workers = None
    json: Annotated[bool, typer.Option("--json", help="One line of JSON per check on stdout.")] = False


@takes(PreflightOptions)
def check(options: PreflightOptions) -> None:
    """Check a model, tasks and a reward before online training.

    Samples and executes some attempts. Then it scores their tokens under other padding, batch sizes and precision, and
    by the trainer and the sampler: the ratio of the policy to itself should be 1. It renders the model's chat template
    twice, and counts attempts without a score and groups without different rewards. Exits with 1 if a check fails.
    """
    limits = agent_limits(options.turns, options.test_runs)
    source = "builtin" if options.tasks is None else str(options.tasks)
    loaded = limited(load_to_learn(source, options.split, "tests_only"), options.limit, options.seed)
    with training_libraries("`regrade train check`"):  # they take seconds to import
        from regrade.policy_training.environments.agent_policy import AgentFormat
        from regrade.policy_training.environments.reward_check import check_teaches
        from regrade.policy_training.environments.training_reward import DEFAULT_TRAINING_REWARD, load_training_reward
        from regrade.policy_training.policies.models import check_memory, check_model, load_model
        from regrade.policy_training.trainers.preflight import preflight
    from regrade.datasets.rollouts import Sampling
    from regrade.evaluators.scoring.scorer import Scorer

    agent = AgentFormat.of_checkpoint(Path(options.model)) if limits is None else AgentFormat(limits)
    with stdout_to_stderr():  # a reward's file may print
        pays = DEFAULT_TRAINING_REWARD if options.reward is None else load_training_reward(options.reward)
        check_model(options.model)
        check_teaches(pays)  # before tests are run, and a model is loaded
    scoring = Scorer(sandbox=options.sandbox, workers=options.workers)
    scoring.gather((), pays.reward.needs)  # fails if a probe is missing
    check_memory(options.model, 0.0)
    chosen = measured(loaded, options.sandbox)
    model = load_model(options.model, to_train=True)
    sampling = Sampling(options.temperature, options.samples)
    with stdout_to_stderr(), scoring as scorer, activities() as report:
        checks = preflight(model, chosen, scorer, pays, sampling, agent=agent, seed=options.seed, progress=report)
    _print(checks, json=options.json)
    if any(each.verdict == "fails" for each in checks):
        raise typer.Exit(UNFIT)


def _print(checks: Sequence[PreflightCheck], *, json: bool) -> None:
    if json:
        for each in checks:
            print_json(
                {"check": each.name, "verdict": each.verdict, "measured": each.measured, "meaning": each.meaning}
            )
        return
    from rich.table import Table

    table = Table("check", "verdict", "measured", "meaning", box=None, pad_edge=False)
    styles = {"ok": "green", "suspect": "yellow", "fails": "red", "not tested": "dim"}
    for each in checks:
        table.add_row(each.name, f"[{styles[each.verdict]}]{each.verdict}[/]", each.measured, each.meaning)
    stdout().print(table)
