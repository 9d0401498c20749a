"""Trajectories in ATIF, the Agent Trajectory Interchange Format of Harbor (also written by NeMo Gym), versions 1.x.

ATIF names neither the task nor the patch at the end. The task is read from `extra` (`instance_id`, `task_id`,
`task_name`), else from the trial's `result.json` or `config.json` above the file, as Harbor's job folders hold them;
the patch from `extra` (`model_patch`, `patch`, `submission`). What Regrade wrote (`atif_writing.py`) is read back
whole. Steps that were copied from an earlier trajectory, and trajectories of subagents, are no steps of this one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from regrade.datasets.episode_json import StoredEpisode
from regrade.datasets.episodes import Episode, Step
from regrade.datasets.errors import UserError
from regrade.datasets.graded.documents import Document
from regrade.datasets.json_structs import converted
from regrade.datasets.json_text import parse_json, read_text
from regrade.datasets.trajectories.records import (
    ForeignTrajectory,
    arguments_of,
    count_of,
    foreign_episode,
    foreign_step,
    mapping,
    objects,
    text_of,
    with_observation,
)

NAME = "atif"
VERSION = re.compile(r"ATIF-v(\d+)\.(\d+)")
OWN = "regrade"
"""Key of `extra` with what only Regrade records."""
INSTANCE_KEYS = ("instance_id", "task_id", "task_name")
PATCH_KEYS = ("model_patch", "patch", "submission")
TRIAL_FILES = ("result.json", "config.json")
MOST_ABOVE = 2
"""Folders above the file in which a trial's files are looked for: Harbor writes `TRIAL/agent/trajectory.json`."""


def trajectories(document: Document) -> Iterator[ForeignTrajectory] | None:
    """The trajectory of a file; None if it is none of this format.

    Raises:
        UserError: it has another version of the format, no steps, or damaged fields of Regrade.
    """
    value = document.value if document.kind == "json" else None
    version = value.get("schema_version") if isinstance(value, dict) else None
    if not isinstance(value, dict) or not (isinstance(version, str) and version.startswith("ATIF")):
        return None
    found = VERSION.fullmatch(version)
    if found is None or found[1] != "1":
        raise UserError(
            f"{document.path}: trajectory format {version!r}; this version of regrade reads ATIF-v1.0 to 1.x"
        )
    if not isinstance(value.get("steps"), list) or not value["steps"]:
        raise UserError(f"{document.path}: a trajectory in ATIF without `steps`: give a whole file")
    return iter([_trajectory(document.path, value)])


def _trajectory(path: Path, value: Mapping[str, Any]) -> ForeignTrajectory:
    extra, model = mapping(value.get("extra")), str(mapping(value.get("agent")).get("model_name") or "")
    instance = _first_text(extra, INSTANCE_KEYS) or _trial_task(path) or path.name.split(".")[0]
    submission = next((extra[key] for key in PATCH_KEYS if isinstance(extra.get(key), str)), None)
    own = extra.get(OWN)
    if isinstance(own, dict):
        episode = _own_episode(value, own, instance, str(path))
        return ForeignTrajectory(instance=instance, episode=episode, source=NAME, model=model)
    steps = [step for step in objects(value["steps"]) if step.get("is_copied_context") is not True]
    tokens = count_of(mapping(value.get("final_metrics")).get("total_completion_tokens")) or sum(
        count_of(mapping(step.get("metrics")).get("completion_tokens")) for step in steps
    )
    return ForeignTrajectory(
        instance=instance,
        episode=foreign_episode(
            instance,
            _instruction(steps),
            [made for step in steps for made in _steps(step)],
            submission=submission,
            tokens=tokens,
        ),
        source=NAME,
        model=model,
        is_patch_known=submission is not None,
    )


def _instruction(steps: list[Mapping[str, Any]]) -> str:
    """The first message of the user."""
    return next((text_of(step.get("message")) for step in steps if step.get("source") == "user"), "")


def _steps(step: Mapping[str, Any]) -> list[Step]:
    """A step for each call of a tool; one without a tool for an answer without calls."""
    if step.get("source") != "agent":
        return []
    message = text_of(step.get("message"))
    thoughts = text_of(step.get("reasoning_content"))
    action = "\n".join(filter(None, (thoughts, message)))
    results = objects(mapping(step.get("observation")).get("results"))
    calls = objects(step.get("tool_calls"))
    if not calls:
        made = foreign_step("", {}, action)
        return [_observed(made, results)]
    ids = [str(call.get("tool_call_id") or "") for call in calls]
    steps = []
    for number, (identity, call) in enumerate(zip(ids, calls, strict=True)):
        # A result that names no call belongs to the last one, which was carried out after the others.
        own = [
            result
            for result in results
            if result.get("source_call_id") == identity
            or (result.get("source_call_id") not in ids and number == len(calls) - 1)
        ]
        made = foreign_step(str(call.get("function_name") or ""), arguments_of(call.get("arguments")), action)
        steps.append(_observed(made, own))
    return steps


def _observed(step: Step, results: list[Mapping[str, Any]]) -> Step:
    for result in results:
        step = with_observation(step, text_of(result.get("content")))
    return step


def _own_episode(value: Mapping[str, Any], own: Mapping[str, Any], instance: str, where: str) -> Episode:
    """The episode of a trajectory that Regrade wrote."""
    steps = []
    for step in objects(value["steps"]):
        recorded = mapping(step.get("extra")).get(OWN)
        if isinstance(recorded, dict):
            (made,) = _steps(step)[:1] or [foreign_step("", {})]
            seen = {"tool": made.tool, "arguments": dict(made.arguments), "observation": made.observation}
            steps.append({**seen, "action": made.action, **recorded})
    stored = converted(
        {"task_id": instance, "instruction": _instruction(objects(value["steps"])), "steps": steps, **own},
        StoredEpisode,
        f"{where}: not an episode",
        "give a whole file",
    )
    try:
        return stored.episode()
    except KeyError as error:
        raise UserError(f"{where}: not an episode: 'patches' lacks the patch at the end, {error}") from error


def _first_text(values: Mapping[str, Any], keys: tuple[str, ...]) -> str:
    return next((str(values[key]) for key in keys if isinstance(values.get(key), str) and values[key]), "")


def _trial_task(path: Path) -> str:
    """The name of the task in the files of the trial around it; empty: there are none."""
    for folder in list(path.resolve().parents)[: MOST_ABOVE + 1]:
        for name in TRIAL_FILES:
            try:
                value = parse_json(read_text(folder / name), str(folder / name)) if (folder / name).is_file() else None
            except UserError:  # another reader names it
                continue
            named = mapping(value).get("task_name") or mapping(mapping(value).get("task")).get("name")
            if isinstance(named, str) and named:
                return named
    return ""
