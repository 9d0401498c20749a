"""The `regrade` command: registers all commands, and turns errors and Ctrl-C into messages and exit codes.

Exit codes: 0 success (`serve`: stopped by a signal); 1 `compare` found a regression, `agent` broke a test, `rewards
check` found an unfit reward, `doctor` a bad task; 2 user error or missing requirement; 130 stopped by Ctrl-C (143 by
SIGTERM). Any other error is a defect with a stack trace.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import warnings
from types import FrameType
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from regrade.cli import (
    agent,
    cache,
    compare,
    demo,
    doctor,
    evaluate,
    explain,
    export_results,
    import_results,
    logs,
    plan,
    rank,
    report,
    rescore,
    reward_model,
    rewards,
    score,
    serve,
    study,
    tasks,
    train,
    train_check,
)
from regrade.cli.console import one_line, shown_activity
from regrade.cli.memory import restart_with_large_pages
from regrade.policy_training.policies.threads import wait_passively

USER_ERROR = 2
INTERRUPTED = 130
TERMINATED = 143
MODEL_COMMANDS = frozenset({"demo", "study", "train", "evaluate", "agent", "rank"})
ENVIRONMENT_ERRORS = frozenset(
    {
        *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM),
        *(errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG),
    }
)
"""Operating system errors that the user can fix: no space left, no permission, a file in the place of a folder."""


class CommandGroup(TyperGroup):
    """Turns a user error into one line, and an interruption into an exit code, after all clean-up has run."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        two_words = " ".join(args[:2])
        if two_words in self.commands:  # `evaluate plan`, besides `evaluate POLICY`
            return two_words, self.commands[two_words], args[2:]
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except ValueError as error:
            if not _is_user_error(error):
                raise
            if _is_told_elsewhere(error):
                raise typer.Exit(USER_ERROR) from error
            _fail(str(error), USER_ERROR)
        except OSError as error:
            if error.errno not in ENVIRONMENT_ERRORS:
                raise
            from regrade.datasets.caches import full_disk

            where = error.filename or "the output or the cache ($REGRADE_CACHE)"
            advice = full_disk(error) or "choose another folder (the cache: $REGRADE_CACHE)"
            _fail(f"{error.strerror}: {where}; {advice}", USER_ERROR)
        except KeyboardInterrupt as stop:
            from regrade.evaluators.sandboxes.scratch import remove_own

            remove_own()
            _fail(
                "stopped; finished work is stored: run the same command again to resume",
                stop.args[0] if stop.args else INTERRUPTED,
            )


app = typer.Typer(
    cls=CommandGroup,
    name="regrade",
    help="Rewards and regression verdicts for code agents: what does a patch fix, and what does it break?",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
)
app.command("doctor")(doctor.doctor)
app.add_typer(tasks.app, name="tasks")
app.command("score")(score.score)
app.command("explain")(explain.explain)
app.command("rank")(rank.rank)
app.command("agent")(agent.agent)
app.command("train")(train.train)
app.command("train check")(train_check.check)
app.command("evaluate")(evaluate.evaluate)
app.command("evaluate plan")(plan.plan)
app.command("compare")(compare.compare)
app.command("import")(import_results.import_results)
app.command("export")(export_results.export_results)
app.command("rescore")(rescore.rescore)
app.command("report")(report.report)
app.add_typer(rewards.app, name="rewards")
app.add_typer(reward_model.app, name="reward-model")
app.add_typer(cache.app, name="cache")
app.command("demo")(demo.demo)
app.command("study")(study.study)
app.command("serve")(serve.serve)


def _version(is_requested: bool) -> None:
    if is_requested:
        from importlib.metadata import version

        typer.echo(f"regrade {version('regrade')}")
        raise typer.Exit


@app.callback()
def options(
    context: typer.Context,
    version: Annotated[  # noqa: ARG001 (its callback does all the work)
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    verbose: Annotated[
        int,
        typer.Option(
            "--verbose",
            "-v",
            count=True,
            show_default=False,
            help="Log workers and sandboxes to stderr; -vv: every step. $REGRADE_LOG sets the level of single loggers.",
        ),
    ] = 0,
) -> None:
    """Rewards and regression verdicts for code agents: what does a patch fix, and what does it break?"""
    context.with_resource(shown_activity())
    context.with_resource(logs.log_to_stderr(logs.log_levels(verbose)))


def main() -> None:
    """The console script. SIGTERM has the effect of Ctrl-C: all sandboxes are closed before the exit."""
    command = next((argument for argument in sys.argv[1:] if not argument.startswith("-")), "")
    if command in MODEL_COMMANDS and not {"-h", "--help"} & set(sys.argv):
        wait_passively()
        restart_with_large_pages()
    signal.signal(signal.SIGTERM, _terminate)
    warnings.showwarning = _warn
    sys.exit(app())


def _warn(message: Warning | str, *_: object, **__: object) -> None:
    print(f"regrade: {message}", file=sys.stderr)


def _terminate(_number: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt(TERMINATED)


def _is_user_error(error: ValueError) -> bool:
    from regrade.datasets.errors import UserError
    from regrade.datasets.patches import PatchError

    return isinstance(error, UserError | PatchError)


def _is_told_elsewhere(error: ValueError) -> bool:
    """Of a training in several processes: the one that failed and the main one print it."""
    from regrade.datasets.errors import PeerFailedError

    return isinstance(error, PeerFailedError) and os.environ.get("RANK", "0") != "0"


def _fail(message: str, code: int) -> NoReturn:
    typer.echo(f"error: {one_line(message)}" if code == USER_ERROR else one_line(message), err=True)
    raise typer.Exit(code)
