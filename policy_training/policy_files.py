"""The policies of an evaluation, from the command line or a TOML file.

    [[policy]]
    name = "sft"
    role = "baseline"                        # default: candidate (scripted policies: scripted)
    model = "runs/sft/checkpoints/sft"       # smollm2-135m, a checkpoint's folder, or a model on the hub

    [[policy]]
    endpoint = "http://localhost:8000/v1"    # any OpenAI-compatible server
    model = "Qwen/Qwen3-Coder-30B"
    key = "VLLM_KEY"                         # environment variable with the key
    turns = 30                               # an agent with tools; default: it answers once
    test_runs = 10

    [[policy]]
    name = "mini"
    command = ["mini", "-y", "--exit-immediately", "-t", "{instruction}"]
    seconds = 1800

    [[policy]]
    scripted = "no-op"                       # or reference, mutants, near-misses, rewrites, cheats

    [[policy]]
    checkpoints = "runs/rl/checkpoints"      # every NAME-STEP in it, as a series along training

    [[policy]]
    predictions = "preds.jsonl"              # SWE-bench's format

Each kind takes the fields of its class here (`ModelRow`, `EndpointRow`, `CommandRow`, ...). Paths are relative to the
file.
"""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import msgspec

from regrade.datasets.errors import UserError
from regrade.datasets.formats.predictions import PredictionFiles, Predictions, read_predictions
from regrade.datasets.graded.records import Findings
from regrade.datasets.json_structs import Seconds, converted
from regrade.datasets.json_text import read_text
from regrade.datasets.rollouts import Policy
from regrade.datasets.tasks import Task
from regrade.datasets.trajectories.reading import trajectories_in
from regrade.datasets.trajectories.records import ForeignTrajectory
from regrade.evaluators.evaluation.sweeps import Entrant
from regrade.evaluators.storage.manifest import PolicyRole
from regrade.policy_training.environments.agent_policy import AgentFormat
from regrade.policy_training.environments.agent_tools import EpisodeLimits
from regrade.policy_training.environments.chat_models import check_is_chat
from regrade.policy_training.environments.endpoint_agents import EndpointAgentPolicy
from regrade.policy_training.loading import load_policy
from regrade.policy_training.policies.commands import Command, CommandPolicy
from regrade.policy_training.policies.endpoint_requests import Api, Endpoint
from regrade.policy_training.policies.endpoints import EndpointPolicy
from regrade.policy_training.policies.recorded import Recorded, RecordedTrajectories
from regrade.policy_training.policies.scripted import FURTHER, NO_OP, REFERENCE
from regrade.policy_training.policies.unbound import UnboundAgent

ENDPOINT, COMMAND = "endpoint:", "command:"
SCRIPTED_NAMES = (*NO_OP, REFERENCE, *FURTHER)
_NAMED = re.compile(r"(?P<name>[^=:/\s]+)=(?P<spec>.+)", re.DOTALL)
_STEP = re.compile(r"(?P<series>.*?)[-_]?(?P<step>[0-9]+)")
UNTOLD = ("", "checkpoint", "step", "global_step")
"""Names of checkpoints that do not identify the training; the folder's name is the series then."""


Count = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
Uses = Annotated[int, msgspec.Meta(ge=0, le=1_000_000)]


class _PolicyTable(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    name: str = ""
    role: PolicyRole | None = None
    label: str = ""


class ModelRow(_PolicyTable):
    """A local model. Without `turns`, it works as it was trained: as an agent if its checkpoint says so."""

    model: str
    turns: Count | None = None
    test_runs: Uses | None = None
    series: str = ""
    step: int | None = None


class EndpointRow(_PolicyTable):
    """See `regrade.policy_training.policies.endpoint_requests.Endpoint`."""

    endpoint: str
    model: str
    api: Api = "chat"
    key: str | None = None
    max_tokens: Count | None = None
    seconds: Seconds = 300.0
    tries: Count = 6
    at_a_time: Count = 8
    dead_after: Count = 8
    body: dict[str, Any] = {}
    omit: tuple[str, ...] = ()
    turns: Count | None = None
    """Actions of an agent with tools, at most; None: it answers once."""
    test_runs: Uses = 10
    episode_tokens: Count | None = None
    episode_seconds: Seconds = 1800.0
    series: str = ""
    step: int | None = None


class CommandRow(_PolicyTable):
    """See `regrade.policy_training.policies.commands.Command`. A string is split by the shell's rules, but no shell
    runs it.
    """

    command: str | tuple[str, ...]
    seconds: Seconds = 1800.0
    at_a_time: Count = 2
    count_failures: bool = False
    dead_after: Count = 8
    environment: dict[str, str] = {}


class ScriptedRow(_PolicyTable):
    """A policy that follows a fixed rule."""

    scripted: str
    patches: Count = 4
    """Patches a task of the rules that make several (see `regrade.policy_training.policies.scripted.FURTHER`)."""


class CheckpointsRow(_PolicyTable):
    """Every checkpoint of a folder; the name of a checkpoint ends in its step."""

    checkpoints: str


class PredictionsRow(_PolicyTable):
    """A policy for each model in the file; `name` and `label` are for a file of one."""

    predictions: str


KINDS: Mapping[str, type[_PolicyTable]] = {
    "command": CommandRow, "endpoint": EndpointRow, "predictions": PredictionsRow, "checkpoints": CheckpointsRow,
    "scripted": ScriptedRow, "model": ModelRow,
}  # fmt: skip
"""Key that selects a kind -> its fields; the first key present counts."""


def read_policies(path: Path, tasks: Sequence[Task]) -> list[Entrant]:
    """The policies of a TOML file, in its order.

    Raises:
        UserError: the file cannot be read, or an entry is invalid; the message names the entry and the key.
    """
    try:
        values = tomllib.loads(read_text(path))
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{path} is no TOML: {error}") from error
    rows = values.pop("policy", None)
    if not isinstance(rows, list) or not rows or values:
        odd = f"; unknown: {', '.join(map(repr, values))}" if values else ""
        raise UserError(f"{path}: expected one or more tables [[policy]]{odd}")
    return [
        entrant
        for number, row in enumerate(rows, 1)
        for entrant in _entrants(_checked(row, f"{path}, policy {number}"), path.parent, tasks)
    ]


def entrant_of_words(words: str, endpoint: EndpointRow, tasks: Sequence[Task]) -> Entrant:
    """`[NAME=]SPEC`: SPEC is one of `SCRIPTED_NAMES`, a model, `endpoint:MODEL` or `command:PROGRAM ARGUMENTS`.

    `endpoint` has the settings that all models behind endpoints share.

    Raises:
        UserError: SPEC is invalid, or an endpoint has no base URL.
    """
    named = None if Path(words).exists() else _NAMED.fullmatch(words)
    name, spec = (named["name"], named["spec"]) if named else ("", words)
    row: _PolicyTable
    if spec.startswith(COMMAND):
        row = CommandRow(name=name, command=spec.removeprefix(COMMAND))
    elif spec.startswith(ENDPOINT):
        row = msgspec.structs.replace(endpoint, name=name, model=spec.removeprefix(ENDPOINT))
        if not endpoint.endpoint:
            raise UserError(f"{words!r} is behind an endpoint: give its base URL with `endpoint=URL`")
    elif spec in SCRIPTED_NAMES:
        row = ScriptedRow(name=name, scripted=spec)
    else:
        row = ModelRow(name=name, model=spec, turns=endpoint.turns, test_runs=endpoint.turns and endpoint.test_runs)
    (entrant,) = _entrants(row, Path(), tasks)
    return entrant


def entrants_of_checkpoints(folder: Path) -> list[Entrant]:
    """A policy for each checkpoint of a folder, called SERIES@STEP. Raises UserError if there is none."""
    return _entrants(CheckpointsRow(checkpoints=str(folder)), Path(), ())


def entrants_of_predictions(files: PredictionFiles, row: PredictionsRow | None = None) -> list[Entrant]:
    """A policy for each model. Raises UserError if there are several, and one name."""
    row = row or PredictionsRow(predictions="")
    if row.name and len(files.models) > 1:
        listed = ", ".join(predictions.model for predictions in files.models)
        raise UserError(
            f"the predictions are of {len(files.models)} models ({listed}): one name is not enough for them"
        )
    return [_of_predictions(predictions, bool(files.broken), row) for predictions in files.models]


def entrants_of_trajectories(
    source: Path, tasks: Sequence[Task], findings: Findings
) -> tuple[list[Entrant], list[Task]]:
    """A policy for each model of the trajectories (those without one share the name of their format), and their tasks.

    Trajectories of no task, or without the patch at their end, are findings and left out.

    Raises:
        UserError: no trajectory is left.
    """
    known = {task.id for task in tasks}
    by_name: dict[str, dict[str, list[ForeignTrajectory]]] = {}
    for one in trajectories_in(source, findings):
        if one.instance not in known:
            findings.add("trajectories of none of the tasks, left out", one.instance)
        elif not one.is_patch_known:
            findings.add("trajectories without the patch at their end, left out", one.instance)
        else:
            by_name.setdefault(one.model or one.source, {}).setdefault(one.instance, []).append(one)
    if not by_name:
        why = "; ".join(findings.lines()) or "there is no trajectory of a known format"
        raise UserError(f"{source}: nothing to judge on the {len(known)} tasks: {why}")
    entrants = [_of_trajectories(RecordedTrajectories(name, attempts)) for name, attempts in sorted(by_name.items())]
    return entrants, [task for task in tasks if any(task.id in attempts for attempts in by_name.values())]


def _of_trajectories(policy: RecordedTrajectories) -> Entrant:
    return Entrant(
        name=policy.name,
        role="candidate",
        load=lambda _tasks: policy,
        spec={"trajectories": policy.name},
        is_fixed=True,
        patches=policy.most,
    )


def checkpoints_in(folder: Path) -> list[tuple[str, int, Path]]:
    """(series, step, folder) of each checkpoint, by series and step. Raises UserError if there is none."""
    checkpoints = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        named = _STEP.fullmatch(path.name)
        if named and (path / "config.json").is_file():
            series = folder.resolve().name if named["series"] in UNTOLD else named["series"]
            checkpoints.append((series, int(named["step"]), path))
    if not folder.is_dir():
        raise UserError(f"there is no folder {str(folder)!r}: name the one in which a training kept its checkpoints")
    if not checkpoints:
        raise UserError(
            f"{folder} holds no checkpoints: expected folders such as grpo-20 or checkpoint-100 with a saved model "
            "(`regrade train --save-every 20` writes them)"
        )
    return sorted(checkpoints)


def _checked(row: object, where: str) -> _PolicyTable:
    kind = next((kind for key, kind in KINDS.items() if isinstance(row, dict) and key in row), None)
    if kind is None:
        raise UserError(f"{where}: what is it? give one of {', '.join(KINDS)}")
    return converted(row, kind, where)


def _entrants(row: _PolicyTable, folder: Path, tasks: Sequence[Task]) -> list[Entrant]:
    if isinstance(row, PredictionsRow):
        files = read_predictions([folder / row.predictions])
        files.check_known([task.id for task in tasks])
        return entrants_of_predictions(files, row)
    if isinstance(row, CheckpointsRow):
        return [
            _local(ModelRow(role=row.role or "checkpoint", model=str(path), series=row.name or series, step=step))
            for series, step, path in checkpoints_in(folder / row.checkpoints)
        ]
    if isinstance(row, CommandRow):
        return [_behind_command(row, folder)]
    if isinstance(row, EndpointRow):
        return [_behind_endpoint(row)]
    if isinstance(row, ScriptedRow):
        return [scripted_entrant(row, tasks)]
    assert isinstance(row, ModelRow)
    is_local_folder = (folder / row.model).is_dir()
    return [_local(msgspec.structs.replace(row, model=str(folder / row.model)) if is_local_folder else row)]


def _local(row: ModelRow) -> Entrant:
    name = row.name or (f"{row.series}@{row.step}" if row.step is not None else Path(row.model).name or row.model)

    def load(tasks: Sequence[Task]) -> Policy:
        style = AgentFormat.of_checkpoint(Path(row.model))
        given = {name: value for name in ("turns", "test_runs") if (value := getattr(row, name)) is not None}
        return load_policy(row.model, tasks, format=replace(style, limits=replace(style.limits, **given)))

    spec = {"model": row.model, "turns": row.turns, "test_runs": row.test_runs}
    return Entrant(
        name=name,
        role=row.role or "candidate",
        load=load,
        label=row.label,
        series=row.series,
        step=row.step,
        spec={key: value for key, value in spec.items() if value is not None},
    )


def _behind_endpoint(row: EndpointRow) -> Entrant:
    endpoint = Endpoint(
        base_url=row.endpoint,
        model=row.model,
        api=row.api,
        key_variable=row.key,
        max_tokens=row.max_tokens,
        seconds=row.seconds,
        tries=row.tries,
        at_a_time=row.at_a_time,
        dead_after=row.dead_after,
        body=row.body,
        omit=row.omit,
    )
    endpoint.key()  # a missing key is reported before any request
    name = row.name or Path(row.model).name
    policy: Policy = EndpointPolicy(endpoint, name)
    spec: dict[str, Any] = {
        "endpoint": row.endpoint,
        "model": row.model,
        "api": row.api,
        "body": row.body,
        "max_tokens": row.max_tokens,
    }
    if row.turns is not None:
        check_is_chat(endpoint)
        limits = EpisodeLimits(
            turns=row.turns, test_runs=row.test_runs, tokens=row.episode_tokens, seconds=row.episode_seconds
        )
        policy = UnboundAgent(name, lambda scorer: EndpointAgentPolicy(endpoint, name, scorer, limits))
        spec |= {"turns": row.turns, "test_runs": row.test_runs, "episode_tokens": row.episode_tokens}
    return Entrant(
        name=name,
        role=row.role or "candidate",
        load=lambda _tasks: policy,
        label=row.label,
        series=row.series,
        step=row.step,
        spec={key: value for key, value in spec.items() if value},
    )


def _behind_command(row: CommandRow, folder: Path) -> Entrant:
    words = _split(row.command) if isinstance(row.command, str) else row.command
    if words and "/" in words[0] and (folder / words[0]).is_file():
        words = (str((folder / words[0]).absolute()), *words[1:])
    command = Command(
        arguments=words,
        seconds=row.seconds,
        at_a_time=row.at_a_time,
        count_failures=row.count_failures,
        dead_after=row.dead_after,
        environment=row.environment,
    )
    command.program()
    name = row.name or Path(words[0]).name
    spec = {"command": list(words)}
    return Entrant(
        name=name,
        role=row.role or "candidate",
        load=lambda _tasks: CommandPolicy(command, name),
        label=row.label,
        spec=spec,
    )


def _split(command: str) -> tuple[str, ...]:
    try:
        return tuple(shlex.split(command))
    except ValueError as error:
        raise UserError(f"the command {command!r} cannot be split into words: {error}") from error


def scripted_entrant(row: ScriptedRow, tasks: Sequence[Task]) -> Entrant:
    """A scripted policy for these tasks. Raises UserError if there is no such policy."""
    if row.scripted not in SCRIPTED_NAMES:
        raise UserError(f"no scripted policy {row.scripted!r}: choose no-op, reference, {', '.join(FURTHER)}")
    policy = load_policy(row.scripted, tasks)
    spec = {"scripted": policy.name}
    return Entrant(
        name=row.name or policy.name,
        role=row.role or "scripted",
        load=lambda tasks: load_policy(row.scripted, tasks),
        label=row.label,
        spec=spec,
        is_fixed=True,
        patches=row.patches if row.scripted in FURTHER else 1,
    )


def _of_predictions(predictions: Predictions, is_incomplete: bool, row: PredictionsRow) -> Entrant:
    def load(_tasks: Sequence[Task]) -> Policy:
        return Recorded(predictions, is_incomplete)

    spec = {"predictions": predictions.model}
    return Entrant(
        name=row.name or predictions.model,
        role=row.role or "candidate",
        load=load,
        label=row.label,
        spec=spec,
        is_fixed=True,
    )
