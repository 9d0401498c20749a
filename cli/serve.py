"""`regrade serve`: a reward over HTTP, for trainers in other processes and on other machines."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from regrade.cli import options
from regrade.cli.loading import limited, load, measured
from regrade.datasets.errors import UserError

if TYPE_CHECKING:
    from regrade.datasets.tasks import Task
    from regrade.evaluators.scoring.scorer import Scorer

INSTALL = "run pip install '.[serve]' in the checkout of regrade"
JUDGED_PER_WORKER = 2
"""Answers that are judged at a time per worker, so that no worker waits while evidence is read."""


@dataclass(frozen=True, kw_only=True)
class ServeOptions:
    """The options of the command."""

    tasks: Annotated[str, typer.Option(help="A task file, or ready-made tasks: builtin, cross-module.")]
    reward: Annotated[
        str, typer.Option(help="A built-in reward, or FILE:NAME of your own: a Reward or a TrainingReward.")
    ] = "default"
    host: Annotated[str, typer.Option(help="Address to listen on. Beyond this machine, --token-file is required.")] = (
        "127.0.0.1"
    )
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Port; 0: any free one.")] = 8077
    token_file: Annotated[
        Path | None, typer.Option(help="File with the token that clients must send: `Authorization: Bearer TOKEN`.")
    ] = None
    workers: options.Workers = None
    sandbox: options.SandboxName = "auto"
    ray: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Run the sandboxes on this Ray cluster; auto: the local one."),
    ] = None
    queue: Annotated[int, typer.Option(min=1, max=options.MOST, help="Most answers that wait; then 503.")] = 4096
    body_mb: Annotated[float, typer.Option(min=0.001, max=10_000, help="Largest request, in MB; then 413.")] = 64.0
    deadline: Annotated[float, typer.Option(min=0.1, max=86_400, help="Longest time until a response, in seconds.")] = (
        3600.0
    )
    stop_seconds: Annotated[
        float, typer.Option(min=0, max=86_400, help="After SIGTERM: longest time for which running answers go on.")
    ] = 60.0
    log: Annotated[Literal["text", "json"], typer.Option(help="Format of the log on stderr.")] = "text"
    split: options.BuiltinSplit = None
    limit: options.Limit = None
    seed: options.Seed = 0


@options.takes(ServeOptions)
def serve(given: ServeOptions) -> None:
    """Serve a reward over HTTP: POST /score, and the protocols of NeMo Gym, OpenRLHF, slime and OpenEnv.

    Equal answers are scored once, however often they are posted. Verdicts are stored: a server that was killed goes on
    where it stopped. SIGTERM and Ctrl-C let running answers finish, and send waiting ones back. See /docs for the API.
    """
    _check_libraries()
    from regrade.policy_training.adapters.verdicts import Verdicts
    from regrade.policy_training.environments.training_reward import load_training_reward
    from regrade.policy_training.serving.request_log import log_to_stderr_as
    from regrade.policy_training.serving.reward_server import RewardServer
    from regrade.policy_training.serving.settings import ServerSettings

    settings = ServerSettings(
        host=given.host,
        port=given.port,
        token=_token(given.token_file),
        queue=given.queue,
        body_megabytes=given.body_mb,
        deadline=given.deadline,
        stop_seconds=given.stop_seconds,
    )
    reward = load_training_reward(given.reward)
    tasks = _tasks(given)
    with log_to_stderr_as(given.log), _scorer(given) as scorer:
        verdicts = Verdicts(tasks, scorer, reward)
        with RewardServer(verdicts, settings, running=JUDGED_PER_WORKER * scorer.workers) as server:
            typer.echo(f"serving {reward.reward.name} for {len(tasks)} tasks on {server.url} (API: {server.url}/docs)")
            server.run()


def _token(file: Path | None) -> str | None:
    if file is None:
        return None
    try:
        return file.read_text(encoding="ascii").strip()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not ASCII"
        raise UserError(f"the file of the token, {str(file)!r}, cannot be read: {reason}") from error


def _check_libraries() -> None:
    import importlib.util

    for library in ("fastapi", "uvicorn", "prometheus_client", "pythonjsonlogger"):
        if importlib.util.find_spec(library) is None:
            raise UserError(f"serving needs {library}, which is not installed: {INSTALL}")


def _tasks(given: ServeOptions) -> list[Task]:
    tasks = limited(load(given.tasks, given.split), given.limit, given.seed)
    return measured(tasks, given.sandbox)


def _scorer(given: ServeOptions) -> AbstractContextManager[Scorer]:
    if given.ray is None:
        from regrade.evaluators.scoring.scorer import Scorer

        return Scorer(workers=given.workers, sandbox=given.sandbox)
    from regrade.evaluators.scoring.ray_scorer import RayScorer

    os.environ["RAY_ADDRESS"] = given.ray
    return RayScorer(workers=given.workers, sandbox=given.sandbox)
