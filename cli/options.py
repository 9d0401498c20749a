"""Arguments and options that several commands share."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import MISSING, fields
from functools import wraps
from inspect import Parameter, Signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_type_hints

import typer

from regrade.datasets.errors import UserError

if TYPE_CHECKING:
    from regrade.policy_training.environments.agent_tools import EpisodeLimits

MOST = 1_000_000
"""The largest count of anything."""
MOST_WORKERS = 1024
LONGEST = 1e9
"""Seconds: some thirty years, which every clock can count."""
LARGEST_SEED = 2**32 - 1
MOST_JOBS = 64
OptionsT = TypeVar("OptionsT")


def takes(kind: type[OptionsT]) -> Callable[[Callable[[OptionsT], None]], Callable[..., None]]:
    """Make a command of a function of a dataclass, the fields of which are its arguments and options.

    So each is written once, and all of them travel together to the functions that read them.
    """
    hints = get_type_hints(kind, include_extras=True)
    parameters = [
        Parameter(
            each.name,
            Parameter.KEYWORD_ONLY,
            default=Parameter.empty if each.default is MISSING else each.default,
            annotation=hints[each.name],
        )
        for each in fields(kind)  # type: ignore[arg-type]
    ]

    def command(function: Callable[[OptionsT], None]) -> Callable[..., None]:
        @wraps(function)
        def run(**given: Any) -> None:
            function(kind(**given))

        run.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = hints
        return run

    return command


def agent_limits(turns: int | None, test_runs: int | None) -> EpisodeLimits | None:
    """The limits of an agent; None: not chosen. Raises UserError for test runs without turns."""
    from regrade.policy_training.environments.agent_tools import EpisodeLimits

    if turns in (None, 1) and test_runs is not None:
        raise UserError("--test-runs is for agents of several turns: give --turns too")
    if turns is None:
        return None
    return EpisodeLimits(turns=turns, test_runs=turns // 2 if test_runs is None else test_runs)


def creatable(folder: Path | None) -> Path | None:
    """The folder of an option, which may be missing. Raises BadParameter, before any work, if it can't be written."""
    existing = folder and next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if existing and not (existing.is_dir() and os.access(existing, os.W_OK)):
        raise typer.BadParameter(f"{existing} is no folder that you can write into: choose another folder")
    return folder


def known_sandbox(name: str) -> str:
    """The name. Raises UserError, before any work, if it is none of a sandbox."""
    from regrade.evaluators.sandboxes import check_name

    check_name(name)
    return name


Patches = Annotated[list[str], typer.Argument(metavar="PATCH", help="Unified diff files; - for standard input.")]
Repo = Annotated[
    Path,
    typer.Option(help="Folder of the repository. Patches apply to its current working tree, which does not change."),
]
FailToPass = Annotated[
    list[str] | None,
    typer.Option(
        help="Id of a FAIL_TO_PASS test: it fails now, and a patch must fix it. Repeat for more. A parametrized test "
        "function, a class or a file stands for its failing tests, and `all` for every test that fails now."
    ),
]
TestPaths = Annotated[
    list[str] | None,
    typer.Option("--tests", help="File or folder with the tests, instead of the configured ones. Repeat for more."),
]
Deselect = Annotated[
    list[str] | None,
    typer.Option(help="File, folder or id (or its beginning) of tests that are left out. Repeat for more."),
]
PythonPath = Annotated[
    list[str] | None,
    typer.Option(help="Folder of the repository at the start of sys.path, instead of the detected ones. Repeat."),
]
EndpointURL = Annotated[
    str, typer.Option(help="Base URL of an OpenAI-compatible server, for example http://localhost:8000/v1.")
]
KeyVariable = Annotated[
    str | None, typer.Option(help="Environment variable with the API key. Default: OPENAI_API_KEY.")
]
AnswerLimit = Annotated[
    float, typer.Option(min=0.1, max=LONGEST, help="Time limit for one answer of the endpoint, in seconds.")
]
RewardName = Annotated[
    str,
    typer.Option("--reward", help="A built-in reward, learned:FOLDER of a reward model, or FILE:NAME for your own."),
]
SandboxName = Annotated[
    str,
    typer.Option(
        "--sandbox",
        callback=known_sandbox,
        help="auto, bubblewrap, docker, podman, gvisor or process (see `regrade doctor`).",
    ),
]
TaskFile = Annotated[
    Path | None, typer.Option("--tasks", help="A task file, instead of --repo. With --task if it has several tasks.")
]
TaskId = Annotated[str | None, typer.Option("--task", help="Id of a task in --tasks, or of a ready-made task.")]
Workers = Annotated[
    int | None, typer.Option(min=1, max=MOST_WORKERS, help="Number of parallel sandboxes. Default: one per core.")
]
Reachable = Annotated[
    bool,
    typer.Option(
        "--reachable",
        help="Run only the tests that a patch can reach. By default, the whole suite follows if they all pass.",
    ),
]
AssuranceOption = Annotated[
    str | None,
    typer.Option(
        "--assured",
        metavar="LEVEL",
        help="Reward only verdicts of at least this assurance level: tripwired, out-of-process, held-out; or "
        "in-process (verify nothing). Default: verify at the strongest up to out-of-process that costs less than the "
        "tests, and reward nothing that this contradicts.",
    ),
]
TimeLimit = Annotated[
    float | None,
    typer.Option(
        min=1,
        max=LONGEST,
        help="Time limit for one run of the repository's unchanged tests, in seconds. Default: 600.",
    ),
]
TestTimeout = Annotated[
    float | None,
    typer.Option(
        min=0.1,
        max=LONGEST,
        metavar="SECONDS",
        help="A test that runs for longer fails, and the others run on. A slow test still has five times its own time. "
        "Default: 10 for patches, 60 for the unchanged tests.",
    ),
]
Fresh = Annotated[bool, typer.Option("--fresh", help="Ignore stored results of these patches, and run them again.")]
AsJson = Annotated[bool, typer.Option("--json", help="One line of JSON per patch on stdout.")]
JsonObject = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]
ModelName = Annotated[
    str, typer.Option("--model", help="smollm2-135m, the folder of a checkpoint, or a model on the Hugging Face hub.")
]
Seed = Annotated[int, typer.Option("--seed", min=0, max=LARGEST_SEED, help="Seed of all random choices.")]
BuiltinSplit = Annotated[
    str | None,
    typer.Option("--split", help="Of ready-made tasks or a set: demonstrations, tests_only, validation or held_out."),
]
Limit = Annotated[int | None, typer.Option("--limit", min=1, help="Maximum number of tasks, drawn by --seed.")]
Turns = Annotated[
    int | None,
    typer.Option(
        "--turns",
        min=1,
        max=MOST,
        help="Actions of an agent, which opens files, edits, runs tests and takes back what broke; 1: a policy that "
        "answers once. Default of `train`: as the checkpoint in --model was trained, otherwise 1.",
    ),
]
TestRuns = Annotated[
    int | None,
    typer.Option("--test-runs", min=0, max=MOST, help="Test runs of an agent. Default: one for every two turns."),
]
BaselinePolicy = Annotated[str | None, typer.Option(help="Baseline policy. Default: the baseline of the run.")]
CandidatePolicy = Annotated[str | None, typer.Option(help="Candidate policy. Default: the candidate of the run.")]
RunTemperature = Annotated[
    float | None, typer.Option("--temperature", help="Sampling temperature. Default: the best of each policy.")
]
